"""What the losses share: checks of a prediction and its target, and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, Shape, choice

REDUCTIONS = ("mean", "sum", "none")


def check_pair(
    prediction: Array, target: Array, reduction: str, reductions: Sequence[str] = REDUCTIONS
) -> None:
    """Refuse a target of another shape, and reductions there are not."""
    choice("reduction", reduction, reductions)
    if tuple(prediction.shape) != tuple(target.shape):
        raise InvalidValue(
            f"target has shape {tuple(target.shape)}, expected that of the prediction, "
            f"{tuple(prediction.shape)}; reshape one of them"
        )


def reduced(losses: Array, reduction: str) -> tuple[Array, Callable[[Array], Array]]:
    """The losses reduced, and how the reduced loss's ``dy`` spreads over them.

    ``"batchmean"`` is the sum divided by the length of the first dimension. The mean of
    nothing is NaN, the sum of nothing 0.
    """
    xp, shape = _array.array_namespace(losses), tuple(losses.shape)
    if reduction == "none":
        return losses, lambda dy: dy
    if reduction == "sum":
        return xp.sum(losses), lambda dy: xp.broadcast_to(dy, shape)
    count = float(math.prod(shape if reduction == "mean" else shape[:1]))
    if 0 in shape:
        nothing = xp.full((), math.nan, dtype=losses.dtype, device=_array.device(losses))
        return nothing, lambda dy: xp.broadcast_to(dy, shape)
    return xp.sum(losses) / count, lambda dy: xp.broadcast_to(dy / count, shape)


def weighted_mean(losses: Array, counts: Array) -> tuple[Array, Callable[[Array], Array]]:
    """The sum of the losses over that of what each counts; NaN where that is 0."""
    xp = _array.array_namespace(losses)
    total = xp.sum(counts)
    total = xp.where(total == 0, math.nan, total)
    return xp.sum(losses) / total, lambda dy: xp.broadcast_to(dy / total, losses.shape)


def check_factor(name: str, factor: Array | None, prediction: Array) -> None:
    """Refuse a factor of the losses that does not broadcast to their shape."""
    if factor is None:
        return
    shape, full = tuple(factor.shape), tuple(prediction.shape)
    pairs = zip(reversed(shape), reversed(full), strict=False)
    if len(shape) > len(full) or not all(n in (1, m) for n, m in pairs):
        raise InvalidValue(
            f"{name} has shape {shape}, which does not broadcast to that of the prediction, {full}"
        )


def summed_to(dy: Array, shape: Shape) -> Array:
    """The cotangent of an array of ``shape`` that was broadcast to the shape of ``dy``."""
    xp, lead = _array.array_namespace(dy), dy.ndim - len(shape)
    axes = tuple(d for d in range(dy.ndim) if d < lead or shape[d - lead] != dy.shape[d])
    return xp.reshape(xp.sum(dy, axis=axes), shape) if axes else dy
