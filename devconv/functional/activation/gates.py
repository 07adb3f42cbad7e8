"""Gates: each number times how far a gate is open for it, from 0 (shut) to 1."""

from __future__ import annotations

import math

from devconv import _array, _fast
from devconv._array import Array
from devconv._check import InvalidValue, Shape, choice
from devconv.functional.activation.elementwise import elementwise
from devconv.functional.activation.sigmoids import ramp
from devconv.functional.activation.softmaxes import axis_of
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.special import at_least, at_most, erf, log1p_exp, logistic

APPROXIMATIONS = ("none", "tanh")
_FAR = 40.0  # a normal number is never smaller than -40, to the last bit of float64

# artanh(erf(x / sqrt(2))) / x, a polynomial in x² fitted so that Phi is within 3e-8 everywhere.
_BEND = (
    1.7561698198271746e-09, -1.3226330941430365e-07, 3.964744075514378e-06,
    -5.530619204527881e-05, -3.259497905479258e-05, 0.03633308457667357, 0.7978849414598397,
)  # fmt: skip
_BENT = 5.5**2  # from here on tanh(x · the polynomial's last value) is 1 in all of float32's bits


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
    approximate = choice("approximate", approximate, APPROXIMATIONS)
    route = _fast.passing("gelu", x)
    if route is not None:
        return route(x, approximate)
    xp, wide = _array.array_namespace(x), _array.widen(x)
    near = at_most(at_least(wide, -_FAR), _FAR)  # the curve beyond is flat, its powers are not
    if approximate == "none":
        below = _below(wide, near)

        def density() -> Array:
            return xp.exp(-0.5 * near * near) / math.sqrt(2.0 * math.pi)
    else:
        scale = math.sqrt(2.0 / math.pi)
        bend = xp.tanh(scale * (near + 0.044715 * near * near * near))
        below = 0.5 * (1.0 + bend)

        def density() -> Array:
            return 0.5 * (1.0 - bend * bend) * scale * (1.0 + 3 * 0.044715 * near * near)

    return elementwise(x, wide * below, lambda dy: dy * (below + wide * density()))


def _below(x: Array, near: Array) -> Array:
    """``Phi(x)``, how likely a normal number is smaller; ``near`` is ``x`` without its far ends.

    To the last digits of the dtype; float32 is through with fewer steps.
    """
    xp = _array.array_namespace(x)
    if _array.dtype_name(x.dtype) == "float64":
        return 0.5 * (1.0 + erf(x / math.sqrt(2.0)))
    square = at_most(near * near, _BENT)
    bend = square * _BEND[0] + _BEND[1]
    for c in _BEND[2:]:
        bend = bend * square + c
    return 0.5 + 0.5 * xp.tanh(near * bend)


@differentiable
def silu(x: Array, /) -> tuple[Array, Pullback]:
    """Weigh each number by its sigmoid: ``y = x · sigmoid(x)``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. With ``s = sigmoid(x)``, the derivative is
        ``s (1 + x (1 - s))``.

    Raises:
        TypeError: integer arrays.

    Source: S. Elfwing, E. Uchibe and K. Doya, "Sigmoid-weighted linear units for neural
    network function approximation in reinforcement learning", arXiv:1702.03118; "swish" in
    P. Ramachandran, B. Zoph and Q. Le, arXiv:1710.05941.

    >>> import numpy as np
    >>> silu(np.asarray([-1.0, 0.0, 1.0])).round(6)
    array([-0.268941,  0.      ,  0.731059])
    """
    wide = _array.widen(x)
    s = logistic(wide)
    return elementwise(x, wide * s, lambda dy: dy * s * (1.0 + wide * (1.0 - s)))


