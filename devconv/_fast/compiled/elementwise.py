"""Functions of each number by itself, in one pass, on arrays that lie in memory alike."""

from __future__ import annotations

import numpy as np

from devconv._array import Array
from devconv._fast.compiled import passes, stream
from devconv._fast.compiled.memory import address
from devconv._fast.compiled.native import Task
from devconv._fast.compiled.threads import share

LONG = 2**18
"""Bytes from which an array is not expected to be found in a cache when it is next read."""


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
    return _numbers(passes.blend, np.asarray((a, b), x.dtype), x, y)


def blend_twice(a: float, x: Array, b: float, y: Array, c: float, z: Array) -> tuple[Array, Array]:
    """``a · x + b · y``, and ``z + c`` times that."""
    inner, outer = _aligned_like(x), _aligned_like(x)
    lines, is_long = -(-x.nbytes // stream.LINE), x.nbytes >= LONG
    told = x.size, is_long, np.asarray((a, b, c), x.dtype), x, y, z, inner, outer, x.itemsize
    share(stream.blend_twice, x.dtype, lines, 3 * x.size, *told)
    return inner, outer


def _aligned_like(x: Array) -> Array:
    """A new array with the strides of ``x``, which has no gaps, at the start of a line."""
    memory = np.empty(x.nbytes + stream.LINE, np.uint8)
    return np.ndarray(x.shape, x.dtype, memory, -address(memory) % stream.LINE, x.strides)


def _numbers(task: Task, *arrays: Array) -> Array:
    """A new array like the last, written by a task number by number."""
    out = np.empty_like(arrays[-1])
    share(task, out.dtype, out.size, out.size, *arrays, out)
    return out
