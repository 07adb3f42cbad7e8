"""Pooling: a summary of each window, channel by channel.

The derivative of a mean is the same share for every pixel of the window; the derivative
of a maximum is the indicator of the pixel that was it, and of no other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from devconv import _array, _fast
from devconv._array import Array
from devconv._check import InvalidValue, Shape, flag, integer, per_dimension
from devconv.functional import grid
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.separable import outer
from devconv.functional.windows import (
    Tile,
    Windows,
    assemble,
    channels_first,
    channels_last,
    checked_plan,
    cut,
    put,
    spread,
    tap,
)

Size = int | Sequence[int]
Padding = int | Sequence[int | tuple[int, int]]


@differentiable
def max_pool(
    x: Array,
    /,
    *,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Any, Pullback]:
    """Take the largest pixel of each window.

    ``y[n, c, p] = max over k of x[n, c, p·stride + k·dilation - before]``

    Args:
        x: images ``(N, C, *spatial)``.
        kernel_size: the window in pixels, an int or one per spatial dimension.
        stride: pixels between windows; ``None`` means ``kernel_size``.
        padding: pixels around the image that no window ever chooses: an int, one int or
            ``(before, after)`` pair per dimension; at most half the window's extent.
        dilation: pixels between the taps of a window.
        ceil_mode: round the number of windows up, as long as each starts inside the image
            or the padding before it.
        return_indices: also return where each maximum was, as indices into the flattened
            spatial dimensions.

    Returns:
        ``y (N, C, *out)``, or ``(y, indices)``. The pullback takes ``dy`` alone and sends
        it to the **first** maximum of each window; NaN wins over every number and goes on.

    Raises:
        ValueError: an empty output, options out of range.
        TypeError: integer images.

    Options and rounding follow ``torch.nn.functional.max_pool2d``, which differs in one
    point: of several NaN in a window it reports the last one's index, here it is the first.

    >>> import numpy as np
    >>> x = np.asarray([[[1.0, 3.0, 3.0, 2.0]]])
    >>> y, pullback = max_pool.vjp(x, kernel_size=2)
    >>> y, pullback(np.asarray([[[10.0, 20.0]]]))
    (array([[[3., 3.]]]), (array([[[ 0., 10., 20.,  0.]]]),))
    """
    w = pool_windows(check_image(x), kernel_size, stride, padding, dilation, ceil_mode)
    return_indices = flag("return_indices", return_indices)
    xp, pixels = _array.array_namespace(x), channels_last(x)
    budget = _bytes_per_window(x)

    def largest(slab: Array, w: Windows) -> Array:
        if grid.suits(slab, w):
            return xp.max(grid.windows(slab, w), axis=grid.taps(w))
        return functools.reduce(xp.maximum, (tap(slab, w, offset) for offset in w.offsets()))

    route = _fast.pooling("largest", pixels, w)
    if route is not None:
        y = route(pixels, w)
    else:
        y = assemble(
            largest, pixels, w, channels=x.shape[1], bytes_per_window=budget, fill=-math.inf
        )

    def pullback(dy: Array) -> tuple[Array, ...]:
        route = _fast.pooling("largest_back", pixels, w)
        if route is not None:
            return (channels_first(route(channels_last(dy), pixels, y, w)),)
        dy = _array.widen(channels_last(dy))  # windows overlap: their shares add up

        def body(tile: Tile) -> Array:
            here, best, share, w = pixels[tile.of_x], y[tile.of_y], dy[tile.of_y], tile.windows
            if grid.suits(here, w):
                return grid.put_back(_shares(here, best, share, w), w)
            return put(_to_the_first(_maxima(here, best, w, w.offsets()), share), w, share)

        dx = spread(body, tuple(pixels.shape), w, bytes_per_window=budget, like=dy)
        return (channels_first(dx),)

    if return_indices:
        return (channels_first(y), channels_first(_indices(pixels, y, w))), pullback
    return channels_first(y), pullback


def _maxima(pixels: Array, best: Array, w: Windows, offsets: Iterable[Shape]) -> Iterator[Array]:
    """Per tap, in which windows it is the maximum ``best`` (booleans): a NaN is, padding never."""
    slab, nan = cut(pixels, w, math.nan), cut(pixels != pixels, w)
    for offset in offsets:
        yield (tap(slab, w, offset) == best) | tap(nan, w, offset)


def _to_the_first(hits: Iterable[Array], dy: Array) -> Iterator[Array]:
    """Per tap, ``dy`` where it is the first hit of its window, else 0."""
    xp = _array.array_namespace(dy)
    nothing, free = xp.zeros_like(dy), None
    for hit in hits:
        first = hit if free is None else hit & free
        yield xp.where(first, dy, nothing)
        free = ~first if free is None else free ^ first  # the first is one of the free


def _shares(pixels: Array, best: Array, dy: Array, w: Windows) -> Array:
    """All that :func:`_to_the_first` gives, in the order of :func:`grid.windows`."""
    xp = _array.array_namespace(dy)
    dtype = xp.int8 if w.taps < 128 else _array.index_dtype(dy)  # few bytes for each tap
    hits = grid.windows(cut(pixels, w, math.nan), w) == grid.per_window(best)
    hits = hits | grid.windows(cut(pixels != pixels, w), w)
    places = grid.per_tap(xp.arange(w.taps, dtype=dtype, device=_array.device(dy)), w)
    first = xp.min(xp.where(hits, places, w.taps), axis=grid.taps(w), keepdims=True)
    return xp.where(places == first, grid.per_window(dy), 0.0)


def _indices(pixels: Array, y: Array, w: Windows) -> Array:
    """Where each maximum was: ``(N, *out, C)`` indices into the flattened image."""
    xp, device = _array.array_namespace(pixels), _array.device(pixels)
    dtype = _array.index_dtype(pixels)
    steps = [math.prod(w.size[d + 1 :]) for d in range(len(w.size))]
    start = xp.zeros((1,) * (len(w.out) + 2), dtype=dtype, device=device)
    for d, (count, stride, (before, _)) in enumerate(zip(w.out, w.stride, w.padding, strict=True)):
        shape = tuple(count if axis == d + 1 else 1 for axis in range(len(w.out) + 2))
        along = xp.reshape(xp.arange(count, dtype=dtype, device=device), shape)
        start = start + (along * stride - before) * steps[d]
    found = xp.zeros(y.shape, dtype=dtype, device=device)
    backwards = tuple(w.offsets())[::-1]  # the first hit has the last word
    for offset, hit in zip(backwards, _maxima(pixels, y, w, backwards), strict=True):
        ahead = sum(k * d * s for k, d, s in zip(offset, w.dilation, steps, strict=True))
        found = xp.where(hit, start + ahead, found)
    return found


@differentiable
def avg_pool(
    x: Array,
    /,
    *,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> tuple[Array, Pullback]:
    """Take the mean of each window.

    ``y[n, c, p] = sum over k of x[n, c, p·stride + k·dilation - before] / divisor[p]``

    Args:
        x: images ``(N, C, *spatial)``.
        kernel_size: the window in pixels, an int or one per spatial dimension.
        stride: pixels between windows; ``None`` means ``kernel_size``.
        padding: zeros around the image: an int, one int or ``(before, after)`` pair per
            dimension; at most half the window's extent.
        dilation: pixels between the taps of a window.
        ceil_mode: round the number of windows up, as in :func:`max_pool`.
        count_include_pad: whether padding counts in the divisor. What ``ceil_mode`` lets a
            window read beyond the padding never counts.
        divisor_override: divide by this instead.

    Returns:
        ``y (N, C, *out)``; the pullback gives every pixel of a window the same share of
        ``dy``.

    Raises:
        ValueError: an empty output, options out of range.
        TypeError: integer images.

    Options, rounding and divisors follow ``torch.nn.functional.avg_pool2d``, which has no
    ``dilation``; ONNX and Keras count padding differently.

    >>> import numpy as np
    >>> y, pullback = avg_pool.vjp(np.asarray([[[1.0, 3.0, 5.0, 6.0]]]), kernel_size=2)
    >>> y, pullback(np.asarray([[[1.0, 2.0]]]))
    (array([[[2. , 5.5]]]), (array([[[0.5, 0.5, 1. , 1. ]]]),))
    """
    w = pool_windows(check_image(x), kernel_size, stride, padding, dilation, ceil_mode)
    pixels, budget = channels_last(x), _bytes_per_window(x)
    divisor = _divisors(w, count_include_pad, divisor_override, like=x)

    def total(slab: Array, w: Windows) -> Array:
        slab = _array.widen(slab)
        if grid.suits(slab, w):
            return _array.array_namespace(slab).sum(grid.windows(slab, w), axis=grid.taps(w))
        return functools.reduce(lambda a, b: a + b, (tap(slab, w, o) for o in w.offsets()))

    route = _fast.pooling("total", pixels, w)
    if route is not None:
        sums = route(pixels, w)
    else:
        sums = assemble(
            total,
            pixels,
            w,
            channels=x.shape[1],
            bytes_per_window=budget,
            dtype=_array.wide_dtype(x),
        )
    y = _array.cast(sums / divisor, x.dtype)

    def pullback(dy: Array) -> tuple[Array, ...]:
        shares = _array.widen(channels_last(dy)) / divisor
        route = _fast.pooling("total_back", shares, w)
        if route is not None:
            return (channels_first(route(shares, w)),)

        def body(tile: Tile) -> Array:
            share, w = shares[tile.of_y], tile.windows
            if grid.are_apart(w) and not _array.is_readable(share):  # a device: one launch
                return grid.put_back(grid.repeated(share, w), w)
            return put((share for _ in range(w.taps)), w, share)

        dx = spread(body, tuple(pixels.shape), w, bytes_per_window=budget, like=shares)
        return (channels_first(dx),)

    return channels_first(y), pullback


def check_divisor(include_pad: bool, override: int | None) -> None:
    """Refuse a divisor that is no int, or 0, and anything but a yes or no for the padding."""
    flag("count_include_pad", include_pad)
    if override is not None and integer("divisor_override", override, least=-(2**31)) == 0:
        raise InvalidValue("divisor_override must not be 0")


def _divisors(w: Windows, include_pad: bool, override: int | None, like: Array) -> Any:
    """What each window's sum is divided by: a number, or an array ``(*out, 1)``."""
    check_divisor(include_pad, override)
    if override is not None:
        return float(override)
    if include_pad and all(
        reach <= before + n + after
        for reach, n, (before, after) in zip(w.reach, w.size, w.padding, strict=True)
    ):
        return float(w.taps)
    counts = []
    for d in range(len(w.out)):
        (before, after), n = w.padding[d], w.size[d]
        low, high = (-before, n + after) if include_pad else (0, n)
        taps = range(0, w.kernel[d] * w.dilation[d], w.dilation[d])
        starts = [o * w.stride[d] - before for o in range(w.out[d])]
        counts.append([sum(low <= start + tap < high for tap in taps) or 1 for start in starts])
    return outer(counts, dtype=_array.wide_dtype(like), like=like)


