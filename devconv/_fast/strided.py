"""Taking windows as a strided view: no copy, where a library has views.

The written-once route stacks one strided slice per tap. NumPy, CuPy and PyTorch can
describe all windows at once by strides; the copy into columns then happens once, when
they are contracted.
"""

from __future__ import annotations

import importlib

import numpy as np

from devconv._array import Array
from devconv._check import Shape


def _layout(strides: Shape, stride: Shape, dilation: Shape) -> Shape:
    n, *spatial, c = strides
    steps = [a * s for a, s in zip(spatial, stride, strict=True)]
    taps = [a * d for a, d in zip(spatial, dilation, strict=True)]
    return (n, *steps, *taps, c)


def take_numpy(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """Windows ``(N, *out, *kernel, C)`` of ``slab`` (N, *spatial, C), a read-only view."""
    return np.lib.stride_tricks.as_strided(
        slab,
        (slab.shape[0], *out, *kernel, slab.shape[-1]),
        _layout(slab.strides, stride, dilation),
        writeable=False,
    )


def take_cupy(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """As :func:`take_numpy`. CuPy's ``sliding_window_view`` would wait for the device."""
    as_strided = importlib.import_module("cupy.lib.stride_tricks").as_strided
    return as_strided(
        slab,
        (slab.shape[0], *out, *kernel, slab.shape[-1]),
        _layout(slab.strides, stride, dilation),
    )


def take_torch(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """As :func:`take_numpy`, on PyTorch."""
    return slab.as_strided(
        (slab.shape[0], *out, *kernel, slab.shape[-1]),
        _layout(slab.stride(), stride, dilation),
    )
