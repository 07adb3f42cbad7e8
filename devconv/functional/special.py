"""Functions of one number that no namespace of the standard has, or none has safely.

Written once for every library and dtype: they neither overflow nor divide by 0 anywhere,
keep NaN, keep the memory order of their argument and never make the host wait.
"""

from __future__ import annotations

from typing import Any

from devconv import _array, _fast
from devconv._array import Array

# W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of
# Computation 23 (1969), 631-637; the coefficients as printed in netlib's specfun/erf.
_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
     3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2,
     1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
     6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
     1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2,
     5.37181101862009858e2, 1.62138957456669019e3, 3.29079923573345963e3,
     4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_EDGE = 0.46875  # where the two meet
_FLAT = 6.0  # from here on erf is 1 to the last bit of float64


def at_least(x: Array, low: float) -> Array:
    """The larger of ``x`` and a number; NaN stays NaN.

    >>> import numpy as np
    >>> at_least(np.asarray([-1.0, 2.0]), 0.0)
    array([0., 2.])
    """
    maximum = _array.array_namespace(x).maximum
    return maximum(x, _beside(maximum, x, low))


def at_most(x: Array, high: float) -> Array:
    """The smaller of ``x`` and a number; NaN stays NaN."""
    minimum = _array.array_namespace(x).minimum
    return minimum(x, _beside(minimum, x, high))


def _beside(function: Any, x: Array, value: float) -> Any:
    """A number as ``function(x, number)`` takes it: plain, if it is a universal function.

    As NumPy and CuPy have it; of another function an older library may want arrays alone.
    """
    return partner(x, value) if hasattr(function, "nin") else _single(x, value)


def partner(x: Array, value: float) -> Any:
    """A number in the dtype of ``x``, to compare and to combine with it.

    Plain, but for bfloat16: beside a plain number CuPy makes float32 of that.

    >>> import numpy as np
    >>> partner(np.ones(2), 0.5)
    0.5
    """
    return _single(x, value) if _array.dtype_name(x.dtype) == "bfloat16" else value


def _single(x: Array, value: float) -> Array:
    return _array.array_namespace(x).full((), value, dtype=x.dtype, device=_array.device(x))


def blend(a: Any, x: Array, b: Any, y: Array) -> Array:
    """``a · x + b · y`` for two numbers and two arrays, in one pass where there is a route.

    >>> import numpy as np
    >>> blend(0.5, np.asarray([2.0]), 1.0, np.asarray([3.0]))
    array([4.])
    """
    plain = isinstance(a, float) and isinstance(b, float)
    route = _fast.passing("blend", x, y) if plain else None
    if route is not None:
        return route(a, x, b, y)
    return scaled(a, x) + scaled(b, y)


def scaled(factor: Any, x: Array) -> Array:
    """``factor · x`` for a number or an array; ``x`` itself, if it is the number 1.0."""
    return x if isinstance(factor, float) and factor == 1.0 else factor * x


def scaled_step(
    x: Array,
    grad: Array,
    first: Array | None,
    second: Array | None,
    *,
    betas: tuple[float, float],
    rate: Any,
    eps: Any,
    shrink: float,
    decay: float,
) -> tuple[Array, Array, Array]:
    """Adam's step of ``x``, and the running means of gradients and of their squares.

    ``x · shrink - rate · first / (sqrt(second) + eps)``, where the means have the gradient's
    share ``grad + decay · x``; in one pass where there is a route.

    >>> import numpy as np
    >>> one = {"betas": (0.0, 0.0), "rate": 0.5, "eps": 0.0}
    >>> scaled_step(np.ones(1), np.ones(1), None, None, **one, shrink=1.0, decay=0.0)[0]
    array([0.5])
    """
    beta1, beta2 = betas
    route = _fast.passing("scaled_step", x, grad)
    if route is not None:
        first, second = (0.0 if m is None else m for m in (first, second))
        return route(
            x, grad, first, second, beta1, beta2, 1.0 - beta1, 1.0 - beta2, rate, eps, shrink, decay
        )
    if decay:
        grad = grad + decay * x
    if shrink != 1.0:
        x = x * shrink
    first = (1.0 - beta1) * grad + (0.0 if first is None else beta1 * first)
    second = (1.0 - beta2) * grad * grad + (0.0 if second is None else beta2 * second)
    size = _array.array_namespace(x).sqrt(second) + eps
    return x - rate * first / size, first, second


def blend_twice(a: Any, x: Array, b: Any, y: Array, c: Any, z: Array) -> tuple[Array, Array]:
    """``a · x + b · y``, and ``z + c`` times that, in one pass where there is a route.

    >>> import numpy as np
    >>> blend_twice(0.5, np.asarray([2.0]), 1.0, np.asarray([3.0]), -1.0, np.asarray([1.0]))
    (array([4.]), array([-3.]))
    """
    plain = all(isinstance(factor, float) for factor in (a, b, c))
    route = _fast.passing("blend_twice", x, y, z) if plain else None
    if route is not None:
        inner, outer = route(a, x, b, y, c, z)
        return inner, outer
    inner = blend(a, x, b, y)
    return inner, blend(1.0, z, c, inner)


def logistic(x: Array) -> Array:
    """``1 / (1 + exp(-x))``, with all its digits on either side.

    >>> import numpy as np
    >>> logistic(np.asarray([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    xp = _array.array_namespace(x)
    return xp.exp(at_most(x, 0.0)) / (1.0 + _small(x))


def log1p_exp(x: Array) -> Array:
    """``log(1 + exp(x))``, with all its digits on either side.

    >>> import numpy as np
    >>> log1p_exp(np.asarray([-80.0, 0.0, 80.0])).round(6)
    array([ 0.      ,  0.693147, 80.      ])
    """
    return at_least(x, 0.0) + _array.array_namespace(x).log1p(_small(x))


def _small(x: Array) -> Array:
    """``exp(-|x|)``, never above 1; libraries disagree on the derivative of ``|x|`` at 0."""
    xp = _array.array_namespace(x)
    return xp.exp(xp.minimum(x, -x))


def erf(x: Array) -> Array:
    """``2/sqrt(pi) · integral from 0 to x of exp(-t²) dt``, within 1e-15 in float64.

    Rational approximations of W. J. Cody (1969): of ``erf(x)/x`` near 0, of
    ``exp(x²)·erfc(x)`` elsewhere. Works for any shape; NaN stays NaN.

    >>> import numpy as np
    >>> erf(np.asarray([0.0, 0.5, -1.0])).round(6)
    array([ 0.      ,  0.5205  , -0.842701])
    """
    xp = _array.array_namespace(x)
    size = xp.abs(x)
    inner = at_most(size, _EDGE)
    near = inner * _ratio(_NEAR, inner * inner)
    outer = at_most(at_least(size, _EDGE), _FLAT)
    far = 1.0 - xp.exp(-outer * outer) * _ratio(_MIDDLE, outer)
    return xp.where(size <= _EDGE, near, far) * xp.sign(x)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    above, below = coefficients
    return _polynomial(above, x) / _polynomial(below, x)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    total = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        total = total * x + c
    return total
