"""NumPy: windows as a view, and copied into memory that is there already."""

from __future__ import annotations

import itertools
import math
import threading

import numpy as np

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.strides import layout


def take(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """Windows ``(N, *out, *kernel, C)`` of ``slab`` (N, *spatial, C), a read-only view."""
    shape, strides = layout(slab.shape, slab.strides, out, kernel, stride, dilation)
    return np.lib.stride_tricks.as_strided(slab, shape, strides, writeable=False)


_SHORT = 8
"""A window whose rows hold fewer numbers is copied tap by tap, in runs along the image."""


def columns(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """The windows of ``slab`` (N, *spatial, C) as rows, ``(windows, taps · C)``.

    They lie in scratch memory of this thread, which its next call writes over: a fresh block
    for each tile would be faulted in page by page. Whoever asks must be done with them by
    then, and hand on nothing that shares their memory.
    """
    windows = take(slab, out, kernel, stride, dilation)
    scratch = _scratch(windows.size * windows.itemsize)[: windows.size * windows.itemsize]
    copy = scratch.view(windows.dtype).reshape(windows.shape)
    if kernel[-1] * slab.shape[-1] < _SHORT:
        lead = (slice(None),) * (1 + len(out))
        for offset in itertools.product(*map(range, kernel)):
            copy[(*lead, *offset)] = windows[(*lead, *offset)]
    else:
        np.copyto(copy, windows)
    rows = windows.shape[0] * math.prod(out)
    return copy.reshape(rows, windows.size // rows)


def weigh(windows: Array, kernel: Array) -> Array:
    """Each channel's weighted window sums, in one pass without intermediate results.

    ``(N, *out, C)`` of the windows ``(N, *out, *kernel, C)`` and the kernel ``(*kernel, C)``.
    """
    axes = list(range(windows.ndim))
    rank = kernel.ndim - 1
    outer, taps = axes[: 1 + rank], axes[1 + rank : -1]
    return np.einsum(windows, axes, kernel, [*taps, axes[-1]], [*outer, axes[-1]])


def weigh_back(windows: Array, dy: Array) -> Array:
    """The adjoint in the kernel: ``(*kernel, C)`` of the windows and ``dy (N, *out, C)``."""
    axes = list(range(windows.ndim))
    outer, taps = axes[: dy.ndim - 1], axes[dy.ndim - 1 : -1]
    return np.einsum(windows, axes, dy, [*outer, axes[-1]], [*taps, axes[-1]])


def _scratch(size: int) -> np.ndarray:
    """At least so many bytes that belong to this thread; large ones are not kept."""
    if size > _KEPT:
        return np.empty(size, dtype=np.uint8)
    kept = getattr(_own, "scratch", None)
    if kept is None or kept.size < size:
        kept = _own.scratch = np.empty(size, dtype=np.uint8)
    return kept


_own = threading.local()
_KEPT = 16 * 2**20
