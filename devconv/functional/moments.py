"""Mean and variance over some axes, and numbers normalised by them.

All kinds of normalisation are this one function of ``x``, ``weight`` and ``bias``.
"""

from __future__ import annotations

import math
from typing import Any

from devconv import _array, _fast
from devconv._array import Array
from devconv.functional.operation import Pullback
from devconv.functional.special import at_least
from devconv.functional.windows import channels_first, channels_last

Axes = tuple[int, ...]
Moments = tuple[Array | None, Array]
"""Mean (``None`` where it is taken to be 0) and variance around it, dimensions kept."""


def normalized(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    *,
    axes: Axes,
    shared: Axes,
    eps: float,
    groups: int | None = None,
    centred: bool = True,
    moments: Moments | None = None,
) -> tuple[Array, Moments, Pullback]:
    """``y = (x - mean) · rate · weight + bias`` with ``rate = 1 / sqrt(var + eps)``.

    Mean and variance run over ``axes``, and over all channels (axis 1) of one of ``groups``;
    given as ``moments`` they are constants. One entry of ``weight`` and ``bias`` serves all
    of the axes ``shared``. The sums of the way back first run over the axes that ``axes``
    and ``shared`` have in common: what is left is small, and dx, dweight and dbias need it.
    """
    if axes == shared and centred and groups is None:
        route = _fast.rows("channel_norm", channels_last(x))
        if route is not None:
            return _channel_by_channel(route, x, weight, bias, eps, moments)
    xp, wide = _array.array_namespace(x), _array.widen(x)
    w = None if weight is None else spread(weight, x, shared)
    b = None if bias is None else spread(bias, x, shared)
    common = axes if w is None and b is None else tuple(a for a in axes if a in shared)
    left = tuple(a for a in axes if a not in common)
    others = tuple(a for a in shared if a not in common)
    count = math.prod([x.shape[a] for a in axes]) * (x.shape[1] // groups if groups else 1)

    def average(v: Array) -> Array:
        sums = _total(v, axes)
        return (_over_groups(sums, groups) if groups else sums) / count

    def average_back(sums: Array, share: Any) -> Array:
        return _over_groups(sums * share, groups) if groups else _total(sums, left) * share

    if moments is None:
        mean = average(wide) if centred else None
        base, offset = wide if mean is None else wide - _rows(mean, wide), b
        var = average(base * base)
    else:
        mean, var = moments
    square, least = var + eps, float(xp.finfo(var.dtype).smallest_normal)
    if moments is not None or eps < least:
        square = at_least(square, least)  # a constant becomes 0, not 0/0
    rate = 1.0 / xp.sqrt(square)
    gain = rate if w is None or not common else rate * w  # as small as the sums
    if moments is not None:  # of constants: x · gain + offset
        base, offset = wide, mean * -gain if b is None else b - mean * gain
    y = base * _rows(gain, wide)
    if w is not None and not common:
        y *= w
    if offset is not None:
        y += _rows(offset, wide)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dy, wide = _array.widen(dy), _array.widen(x)
        deviation = wide if mean is None else wide - _rows(mean, wide)
        level = _total(dy, common)
        flow = _total(dy * deviation, common)
        flow *= rate
        dweight = None if weight is None else xp.reshape(_total(flow, others), weight.shape)
        dbias = None if bias is None else xp.reshape(_total(level, others), bias.shape)
        dx = dy * _rows(gain, wide)
        if w is not None and not common:
            dx *= w
            flow = flow * w
        if moments is not None:
            return dx, dweight, dbias
        share = gain / count
        if mean is not None:
            lift = average_back(level, share) if common else average_back(dx, 1.0 / count)
            dx -= _rows(lift, wide)
        dx -= deviation * _rows(average_back(flow, share) * rate, wide)
        return dx, dweight, dbias

    return _array.cast(y, x.dtype), (mean, var), pullback


def _channel_by_channel(
    route: Any,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    moments: Moments | None,
) -> tuple[Array, Moments, Pullback]:
    """What :func:`normalized` says where each channel is normalised by itself, by a route."""
    xp, shape = _array.array_namespace(x), (1, x.shape[1], *(1,) * (x.ndim - 2))
    given = None if moments is None else tuple(xp.reshape(v, x.shape[1:2]) for v in moments)
    y, (mean, var), back = route(channels_last(x), weight, bias, eps, given)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dx, dweight, dbias = back(channels_last(dy))
        return channels_first(dx), dweight, dbias

    return channels_first(y), (xp.reshape(mean, shape), xp.reshape(var, shape)), pullback


def spread(v: Array, x: Array, shared: Axes) -> Array:
    """One entry of ``v`` for each place of ``x`` that the ``shared`` axes do not tell apart."""
    shape = tuple(1 if axis in shared else n for axis, n in enumerate(x.shape))
    return _array.array_namespace(x).reshape(_array.widen(v), shape)


def _total(x: Array, axes: Axes) -> Array:
    """The sum over some axes, which stay with size 1, one axis after the other.

    Whole images, then whole rows of pixels are added to each other: long runs in
    channels-last memory, and short sums, which round less than one sum over everything.
    """
    xp, images = _array.array_namespace(x), int(axes[:1] == (0,))
    short = 1024 if _has_many_channels(x) else 256 if images else 0
    steps: list[Axes] = [axes[:images], *((axis,) for axis in axes[images:])]
    if x.ndim > 3 and math.prod([x.shape[a] for a in axes[images:]]) <= short:  # all at once
        steps = [axes[:images], axes[images:]]
    for some in steps:
        x = xp.sum(x, axis=some, keepdims=True) if some else x
    return x


def _over_groups(sums: Array, groups: int) -> Array:
    """Each channel of ``sums`` (N, C, ...) replaced by the sum over its group."""
    xp = _array.array_namespace(sums)
    n, c, *rest = sums.shape
    parts = xp.reshape(sums, (n, groups, c // groups, *rest))
    whole = xp.sum(parts, axis=2, keepdims=True)
    return xp.reshape(xp.broadcast_to(whole, parts.shape), sums.shape)


def _rows(v: Array, x: Array) -> Array:
    """Numbers per channel, ``v (..., C, 1, ..., 1)``, repeated along the rows of images ``x``.

    In the memory order of ``x``: where that is channels-last, a row of pixels then meets
    one run of numbers, not a short one for each pixel. A device asks for no runs.
    """
    per_channel = x.ndim > 3 and v.shape[1:] == (x.shape[1], *(1,) * (x.ndim - 2))
    if not per_channel or _has_many_channels(x) or not _array.is_readable(x):
        return v
    n = min(v.shape[0], x.shape[0])
    row = x[:n, :, *(slice(0, 1) for _ in range(x.ndim - 3)), :]
    return v + _array.array_namespace(x).zeros_like(row)


def _has_many_channels(x: Array) -> bool:
    """Whether the channels of a single pixel are a long run already."""
    return x.ndim > 3 and x.shape[1] >= 256
