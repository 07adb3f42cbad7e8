"""Resampling: an image on a grid of another size, interpolated one dimension at a time."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, Shape, choice, flag, number, per_dimension
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.separable import Reads, weigh_all, weigh_back
from devconv.functional.windows import channels_first, channels_last

MODES = ("nearest", "linear", "cubic")
A = -0.75
"""The slope of the cubic kernel at distance 1."""


@differentiable
def upsample(
    x: Array,
    /,
    *,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> tuple[Array, Pullback]:
    """Interpolate images on a finer or coarser grid.

    ``y[n, c, o] = sum over p of weight(q - p) · x[n, c, p]`` in each dimension, ``o`` lying at
    ``q = (o + 1/2) · n / m - 1/2`` between the pixels of ``x``, or at ``q = o · (n - 1) / (m - 1)``
    with ``align_corners``. Nearest takes pixel ``floor(o · n / m)``.

    Args:
        x: images ``(N, C, *spatial)``.
        size: the size ``m`` of ``y`` in pixels, an int or one per spatial dimension.
        scale_factor: in place of ``size``, a number or one per dimension: ``m = floor(n ·
            factor)``, and ``1 / factor`` stands for ``n / m`` in the places.
        mode: ``"nearest"``, ``"linear"`` (in every dimension: bilinear, trilinear) or
            ``"cubic"`` (convolution with a = -0.75, also in every dimension).
        align_corners: whether the corner pixels' centres, and not the images' edges, fall
            on one another; for linear and cubic.

    Returns:
        ``y (N, C, *size)``, in channels-last memory; the pullback hands ``dy`` back by the
        same weights. Pixels beyond the edge are those at the edge.

    Raises:
        ValueError: not exactly one of ``size`` and ``scale_factor``, an empty output, options
            out of range.
        TypeError: integer images.

    As ``torch.nn.functional.interpolate``, in any rank (there cubic is for 2-D alone), with
    its particulars: nearest counts in single precision, and linear copies a dimension whose
    size stays. Source of the cubic kernel: R. Keys, "Cubic convolution interpolation for
    digital image processing", IEEE Trans. ASSP 29 (1981).

    >>> import numpy as np
    >>> upsample(np.asarray([[[1.0, 2.0]]]), scale_factor=2, mode="linear")
    array([[[1.  , 1.25, 1.75, 2.  ]]])
    """
    shape = check_image(x)
    align_corners = check_mode(mode, align_corners)
    sizes, scales = upsampled_size(shape, size, scale_factor)
    reads = tuple(
        _reads(n, m, scale, mode, align_corners)
        for n, m, scale in zip(shape[2:], sizes, scales, strict=True)
    )
    y = weigh_all(_array.widen(channels_last(x)), reads)

    def pullback(dy: Array) -> tuple[Array]:
        return (channels_first(weigh_back(_array.widen(channels_last(dy)), reads)),)

    return channels_first(_array.cast(y, x.dtype)), pullback


def check_mode(mode: str, align_corners: bool) -> bool:
    """Whether corners are aligned; refuses another mode, and corners that cannot be."""
    choice("mode", mode, MODES)
    if flag("align_corners", align_corners) and mode == "nearest":
        raise InvalidValue('align_corners is for modes "linear" and "cubic", got mode="nearest"')
    return bool(align_corners)


def upsampled_size(
    shape: Shape, size: Any = None, scale_factor: Any = None
) -> tuple[Shape, tuple[float, ...]]:
    """The size of ``y`` for images of ``shape`` (N, C, *spatial), and its pixels' distances."""
    spatial = shape[2:]
    rank = len(spatial)
    if (size is None) == (scale_factor is None):
        given = "neither" if size is None else "both"
        raise InvalidValue(f"exactly one of size and scale_factor must be given, got {given}")
    if size is not None:
        sizes = per_dimension("size", size, rank, least=1)
        return sizes, tuple(n / m for n, m in zip(spatial, sizes, strict=True))
    factors = _factors(scale_factor, rank)
    sizes = tuple(math.floor(n * f) for n, f in zip(spatial, factors, strict=True))
    if min(sizes) < 1:
        raise InvalidValue(
            f"the output would be empty: x {shape} with scale_factor {scale_factor!r} leaves "
            f"{sizes} pixels; use a larger factor"
        )
    return sizes, tuple(1.0 / f for f in factors)


def _factors(scale_factor: Any, rank: int) -> tuple[float, ...]:
    several = isinstance(scale_factor, Sequence) and not isinstance(scale_factor, str)
    each = scale_factor if several else (scale_factor,) * rank
    if len(each) != rank:
        raise InvalidValue(
            f"scale_factor needs one entry for each of {rank} spatial dimensions, got "
            f"{scale_factor!r}"
        )
    factors = tuple(number("scale_factor", f, above=0.0) for f in each)
    if math.inf in factors:
        raise InvalidValue(f"scale_factor must be finite, got {scale_factor!r}")
    return factors


@lru_cache(maxsize=256)
def _reads(n: int, m: int, scale: float, mode: str, align_corners: bool) -> Reads:
    """Which of ``n`` pixels each of ``m`` outputs reads, and with which weights."""
    if mode == "nearest":
        scale = _single(scale)
        nearest = (min(math.floor(_single(o * scale)), n - 1) for o in range(m))
        return Reads(n, tuple((i,) for i in nearest))
    if mode == "linear" and n == m:
        return Reads(n, tuple((o,) for o in range(m)))
    if align_corners:
        places = [o * ((n - 1) / (m - 1)) if m > 1 else 0.0 for o in range(m)]
    else:
        places = [(o + 0.5) * scale - 0.5 for o in range(m)]
    pixels, weights = [], []
    for q in places:
        left = math.floor(q)
        first, kernel = (left - 1, _cubic) if mode == "cubic" else (left, _linear)
        counted = kernel(q - left)
        pixels.append(tuple(min(max(first + k, 0), n - 1) for k in range(len(counted))))
        weights.append(counted)
    return Reads(n, tuple(pixels), tuple(weights))


def _linear(t: float) -> tuple[float, ...]:
    """The weights of the two pixels around a place ``t`` behind the first."""
    return 1.0 - t, t


def _cubic(t: float) -> tuple[float, ...]:
    """The weights of the four pixels around a place ``t`` behind the second."""

    def near(d: float) -> float:  # distances up to 1
        return ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0

    def far(d: float) -> float:  # distances from 1 to 2
        return ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A

    return far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)


def _single(value: float) -> float:
    """``value`` rounded to single precision."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
