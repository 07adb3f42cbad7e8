"""CuPy: windows as a view."""

from __future__ import annotations

import importlib

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.strides import layout


def take(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """Windows ``(N, *out, *kernel, C)`` of ``slab`` (N, *spatial, C), a view.

    CuPy's own ``sliding_window_view`` waits for the device at every call.
    """
    shape, strides = layout(slab.shape, slab.strides, out, kernel, stride, dilation)
    as_strided = importlib.import_module("cupy.lib.stride_tricks").as_strided
    return as_strided(slab, shape, strides)
