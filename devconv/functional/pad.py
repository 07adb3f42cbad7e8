"""Padding: a surround for the image, and the share of ``dy`` that each pixel gets back."""

from __future__ import annotations

from collections.abc import Sequence

from array_api_extra import at

from devconv import _array
from devconv._array import Array
from devconv._check import choice, number, pairs_per_dimension
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable

MODES = ("constant",)


@differentiable
def pad(
    x: Array,
    /,
    *,
    padding: int | Sequence[int | tuple[int, int]],
    mode: str = "constant",
    value: float = 0.0,
) -> tuple[Array, Pullback]:
    """Surround each image with pixels.

    ``y[n, c, p] = x[n, c, p - before]`` inside the image, ``value`` outside.

    Args:
        x: images ``(N, C, *spatial)``.
        padding: pixels to add: one ``(before, after)`` pair per spatial dimension, first
            dimension first (``torch.nn.functional.pad`` lists them last dimension first).
        mode: ``"constant"``.
        value: the constant.

    Returns:
        ``y (N, C, *padded)`` in the memory order of ``x``; the pullback cuts the image out
        of ``dy``.

    Raises:
        ValueError: negative padding, another mode.
        TypeError: integer images.

    >>> import numpy as np
    >>> pad(np.ones((1, 1, 2)), padding=[(1, 2)])
    array([[[0., 1., 1., 0., 0.]]])
    """
    xp, shape = _array.array_namespace(x), check_image(x)
    choice("mode", mode, MODES)
    fill = number("value", value)
    pairs = pairs_per_dimension("padding", padding, len(shape) - 2)
    sizes = [n + before + after for n, (before, after) in zip(shape[2:], pairs, strict=True)]
    inside = (
        slice(None),
        slice(None),
        *(slice(b, b + n) for n, (b, _) in zip(shape[2:], pairs, strict=True)),
    )
    blank = xp.full((*shape[:2], *sizes), fill, dtype=x.dtype, device=_array.device(x))
    y = at(blank)[inside].set(x)

    def pullback(dy: Array) -> tuple[Array]:
        return (dy[inside],)

    return y, pullback
