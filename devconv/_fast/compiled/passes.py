"""Passes over numbers, and over images as rows of channels: few readings of memory.

An array ``(N, *spatial, C)`` without gaps is ``rows`` rows of ``C`` numbers, given by its
address. Threads share the numbers, or the rows; sums are kept for each stretch of ``STRETCH``
rows and added up in order, whoever computed them.
"""

from __future__ import annotations

import math

from devconv._fast.compiled.native import Task, compiled, numbers

STRETCH = 256
"""Rows whose sums are taken together."""


@compiled
def part(zero, address, lo, hi):
    """Numbers ``lo`` to ``hi``, counted from 0: with an index below 0 in sight, loops are slow."""
    return numbers(zero, address, hi)[lo:]


@compiled
def rows_of(zero, address, lo, hi, channels):
    """Rows ``lo`` to ``hi``, counted from 0."""
    return numbers(zero, address, (hi, channels))[lo:]


@Task
def rectify(zero, who, lo, hi, room, x, y):
    """``y = max(x, 0)``; NaN stays NaN."""
    x, y = part(zero, x, lo, hi), part(zero, y, lo, hi)
    for i in range(hi - lo):
        y[i] = zero if x[i] <= zero else x[i]


@Task
def rectify_back(zero, who, lo, hi, room, dy, y, dx):
    """``dx = dy`` where ``y`` is not 0, else 0."""
    y, dy, dx = part(zero, y, lo, hi), part(zero, dy, lo, hi), part(zero, dx, lo, hi)
    for i in range(hi - lo):
        dx[i] = dy[i] * (zero if y[i] == zero else zero + 1)


@Task
def tanh_back(zero, who, lo, hi, room, dy, y, dx):
    """``dx = dy · (1 - y²)``."""
    y, dy, dx = part(zero, y, lo, hi), part(zero, dy, lo, hi), part(zero, dx, lo, hi)
    for i in range(hi - lo):
        dx[i] = dy[i] * (zero + 1 - y[i] * y[i])


@Task
def blend(zero, who, lo, hi, room, factors, x, y, out):
    """``out = a · x + b · y``, two numbers of the arrays' dtype and two arrays."""
    x, y, out = part(zero, x, lo, hi), part(zero, y, lo, hi), part(zero, out, lo, hi)
    a, b = numbers(zero, factors, 2)
    for i in range(hi - lo):
        out[i] = a * x[i] + b * y[i]


@Task
def moments(zero, who, lo, hi, room, rows, channels, x, means, squares):
    """Mean and sum of squares around it, of each channel in each stretch."""
    x = numbers(zero, x, (rows, channels))
    means, squares = numbers(zero, means, (hi, channels)), numbers(zero, squares, (hi, channels))
    for s in range(lo, hi):
        first, last = s * STRETCH, min((s + 1) * STRETCH, rows)
        for c in range(channels):
            means[s, c] = zero
            squares[s, c] = zero
        for i in range(first, last):
            for c in range(channels):
                means[s, c] += x[i, c]
        for c in range(channels):
            means[s, c] /= last - first
        for i in range(first, last):
            for c in range(channels):
                difference = x[i, c] - means[s, c]
                squares[s, c] += difference * difference


@Task
def together(
    zero, who, lo, hi, room, stretches, channels, rows, means, squares, mean, var, limits, weight,
    rate, gain,
):  # fmt: skip
    """Mean and biased variance of channels ``lo`` to ``hi`` from those of all stretches.

    T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance",
    The American Statistician 37 (1983). And their rates, see :func:`rates`.
    """
    shape = stretches, channels
    means, squares = numbers(zero, means, shape), numbers(zero, squares, shape)
    mean, variance = numbers(zero, mean, channels), numbers(zero, var, channels)
    for c in range(lo, hi):
        total = 0.0
        for s in range(stretches):
            total += means[s, c] * float(min(STRETCH, rows - s * STRETCH))
        middle, total = total / rows, 0.0
        for s in range(stretches):
            apart = means[s, c] - middle
            total += squares[s, c] + apart * apart * min(STRETCH, rows - s * STRETCH)
        mean[c], variance[c] = middle, total / rows
    _rates(zero, lo, hi, limits, var, weight, rate, gain)


@Task
def rates(zero, who, lo, hi, room, limits, var, weight, rate, gain):
    """``rate = 1 / sqrt(var + eps)``, in float64, and ``gain = rate · weight``, if there is one.

    ``limits`` are ``eps``, and the least number that ``var + eps`` is taken for.
    """
    _rates(zero, lo, hi, limits, var, weight, rate, gain)


