"""NumPy: windows as a view, tiles in parallel.

NumPy lets go of the interpreter's lock in copies and products, so a pool of threads makes
both parallel, one tile a thread, while BLAS keeps to one thread. How many threads there
are is what BLAS was allowed: ``threadpoolctl`` and ``OMP_NUM_THREADS`` rule both.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.strides import layout

T = TypeVar("T")
R = TypeVar("R")


def take(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """Windows ``(N, *out, *kernel, C)`` of ``slab`` (N, *spatial, C), a read-only view."""
    shape, strides = layout(slab.shape, slab.strides, out, kernel, stride, dilation)
    return np.lib.stride_tricks.as_strided(slab, shape, strides, writeable=False)


def each(body: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """The results of ``body`` for all items, in their order, computed in parallel.

    No more than a few are computed ahead of the one that is asked for.
    """
    with _one_thread as threads:
        if threads == 1:
            yield from map(body, items)
            return
        pool, rest = _pool(threads), iter(items)
        ahead = deque(pool.submit(body, item) for item in islice(rest, 2 * threads))
        try:
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(body, item) for item in islice(rest, 1))
                yield result
        finally:  # after an error nothing may go on while BLAS gets its threads back
            for future in ahead:
                future.cancel()
            wait(ahead)


class _BlasOnOneThread:
    """While any call is inside, BLAS has one thread; gives the number it had before.

    The limit belongs to the process, so calls from several threads are counted: the first
    one in sets it, the last one out puts back what was there, whichever threads they are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[int] = []

    def __enter__(self) -> int:
        with self._lock:
            if self._inside == 0:
                self._before = [library.num_threads or 1 for library in _blas()]
                self._set([1] * len(self._before))
            self._inside += 1
            return max([1, *self._before])

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._set(self._before)

    def _set(self, numbers: list[int]) -> None:
        if max([1, *self._before]) == 1:
            return
        for library, number in zip(_blas(), numbers, strict=True):
            # threadpoolctl listens to one thread at a time, and forgets to say so to others.
            release = getattr(library, "clear_controlling_thread", lambda force: None)
            release(force=True)
            library.set_num_threads(number)
            release(force=True)


_one_thread = _BlasOnOneThread()


@cache
def _blas() -> list[Any]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="devconv")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of the threads
