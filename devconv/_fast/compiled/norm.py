"""Normalisation of each channel over a batch, in two readings of memory there and two back."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from devconv._array import Array
from devconv._fast.compiled import passes
from devconv._fast.compiled.memory import filled
from devconv._fast.compiled.threads import share

Moments = tuple[Array, Array]
Pullback = Callable[[Array], tuple[Array | None, ...]]

FEW = 16
"""With fewer channels than this, neighbouring pixels are summed side by side."""
_LEAST = {np.dtype(name): float(np.finfo(name).smallest_normal) for name in ("f4", "f8")}


def channel_norm(
    x: Array, weight: Array | None, bias: Array | None, eps: float, given: Moments | None
) -> tuple[Array, Moments, Pullback]:
    """``y = (x - mean) / sqrt(var + eps) · weight + bias`` for channels-last ``x (..., C)``.

    Mean and variance, ``(C,)``, are those of ``x`` or the ``given`` ones, which are constants.
    """
    channels, rows, kind = x.shape[-1], math.prod(x.shape[:-1]), x.dtype
    rate, gain = np.empty(channels, np.float64), np.empty(channels, kind)
    limits = np.asarray((eps, _LEAST[kind]), np.float64)
    scales = 0 if weight is None else filled(weight, kind)
    if given is None:
        mean, var = _moments(x, rows, channels, limits, scales, rate, gain)
    else:
        mean, var = (filled(v, kind) for v in given)
        share(passes.rates, kind, channels, channels, limits, var, scales, rate, gain)
    offset = np.zeros(channels, kind) if bias is None else filled(bias, kind)
    y = np.empty(x.shape, kind)
    share(passes.scale, kind, rows, y.size, channels, x, mean, gain, offset, y)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dy, stretches = filled(dy, kind), -(-rows // passes.STRETCH)
        levels, products = (np.empty((stretches, channels), kind) for _ in range(2))
        flows = rows, channels, x, mean, dy, levels, products
        share(passes.flows, kind, stretches, x.size, *flows)
        dweight, dbias, slope, shift = (np.empty(channels, kind) for _ in range(4))
        sums = stretches, channels, rows, given is not None, levels, products, rate, scales
        share(passes.slopes, kind, channels, levels.size, *sums, dweight, dbias, slope, shift)
        dx = np.empty(x.shape, kind)
        terms = channels, dy, gain, x, mean, slope, shift, dx
        share(passes.combine, kind, rows, dx.size, *terms)
        return dx, None if weight is None else dweight, None if bias is None else dbias

    return y, (mean, var), pullback


def channel_sums(x: Array) -> Array:
    """The sum of ``x (..., C)`` over everything but its channels."""
    channels, rows = x.shape[-1], math.prod(x.shape[:-1])
    together = math.gcd(rows, FEW) if channels < FEW else 1  # short rows leave vectors unfilled
    rows, columns = rows // together, channels * together
    totals = np.empty((-(-rows // passes.STRETCH), columns), x.dtype)
    share(passes.sums, x.dtype, len(totals), x.size, rows, columns, x, totals)
    return totals.reshape(-1, channels).sum(axis=0, dtype=np.float64).astype(x.dtype)


def _moments(x: Array, rows: int, channels: int, *scaling: Array | int) -> Moments:
    """Mean and biased variance; what ``scaling`` takes up beside them."""
    stretches, kind = -(-rows // passes.STRETCH), x.dtype
    means, squares = (np.empty((stretches, channels), kind) for _ in range(2))
    share(passes.moments, kind, stretches, x.size, rows, channels, x, means, squares)
    mean, var = np.empty(channels, kind), np.empty(channels, kind)
    told = stretches, channels, rows, means, squares, mean, var, *scaling
    share(passes.together, kind, channels, means.size, *told)
    return mean, var
