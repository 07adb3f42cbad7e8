"""All windows in one array, ``(N, o1, k1, o2, k2, ..., C)``: few launches where each one costs.

Axis ``o`` counts the windows of a dimension, axis ``k`` the taps in one: where windows lie side by
side, the two together are the pixels. A device that is told of every pass by the host takes less
time for one pass over all taps than for one pass a tap, as long as there is little in them.
"""

from __future__ import annotations

import math

from devconv import _array, _fast
from devconv._array import Array
from devconv._check import Shape
from devconv.functional.products import SMALL, itemsize
from devconv.functional.windows import Windows, put, take


def suits(x: Array, w: Windows) -> bool:
    """Whether the windows of ``x (N, *size, C)`` are a view, on a device, with little in them."""
    entries = x.shape[0] * math.prod(w.out) * w.taps * x.shape[-1]
    small = entries * itemsize(x) <= SMALL
    return small and _fast.route("take", x) is not None and not _array.is_readable(x)


def windows(slab: Array, w: Windows) -> Array:
    """The windows of a slab ``(N, *reach, C)``: a view where the library has such views."""
    rank = len(w.out)
    pairs = (axis for d in range(1, rank + 1) for axis in (d, d + rank))
    return _array.array_namespace(slab).permute_dims(take(slab, w), (0, *pairs, 2 * rank + 1))


def taps(w: Windows) -> tuple[int, ...]:
    """The axes of taps: a sum over them is each window's.

    >>> from devconv.functional.windows import plan
    >>> taps(plan((4, 4), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)))
    (2, 4)
    """
    return tuple(range(2, 2 + 2 * len(w.out), 2))


def per_window(y: Array) -> Array:
    """Numbers of windows ``(N, *out, C)``, the same for every tap."""
    shape = (size for n in y.shape[1:-1] for size in (n, 1))
    return _array.array_namespace(y).reshape(y, (y.shape[0], *shape, y.shape[-1]))


def repeated(y: Array, w: Windows) -> Array:
    """Numbers of windows ``(N, *out, C)``, once for each tap."""
    sizes = (size for pair in zip(w.out, w.kernel, strict=True) for size in pair)
    shape = (y.shape[0], *sizes, y.shape[-1])
    return _array.array_namespace(y).broadcast_to(per_window(y), shape)


def per_tap(row: Array, w: Windows) -> Array:
    """Numbers of taps, in C order, the same for every window."""
    shape = (size for k in w.kernel for size in (1, k))
    return _array.array_namespace(row).reshape(row, (1, *shape, 1))


def are_apart(w: Windows) -> bool:
    """Whether windows lie side by side: each pixel of the slab is in one."""
    return w.stride == w.kernel and all(d == 1 for d in w.dilation)


def put_back(shares: Array, w: Windows) -> Array:
    """The adjoint of :func:`windows`: ``(N, *reach, C)``."""
    n, c = shares.shape[0], shares.shape[-1]
    if are_apart(w):
        return _array.array_namespace(shares).reshape(shares, (n, *w.reach, c))
    some = (shares[(slice(None), *_of_tap(offset), ...)] for offset in w.offsets())
    return put(some, w, like=shares)


def _of_tap(offset: Shape) -> tuple[slice | int, ...]:
    return tuple(index for k in offset for index in (slice(None), k))
