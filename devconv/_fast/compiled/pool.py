"""Pooling over channels-last images, window by window, without intermediate results."""

from __future__ import annotations

import math

import numpy as np

from devconv._array import Array
from devconv._fast.compiled import conv
from devconv._fast.compiled.memory import filled
from devconv._fast.compiled.native import Task, compiled, integers, numbers
from devconv._fast.compiled.threads import share
from devconv._fast.compiled.windows import DILATION, KERNEL, ORIGIN, SIZE, STRIDE
from devconv._fast.plan import Plan

OUT = 5
"""One row more of the geometry that :mod:`.windows` describes: the number of windows."""


def largest(x: Array, w: Plan) -> Array:
    """The largest pixel of each window, ``(N, *out, C)``; NaN wins."""
    y = np.full((x.shape[0], *w.out, x.shape[-1]), -math.inf, x.dtype)
    x, geometry = filled(x, x.dtype), _geometry(w)
    rows, effort = x.shape[0] * math.prod(geometry[OUT, :2].tolist()), y.size * math.prod(w.kernel)
    share(_largest, x.dtype, rows, effort, geometry, x.shape[-1], x, y)
    return y


def largest_back(dy: Array, x: Array, y: Array, w: Plan) -> Array:
    """``dy`` sent to the first of the largest pixels of each window."""
    dx, kind = np.zeros(x.shape, x.dtype), x.dtype
    x, y, dy = filled(x, kind), filled(y, kind), filled(dy, kind)
    effort = y.size * math.prod(w.kernel)
    share(_largest_back, kind, x.shape[0], effort, _geometry(w), x.shape[-1], x, y, dy, dx)
    return dx


def total(x: Array, w: Plan) -> Array:
    """The sum of each window's pixels, ``(N, *out, C)``: each channel meets a kernel of ones."""
    ones = np.ones((x.shape[-1], 1, *w.kernel), x.dtype)
    return conv.correlate(x, ones, w, x.shape[-1])


def total_back(dy: Array, w: Plan) -> Array:
    """The adjoint: each pixel's sum of ``dy`` over the windows that it is in."""
    dx, dy = np.zeros((dy.shape[0], *w.size, dy.shape[-1]), dy.dtype), filled(dy, dy.dtype)
    effort = dy.size * math.prod(w.kernel)
    share(_total_back, dy.dtype, dy.shape[0], effort, _geometry(w), dy.shape[-1], dy, dx)
    return dx


def _geometry(w: Plan) -> Array:
    rows = np.ones((6, 3), np.int64)
    rank = len(w.kernel)
    rows[:, 3 - rank :] = w.size, w.kernel, w.stride, w.dilation, [-a for a, _ in w.padding], w.out
    rows[ORIGIN, : 3 - rank] = 0
    return rows


@compiled
def _reads(geometry, axis, window):
    """The pixels of the image that a window reads along one axis: first, stop and step."""
    step = geometry[DILATION, axis]
    first = window * geometry[STRIDE, axis] + geometry[ORIGIN, axis]
    stop = min(first + geometry[KERNEL, axis] * step, geometry[SIZE, axis])
    if first < 0:
        first += (-first + step - 1) // step * step
    return first, stop, step


@compiled
def _images(geometry, row, zero, address, images, channels):
    size = images, geometry[row, 0], geometry[row, 1], geometry[row, 2], channels
    return numbers(zero, address, size)


@Task
def _largest(zero, who, lo, hi, room, geometry, channels, x, y):
    geometry = integers(geometry, (6, 3))
    rows = geometry[OUT, 0] * geometry[OUT, 1]
    images = (hi + rows - 1) // rows
    x = _images(geometry, SIZE, zero, x, images, channels)
    y = _images(geometry, OUT, zero, y, images, channels)
    for row in range(lo, hi):
        n, d, h = row // rows, row % rows // geometry[OUT, 1], row % geometry[OUT, 1]
        d0, d1, dd = _reads(geometry, 0, d)
        h0, h1, dh = _reads(geometry, 1, h)
        for w in range(geometry[OUT, 2]):
            w0, w1, dw = _reads(geometry, 2, w)
            for i in range(d0, d1, dd):
                for j in range(h0, h1, dh):
                    for k in range(w0, w1, dw):
                        for c in range(channels):
                            pixel, best = x[n, i, j, k, c], y[n, d, h, w, c]
                            y[n, d, h, w, c] = pixel if pixel > best or pixel != pixel else best


@Task
def _largest_back(zero, who, lo, hi, room, geometry, channels, x, y, dy, dx):
    geometry = integers(geometry, (6, 3))
    x = _images(geometry, SIZE, zero, x, hi, channels)
    dx = _images(geometry, SIZE, zero, dx, hi, channels)
    y = _images(geometry, OUT, zero, y, hi, channels)
    dy = _images(geometry, OUT, zero, dy, hi, channels)
    left = np.empty(channels, x.dtype)  # what no pixel of the window has been given yet
    for n in range(lo, hi):
        for d in range(geometry[OUT, 0]):
            d0, d1, dd = _reads(geometry, 0, d)
            for h in range(geometry[OUT, 1]):
                h0, h1, dh = _reads(geometry, 1, h)
                for w in range(geometry[OUT, 2]):
                    w0, w1, dw = _reads(geometry, 2, w)
                    for c in range(channels):
                        left[c] = dy[n, d, h, w, c]
                    for i in range(d0, d1, dd):
                        for j in range(h0, h1, dh):
                            for k in range(w0, w1, dw):
                                for c in range(channels):
                                    pixel = x[n, i, j, k, c]
                                    hit = pixel == y[n, d, h, w, c] or pixel != pixel
                                    dx[n, i, j, k, c] += left[c] if hit else zero
                                    left[c] = zero if hit else left[c]


@Task
def _total_back(zero, who, lo, hi, room, geometry, channels, dy, dx):
    geometry = integers(geometry, (6, 3))
    dx = _images(geometry, SIZE, zero, dx, hi, channels)
    dy = _images(geometry, OUT, zero, dy, hi, channels)
    for n in range(lo, hi):
        for d in range(geometry[OUT, 0]):
            d0, d1, dd = _reads(geometry, 0, d)
            for h in range(geometry[OUT, 1]):
                h0, h1, dh = _reads(geometry, 1, h)
                for w in range(geometry[OUT, 2]):
                    w0, w1, dw = _reads(geometry, 2, w)
                    for i in range(d0, d1, dd):
                        for j in range(h0, h1, dh):
                            for k in range(w0, w1, dw):
                                for c in range(channels):
                                    dx[n, i, j, k, c] += dy[n, d, h, w, c]
