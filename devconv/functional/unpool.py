"""The way back of max pooling as an operation: each value to the pixel it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import (
    InvalidType,
    InvalidValue,
    Shape,
    pairs_per_dimension,
    per_dimension,
)
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable

Size = int | Sequence[int]
Padding = int | Sequence[int | tuple[int, int]]


@differentiable(integers=("indices",))
def max_unpool(
    x: Array,
    indices: Array,
    /,
    *,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    output_size: Sequence[int] | None = None,
) -> tuple[Array, Pullback]:
    """Put each value where an index says, on an image of zeros.

    ``y[n, c, indices[n, c, p]] = x[n, c, p]``, with the image flattened

    Args:
        x: values ``(N, C, *spatial)``.
        indices: integers of that shape into the flattened spatial dimensions of ``y``, as
            ``max_pool(..., return_indices=True)`` gives them.
        kernel_size: the window of the pooling in pixels, an int or one per spatial dimension.
        stride: pixels between windows; ``None`` means ``kernel_size``.
        padding: pixels that were around the image: an int, one int or ``(before, after)``
            pair per dimension.
        output_size: the size of ``y``, alone or behind batch and channels; less than a stride
            away from ``(n - 1)·stride - before - after + kernel``, which ``None`` means.

    Returns:
        ``y (N, C, *output_size)``; the pullback gives ``(dx, None)``. Of several values with
        one index the **last** in C order stays, and it alone gets a gradient.

    Raises:
        ValueError: shapes that differ, an ``output_size`` out of range, and an index out of
            range where reading indices costs nothing; on a device such an index is never
            followed and its whole channel becomes NaN.
        TypeError: indices that are no integers.

    As ``torch.nn.functional.max_unpool2d``, which leaves open which of several values stays
    and hands each of them the gradient.

    >>> import numpy as np
    >>> x, indices = np.asarray([[[5.0, 7.0]]]), np.asarray([[[1, 2]]])
    >>> y, pullback = max_unpool.vjp(x, indices, kernel_size=2)
    >>> y, pullback(np.asarray([[[1.0, 2.0, 3.0, 4.0]]]))
    (array([[[0., 5., 7., 0.]]]), (array([[[2., 3.]]]), None))
    """
    xp, shape = _array.array_namespace(x), check_image(x)
    size = unpooled_size(shape, kernel_size, stride, padding, output_size)
    pixels = math.prod(size)
    _check_indices(indices, shape, size)
    planes, values = math.prod(shape[:2]), math.prod(shape[2:])
    dtype, device = _array.index_dtype(x), _array.device(x)

    # All planes behind one another: one number names a pixel of the whole batch.
    index = xp.reshape(_array.cast(indices, dtype), (planes, values))
    sound = (index >= 0) & (index < pixels)
    first = xp.reshape(xp.arange(planes, dtype=dtype, device=device) * pixels, (planes, 1))
    place = xp.reshape(xp.where(sound, first + index, planes * pixels), (planes * values,))

    # Each pixel's writer is the last value whose place is not beyond it, if that is its place.
    order = xp.argsort(place, stable=True)
    pixel = xp.arange(planes * pixels, dtype=dtype, device=device)
    before = xp.searchsorted(xp.take(place, order, axis=0), pixel, side="right")
    writer = xp.take(order, xp.where(before > 0, before - 1, 0), axis=0)
    written = xp.take(place, writer, axis=0) == pixel

    y = xp.take(xp.reshape(x, (planes * values,)), writer, axis=0)
    y = xp.reshape(xp.where(written, y, xp.zeros_like(y)), (planes, pixels))
    y = xp.where(xp.all(sound, axis=1, keepdims=True), y, xp.full_like(y, math.nan))

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        there = xp.where(place < planes * pixels, place, 0)
        number = xp.arange(planes * values, dtype=dtype, device=device)
        stays = (xp.take(writer, there, axis=0) == number) & (place < planes * pixels)
        dx = xp.take(xp.reshape(dy, (planes * pixels,)), there, axis=0)
        return xp.reshape(xp.where(stays, dx, xp.zeros_like(dx)), shape), None

    return _array.cast(xp.reshape(y, (*shape[:2], *size)), x.dtype), pullback


def unpooled_size(
    shape: Shape, kernel_size: Any, stride: Any, padding: Any, output_size: Any = None
) -> Shape:
    """The pixels that unpooling makes of values of ``shape`` (N, C, *spatial)."""
    rank = len(shape) - 2
    kernel = per_dimension("kernel_size", kernel_size, rank, least=1)
    steps = kernel if stride is None else per_dimension("stride", stride, rank, least=1)
    pairs = pairs_per_dimension("padding", padding, rank)
    natural = tuple(
        (n - 1) * s - sum(pair) + k
        for n, s, pair, k in zip(shape[2:], steps, pairs, kernel, strict=True)
    )
    if output_size is None:
        size = natural
    else:
        if isinstance(output_size, Sequence) and len(output_size) == len(shape):
            output_size = output_size[2:]
        size = per_dimension("output_size", output_size, rank, least=1)
        if any(abs(m - n) >= s for m, n, s in zip(size, natural, steps, strict=True)):
            raise InvalidValue(
                f"output_size {size} must be less than the stride {steps} away from {natural}, "
                f"which x {shape} comes from without rounding"
            )
    if min(size) < 1:
        raise InvalidValue(
            f"the output would be empty: x {shape} with kernel {kernel}, stride {steps} and "
            f"padding {pairs} makes {size} pixels; use less padding"
        )
    return size


def _check_indices(indices: Array, shape: Shape, size: Shape) -> None:
    if not _array.is_integer(indices):
        raise InvalidType(
            f"indices {tuple(indices.shape)} must be integers, got "
            f"{_array.dtype_name(indices.dtype)}; max_pool(..., return_indices=True) gives them"
        )
    if tuple(indices.shape) != shape:
        raise InvalidValue(
            f"indices have shape {tuple(indices.shape)}, expected that of x, {shape}"
        )
    if _array.is_readable(indices):
        xp, pixels = _array.array_namespace(indices), math.prod(size)
        index = _array.cast(indices, _array.index_dtype(indices))
        if not bool(xp.all((index >= 0) & (index < pixels))):
            raise InvalidValue(
                f"indices must be from 0 to {pixels - 1}, places in an image of {size} pixels; "
                "give the output_size of the image that was pooled"
            )
