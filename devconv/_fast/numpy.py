"""NumPy: windows as a view, and copied into memory that is there already."""

from __future__ import annotations

import importlib
import itertools
import math
import platform
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.plan import Plan
from devconv._fast.scratch import scratch
from devconv._fast.strides import layout


@lru_cache(maxsize=1)
def compiled() -> Mapping[str, Callable[..., Any]]:
    """The routes that Numba compiles, if it is there; importing it waits until here.

    On x86 alone: elsewhere a masked vector is taken apart, and nothing is measured. An
    installation of Numba that is broken, in whatever way, is as good as none; the doctor says so.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return {}
    try:
        return importlib.import_module("devconv._fast.compiled").ROUTES
    except Exception:
        return {}


def suits(x: Array, w: Plan, groups: int) -> bool:
    """Whether a compiled convolution is written for it: full precision, up to three dimensions."""
    return _is_full(x) and len(w.kernel) <= 3 and x.shape[0] > 0


def suits_winograd(x: Array, w: Plan, groups: int) -> bool:
    """Whether a compiled Winograd convolution is written for it: float32 images in a plane."""
    return x.dtype == np.float32 and len(w.kernel) == 2 and groups == 1 and suits(x, w, groups)


SMALL = 2048
"""Numbers below which a pass of NumPy's own is as quick as a call of what is compiled."""


def alike(*arrays: Array) -> bool:
    """Whether arrays of one shape and full precision have the same strides, and no gaps.

    And whether it is worth asking.
    """
    first = arrays[0]
    if first.size < SMALL:
        return False
    for other in arrays[1:]:
        if (other.shape, other.strides, other.dtype) != (first.shape, first.strides, first.dtype):
            return False
    return _is_full(first) and _has_no_gaps(first)


def matrices(*arrays: Array) -> bool:
    """Whether these are matrices of one full precision with anything in them."""
    return all(
        _is_full(a) and a.ndim == 2 and a.size and a.dtype == arrays[0].dtype for a in arrays
    )


def contiguous(x: Array) -> bool:
    """Whether an array of full precision is filled, and lies in memory in the order of its axes."""
    return _is_full(x) and x.flags.c_contiguous and x.size > 0


def _is_full(x: Array) -> bool:
    known = isinstance(x, np.ndarray) and x.dtype in (np.float32, np.float64)
    return known and x.flags.aligned


def _has_no_gaps(x: Array) -> bool:
    axes = sorted((stride, n) for stride, n in zip(x.strides, x.shape, strict=True) if n > 1)
    step = x.itemsize
    for stride, n in axes:
        if stride != step:
            return False
        step *= n
    return True


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
    room = scratch(windows.size * windows.itemsize)[: windows.size * windows.itemsize]
    copy = room.view(windows.dtype).reshape(windows.shape)
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
