"""CUDA kernels for CuPy arrays, each a whole primitive in one launch or a few.

:mod:`.source` makes a kernel of its text, :mod:`.windows` lays windows out and adds them up again,
:mod:`.pool` goes over them without products, :mod:`.norm` sums over channels, and
:mod:`.elementwise` takes numbers one by one. They are on trial: see :data:`devconv._fast.TRIALS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._fast.kernels import elementwise, norm, pool, windows
from devconv._fast.plan import Plan

ROUTES: dict[tuple[str, str], Callable[..., Any]] = {
    (primitive, "cupy"): route
    for room in (windows, pool, norm, elementwise)
    for primitive, route in room.ROUTES.items()
}


def suits(x: Array, w: Plan, groups: int) -> bool:
    """Whether a kernel over windows is written for it: numbers with a fraction, any strides."""
    return _array.is_floating(x) and len(w.kernel) > 0


def alike(*arrays: Array) -> bool:
    """Whether these are numbers with a fraction, of one shape and dtype, in any memory order."""
    first = arrays[0]
    same = all((other.shape, other.dtype) == (first.shape, first.dtype) for other in arrays)
    return same and _array.is_floating(first)


def contiguous(x: Array) -> bool:
    """Whether an array is filled, and lies in memory in the order of its axes."""
    return _array.is_floating(x) and x.flags.c_contiguous and x.size > 0
