"""Work shared between threads: counted pieces, claimed one stretch after another.

What a piece computes never depends on who computes it, so neither do results. Compiled
functions leave Python's lock alone while they run.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import threadpoolctl

_STRETCHES = 4
"""Stretches for each thread: enough that a thread that was held up leaves its work to others."""


PRODUCTS = 16
"""Products that a thread adds up in the time in which it moves one number."""
ALONE = 2_000_000
"""Numbers that, about, are done before another thread is awake."""


def share(pieces: int, work: Callable[[int, int], None], effort: int) -> None:
    """Call ``work(first, last)`` for stretches that together are ``range(pieces)``.

    The calling thread works too, and takes over what no other thread has begun; it works
    alone if the ``effort``, in numbers to be multiplied or moved, is small.
    """
    threads = 1 if effort < ALONE else min(count(), pieces)
    if threads <= 1:
        work(0, pieces)
        return
    stretches = min(pieces, _STRETCHES * threads)
    turns = itertools.count()

    def take_turns() -> None:
        while (turn := next(turns)) < stretches:
            work(turn * pieces // stretches, (turn + 1) * pieces // stretches)

    others = [_pool().submit(take_turns) for _ in range(threads - 1)]
    try:
        take_turns()
    finally:
        _settle(others)


def _settle(others: list[Future[None]]) -> None:
    failed = [f.exception() for f in others if not f.cancel()]
    for error in failed:
        if error is not None:
            raise error


def count() -> int:
    """Threads to use: as many as NumPy's BLAS may, which ``threadpoolctl`` and the usual
    environment variables set, or one for each core where there is no such BLAS.
    """  # noqa: D205
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


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _cores() - 1), thread_name_prefix="devconv")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
