"""Rectifiers: what is positive goes through, what is not is cut off, shrunk or bent."""

from __future__ import annotations

from devconv import _array, _fast
from devconv._array import Array
from devconv._check import InvalidValue, nonzero, number
from devconv.functional.activation.elementwise import clamped, elementwise
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.special import at_least, at_most, scaled

# The two numbers that make a normal distribution its own image (Klambauer et al., 2017).
_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


@differentiable
def relu(x: Array, /) -> tuple[Array, Pullback]:
    """Keep what is positive: ``y = max(x, 0)``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. The derivative is 1 where ``x > 0``, else 0 (also at
        0, as in PyTorch). NaN stays NaN.

    Raises:
        TypeError: integer arrays.

    Source: V. Nair and G. Hinton, "Rectified linear units improve restricted Boltzmann
    machines", ICML 2010.

    >>> import numpy as np
    >>> y, pullback = relu.vjp(np.asarray([-1.0, 0.0, 2.0]))
    >>> y, pullback(np.ones(3))
    (array([0., 0., 2.]), (array([0., 0., 1.]),))
    """
    route = _fast.passing("relu", x)
    y = at_least(x, 0.0) if route is None else route(x)

    def pullback(dy: Array) -> tuple[Array]:
        route = _fast.passing("relu_back", dy, y)
        return (_array.masked(dy, y != 0) if route is None else route(dy, y),)

    return y, pullback


@differentiable
def relu6(x: Array, /) -> tuple[Array, Pullback]:
    """Keep what is positive, up to 6: ``y = min(max(x, 0), 6)``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. The derivative is 1 where ``0 < x < 6``, else 0 (also
        at 0 and 6, as in PyTorch). NaN stays NaN.

    Raises:
        TypeError: integer arrays.

    Source: A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.

    >>> import numpy as np
    >>> relu6(np.asarray([-1.0, 2.0, 7.0]))
    array([0., 2., 6.])
    """
    return clamped(x, 0.0, 6.0)


@differentiable
def leaky_relu(x: Array, /, *, negative_slope: float = 0.01) -> tuple[Array, Pullback]:
    """Keep what is positive, shrink what is not: ``y = x if x > 0 else negative_slope · x``.

    Args:
        x: any shape.
        negative_slope: the slope below 0.

    Returns:
        ``y`` with the shape of ``x``. The derivative at 0 is ``negative_slope``, as in
        PyTorch.

    Raises:
        TypeError: integer arrays.

    Source: A. Maas, A. Hannun and A. Ng, "Rectifier nonlinearities improve neural network
    acoustic models", ICML 2013.

    >>> import numpy as np
    >>> leaky_relu(np.asarray([-1.0, 2.0]), negative_slope=0.1)
    array([-0.1,  2. ])
    """
    wide, slope = _array.widen(x), number("negative_slope", negative_slope)
    y = at_least(wide, 0.0) + slope * at_most(wide, 0.0)
    return elementwise(x, y, lambda dy: _bent(dy, wide, slope))


def _bent(dy: Array, x: Array, below: Array | float, above: float = 1.0) -> Array:
    """``dy · above`` where ``x > 0``, else ``dy · below``; a host multiplies."""
    xp = _array.array_namespace(x)
    if not (_array.is_readable(x) or _array.is_traced(x)):
        return xp.where(x > 0, scaled(above, dy), below * dy)
    positive = xp.astype(x > 0, x.dtype)
    return dy * (scaled(above, positive) + below * (1.0 - positive))


@differentiable
def prelu(x: Array, weight: Array, /) -> tuple[Array, Pullback]:
    """Keep what is positive, shrink the rest by a learned slope.

    ``y = x if x > 0 else weight · x``

    Args:
        x: any shape; with one slope per channel, ``(N, C, ...)``.
        weight: the slope below 0: ``()`` or ``(1,)``, or ``(C,)``, one per channel.

    Returns:
        ``y`` with the shape of ``x``. The pullback gives ``(dx, dweight)``; at 0 the
        derivative in ``x`` is ``weight``, as in PyTorch, in ``weight`` it is ``min(x, 0)``.

    Raises:
        ValueError: a weight of another shape.
        TypeError: integer or mixed dtypes.

    Source: K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers",
    arXiv:1502.01852; as ``torch.nn.functional.prelu``.

    >>> import numpy as np
    >>> y, pullback = prelu.vjp(np.asarray([[-1.0, -2.0]]), np.asarray([0.1, 0.5]))
    >>> y, pullback(np.ones((1, 2)))
    (array([[-0.1, -1. ]]), (array([[0.1, 0.5]]), array([-1., -2.])))
    """
    xp, wide = _array.array_namespace(x), _array.widen(x)
    along = slopes_shape(tuple(x.shape), tuple(weight.shape))
    slope = xp.reshape(_array.widen(weight), along)
    y = at_least(wide, 0.0) + slope * at_most(wide, 0.0)
    others = tuple(d for d in range(x.ndim) if d >= len(along) or along[d] == 1)

    def pullback(dy: Array) -> tuple[Array, ...]:
        dy = _array.widen(dy)
        dx = _bent(dy, wide, slope)
        dweight = xp.sum(dy * at_most(wide, 0.0), axis=others)
        return dx, xp.reshape(dweight, weight.shape)

    return _array.cast(y, x.dtype), pullback


