"""Shapes of inputs, whose batch may be of any size, and sizes that were left open."""

from __future__ import annotations

from typing import TypeAlias

from devconv._check import InvalidValue, show

InputShape: TypeAlias = tuple[int | None, ...]
"""The shape of a layer's input; ``None`` for a batch of any size."""


class _AnyBatch(int):
    """A batch of any size, for checks that count: 0, and ``N`` in their messages."""

    def __repr__(self) -> str:
        return "N"


def sized(shape: InputShape) -> tuple[int, ...]:
    """The shape as the checks of :mod:`devconv.functional` take it, of ints.

    >>> sized((None, 3, 5))
    (N, 3, 5)
    """
    return tuple(_AnyBatch() if n is None else n for n in shape)


def roomy(rank: int, channels: int = 1) -> tuple[int, ...]:
    """An image that no window is too large for, to try a layer's options on."""
    return (1, channels, *(2**40,) * rank)


def settled(name: str, size: int | None, shape: InputShape | None, axis: int) -> int:
    """The size called ``name``, read off the input's shape where it was left open."""
    if size is None and shape is not None:
        size = shape[axis]
    if size is None:
        raise InvalidValue(
            f"{name} is None and no shape is known; call model.build(shape) with the input's "
            "shape without the batch, or run a batch first"
        )
    return size


def check_image(shape: InputShape, rank: int | None) -> None:
    """Refuse an input that is not ``(N, C, *spatial)`` with ``rank`` spatial dimensions."""
    if rank is not None and len(shape) != rank + 2:
        axes = ", ".join(("D", "H", "W")[-rank:]) if rank <= 3 else f"{rank} spatial"
        raise InvalidValue(
            f"expected x with {rank + 2} dimensions (N, C, {axes}), got x {show(shape)}"
            f"{_dimensions_off(shape, len(shape) - rank - 2, axes)}"
        )
    if len(shape) < 3 or 0 in shape[1:]:
        raise InvalidValue(f"expected x (N, C, *spatial) with pixels, got x {show(shape)}")


def _dimensions_off(shape: InputShape, surplus: int, axes: str) -> str:
    """What helps an image with one dimension too many or too few."""
    given = shape and shape[0] is not None  # an array's; else that of one example
    if surplus == -1 and given:
        return "; x[None, ...] adds a batch that is missing, x[:, None, ...] a channel"
    if surplus == -1:
        return f"; the shape of one example is (C, {axes})"
    if surplus == 1 and not given:
        return f"; leave the batch out, the shape of one example is (C, {axes})"
    return ""


def channels_last(shape: InputShape, channels: int | None) -> str:
    """What helps an image ``(N, *spatial, C)``, if it looks like one."""
    if channels is None or len(shape) < 3 or shape[-1] != channels:
        return ""
    axes = (0, len(shape) - 1, *range(1, len(shape) - 1))
    return f"; its channels seem to stand last, xp.permute_dims(x, {axes}) puts them first"
