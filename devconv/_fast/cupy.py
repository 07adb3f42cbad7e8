"""CuPy: windows as a view, sums over rows as a product, how much memory columns may take."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from devconv._array import Array, array_namespace
from devconv._check import Shape
from devconv._fast.budget import budget
from devconv._fast.strides import layout
from devconv._fast.tf32 import matrices, module

__all__ = ["channel_sums", "contiguous", "matrices", "take", "workspace"]


def take(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """Windows ``(N, *out, *kernel, C)`` of ``slab`` (N, *spatial, C), a view.

    CuPy's own ``sliding_window_view`` waits for the device at every call.
    """
    shape, strides = layout(slab.shape, slab.strides, out, kernel, stride, dilation)
    return module("cupy.lib.stride_tricks").as_strided(slab, shape, strides)


def workspace(x: Array) -> int:
    """How many bytes of columns one tile may hold on the device of ``x``."""
    return _workspace(module("cupy.cuda").runtime, x.device.id)


@lru_cache(maxsize=64)
def _workspace(runtime: Any, index: int) -> int:
    return budget(runtime.getDeviceProperties(index)["totalGlobalMem"])


def contiguous(x: Array) -> bool:
    """Whether numbers with a fraction lie in memory without gaps, in the order of their axes."""
    return x.dtype.kind == "f" and x.flags.c_contiguous and x.size > 0


def channel_sums(x: Array) -> Array:
    """The sum of ``x (..., C)`` over everything but its channels, as a product with ones.

    CuPy sums over leading axes by a kernel that reads far apart; cuBLAS has a quick one.
    """
    rows = x.reshape(-1, x.shape[-1])
    return array_namespace(x).ones(rows.shape[0], dtype=x.dtype) @ rows
