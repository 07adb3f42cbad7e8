"""Sigmoids: curves that level off on one side or both, smooth or of straight pieces."""

from __future__ import annotations

from devconv import _array, _fast
from devconv._array import Array
from devconv._check import InvalidValue, nonzero, number
from devconv.functional.activation.elementwise import clamped, elementwise
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.special import at_least, at_most, log1p_exp, logistic


@differentiable
def sigmoid(x: Array, /) -> tuple[Array, Pullback]:
    """Squash to (0, 1): ``y = 1 / (1 + exp(-x))``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``, without overflow on either side. The derivative is
        ``y (1 - y)``.

    Raises:
        TypeError: integer arrays.

    Source: as ``torch.sigmoid``.

    >>> import numpy as np
    >>> sigmoid(np.asarray([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    y = logistic(_array.widen(x))
    return elementwise(x, y, lambda dy: dy * y * (1.0 - y))


@differentiable
def hard_sigmoid(x: Array, /) -> tuple[Array, Pullback]:
    """Squash to [0, 1] along a straight line: ``y = min(max(x + 3, 0), 6) / 6``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. The derivative is 1/6 where ``-3 < x < 3``, else 0
        (also at -3 and 3, as in PyTorch).

    Raises:
        TypeError: integer arrays.

    As ``torch.nn.functional.hardsigmoid``; Keras 2 and ONNX use other slopes by default.

    >>> import numpy as np
    >>> hard_sigmoid(np.asarray([-4.0, 0.0, 1.5, 4.0]))
    array([0.  , 0.5 , 0.75, 1.  ])
    """
    wide = _array.widen(x)
    inside = (wide > -3.0) & (wide < 3.0)
    return elementwise(x, ramp(wide), lambda dy: _array.masked(dy / 6.0, inside))


def ramp(x: Array) -> Array:
    """From 0 at -3 straight to 1 at 3."""
    return at_most(at_least(x + 3.0, 0.0), 6.0) / 6.0


@differentiable
def log_sigmoid(x: Array, /) -> tuple[Array, Pullback]:
    """Take the logarithm of the sigmoid: ``y = -log(1 + exp(-x))``.

    Args:
        x: logits in nats, any shape.

    Returns:
        ``y`` in nats with the shape of ``x``, with all its digits where the sigmoid itself is
        0 or 1. The derivative is ``sigmoid(-x)``.

    Raises:
        TypeError: integer arrays.

    Source: as ``torch.nn.functional.logsigmoid``.

    >>> import numpy as np
    >>> log_sigmoid(np.asarray([-80.0, 0.0])).round(6)
    array([-80.      ,  -0.693147])
    """
    wide = _array.widen(x)
    return elementwise(x, -log1p_exp(-wide), lambda dy: dy * logistic(-wide))


@differentiable
def softplus(x: Array, /, *, beta: float = 1.0, threshold: float = 20.0) -> tuple[Array, Pullback]:
    """Keep what is positive, with a round corner: ``y = log(1 + exp(beta · x)) / beta``.

    Args:
        x: any shape.
        beta: the larger, the sharper the corner; not 0.
        threshold: where ``beta · x`` is above it, ``y = x``.

    Returns:
        ``y`` with the shape of ``x``. The derivative is ``sigmoid(beta · x)``, above the
        threshold 1.

    Raises:
        ValueError: ``beta`` is 0.
        TypeError: integer arrays.

    Source: C. Dugas et al., "Incorporating second-order functional knowledge for better
    option pricing", NIPS 2000; options as in ``torch.nn.functional.softplus``, which
    returns infinity for ``beta=0``.

    >>> import numpy as np
    >>> softplus(np.asarray([-1000.0, 0.0, 30.0])).round(6)
    array([ 0.      ,  0.693147, 30.      ])
    """
    xp, wide = _array.array_namespace(x), _array.widen(x)
    beta, threshold = nonzero("beta", beta), number("threshold", threshold)
    scaled = beta * wide
    straight = scaled > threshold
    y = xp.where(straight, wide, log1p_exp(scaled) / beta)
    return elementwise(x, y, lambda dy: dy * xp.where(straight, 1.0, logistic(scaled)))


@differentiable
def tanh(x: Array, /) -> tuple[Array, Pullback]:
    """Squash to (-1, 1): ``y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. The derivative is ``1 - y²``.

    Raises:
        TypeError: integer arrays.

    Source: as ``torch.tanh``.

    >>> import numpy as np
    >>> y, pullback = tanh.vjp(np.asarray([0.0]))
    >>> y, pullback(np.ones(1))
    (array([0.]), (array([1.]),))
    """
    y = _array.as_array(_array.array_namespace(x).tanh(_array.widen(x)))  # routes take arrays

    def back(dy: Array) -> Array:
        route = _fast.passing("tanh_back", dy, y)
        return dy * (1.0 - y * y) if route is None else route(dy, y)

    return elementwise(x, y, back)


@differentiable
def hard_tanh(
    x: Array, /, *, min_val: float = -1.0, max_val: float = 1.0
) -> tuple[Array, Pullback]:
    """Cut off below and above: ``y = min(max(x, min_val), max_val)``.

    Args:
        x: any shape.
        min_val: the smallest value.
        max_val: the largest value.

    Returns:
        ``y`` with the shape of ``x``. The derivative is 1 strictly between the two, else 0,
        as in PyTorch. NaN stays NaN.

    Raises:
        ValueError: ``min_val`` above ``max_val``.
        TypeError: integer arrays.

    Source: as ``torch.nn.functional.hardtanh``.

    >>> import numpy as np
    >>> hard_tanh(np.asarray([-2.0, 0.5, 2.0]))
    array([-1. ,  0.5,  1. ])
    """
    return clamped(x, *limits(min_val, max_val))


def limits(min_val: float, max_val: float) -> tuple[float, float]:
    """The smallest value and the largest, which may be the same."""
    low, high = number("min_val", min_val), number("max_val", max_val)
    if low > high:
        raise InvalidValue(f"min_val={min_val!r} is above max_val={max_val!r}; exchange them")
    return low, high


@differentiable
def softsign(x: Array, /) -> tuple[Array, Pullback]:
    """Squash to (-1, 1), slowly: ``y = x / (1 + |x|)``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. The derivative is ``1 / (1 + |x|)²``.

    Raises:
        TypeError: integer arrays.

    Source: as ``torch.nn.functional.softsign``.

    >>> import numpy as np
    >>> softsign(np.asarray([-1.0, 0.0, 3.0]))
    array([-0.5 ,  0.  ,  0.75])
    """
    wide = _array.widen(x)
    size = 1.0 + _array.array_namespace(x).abs(wide)
    return elementwise(x, wide / size, lambda dy: dy / size / size)
