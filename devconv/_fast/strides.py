"""All windows of a slab described at once by strides: the arithmetic, for libraries with views."""

from __future__ import annotations

from devconv._check import Shape


def layout(
    shape: Shape,
    strides: Shape,
    out: Shape,
    kernel: Shape,
    stride: Shape,
    dilation: Shape,
) -> tuple[Shape, Shape]:
    """Shape ``(N, *out, *kernel, C)`` and strides of the windows of ``(N, *spatial, C)``."""
    n, *spatial, c = strides
    steps = [a * s for a, s in zip(spatial, stride, strict=True)]
    taps = [a * d for a, d in zip(spatial, dilation, strict=True)]
    return (shape[0], *out, *kernel, shape[-1]), (n, *steps, *taps, c)
