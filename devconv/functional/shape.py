"""Operations that only move numbers: their adjoints move them back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, Shape, integer, per_dimension
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.windows import channels_first, channels_last


@differentiable
def flatten(x: Array, /, *, start: int = 1) -> tuple[Array, Pullback]:
    """Join all dimensions from ``start`` on into one, in C order of the *shape*.

    Args:
        x: any shape with at least ``start`` dimensions.
        start: the first dimension to join; 1 keeps the batch.

    Returns:
        ``y (*x.shape[:start], -1)``; the pullback restores the shape. Memory order (such as
        channels-last) makes no difference to the result.

    Raises:
        ValueError: ``start`` out of range.
        TypeError: integer arrays.

    The order is that of ``torch.flatten``: channels outermost.

    >>> import numpy as np
    >>> flatten(np.zeros((2, 3, 4, 5))).shape
    (2, 60)
    """
    xp, shape = _array.array_namespace(x), tuple(x.shape)
    start = integer("start", start, least=0)
    if start > len(shape):
        raise InvalidValue(f"start={start} is out of range for x with shape {shape}")
    y = xp.reshape(x, (*shape[:start], math.prod(shape[start:])))

    def pullback(dy: Array) -> tuple[Array]:
        return (xp.reshape(dy, shape),)

    return y, pullback


@differentiable
def pixel_shuffle(x: Array, /, *, factor: int | Sequence[int]) -> tuple[Array, Pullback]:
    """Make each group of channels a patch of pixels: fewer channels, a larger image.

    ``y[n, c, p·r + k] = x[n, (c, k), p]`` in each dimension, with ``r = factor`` and ``(c, k)``
    counted in C order

    Args:
        x: images ``(N, C·∏factor, *spatial)``.
        factor: the patch in pixels, an int or one per spatial dimension.

    Returns:
        ``y (N, C, *(spatial·factor))``, in channels-last memory; the pullback is
        :func:`pixel_unshuffle`.

    Raises:
        ValueError: channels that are no multiple of the patch.
        TypeError: integer images.

    The order is that of ``torch.nn.functional.pixel_shuffle``, in any rank. Source: W. Shi et
    al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", arXiv:1609.05158.

    >>> import numpy as np
    >>> pixel_shuffle(np.asarray([[[1.0, 2.0], [3.0, 4.0]]]), factor=2)
    array([[[1., 3., 2., 4.]]])
    """
    factors = shuffle_factors(check_image(x), factor)

    def pullback(dy: Array) -> tuple[Array]:
        return (_unshuffled(dy, factors),)

    return _shuffled(x, factors), pullback


@differentiable
def pixel_unshuffle(x: Array, /, *, factor: int | Sequence[int]) -> tuple[Array, Pullback]:
    """Make each patch of pixels a group of channels: the inverse of :func:`pixel_shuffle`.

    ``y[n, (c, k), p] = x[n, c, p·r + k]`` in each dimension, with ``r = factor``

    Args:
        x: images ``(N, C, *spatial)``.
        factor: the patch in pixels, an int or one per spatial dimension.

    Returns:
        ``y (N, C·∏factor, *(spatial/factor))``, in channels-last memory; the pullback is
        :func:`pixel_shuffle`.

    Raises:
        ValueError: a size that is no multiple of the factor.
        TypeError: integer images.

    The order is that of ``torch.nn.functional.pixel_unshuffle``, in any rank.

    >>> import numpy as np
    >>> pixel_unshuffle(np.asarray([[[1.0, 3.0, 2.0, 4.0]]]), factor=2)
    array([[[1., 2.],
            [3., 4.]]])
    """
    factors = unshuffle_factors(check_image(x), factor)

    def pullback(dy: Array) -> tuple[Array]:
        return (_shuffled(dy, factors),)

    return _unshuffled(x, factors), pullback


def shuffle_factors(shape: Shape, factor: int | Sequence[int]) -> Shape:
    """The patch that :func:`pixel_shuffle` makes of channels, in pixels per dimension."""
    factors = per_dimension("factor", factor, len(shape) - 2, least=1)
    patch = math.prod(factors)
    if shape[1] % patch:
        raise InvalidValue(
            f"x {shape} has {shape[1]} channels, expected a multiple of the {patch} pixels of "
            f"factor {factors}"
        )
    return factors


def unshuffle_factors(shape: Shape, factor: int | Sequence[int]) -> Shape:
    """The patch that :func:`pixel_unshuffle` makes channels of, in pixels per dimension."""
    factors = per_dimension("factor", factor, len(shape) - 2, least=1)
    if any(n % r for n, r in zip(shape[2:], factors, strict=True)):
        raise InvalidValue(f"x {shape} has a size that is no multiple of factor {factors}")
    return factors


def _shuffled(x: Array, factors: Shape) -> Array:
    xp, rank = _array.array_namespace(x), len(factors)
    n, channels, *size = x.shape
    c = channels // math.prod(factors)
    split = xp.reshape(channels_last(x), (n, *size, c, *factors))
    pairs = (axis for d in range(rank) for axis in (1 + d, 2 + rank + d))  # each size, its factor
    patches = xp.permute_dims(split, (0, *pairs, 1 + rank))
    larger = (m * r for m, r in zip(size, factors, strict=True))
    return channels_first(xp.reshape(patches, (n, *larger, c)))


def _unshuffled(x: Array, factors: Shape) -> Array:
    xp, rank = _array.array_namespace(x), len(factors)
    n, c, *size = x.shape
    smaller = [m // r for m, r in zip(size, factors, strict=True)]
    pairs = (m for pair in zip(smaller, factors, strict=True) for m in pair)
    patches = xp.reshape(channels_last(x), (n, *pairs, c))
    sizes, within = range(1, 1 + 2 * rank, 2), range(2, 2 + 2 * rank, 2)
    split = xp.permute_dims(patches, (0, *sizes, 1 + 2 * rank, *within))
    return channels_first(xp.reshape(split, (n, *smaller, c * math.prod(factors))))
