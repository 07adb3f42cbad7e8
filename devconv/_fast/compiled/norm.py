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


def channel_norm(
    x: Array, weight: Array | None, bias: Array | None, eps: float, given: Moments | None
) -> tuple[Array, Moments, Pullback]:
    """``y = (x - mean) / sqrt(var + eps) · weight + bias`` for channels-last ``x (..., C)``.

    Mean and variance, ``(C,)``, are those of ``x`` or the ``given`` ones, which are constants.
    """
    channels, rows = x.shape[-1], math.prod(x.shape[:-1])
    mean, var = _moments(x, rows, channels) if given is None else given
    wide = np.float64
    rate = 1.0 / np.sqrt(np.maximum(var.astype(wide) + eps, np.finfo(x.dtype).smallest_normal))
    gain = rate if weight is None else rate * weight
    offset = np.zeros(channels) if bias is None else bias
    y = np.empty(x.shape, x.dtype)
    zero, terms = x.dtype.type(0), [v.astype(x.dtype) for v in (mean, gain, offset)]

    def work(lo: int, hi: int) -> None:
        first = lo * channels * x.itemsize
        passes.scale(zero, hi - lo, channels, x.ctypes.data + first, *terms, y.ctypes.data + first)

    share(rows, work, y.size)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dy = filled(dy, x.dtype)
        level, flow = _flows(x, dy, mean, rows, channels)
        dweight, dbias = flow * rate, level
        slope, shift = np.zeros(channels), np.zeros(channels)
        if given is None:
            slope = -gain * flow * rate * rate / rows
            shift = -gain * level / rows
        dx = np.empty(x.shape, x.dtype)
        factors = [v.astype(x.dtype) for v in (gain, slope, shift)]

        def work(lo: int, hi: int) -> None:
            first = lo * channels * x.itemsize
            passes.combine(
                zero, hi - lo, channels, dy.ctypes.data + first, factors[0],
                x.ctypes.data + first, terms[0], factors[1], factors[2], dx.ctypes.data + first,
            )  # fmt: skip

        share(rows, work, dx.size)
        return (
            dx,
            None if weight is None else dweight.astype(weight.dtype),
            None if bias is None else dbias.astype(bias.dtype),
        )

    return y, (mean, var), pullback


def channel_sums(x: Array) -> Array:
    """The sum of ``x (..., C)`` over everything but its channels."""
    channels, rows = x.shape[-1], math.prod(x.shape[:-1])
    totals = np.empty((-(-rows // passes.STRETCH), channels), x.dtype)
    zero = x.dtype.type(0)

    def work(lo: int, hi: int) -> None:
        passes.sums(zero, lo, hi, rows, channels, x.ctypes.data, totals)

    share(len(totals), work, x.size)
    return totals.sum(axis=0, dtype=np.float64).astype(x.dtype)


def _moments(x: Array, rows: int, channels: int) -> Moments:
    """Mean and biased variance: those of stretches, put together in float64.

    T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance",
    The American Statistician 37 (1983).
    """
    stretches = -(-rows // passes.STRETCH)
    means, squares = (np.empty((stretches, channels), x.dtype) for _ in range(2))
    zero = x.dtype.type(0)

    def work(lo: int, hi: int) -> None:
        passes.moments(zero, lo, hi, rows, channels, x.ctypes.data, means, squares)

    share(stretches, work, x.size)
    counts = np.full((stretches, 1), passes.STRETCH, np.float64)
    counts[-1] = rows - (stretches - 1) * passes.STRETCH
    wide = means.astype(np.float64)
    mean = (wide * counts).sum(axis=0) / rows
    between = (counts * (wide - mean) ** 2).sum(axis=0)
    var = (squares.sum(axis=0, dtype=np.float64) + between) / rows
    return mean.astype(x.dtype), var.astype(x.dtype)


def _flows(x: Array, dy: Array, mean: Array, rows: int, channels: int) -> tuple[Array, Array]:
    """The sums of ``dy`` and ``dy · (x - mean)`` of each channel, in float64."""
    stretches = -(-rows // passes.STRETCH)
    levels, products = (np.empty((stretches, channels), x.dtype) for _ in range(2))
    zero = x.dtype.type(0)

    def work(lo: int, hi: int) -> None:
        passes.flows(
            zero, lo, hi, rows, channels, x.ctypes.data, mean, dy.ctypes.data, levels, products
        )

    share(stretches, work, x.size)
    return levels.sum(axis=0, dtype=np.float64), products.sum(axis=0, dtype=np.float64)
