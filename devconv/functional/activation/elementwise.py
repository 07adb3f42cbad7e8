"""What the activations share: each is a function of one number, applied to all of them."""

from __future__ import annotations

from collections.abc import Callable

from devconv import _array
from devconv._array import Array
from devconv.functional.operation import Pullback
from devconv.functional.special import at_least, at_most, partner


def elementwise(x: Array, y: Array, back: Callable[[Array], Array]) -> tuple[Array, Pullback]:
    """What a function of each number by itself returns: ``y``, and ``dy`` times its derivative.

    Args:
        x: the input, whose dtype ``y`` is given.
        y: the values, in the wide dtype of ``x``.
        back: takes ``dy`` in that dtype to ``dy`` times the derivative.
    """

    def pullback(dy: Array) -> tuple[Array]:
        return (back(_array.widen(dy)),)

    return _array.cast(y, x.dtype), pullback


def clamped(x: Array, low: float, high: float) -> tuple[Array, Pullback]:
    """``min(max(x, low), high)``, whose derivative is 1 strictly between the two, else 0."""
    y = at_most(at_least(x, low), high)

    def pullback(dy: Array) -> tuple[Array]:
        outside = (y <= partner(y, low)) | (y >= partner(y, high))
        return (_array.masked(dy, ~outside),)

    return y, pullback