def slopes_shape(shape: tuple[int, ...], slopes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which slopes meet ``x``: all the same, or one per entry of axis 1."""
    if slopes in ((), (1,)):
        return ()
    channels = shape[1] if len(shape) > 1 else 1
    if slopes != (channels,):
        raise InvalidValue(
            f"weight has shape {slopes}, expected (), (1,) or ({channels},): one slope per "
            f"channel of x {shape} (axis 1)"
        )
    return (1, channels, *(1,) * (len(shape) - 2))


@differentiable
def elu(x: Array, /, *, alpha: float = 1.0) -> tuple[Array, Pullback]:
    """Keep what is positive, bend what is not: ``y = x if x > 0 else alpha (exp(x) - 1)``.

    Args:
        x: any shape.
        alpha: ``-y`` far below 0.

    Returns:
        ``y`` with the shape of ``x``. The derivative at 0 is ``alpha``, as in PyTorch.

    Raises:
        TypeError: integer arrays.

    Source: D. Clevert, T. Unterthiner and S. Hochreiter, "Fast and accurate deep network
    learning by exponential linear units", arXiv:1511.07289.

    >>> import numpy as np
    >>> elu(np.asarray([-1.0, 0.0, 2.0])).round(6)
    array([-0.632121,  0.      ,  2.      ])
    """
    return _exponential(x, 1.0, number("alpha", alpha), 1.0)


@differentiable
def celu(x: Array, /, *, alpha: float = 1.0) -> tuple[Array, Pullback]:
    """Keep what is positive, bend the rest, without a kink at 0.

    ``y = x if x > 0 else alpha (exp(x / alpha) - 1)``

    Args:
        x: any shape.
        alpha: ``-y`` far below 0; not 0.

    Returns:
        ``y`` with the shape of ``x``. The derivative is 1 at 0, whatever ``alpha``.

    Raises:
        ValueError: ``alpha`` is 0.
        TypeError: integer arrays.

    Source: J. Barron, "Continuously differentiable exponential linear units",
    arXiv:1704.07483.

    >>> import numpy as np
    >>> celu(np.asarray([-1.0, 0.0, 2.0]), alpha=2.0).round(6)
    array([-0.786939,  0.      ,  2.      ])
    """
    alpha = nonzero("alpha", alpha)
    return _exponential(x, 1.0, alpha, 1.0 / alpha)


@differentiable
def selu(x: Array, /) -> tuple[Array, Pullback]:
    """Bend what is not positive such that mean 0 and variance 1 reproduce themselves.

    ``y = 1.0507 (x if x > 0 else 1.6733 (exp(x) - 1))``

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. The derivative at 0 is that from below, 1.7581, as in
        PyTorch. The two constants are used with all their digits.

    Raises:
        TypeError: integer arrays.

    Source: G. Klambauer, T. Unterthiner, A. Mayr and S. Hochreiter, "Self-normalizing neural
    networks", arXiv:1706.02515.

    >>> import numpy as np
    >>> selu(np.asarray([-1.0, 0.0, 1.0])).round(6)
    array([-1.111331,  0.      ,  1.050701])
    """
    return _exponential(x, _SELU_SCALE, _SELU_SCALE * _SELU_ALPHA, 1.0)


def _exponential(x: Array, above: float, below: float, rate: float) -> tuple[Array, Pullback]:
    """``above · x`` where ``x > 0``, else ``below · (exp(rate · x) - 1)``."""
    xp, wide = _array.array_namespace(x), _array.widen(x)
    falling = xp.expm1(scaled(rate, at_most(wide, 0.0)))
    y = scaled(above, at_least(wide, 0.0)) + scaled(below, falling)

    def back(dy: Array) -> Array:
        falling = below * rate * xp.exp(scaled(rate, at_most(wide, 0.0)))
        return _bent(dy, wide, falling, above)

    return elementwise(x, y, back)
