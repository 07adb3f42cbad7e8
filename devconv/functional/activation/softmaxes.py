"""Softmax: logits along one axis become a distribution."""

from __future__ import annotations

from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, Shape, integer
from devconv.functional.operation import Pullback, differentiable


@differentiable
def softmax(x: Array, /, *, axis: int = -1) -> tuple[Array, Pullback]:
    """Turn logits into probabilities: ``y = exp(x) / sum(exp(x))`` along one axis.

    Args:
        x: logits in nats, any shape with at least ``axis``.
        axis: the axis whose entries add up to 1.

    Returns:
        ``y`` with the shape of ``x``, computed with the largest logit subtracted, in float32
        for half precision. The pullback gives ``y (dy - sum(y dy))``.

    Raises:
        ValueError: no such axis.
        TypeError: integer arrays.

    Source: J. Bridle, "Probabilistic interpretation of feedforward classification network
    outputs", 1990; as ``torch.softmax``.

    >>> import numpy as np
    >>> softmax(np.asarray([0.0, np.log(3.0)])).round(6)
    array([0.25, 0.75])
    """
    xp, axis = _array.array_namespace(x), axis_of(tuple(x.shape), axis)
    shifted = _shifted(x, axis)
    small = xp.exp(shifted)
    y = small / xp.sum(small, axis=axis, keepdims=True)

    def pullback(dy: Array) -> tuple[Array]:
        flow = _array.widen(dy) * y
        return (flow - y * xp.sum(flow, axis=axis, keepdims=True),)

    return _array.cast(y, x.dtype), pullback


@differentiable
def log_softmax(x: Array, /, *, axis: int = -1) -> tuple[Array, Pullback]:
    """Turn logits into log-probabilities: ``y = x - log(sum(exp(x)))`` along one axis.

    Args:
        x: logits in nats, any shape with at least ``axis``.
        axis: the axis of the distribution.

    Returns:
        ``y`` in nats with the shape of ``x``, computed with the largest logit subtracted,
        in float32 for half precision. The pullback gives ``dy - exp(y) sum(dy)``.

    Raises:
        ValueError: no such axis.
        TypeError: integer arrays.

    Source: as ``torch.log_softmax``.

    >>> import numpy as np
    >>> log_softmax(np.asarray([1000.0, 1000.0])).round(6)
    array([-0.693147, -0.693147])
    """
    xp, axis = _array.array_namespace(x), axis_of(tuple(x.shape), axis)
    y = log_probabilities(x, axis)

    def pullback(dy: Array) -> tuple[Array]:
        dy = _array.widen(dy)
        return (dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True),)

    return _array.cast(y, x.dtype), pullback


def log_probabilities(x: Array, axis: Any) -> Array:
    """The log-softmax of ``x`` in its wide dtype."""
    xp = _array.array_namespace(x)
    shifted = _shifted(x, axis)
    if 0 in x.shape:
        return shifted
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def _shifted(x: Array, axis: Any) -> Array:
    xp, wide = _array.array_namespace(x), _array.widen(x)
    return wide if 0 in x.shape else wide - xp.max(wide, axis=axis, keepdims=True)


def axis_of(shape: Shape, axis: int) -> Any:
    """``axis`` counted from the front; ``()`` for a 0-d array, whose one entry is alone."""
    rank = max(len(shape), 1)
    if not -rank <= integer("axis", axis, least=-(2**31)) < rank:
        raise InvalidValue(f"axis {axis} is out of range for x with shape {shape}")
    return axis % rank if shape else ()
