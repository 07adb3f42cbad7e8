"""Adaptive pooling: so many windows as are asked for, whatever the size of the image.

Window ``o`` of ``m`` over ``n`` pixels covers ``floor(o·n / m)`` up to
``ceil((o + 1)·n / m)``: windows of nearly one size that overlap by a pixel where ``m`` does
not divide ``n``. A box is a product of intervals, so both summaries go one dimension at a
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import Shape, per_dimension
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.separable import (
    Reads,
    largest,
    largest_back,
    outer,
    weigh_all,
    weigh_back,
)
from devconv.functional.windows import channels_first, channels_last

Sizes = int | Sequence[int | None]


@differentiable
def adaptive_avg_pool(x: Array, /, *, output_size: Sizes) -> tuple[Array, Pullback]:
    """Take the mean of each of ``output_size`` windows that cover the image evenly.

    ``y[n, c, o] = mean of x[n, c, p]`` for ``floor(o·n / m) <= p < ceil((o + 1)·n / m)`` in
    each dimension

    Args:
        x: images ``(N, C, *spatial)``.
        output_size: windows per dimension, an int or one per spatial dimension; ``None`` in
            it keeps a dimension as it is.

    Returns:
        ``y (N, C, *output_size)``; the pullback gives every pixel of a window the same share
        of ``dy``.

    Raises:
        ValueError: sizes below 1, another number of them.
        TypeError: integer images.

    As ``torch.nn.functional.adaptive_avg_pool2d``.

    >>> import numpy as np
    >>> adaptive_avg_pool(np.asarray([[[1.0, 3.0, 5.0]]]), output_size=2)
    array([[[2., 4.]]])
    """
    reads = _adaptive_windows(check_image(x), output_size)
    pixels = _array.widen(channels_last(x))
    divisor = outer([along.counts for along in reads], dtype=pixels.dtype, like=x)
    y = weigh_all(pixels, reads) / divisor

    def pullback(dy: Array) -> tuple[Array]:
        shares = _array.widen(channels_last(dy)) / divisor
        return (channels_first(weigh_back(shares, reads)),)

    return channels_first(_array.cast(y, x.dtype)), pullback


@differentiable
def adaptive_max_pool(x: Array, /, *, output_size: Sizes) -> tuple[Array, Pullback]:
    """Take the largest pixel of each of ``output_size`` windows that cover the image evenly.

    ``y[n, c, o] = max of x[n, c, p]`` for ``floor(o·n / m) <= p < ceil((o + 1)·n / m)`` in
    each dimension

    Args:
        x: images ``(N, C, *spatial)``.
        output_size: windows per dimension, an int or one per spatial dimension; ``None`` in
            it keeps a dimension as it is.

    Returns:
        ``y (N, C, *output_size)``; the pullback sends ``dy`` to the **first** maximum of each
        window; NaN wins over every number and goes on.

    Raises:
        ValueError: sizes below 1, another number of them.
        TypeError: integer images.

    As ``torch.nn.functional.adaptive_max_pool2d``; of several NaN it takes the last one,
    here it is the first.

    >>> import numpy as np
    >>> y, pullback = adaptive_max_pool.vjp(np.asarray([[[1.0, 3.0, 2.0]]]), output_size=2)
    >>> y, pullback(np.ones_like(y))
    (array([[[3., 3.]]]), (array([[[0., 2., 0.]]]),))
    """
    reads = _adaptive_windows(check_image(x), output_size)
    # The last dimension first: the first maximum of a box in C order lies in the first row
    # that holds it, and is the first one there.
    order = [(d, r) for d, r in reversed(list(enumerate(reads, start=1))) if not r.is_identity]
    y, firsts = channels_last(x), []
    for axis, along in order:
        y, first = largest(y, along, axis)
        firsts.append(first)

    def pullback(dy: Array) -> tuple[Array]:
        dx = _array.widen(channels_last(dy))
        for (axis, along), first in zip(reversed(order), reversed(firsts), strict=True):
            dx = largest_back(dx, first, along, axis)
        return (channels_first(dx),)

    return channels_first(y), pullback


def adaptive_size(shape: Shape, output_size: Any) -> Shape:
    """The pixels that adaptive pooling leaves of images of ``shape`` (N, C, *spatial)."""
    size = shape[2:]
    if isinstance(output_size, Sequence) and len(output_size) == len(size):
        output_size = [n if m is None else m for n, m in zip(size, output_size, strict=True)]
    return per_dimension("output_size", output_size, len(size), least=1)


def _adaptive_windows(shape: Shape, output_size: Any) -> tuple[Reads, ...]:
    sizes = adaptive_size(shape, output_size)
    return tuple(_even_windows(n, m) for n, m in zip(shape[2:], sizes, strict=True))


@lru_cache(maxsize=256)
def _even_windows(n: int, m: int) -> Reads:
    """``m`` windows over ``n`` pixels; the ceiling is the floor of the negative."""
    return Reads(n, tuple(tuple(range(o * n // m, -(-(o + 1) * n // m))) for o in range(m)))
