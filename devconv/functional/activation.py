"""Activations: one function of each number, or a distribution along one axis.

Each returns its derivative times ``dy``. At a kink the derivative is PyTorch's choice, the
one stated in the docstring.
"""

from __future__ import annotations

import math

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, choice, integer, number
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.special import erf


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
    xp = _array.array_namespace(x)
    zero = xp.zeros((), dtype=x.dtype, device=_array.device(x))
    y = xp.maximum(x, zero)

    def pullback(dy: Array) -> tuple[Array]:
        return (xp.where(y <= zero, zero, dy),)

    return y, pullback


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
    xp, slope = _array.array_namespace(x), number("negative_slope", negative_slope)
    positive = x > 0
    y = xp.where(positive, x, x * slope)

    def pullback(dy: Array) -> tuple[Array]:
        return (xp.where(positive, dy, dy * slope),)

    return y, pullback


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
    y = _sigmoid(_array.widen(x))

    def pullback(dy: Array) -> tuple[Array]:
        return (_array.widen(dy) * y * (1.0 - y),)

    return _array.cast(y, x.dtype), pullback


def _sigmoid(x: Array) -> Array:
    xp = _array.array_namespace(x)
    small = xp.exp(-xp.abs(x))  # never above 1
    return xp.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


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
    y = _array.array_namespace(x).tanh(_array.widen(x))

    def pullback(dy: Array) -> tuple[Array]:
        return (_array.widen(dy) * (1.0 - y * y),)

    return _array.cast(y, x.dtype), pullback


@differentiable
def gelu(x: Array, /, *, approximate: str = "none") -> tuple[Array, Pullback]:
    """Weigh each number by how likely a normal one is smaller: ``y = x · Phi(x)``.

    ``Phi(x) = (1 + erf(x / sqrt(2))) / 2``; with ``approximate="tanh"``
    ``Phi(x) = (1 + tanh(sqrt(2/pi) (x + 0.044715 x³))) / 2``.

    Args:
        x: any shape.
        approximate: ``"none"`` (exact) or ``"tanh"``.

    Returns:
        ``y`` with the shape of ``x``.

    Raises:
        ValueError: another ``approximate``.
        TypeError: integer arrays.

    Source: D. Hendrycks and K. Gimpel, "Gaussian error linear units", arXiv:1606.08415;
    options as in ``torch.nn.functional.gelu``.

    >>> import numpy as np
    >>> gelu(np.asarray([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    xp, wide = _array.array_namespace(x), _array.widen(x)
    if choice("approximate", approximate, ("none", "tanh")) == "none":
        below = 0.5 * (1.0 + erf(wide / math.sqrt(2.0)))

        def density() -> Array:
            return xp.exp(-0.5 * wide * wide) / math.sqrt(2.0 * math.pi)
    else:
        scale = math.sqrt(2.0 / math.pi)
        bend = xp.tanh(scale * (wide + 0.044715 * wide * wide * wide))
        below = 0.5 * (1.0 + bend)

        def density() -> Array:
            return 0.5 * (1.0 - bend * bend) * scale * (1.0 + 3 * 0.044715 * wide * wide)

    def pullback(dy: Array) -> tuple[Array]:
        return (_array.widen(dy) * (below + wide * density()),)

    return _array.cast(wide * below, x.dtype), pullback


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
    xp, axis = _array.array_namespace(x), axis_of(x, axis)
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
    xp, axis = _array.array_namespace(x), axis_of(x, axis)
    y = log_probabilities(x, axis)

    def pullback(dy: Array) -> tuple[Array]:
        dy = _array.widen(dy)
        return (dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True),)

    return _array.cast(y, x.dtype), pullback


def log_probabilities(x: Array, axis: int) -> Array:
    """The log-softmax of ``x`` in its wide dtype."""
    xp = _array.array_namespace(x)
    shifted = _shifted(x, axis)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def _shifted(x: Array, axis: int) -> Array:
    xp, wide = _array.array_namespace(x), _array.widen(x)
    return wide - xp.max(wide, axis=axis, keepdims=True)


def axis_of(x: Array, axis: int) -> int:
    """``axis`` counted from the front, refused where ``x`` has no such axis or it is empty."""
    rank = x.ndim
    axis = integer("axis", axis, least=-max(rank, 1))
    if axis >= max(rank, 1):
        raise InvalidValue(f"axis {axis} is out of range for x with shape {tuple(x.shape)}")
    if rank == 0:
        raise InvalidValue("x is a 0-d array and has no axis; give it one: x[None]")
    axis %= rank
    if x.shape[axis] == 0:
        raise InvalidValue(f"axis {axis} of x with shape {tuple(x.shape)} is empty")
    return axis
