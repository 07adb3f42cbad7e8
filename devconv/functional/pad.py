"""Padding: a surround for the image, and the share of ``dy`` that each pixel gets back.

One dimension after the other: a piece of the image, as the mode sees it, goes before and
after it. The adjoint takes the dimensions in reverse, cuts those pieces off again and adds
them where they came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, Pair, Shape, choice, number, pairs_per_dimension
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.windows import channels_first, channels_last

MODES = ("constant", "reflect", "replicate", "circular")


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

    ``y[n, c, p] = x[n, c, p - before]`` inside the image. Outside, in each dimension with
    ``n`` pixels and ``q = p - before``: ``value`` (constant), pixel ``-q`` or ``2·(n - 1) - q``
    (reflect), the nearest pixel (replicate), pixel ``q mod n`` (circular).

    Args:
        x: images ``(N, C, *spatial)``.
        padding: pixels to add: an int, one int or ``(before, after)`` pair per spatial
            dimension, first dimension first (``torch.nn.functional.pad`` lists them last
            dimension first).
        mode: ``"constant"``, ``"reflect"`` (without repeating the edge; less than the size),
            ``"replicate"`` (the edge) or ``"circular"`` (the other end; at most the size).
        value: the constant.

    Returns:
        ``y (N, C, *padded)``; the pullback gives each pixel of ``x`` the sum of ``dy`` over
        all the places it is shown at.

    Raises:
        ValueError: negative padding, more than the mode allows, another mode, a ``value``
            for a mode without one.
        TypeError: integer images.

    Modes and limits are those of ``torch.nn.functional.pad``, in any rank.

    >>> import numpy as np
    >>> pad(np.ones((1, 1, 2)), padding=[(1, 2)])
    array([[[0., 1., 1., 0., 0.]]])
    >>> y, pullback = pad.vjp(np.asarray([[[1.0, 2.0, 3.0, 4.0]]]), padding=2, mode="reflect")
    >>> y, pullback(np.ones_like(y))
    (array([[[3., 2., 1., 2., 3., 4., 3., 2.]]]), (array([[[1., 3., 3., 1.]]]),))
    """
    shape = check_image(x)
    pairs = padding_pairs(shape, padding, mode)
    fill = number("value", value)
    if mode != "constant" and fill:
        raise InvalidValue(f'value={value!r} is for mode "constant"; leave it out for {mode!r}')
    y = channels_last(x)
    for axis, pair in enumerate(pairs, start=1):
        y = _surround(y, axis, pair, mode, fill)

    def pullback(dy: Array) -> tuple[Array]:
        dx = _array.widen(channels_last(dy))
        for axis, pair in reversed(list(enumerate(pairs, start=1))):
            dx = _collect(dx, axis, pair, mode)
        return (channels_first(dx),)

    return channels_first(y), pullback


def padding_pairs(shape: Shape, padding: Any, mode: Any = "constant") -> tuple[Pair, ...]:
    """The padding of images of ``shape`` (N, C, *spatial), checked against the mode."""
    choice("mode", mode, MODES)
    pairs = pairs_per_dimension("padding", padding, len(shape) - 2)
    for d, (n, pair) in enumerate(zip(shape[2:], pairs, strict=True)):
        most = {"reflect": n - 1, "circular": n}.get(mode)
        if most is not None and max(pair) > most:
            raise InvalidValue(
                f"padding {pair} is more than {mode!r} allows in dimension {d} of x {shape}: "
                f"at most {most} of {n} pixels"
            )
    return pairs


def _sources(mode: str, n: int, before: int, after: int) -> tuple[slice, slice]:
    """The pixels of a dimension that are shown before it, and after it."""
    if mode == "reflect":
        return slice(1, before + 1), slice(n - 1 - after, n - 1)
    if mode == "replicate":
        return slice(0, 1), slice(n - 1, n)
    return slice(n - before, n), slice(0, after)  # circular


def _along(axis: int, part: slice) -> Any:
    return (*(slice(None),) * axis, part, ...)


def _surround(x: Array, axis: int, pair: Pair, mode: str, fill: float) -> Array:
    """``x`` with a piece before and after it along one dimension."""
    if not any(pair):
        return x
    xp = _array.array_namespace(x)

    def piece(source: slice, count: int) -> Array:
        shape = tuple(count if d == axis else n for d, n in enumerate(x.shape))
        if mode == "constant":
            return xp.full(shape, fill, dtype=x.dtype, device=_array.device(x))
        shown = x[_along(axis, source)]
        if mode == "reflect":
            return xp.flip(shown, axis=axis)
        return xp.broadcast_to(shown, shape)  # the edge many times; circular: as it is

    before, after = _sources(mode, x.shape[axis], *pair)
    head = [piece(before, pair[0])] if pair[0] else []
    tail = [piece(after, pair[1])] if pair[1] else []
    return xp.concat([*head, x, *tail], axis=axis)


def _collect(dy: Array, axis: int, pair: Pair, mode: str) -> Array:
    """The adjoint of :func:`_surround`: pieces of ``dy`` added where they came from."""
    if not any(pair):
        return dy
    xp, (before, after) = _array.array_namespace(dy), pair
    n = dy.shape[axis] - before - after
    dx = dy[_along(axis, slice(before, before + n))]
    if mode == "constant":
        return dx
    dx = xp.asarray(dx, copy=True)
    ends = slice(0, before), slice(before + n, before + n + after)
    for source, end, count in zip(_sources(mode, n, before, after), ends, pair, strict=True):
        if count:
            share = dy[_along(axis, end)]
            if mode == "reflect":
                share = xp.flip(share, axis=axis)
            elif mode == "replicate":
                share = xp.sum(share, axis=axis, keepdims=True)
            dx = _array.added(dx, _along(axis, source), share)
    return dx