@compiled
def _rates(zero, lo, hi, limits, var, weight, rate, gain):
    eps, least = numbers(0.0, limits, 2)
    var, rate, gain = numbers(zero, var, hi), numbers(0.0, rate, hi), numbers(zero, gain, hi)
    for c in range(lo, hi):
        rate[c] = 1.0 / math.sqrt(max(var[c] + eps, least))
        gain[c] = rate[c] if weight == 0 else rate[c] * numbers(zero, weight, hi)[c]


@Task
def scale(zero, who, lo, hi, room, channels, x, mean, gain, offset, y):
    """``y = (x - mean) · gain + offset``, channel by channel."""
    x, y = rows_of(zero, x, lo, hi, channels), rows_of(zero, y, lo, hi, channels)
    mean, gain = numbers(zero, mean, channels), numbers(zero, gain, channels)
    offset = numbers(zero, offset, channels)
    for i in range(hi - lo):
        for c in range(channels):
            y[i, c] = (x[i, c] - mean[c]) * gain[c] + offset[c]


@Task
def flows(zero, who, lo, hi, room, rows, channels, x, mean, dy, levels, products):
    """The sums of ``dy`` and of ``dy · (x - mean)`` of each channel in each stretch."""
    x, dy = numbers(zero, x, (rows, channels)), numbers(zero, dy, (rows, channels))
    levels = numbers(zero, levels, (hi, channels))
    products = numbers(zero, products, (hi, channels))
    mean = numbers(zero, mean, channels)
    for s in range(lo, hi):
        for c in range(channels):
            levels[s, c] = zero
            products[s, c] = zero
        for i in range(s * STRETCH, min((s + 1) * STRETCH, rows)):
            for c in range(channels):
                levels[s, c] += dy[i, c]
                products[s, c] += dy[i, c] * (x[i, c] - mean[c])


@Task
def slopes(
    zero, who, lo, hi, room, stretches, channels, rows, is_constant, levels, products, rate, weight,
    dweight, dbias, slope, offset,
):  # fmt: skip
    """What :func:`combine` needs, from the sums of all stretches, and the weight's and bias's own.

    Of constant moments no way leads back to ``x``: slope and offset are 0.
    """
    levels = numbers(zero, levels, (stretches, channels))
    products, rate = numbers(zero, products, (stretches, channels)), numbers(0.0, rate, hi)
    dweight, dbias = numbers(zero, dweight, hi), numbers(zero, dbias, hi)
    slope, offset = numbers(zero, slope, hi), numbers(zero, offset, hi)
    for c in range(lo, hi):
        level, product = 0.0, 0.0
        for s in range(stretches):
            level += levels[s, c]
            product += products[s, c]
        factor = 0.0 if is_constant else rate[c] / rows
        factor *= 1.0 if weight == 0 else numbers(zero, weight, hi)[c]
        dweight[c], dbias[c] = product * rate[c], level
        slope[c], offset[c] = -factor * product * rate[c] * rate[c], -factor * level


@Task
def combine(zero, who, lo, hi, room, channels, dy, gain, x, mean, slope, offset, dx):
    """``dx = dy · gain + (x - mean) · slope + offset``, channel by channel."""
    x, dy = rows_of(zero, x, lo, hi, channels), rows_of(zero, dy, lo, hi, channels)
    dx, gain = rows_of(zero, dx, lo, hi, channels), numbers(zero, gain, channels)
    mean, slope = numbers(zero, mean, channels), numbers(zero, slope, channels)
    offset = numbers(zero, offset, channels)
    for i in range(hi - lo):
        for c in range(channels):
            dx[i, c] = dy[i, c] * gain[c] + (x[i, c] - mean[c]) * slope[c] + offset[c]


@Task
def sums(zero, who, lo, hi, room, rows, channels, x, totals):
    """The sum of each channel in each stretch."""
    x, totals = numbers(zero, x, (rows, channels)), numbers(zero, totals, (hi, channels))
    for s in range(lo, hi):
        for c in range(channels):
            totals[s, c] = zero
        for i in range(s * STRETCH, min((s + 1) * STRETCH, rows)):
            for c in range(channels):
                totals[s, c] += x[i, c]


@Task
def add_up(zero, who, lo, hi, room, size, parts, sums):
    """Numbers ``lo`` to ``hi`` of each part, ``size`` apart, added to those of the first."""
    total = part(zero, sums, lo, hi)
    for q in range(1, parts):
        more = part(zero, sums, q * size + lo, q * size + hi)
        for i in range(hi - lo):
            total[i] += more[i]