@differentiable
def global_avg_pool(x: Array, /) -> tuple[Array, Pullback]:
    """Take the mean of each channel over all of its pixels.

    ``y[n, c] = mean over p of x[n, c, p]``

    Args:
        x: images ``(N, C, *spatial)``.

    Returns:
        ``y (N, C)``; the pullback gives every pixel ``dy / pixels``. PyTorch's
        ``adaptive_avg_pool2d(x, 1)`` keeps spatial dimensions of size 1; this does not.

    Raises:
        ValueError: fewer than three dimensions, no pixels.

    Source: M. Lin, Q. Chen and S. Yan, "Network in network", arXiv:1312.4400.

    >>> import numpy as np
    >>> global_avg_pool(np.asarray([[[1.0, 3.0], [5.0, 6.0]]]))
    array([[2. , 5.5]])
    """
    xp, shape = _array.array_namespace(x), check_image(x)
    axes, pixels = tuple(range(2, x.ndim)), math.prod(shape[2:])
    y = xp.sum(_array.widen(x), axis=axes) / pixels

    def pullback(dy: Array) -> tuple[Array, ...]:
        share = xp.reshape(_array.widen(dy) / pixels, (*shape[:2], *(1,) * len(axes)))
        return (xp.broadcast_to(share, shape),)

    return _array.cast(y, x.dtype), pullback


