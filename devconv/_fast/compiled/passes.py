"""Passes over images as rows of channels: a few readings of memory where NumPy takes many.

An array ``(N, *spatial, C)`` without gaps is ``rows`` rows of ``C`` numbers, given by its
address. A pass goes over stretches of rows, so that threads can share it; sums are kept for
each stretch of ``STRETCH`` rows and added up in order, whoever computed them.
"""

from __future__ import annotations

from numba import carray

from devconv._fast.compiled.block import pointer
from devconv._fast.compiled.windows import compiled

STRETCH = 256
"""Rows whose sums are taken together."""


@compiled
def rectify(zero, count, x, y):
    """``y = max(x, 0)``; NaN stays NaN."""
    x, y = carray(pointer(zero, x), count), carray(pointer(zero, y), count)
    for i in range(count):
        y[i] = zero if x[i] <= zero else x[i]


@compiled
def rectify_back(zero, count, dy, y, dx):
    """``dx = dy`` where ``y`` is not 0, else 0."""
    y, dy = carray(pointer(zero, y), count), carray(pointer(zero, dy), count)
    dx = carray(pointer(zero, dx), count)
    for i in range(count):
        dx[i] = dy[i] * (zero if y[i] == zero else zero + 1)


@compiled
def tanh_back(zero, count, dy, y, dx):
    """``dx = dy · (1 - y²)``."""
    y, dy = carray(pointer(zero, y), count), carray(pointer(zero, dy), count)
    dx = carray(pointer(zero, dx), count)
    for i in range(count):
        dx[i] = dy[i] * (zero + 1 - y[i] * y[i])


@compiled
def blend(zero, count, a, x, b, y, out):
    """``out = a · x + b · y``, two numbers of the arrays' dtype and two arrays."""
    x, y = carray(pointer(zero, x), count), carray(pointer(zero, y), count)
    out = carray(pointer(zero, out), count)
    for i in range(count):
        out[i] = a * x[i] + b * y[i]


@compiled
def moments(zero, lo, hi, rows, channels, x, means, squares):
    """Mean and sum of squares around it, of each channel in each stretch."""
    x = carray(pointer(zero, x), (rows, channels))
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


@compiled
def scale(zero, rows, channels, x, mean, gain, offset, y):
    """``y = (x - mean) · gain + offset``, channel by channel."""
    x, y = carray(pointer(zero, x), (rows, channels)), carray(pointer(zero, y), (rows, channels))
    for i in range(rows):
        for c in range(channels):
            y[i, c] = (x[i, c] - mean[c]) * gain[c] + offset[c]


@compiled
def flows(zero, lo, hi, rows, channels, x, mean, dy, levels, products):
    """The sums of ``dy`` and of ``dy · (x - mean)`` of each channel in each stretch."""
    x, dy = carray(pointer(zero, x), (rows, channels)), carray(pointer(zero, dy), (rows, channels))
    for s in range(lo, hi):
        for c in range(channels):
            levels[s, c] = zero
            products[s, c] = zero
        for i in range(s * STRETCH, min((s + 1) * STRETCH, rows)):
            for c in range(channels):
                levels[s, c] += dy[i, c]
                products[s, c] += dy[i, c] * (x[i, c] - mean[c])


@compiled
def combine(zero, rows, channels, dy, gain, x, mean, slope, offset, dx):
    """``dx = dy · gain + (x - mean) · slope + offset``, channel by channel."""
    x, dy = carray(pointer(zero, x), (rows, channels)), carray(pointer(zero, dy), (rows, channels))
    dx = carray(pointer(zero, dx), (rows, channels))
    for i in range(rows):
        for c in range(channels):
            dx[i, c] = dy[i, c] * gain[c] + (x[i, c] - mean[c]) * slope[c] + offset[c]


@compiled
def sums(zero, lo, hi, rows, channels, x, totals):
    """The sum of each channel in each stretch."""
    x = carray(pointer(zero, x), (rows, channels))
    for s in range(lo, hi):
        for c in range(channels):
            totals[s, c] = zero
        for i in range(s * STRETCH, min((s + 1) * STRETCH, rows)):
            for c in range(channels):
                totals[s, c] += x[i, c]
