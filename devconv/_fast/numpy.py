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
    with _blas_on_one_thread() as threads:
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


class _blas_on_one_thread:  # noqa: N801  (used as a function)
    """While any call is inside, BLAS has one thread; gives the number it had before.

    The limit belongs to the process, so calls from several threads are counted: the first
    one in sets it, the last one out puts back what was there.
    """

    _lock = threading.Lock()
    _inside = 0
    _threads = 1
    _limit: Any = None

    def __enter__(self) -> int:
        kind = type(self)
        with kind._lock:
            if kind._inside == 0:
                kind._threads = max([1, *(lib.num_threads for lib in _blas().lib_controllers)])
                if kind._threads > 1:
                    kind._limit = _blas().limit(limits=1)
                    kind._limit.__enter__()
            kind._inside += 1
            return kind._threads

    def __exit__(self, *error: object) -> None:
        kind = type(self)
        with kind._lock:
            kind._inside -= 1
            if kind._inside == 0 and kind._limit is not None:
                kind._limit.__exit__(None, None, None)
                kind._limit = None


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="devconv")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of the threads
