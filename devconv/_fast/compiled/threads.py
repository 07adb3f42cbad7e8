"""Work shared between threads: counted pieces, claimed one stretch after another.

What a piece computes never depends on who computes it, so neither do results. A job stands on a
*board*, a few integers in memory: where its task begins, where its arguments lie, and one word
that says how many stretches there are and how many of them are claimed. Workers look at that
word, and claim and work, without entering Python: they never wait for its lock, nor it for them.
A worker that finds nothing goes on looking for a moment before it sleeps, for waking a thread
takes as long as many an operation on small images.
"""

from __future__ import annotations

import os
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from devconv._array import Array
from devconv._fast.compiled.atomics import claim, count_one, look, pause, tell
from devconv._fast.compiled.memory import address
from devconv._fast.compiled.native import Task, call, compiled, integers
from devconv._fast.scratch import scratch

PRODUCTS = 16
"""Products that a thread adds up in the time in which it moves one number."""
ALONE = 50_000
"""Numbers that, about, are moved before another thread has begun."""
_STRETCHES = 8
"""Most stretches for each thread: a thread that was held up leaves its work to others."""
_LOOKS = 15_000
"""How often a worker looks out for work before it sleeps: about a millisecond."""

_LINE = 64
"""Bytes of memory that a processor's cores hand to each other at once."""
WORD, DONE, JOB, NUMBER = 0, _LINE, 2 * _LINE, 2 * _LINE + 8
"""What stands where on a board: the word, ``threads · 2⁴⁸ + stretches · 2²⁴ + claimed``; how many
stretches are done; the address of the job, and its number among all jobs."""
PIECES, ENTRY, ARITY, ITEMSIZE, ROOM, EACH, TOLD = range(7)
"""The integers of a job: pieces, task, its arity, the size of a number, memory for the threads and
how much for each; from the last place on the arguments."""
_BITS = 24
_MOST = 2**_BITS - 1

Argument = Array | int


def share(
    task: Task, dtype: np.dtype, pieces: int, effort: int, *arguments: Argument, room: int = 0
) -> None:
    """Run a task on stretches that together are ``range(pieces)``.

    The calling thread works too, and does what no other thread has begun; it works alone if
    the ``effort``, in numbers to be moved, is small, or while the workers have another job.

    Args:
        task: what is to be done.
        dtype: float32 or float64.
        pieces: how many pieces there are.
        effort: about how many numbers are moved.
        arguments: what the task is told after ``room``: integers, and arrays' addresses.
        room: how many bytes of memory of its own each thread needs.
    """
    if pieces <= 0:
        return
    told = [value if isinstance(value, int) else address(value) for value in arguments]
    assert len(told) + 1 == task.arity, task.function
    each, size = -(-room // _LINE) * _LINE, dtype.itemsize
    threads = 1 if effort < ALONE else min(count(), pieces, 1 + effort // ALONE)
    crew = _crew
    is_shared = threads > 1 and crew.free.acquire(blocking=False)
    try:
        threads = 1 + crew.hire(threads - 1) if is_shared else 1
        memory = scratch(threads * each)
        job = [pieces, task.entry(dtype), task.arity, size, address(memory), each, *told]
        if is_shared:
            crew.run(threads, min(pieces, _STRETCHES * threads, _MOST), np.array(job, np.int64))
        else:
            _alone(np.array(job, np.int64))
    finally:
        if is_shared:
            crew.free.release()


@compiled
def _alone(job):
    _call(job.ctypes.data, 0, 0, job[PIECES])


@compiled
def _call(job, who, lo, hi):
    job = integers(job, TOLD)
    room, told = job[ROOM] + who * job[EACH], job.ctypes.data + 8 * TOLD
    if job[ITEMSIZE] == 4:
        call(np.float32(0), job[ENTRY], job[ARITY], who, lo, hi, room, told)
    else:
        call(np.float64(0), job[ENTRY], job[ARITY], who, lo, hi, room, told)


class _Crew:
    """Workers before one board.

    Attributes:
        free: held by whoever has a job on the board.
    """

    def __init__(self) -> None:
        self.free = threading.Lock()
        self._memory = np.zeros(4 * _LINE, np.uint8)
        self.board = -(-self._memory.ctypes.data // _LINE) * _LINE
        self._workers: list[_Worker] = []
        self._number = 0

    def hire(self, number: int) -> int:
        """See to it that so many workers are there, or as many as there can be."""
        while len(self._workers) < number:
            worker = _Worker(self, len(self._workers) + 1)
            try:
                worker.start()
            except RuntimeError:  # no more threads to be had: the others do it
                break
            self._workers.append(worker)
        return min(number, len(self._workers))

    def run(self, threads: int, stretches: int, job: Array) -> None:
        """Put a job on the board, take part in it, and wait until all of it is done."""
        self._number += 1
        word, interrupt = (threads << 2 * _BITS) | (stretches << _BITS), None
        try:
            _post(self.board, job, self._number, word)
            for worker in self._workers[: threads - 1]:
                if worker.is_asleep:
                    worker.alarm.set()
        finally:
            while True:  # nobody may write on when the caller has gone
                try:
                    if _finished(self.board, self._number, stretches, _LOOKS):
                        break
                    time.sleep(1e-5)
                except KeyboardInterrupt as error:
                    interrupt = error
        if interrupt is not None:
            raise interrupt


class _Worker(threading.Thread):
    """A thread that works on what its crew's board says."""

    def __init__(self, crew: _Crew, who: int) -> None:
        super().__init__(name="devconv", daemon=True)
        self._crew, self._who = crew, who  # the board is there as long as somebody looks at it
        self.is_asleep = False
        self.alarm = threading.Event()

    def run(self) -> None:
        """Work on jobs as they come; look out for the next one, then sleep."""
        while True:
            _work(self._crew.board, self._who, _LOOKS)
            self.alarm.clear()
            self.is_asleep = True
            if not _work(self._crew.board, self._who, 1):
                self.alarm.wait()
            self.is_asleep = False


@compiled
def _post(board, job, number, word):
    """Write a job on the board; from the last line on it may be claimed."""
    tell(board + JOB, job.ctypes.data)
    tell(board + NUMBER, number)
    tell(board + DONE, 0)
    tell(board + WORD, word)


@compiled
def _work(board, who, looks):
    """Claim stretches and work on them until there were none for so many looks; how many."""
    worked, left = 0, looks
    while left > 0:
        word = look(board + WORD)
        claimed, stretches = word & _MOST, (word >> _BITS) & _MOST
        if claimed >= stretches or who >= word >> 2 * _BITS:
            left -= 1
            pause()
        elif claim(board + WORD, word):  # from now on this job stays until its work is done
            job = look(board + JOB)
            pieces = look(job + 8 * PIECES)
            lo, hi = claimed * pieces // stretches, (claimed + 1) * pieces // stretches
            _call(job, who, lo, hi)
            count_one(board + DONE)
            worked, left = worked + 1, looks
    return worked


@compiled
def _finished(board, number, stretches, looks):
    """Take part in a job until nothing is left to claim; whether all is done, in a moment.

    A job that never came to stand on the board is done, too.
    """
    if look(board + NUMBER) != number:
        return True
    _work(board, 0, 1)
    for _ in range(looks):
        if look(board + DONE) == stretches:
            return True
        pause()
    return False


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


_crew = _Crew()


def _start_anew() -> None:
    """In a forked child, where threads do not survive and a lock may be held by one of them."""
    global _crew
    _crew = _Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