@differentiable
def mish(x: Array, /) -> tuple[Array, Pullback]:
    """Weigh each number by the tanh of its softplus: ``y = x · tanh(log(1 + exp(x)))``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. With ``t = tanh(log(1 + exp(x)))``, the derivative is
        ``t + x (1 - t²) sigmoid(x)``.

    Raises:
        TypeError: integer arrays.

    Source: D. Misra, "Mish: a self regularized non-monotonic activation function",
    arXiv:1908.08681.

    >>> import numpy as np
    >>> mish(np.asarray([-1.0, 0.0, 1.0])).round(6)
    array([-0.303401,  0.      ,  0.865098])
    """
    wide = _array.widen(x)
    t = _array.array_namespace(x).tanh(log1p_exp(wide))
    return elementwise(x, wide * t, lambda dy: dy * (t + wide * (1.0 - t * t) * logistic(wide)))


@differentiable
def hard_swish(x: Array, /) -> tuple[Array, Pullback]:
    """Weigh each number by its hard sigmoid: ``y = x · min(max(x + 3, 0), 6) / 6``.

    Args:
        x: any shape.

    Returns:
        ``y`` with the shape of ``x``. The derivative is ``x/3 + 1/2`` where ``-3 < x < 3``,
        0 up to -3 and 1 from 3 on, as in PyTorch.

    Raises:
        TypeError: integer arrays.

    Source: A. Howard et al., "Searching for MobileNetV3", arXiv:1905.02244.

    >>> import numpy as np
    >>> hard_swish(np.asarray([-1.0, 1.0, 4.0])).round(6)
    array([-0.333333,  0.666667,  4.      ])
    """
    wide = _array.widen(x)
    gate = ramp(wide)

    def back(dy: Array) -> Array:
        near = at_most(at_least(wide, -3.0), 3.0)
        return dy * (gate + _array.masked(near / 6.0, (wide > -3.0) & (wide < 3.0)))

    return elementwise(x, wide * gate, back)


@differentiable
def glu(x: Array, /, *, axis: int = -1) -> tuple[Array, Pullback]:
    """Let one half of the entries gate the other: ``y = a · sigmoid(b)``, ``x = [a, b]``.

    Args:
        x: any shape with at least ``axis``, which has an even number of entries.
        axis: the axis that is halved.

    Returns:
        ``y`` with the shape of ``x``, but half the entries along ``axis``. The pullback gives
        ``[dy · sigmoid(b), dy · a · sigmoid(b) (1 - sigmoid(b))]``.

    Raises:
        ValueError: no such axis, an odd number of entries.
        TypeError: integer arrays.

    Source: Y. Dauphin, A. Fan, M. Auli and D. Grangier, "Language modeling with gated
    convolutional networks", arXiv:1612.08083; as ``torch.nn.functional.glu``.

    >>> import numpy as np
    >>> y, pullback = glu.vjp(np.asarray([3.0, 5.0, 0.0, 0.0]))
    >>> y, pullback(np.ones(2))
    (array([1.5, 2.5]), (array([0.5 , 0.5 , 0.75, 1.25]),))
    """
    xp = _array.array_namespace(x)
    axis, half = halved(tuple(x.shape), axis)
    lead = (slice(None),) * axis
    a = _array.widen(x[(*lead, slice(0, half), ...)])
    s = logistic(_array.widen(x[(*lead, slice(half, 2 * half), ...)]))

    def pullback(dy: Array) -> tuple[Array]:
        da = _array.widen(dy) * s
        return (xp.concat([da, da * a * (1.0 - s)], axis=axis),)

    return _array.cast(a * s, x.dtype), pullback


def halved(shape: Shape, axis: int) -> tuple[int, int]:
    """``axis`` counted from the front, and half of its entries."""
    if not shape:
        raise InvalidValue("x is a 0-d array and has no axis to halve")
    axis = axis_of(shape, axis)
    half, odd = divmod(shape[axis], 2)
    if odd:
        raise InvalidValue(
            f"axis {axis} of x {shape} has {shape[axis]} entries, expected an even number to halve"
        )
    return axis, half
