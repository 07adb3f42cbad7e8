"""The dense product: every output feature weighs every input feature."""

from __future__ import annotations

import math

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.products import channel_sums, factor, product


@differentiable(skips=True)
def dense(x: Array, weight: Array, bias: Array | None = None, /) -> tuple[Array, Pullback]:
    """Multiply the last dimension by a matrix and add a bias.

    ``y[..., o] = bias[o] + sum over i of x[..., i] · weight[o, i]``

    Args:
        x: features ``(..., in_features)``.
        weight: ``(out_features, in_features)``.
        bias: ``(out_features,)`` or ``None``.

    Returns:
        ``y (..., out_features)``; the pullback gives ``(dx, dweight, dbias)``.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: mixed dtypes, arrays of two libraries.

    The layout is that of ``torch.nn.functional.linear``.

    >>> import numpy as np
    >>> y, pullback = dense.vjp(np.asarray([[1.0, 2.0]]), np.asarray([[3.0, 4.0]]))
    >>> y, pullback(np.asarray([[1.0]]))
    (array([[11.]]), (array([[3., 4.]]), array([[1., 2.]])))
    """
    xp = _array.array_namespace(x)
    _check(tuple(x.shape), tuple(weight.shape), None if bias is None else tuple(bias.shape))
    out_features, in_features = weight.shape
    rows, matrix = factor(xp.reshape(x, (math.prod(x.shape[:-1]), in_features))), factor(weight)
    if bias is None:
        y = product(rows, matrix.T)  # (rows, in) (in, out)
    else:  # nothing is rounded before the bias is added
        y = product(_array.widen(rows), _array.widen(matrix.T)) + _array.widen(bias)

    def pullback(dy: Array, skip: tuple[int, ...] = ()) -> tuple[Array | None, ...]:
        dy = factor(xp.reshape(dy, (rows.shape[0], out_features)))
        dx = None
        if 0 not in skip:
            dx = xp.reshape(product(dy, matrix), x.shape)  # (rows, out) (out, in)
        dweight = product(dy.T, rows)  # (out, rows) (rows, in)
        dbias = None if bias is None else channel_sums(dy)
        return dx, dweight, dbias

    return _array.cast(xp.reshape(y, (*x.shape[:-1], out_features)), x.dtype), pullback


def _check(x: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None) -> None:
    if len(weight) != 2:
        raise InvalidValue(f"weight must have shape (out_features, in_features), got {weight}")
    if not x:
        raise InvalidValue(f"x must have shape (..., {weight[1]}), got a 0-d array")
    if x[-1] != weight[1]:
        raise InvalidValue(
            f"x {x} has {x[-1]} features, weight {weight} takes {weight[1]}; give x shape "
            f"(..., {weight[1]}) or weight shape ({weight[0]}, {x[-1]})"
        )
    if bias is not None and bias != weight[:1]:
        raise InvalidValue(
            f"bias has shape {bias}, expected {weight[:1]}: one per output feature of "
            f"weight {weight}"
        )
