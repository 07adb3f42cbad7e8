"""Windows as columns, and columns back to an image: the two halves of every convolution.

``unfold`` takes windows and lays each one out as a column; ``fold`` is its adjoint and adds
each entry of a column where it had been read. Either one's pullback is the other.
"""

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
from devconv.functional.windows import (
    Tile,
    Windows,
    channels_first,
    channels_last,
    checked_plan,
    cut,
    put_back,
    spread,
    take,
)

Size = int | Sequence[int]
Padding = int | Sequence[int | tuple[int, int]]


@differentiable
def unfold(
    x: Array,
    /,
    *,
    kernel_size: Size,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
) -> tuple[Array, Pullback]:
    """Lay out each window as a column.

    ``y[n, (c, k), p] = x[n, c, p·stride + k·dilation - before]``, with ``(c, k)`` and ``p``
    counted in C order

    Args:
        x: images ``(N, C, *spatial)``.
        kernel_size: the window in pixels, an int or one per spatial dimension.
        stride: pixels between windows.
        padding: zeros around the image: an int, one int or ``(before, after)`` pair per
            dimension.
        dilation: pixels between the taps of a window.

    Returns:
        ``y (N, C·∏kernel, L)`` with ``L`` windows; the pullback is :func:`fold`.

    Raises:
        ValueError: an empty output, options out of range.
        TypeError: integer images.

    Order and options are those of ``torch.nn.functional.unfold``, in any rank.

    >>> import numpy as np
    >>> unfold(np.asarray([[[1.0, 2.0, 3.0]]]), kernel_size=2)
    array([[[1., 2.],
            [2., 3.]]])
    """
    shape = check_image(x)
    w = unfold_windows(shape[2:], kernel_size, stride, padding, dilation)

    def pullback(dcols: Array) -> tuple[Array]:
        return (_image(dcols, w),)

    return _columns(x, w), pullback


@differentiable
def fold(
    cols: Array,
    /,
    *,
    output_size: Sequence[int],
    kernel_size: Size,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
) -> tuple[Array, Pullback]:
    """Add up columns where :func:`unfold` would have read them.

    ``y[n, c, q] = sum of cols[n, (c, k), p]`` over all ``k`` and ``p`` with ``p·stride +
    k·dilation - before = q``

    Args:
        cols: ``(N, C·∏kernel, L)``, one column per window.
        output_size: pixels of the image per spatial dimension; its length is their number.
        kernel_size: the window in pixels, an int or one per spatial dimension.
        stride: pixels between windows.
        padding: zeros that were around the image: an int, one int or ``(before, after)``
            pair per dimension.
        dilation: pixels between the taps of a window.

    Returns:
        ``y (N, C, *output_size)``, in channels-last memory; the pullback is :func:`unfold`.
        Where windows overlap their entries add up, so this is the adjoint of ``unfold`` and
        not its inverse.

    Raises:
        ValueError: rows that are no multiple of the window, another number of windows,
            options out of range.
        TypeError: integer columns, an ``output_size`` that is no sequence.

    As ``torch.nn.functional.fold``, in any rank; there an int for ``output_size`` means two
    equal dimensions, here the dimensions are written out.

    >>> import numpy as np
    >>> fold(np.asarray([[[1.0, 2.0], [2.0, 3.0]]]), output_size=(3,), kernel_size=2)
    array([[[1., 4., 3.]]])
    """
    w = folded_windows(
        tuple(cols.shape),
        output_size,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )

    def pullback(dy: Array) -> tuple[Array]:
        return (_columns(dy, w),)

    return _image(cols, w), pullback


def _columns(x: Array, w: Windows) -> Array:
    """Windows of ``x (N, C, *size)`` as ``(N, C·taps, L)``."""
    xp, rank = _array.array_namespace(x), len(w.out)
    n, c, *_ = x.shape
    windows = take(cut(channels_last(x), w), w)  # (N, *out, *kernel, C)
    out, kernel = range(1, 1 + rank), range(1 + rank, 1 + 2 * rank)
    ordered = xp.permute_dims(windows, (0, 1 + 2 * rank, *kernel, *out))
    return xp.reshape(ordered, (n, c * w.taps, math.prod(w.out)))


def _image(cols: Array, w: Windows) -> Array:
    """Columns ``(N, C·taps, L)`` added up to ``(N, C, *size)``: the adjoint of windows."""
    xp = _array.array_namespace(cols)
    n, rows, _ = cols.shape
    c = rows // w.taps
    shares = xp.reshape(_array.widen(cols), (n, c, w.taps, *w.out))

    def body(tile: Tile) -> Array:
        part = shares[(tile.images, slice(None), slice(None), *tile.box)]
        order = (0, *range(3, part.ndim), 2, 1)
        return put_back(xp.permute_dims(part, order), tile.windows)  # (N, *out, taps, C)

    shape = (n, *w.size, c)
    image = spread(body, shape, w, bytes_per_window=4 * rows, like=shares)
    return _array.cast(channels_first(image), cols.dtype)


def unfold_windows(
    size: Shape, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Windows:
    """The windows over images of ``size`` pixels, options checked."""
    rank = len(size)
    return checked_plan(
        (0, 0, *size),
        per_dimension("kernel_size", kernel_size, rank, least=1),
        stride=stride,
        padding=pairs_per_dimension("padding", padding, rank),
        dilation=dilation,
    )


def folded_windows(shape: Shape, output_size: Any, **options: Any) -> Windows:
    """The windows over ``output_size`` pixels that columns of ``shape`` hold."""
    if len(shape) != 3:
        raise InvalidValue(f"cols must have shape (N, C * taps, L), got {shape}")
    w = output_windows(output_size, **options)
    if shape[1] == 0 or shape[1] % w.taps:
        raise InvalidValue(
            f"cols {shape} has {shape[1]} rows, expected a multiple of the {w.taps} pixels of "
            f"kernel {w.kernel}"
        )
    if shape[2] != math.prod(w.out):
        raise InvalidValue(
            f"cols {shape} has {shape[2]} columns, expected {math.prod(w.out)}: one for each of "
            f"the {w.out} windows over output_size {w.size}"
        )
    return w


def output_windows(output_size: Any, **options: Any) -> Windows:
    """The windows over images of ``output_size`` pixels, options checked."""
    if not isinstance(output_size, Sequence) or isinstance(output_size, str):
        raise InvalidType(
            f"output_size must be a sequence with one int per spatial dimension, got "
            f"{output_size!r}"
        )
    if not output_size:
        raise InvalidValue("output_size must name at least one spatial dimension, got none")
    size = per_dimension("output_size", output_size, len(output_size), least=1)
    return unfold_windows(size, **options)
