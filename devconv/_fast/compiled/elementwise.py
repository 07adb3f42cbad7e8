"""Functions of each number by itself, in one pass, on arrays that lie in memory alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from devconv._array import Array
from devconv._fast.compiled import passes
from devconv._fast.compiled.threads import share


def relu(x: Array) -> Array:
    """``max(x, 0)``."""
    return _numbers(passes.rectify, x)


def relu_back(dy: Array, y: Array) -> Array:
    """``dy`` where ``y`` is not 0."""
    return _numbers(passes.rectify_back, dy, y)


def tanh_back(dy: Array, y: Array) -> Array:
    """``dy · (1 - y²)``."""
    return _numbers(passes.tanh_back, dy, y)


def blend(a: float, x: Array, b: float, y: Array) -> Array:
    """``a · x + b · y``."""
    one, other = x.dtype.type(a), x.dtype.type(b)

    def blended(zero: Any, count: int, x: int, y: int, out: int) -> None:
        passes.blend(zero, count, one, x, other, y, out)

    return _numbers(blended, x, y)


def _numbers(walk: Callable[..., None], *arrays: Array) -> Array:
    """A new array like the first, written by ``walk(zero, count, *addresses)`` in stretches."""
    out = np.empty_like(arrays[0])
    zero, size = out.dtype.type(0), out.itemsize
    addresses = [array.ctypes.data for array in (*arrays, out)]

    def work(lo: int, hi: int) -> None:
        walk(zero, hi - lo, *(address + lo * size for address in addresses))

    share(out.size, work, out.size)
    return out
