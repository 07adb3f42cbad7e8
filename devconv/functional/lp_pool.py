"""Pooling by a norm: between the mean of a window and its maximum."""

from __future__ import annotations

import math
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, number
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.pool import Size, avg_pool, pool_windows


@differentiable
def lp_pool(
    x: Array,
    /,
    *,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> tuple[Array, Pullback]:
    """Take the Lp norm of each window.

    ``y[n, c, o] = (sum over k of x[n, c, o·stride + k]^p)^(1/p)`` with ``p = norm_type``

    Args:
        x: images ``(N, C, *spatial)``.
        norm_type: the exponent, at least 1 and finite.
        kernel_size: the window in pixels, an int or one per spatial dimension.
        stride: pixels between windows; ``None`` means ``kernel_size``.
        ceil_mode: round the number of windows up, as in ``max_pool``.

    Returns:
        ``y (N, C, *out)``; the pullback gives ``dy · x^(p-1) / y^(p-1)``, and 0 where the sum
        is 0.

    Raises:
        ValueError: ``norm_type`` below 1 or infinite, an empty output, options out of range.
        TypeError: integer images.

    As ``torch.nn.functional.lp_pool2d``. Like there, powers are of ``x`` and not of ``|x|``,
    so with an odd ``norm_type`` negative pixels count negative, a negative sum is NaN (but
    for ``p = 1``), as is a negative pixel to a fractional power; and the sum is the window's
    mean times ``∏kernel``, so a window that ``ceil_mode`` lets reach over the edge counts as
    if it were full.

    >>> import numpy as np
    >>> lp_pool(np.asarray([[[3.0, 4.0, 0.0, 2.0]]]), norm_type=2, kernel_size=2)
    array([[[5., 2.]]])
    """
    xp = _array.array_namespace(x)
    w = pool_windows(check_image(x), kernel_size, stride, 0, 1, ceil_mode)
    p = exponent(norm_type)
    wide = _array.widen(x)
    means, to_powers = avg_pool.vjp(
        _power(wide, p), kernel_size=w.kernel, stride=w.stride, ceil_mode=ceil_mode
    )
    sums = means * float(w.taps)
    nothing = sums == 0.0
    one, zero = xp.ones_like(sums), xp.zeros_like(sums)
    y = xp.where(nothing, zero, _power(xp.where(nothing, one, sums), 1.0 / p))

    def pullback(dy: Array) -> tuple[Array]:
        scale = _power(xp.where(nothing, one, sums), 1.0 / p - 1.0)
        dsums = xp.where(nothing, zero, _array.widen(dy) * scale)  # dy · y^(1-p)
        (shares,) = to_powers(dsums * float(w.taps))
        return (shares * _power(wide, p - 1.0),)

    return _array.cast(y, x.dtype), pullback


def exponent(norm_type: float) -> float:
    """The exponent of a norm, at least 1 and finite."""
    p = number("norm_type", norm_type, least=1.0)
    if math.isinf(p):
        raise InvalidValue("norm_type must be finite, got inf; that norm is max_pool")
    return p


def _power(x: Array, exponent: float) -> Any:
    """``x^exponent``, NaN for a fractional power of a negative number."""
    xp = _array.array_namespace(x)
    if not exponent.is_integer():
        x = xp.where(x < 0.0, xp.full_like(x, math.nan), x)
    return x**exponent
