"""Work shared between threads: counted pieces, claimed one stretch after another.

What a piece computes never depends on who computes it, so neither do results. A job stands on a
*board*, a few integers in memory: where its task begins, where its arguments lie, and one word
that says how many stretches there are and how many of them are claimed. Workers look at that
word, and claim and work, without entering Python: they never wait for its lock, nor it for them.
A worker that finds nothing goes on looking for a moment before it sleeps, for waking a thread
takes as long as many an operation on small images.
"""

from __future__ import annotations

import itertools
import os
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from devconv._array import Array
from devconv._fast.compiled.atomics import (
    count_one,
    exchange,
    look,
    pause,
    tell,
    yield_core,
)
from devconv._fast.compiled.memory import address
from devconv._fast.compiled.native import Task, call, compiled, integers
from devconv._fast.scratch import borrowed, returned

PRODUCTS = 16
"""Products that a thread adds up in the time in which it moves one number."""
ALONE = 50_000
"""Numbers that, about, are moved before another thread has begun."""
_STRETCHES = 8
"""Most stretches for each thread: a thread that was held up leaves its work to others."""
_LOOKS = 15_000
"""How often a worker looks out for work before it sleeps: about a millisecond."""

_PATIENCE = 1_000
"""How often the caller looks whether all is done before it lets another thread have its core."""

_LINE = 64
"""Bytes of memory that a processor's cores hand to each other at once."""
WORD, DONE, OWNER, JOB, NUMBER = 0, _LINE, 2 * _LINE, 2 * _LINE + 8, 2 * _LINE + 16
"""What stands where on a board: the word, ``threads · 2⁴⁸ + stretches · 2²⁴ + claimed``; how many
stretches are done; the call that has the board, or 0; the address of the job, and the number of the
call that put it there."""
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
    wanted = 1 if effort < ALONE else min(count(), pieces, 1 + effort // ALONE)
    board, crew, number = _crew.board, _crew, next(_numbers)
    memory = borrowed(wanted * each)
    try:
        threads = 1 + crew.hire(wanted - 1) if wanted > 1 and _seize(board, number) else 1
        job = [pieces, task.entry(dtype), task.arity, size, address(memory), each, *told]
        if threads > 1:
            stretches = min(pieces, _STRETCHES * threads, _MOST)
            crew.run(number, threads, stretches, np.array(job, np.int64))
        else:
            _alone(np.array(job, np.int64))
    finally:
        if wanted > 1:
            _leave(board, number)
    returned(memory)


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
    """Workers before one board."""

    def __init__(self) -> None:
        self._memory = np.zeros(4 * _LINE, np.uint8)
        self.board = -(-self._memory.ctypes.data // _LINE) * _LINE
        self._workers: list[_Worker] = []
        _finish(self.board, 1, 0)  # compiled now, not when a job is waited for

    def hire(self, number: int) -> int:
        """See to it that so many workers are there, or as many as there can be."""
        while len(self._workers) < number:
            worker = _Worker(self, len(self._workers) + 1)
            self._workers.append(worker)  # first: no other may have its number
            try:
                worker.start()
            except RuntimeError:  # no more threads to be had: the others do it
                self._workers.pop()
                break
        return min(number, len(self._workers))

    def run(self, number: int, threads: int, stretches: int, job: Array) -> None:
        """Put a job on the board, take part in it, and wait until all of it is done."""
        try:
            _post(self.board, job, number, (threads << 2 * _BITS) | (stretches << _BITS))
            for worker in self._workers[: threads - 1]:
                worker.wake()
        finally:  # whatever happened, nobody may write on when the caller has gone
            _finish(self.board, number, stretches)


class _Worker(threading.Thread):
    """A thread that works on what its crew's board says."""

    def __init__(self, crew: _Crew, who: int) -> None:
        super().__init__(name="devconv", daemon=True)
        self._crew, self._who = crew, who  # the board is there as long as somebody looks at it
        self.is_asleep = False
        self._bed = threading.Lock()  # not an Event, which a signal's handler can leave locked
        self._bed.acquire()

    def wake(self) -> None:
        """Have it look out for work, if it sleeps."""
        if self.is_asleep:
            with suppress(RuntimeError):  # somebody has just done so
                self._bed.release()

    def run(self) -> None:
        """Work on jobs as they come; look out for the next one, then sleep."""
        while True:
            _work(self._crew.board, self._who, _LOOKS)
            self.is_asleep = True
            if not _work(self._crew.board, self._who, 1):
                self._bed.acquire()
            self.is_asleep = False


@compiled
def _seize(board, number):
    """Whether the board was free; then it is this call's."""
    return exchange(board + OWNER, 0, number)


@compiled
def _leave(board, number):
    """Free the board, if it is this call's."""
    exchange(board + OWNER, number, 0)


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
        elif exchange(board + WORD, word, word + 1):
            job = look(board + JOB)  # which stays there until what is claimed is done
            pieces = look(job + 8 * PIECES)
            lo, hi = claimed * pieces // stretches, (claimed + 1) * pieces // stretches
            _call(job, who, lo, hi)
            count_one(board + DONE)
            worked, left = worked + 1, looks
    return worked


@compiled
def _finish(board, number, stretches):
    """Take part in a call's job, and wait until all of it is done.

    Without coming back to Python, where a signal's handler might raise. Nothing is to be waited
    for if the job never came to stand on the board.
    """
    if look(board + NUMBER) != number:
        return
    _work(board, 0, 1)
    looks = 0
    while look(board + DONE) != stretches:
        looks += 1
        pause()
        if looks % _PATIENCE == 0:
            yield_core()


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
_numbers = itertools.count(1)


def _start_anew() -> None:
    """In a forked child, where threads do not survive and a lock may be held by one of them."""
    global _crew
    _crew = _Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