@differentiable
def global_max_pool(x: Array, /) -> tuple[Array, Pullback]:
    """Take the largest pixel of each channel.

    ``y[n, c] = max over p of x[n, c, p]``

    Args:
        x: images ``(N, C, *spatial)``.

    Returns:
        ``y (N, C)``; the pullback sends ``dy`` to the first maximum of each channel. NaN
        wins over every number.

    Raises:
        ValueError: fewer than three dimensions, no pixels.

    Source: M. Oquab et al., "Is object localization for free?", CVPR 2015.

    >>> import numpy as np
    >>> y, pullback = global_max_pool.vjp(np.asarray([[[1.0, 3.0, 3.0]]]))
    >>> y, pullback(np.asarray([[2.0]]))
    (array([[3.]]), (array([[[0., 2., 0.]]]),))
    """
    xp, shape = _array.array_namespace(x), check_image(x)
    flat = xp.reshape(x, (*shape[:2], math.prod(shape[2:])))
    y = xp.max(flat, axis=-1)

    def pullback(dy: Array) -> tuple[Array, ...]:
        hit = (flat == y[..., None]) | (flat != flat)
        places = xp.arange(flat.shape[-1], dtype=_array.index_dtype(x), device=_array.device(x))
        first = xp.min(xp.where(hit, places, flat.shape[-1]), axis=-1)
        chosen = places == first[..., None]
        dy = dy[..., None]
        return (xp.reshape(xp.where(chosen, dy, xp.zeros_like(dy)), shape),)

    return y, pullback


def pool_windows(
    shape: Shape,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Windows:
    """The windows of a pooling over images of ``shape`` (N, C, *spatial), options checked."""
    kernel: Shape = per_dimension("kernel_size", kernel_size, len(shape) - 2, least=1)
    if isinstance(padding, str):
        raise InvalidValue(
            f"padding must be an int, ints or (before, after) pairs for pooling, got {padding!r}"
        )
    w = checked_plan(
        shape,
        kernel,
        stride=kernel if stride is None else stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    for d, pair in enumerate(w.padding):
        extent = w.dilation[d] * (kernel[d] - 1) + 1
        if max(pair) > extent // 2:
            raise InvalidValue(
                f"padding {pair} is more than half of the {extent} pixels that kernel "
                f"{kernel} spans in dimension {d}; a window would see no pixel"
            )
    return w


def _bytes_per_window(x: Array) -> int:
    """A pooled window's share of the workspace: a few values per channel."""
    return 32 * x.shape[1]
