"""Operations that only move numbers: their adjoints move them back."""

from __future__ import annotations

import math

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, integer
from devconv.functional.operation import Pullback, differentiable


@differentiable
def flatten(x: Array, /, *, start: int = 1) -> tuple[Array, Pullback]:
    """Join all dimensions from ``start`` on into one, in C order of the *shape*.

    Args:
        x: any shape with at least ``start`` dimensions.
        start: the first dimension to join; 1 keeps the batch.

    Returns:
        ``y (*x.shape[:start], -1)``; the pullback restores the shape. Memory order (such as
        channels-last) makes no difference to the result.

    Raises:
        ValueError: ``start`` out of range.
        TypeError: integer arrays.

    The order is that of ``torch.flatten``: channels outermost.

    >>> import numpy as np
    >>> flatten(np.zeros((2, 3, 4, 5))).shape
    (2, 60)
    """
    xp, shape = _array.array_namespace(x), tuple(x.shape)
    start = integer("start", start, least=0)
    if start > len(shape):
        raise InvalidValue(f"start={start} is out of range for x with shape {shape}")
    y = xp.reshape(x, (*shape[:start], math.prod(shape[start:])))

    def pullback(dy: Array) -> tuple[Array]:
        return (xp.reshape(dy, shape),)

    return y, pullback
