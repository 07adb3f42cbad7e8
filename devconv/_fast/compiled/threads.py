"""Work shared between threads: counted pieces, claimed one stretch after another.

What a piece computes never depends on who computes it, so neither do results. Compiled
functions leave Python's lock alone while they run. A worker that has nothing to do looks out
for the next job for a moment before it sleeps: waking a thread takes as long as many an
operation on small images.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from devconv._fast.compiled.block import look
from devconv._fast.compiled.windows import compiled

PRODUCTS = 16
"""Products that a thread adds up in the time in which it moves one number."""
ALONE = 1_000_000
"""Numbers that, about, are moved before another thread has begun."""
_STRETCHES = 4
"""Most stretches for each thread: a thread that was held up leaves its work to others. Where
there is little work there are fewer, for between two of them a thread waits for Python's lock."""
_LOOKS = 100_000
"""How often a worker looks out for work before it sleeps: about a tenth of a millisecond."""

_MOMENT = 10_000
"""How often it looks on after that, while whoever posted the work leaves Python's lock."""

Work = Callable[[int, int], None]


def share(pieces: int, work: Work, effort: int) -> None:
    """Call ``work(first, last)`` for stretches that together are ``range(pieces)``.

    The calling thread works too, and does what no other thread has begun; it works alone if
    the ``effort``, in numbers to be moved, is small.
    """
    threads = min(count(), pieces, 1 + effort // ALONE)
    if threads <= 1:
        work(0, pieces)
        return
    each = max(1, min(_STRETCHES, effort // (2 * ALONE)))
    job = _Job(pieces, work, min(pieces, each * threads))
    try:
        for worker in _workers(threads - 1):
            worker.post(job)
        job.run()
    finally:  # nobody may write on when the caller has gone
        job.wait()


class _Job:
    """Stretches of some work: each is claimed once, and counted when it is done."""

    def __init__(self, pieces: int, work: Work, stretches: int) -> None:
        self._pieces, self._work, self._stretches = pieces, work, stretches
        self._turns = itertools.count()
        self._done = np.zeros(1, np.int64)
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []

    def run(self) -> None:
        """Claim stretches and work on them, until none is left."""
        pieces, stretches = self._pieces, self._stretches
        while True:
            try:
                turn = stretches
                turn = next(self._turns)
                if turn >= stretches:
                    return
                self._work(turn * pieces // stretches, (turn + 1) * pieces // stretches)
            except BaseException as error:  # told to whoever shared the work
                self._errors.append(error)
            finally:
                if turn < stretches:
                    with self._lock:
                        self._done[0] += 1

    def wait(self) -> None:
        """Until all stretches are done; raises what one of them raised."""
        address = self._done.ctypes.data
        while self._done[0] < self._stretches:
            try:
                self.run()  # those that an interrupted caller has left
                if _changed(address, self._stretches, _LOOKS) != self._stretches:
                    time.sleep(1e-5)
            except KeyboardInterrupt as error:
                self._errors.append(error)
        if self._errors:
            raise self._errors[0]


class _Worker(threading.Thread):
    """A thread that runs the jobs posted to it."""

    def __init__(self) -> None:
        super().__init__(name="devconv", daemon=True)
        self._jobs: deque[_Job] = deque()
        self._posted = np.zeros(1, np.int64)
        self._is_asleep = False
        self._alarm = threading.Event()

    def post(self, job: _Job) -> None:
        """Have a job run beside what this thread does next."""
        self._jobs.append(job)
        self._posted[0] += 1
        if self._is_asleep:
            self._alarm.set()

    def run(self) -> None:
        """Run jobs as they come; look out for the next one, then sleep."""
        address, seen = self._posted.ctypes.data, 0
        while True:
            _looked_out(address, seen, _LOOKS)
            seen = int(self._posted[0])
            if not self._jobs:
                self._is_asleep = True
                if not self._jobs:
                    self._alarm.wait()
                self._is_asleep = False
                self._alarm.clear()
            while self._jobs:
                self._jobs.popleft().run()


@compiled
def _changed(address, wanted, looks):
    """The number at an address, when it is the one wanted or after so many looks."""
    for _ in range(looks):
        if look(address) == wanted:
            break
    return look(address)


@compiled
def _looked_out(address, known, looks):
    """Return a moment after the number at an address has changed, or after so many looks."""
    for _ in range(looks):
        if look(address) != known:
            break
    for _ in range(_MOMENT):
        look(address)


def count() -> int:
    """How many threads to use: as many as NumPy's BLAS may, or one for each core without it.

    ``threadpoolctl`` and the usual environment variables set that number.
    """
    blas = _blas()
    return _cores() if blas is None else max(1, blas.num_threads or 1)


@lru_cache(maxsize=1)
def _blas() -> Any:
    """NumPy's BLAS; SciPy, which Numba loads if it is there, brings another one."""
    found = threadpoolctl.ThreadpoolController().lib_controllers
    libraries = [library for library in found if library.user_api == "blas"]
    own = [library for library in libraries if "numpy" in Path(library.filepath).parent.name]
    return next(iter(own or libraries), None)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_crew: list[_Worker] = []
_hiring = threading.Lock()


def _workers(number: int) -> list[_Worker]:
    """So many workers, or as many as there can be, which wait for jobs."""
    if len(_crew) < number:
        with _hiring:
            while len(_crew) < number:
                worker = _Worker()
                try:
                    worker.start()
                except RuntimeError:  # no more threads to be had: the others do it
                    break
                _crew.append(worker)
    return _crew[:number]


def _start_anew() -> None:
    """In a forked child, where threads do not survive and a lock may be held by one of them."""
    global _hiring
    _crew.clear()
    _hiring = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
