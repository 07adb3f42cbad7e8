"""Products of two matrices, and convolutions of few windows with many filters as such.

Where there are fewer windows than filters, laying the kernel out anew costs more than the
sums. Here the kernel is read where it lies and the windows are laid out, as columns:
``y = W · columnsᵀ``, ``dcolumns = dy · W`` and ``dW = dyᵀ · columns``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.compiled.block import PRODUCT, ROWS, multiply_block, pointer
from devconv._fast.compiled.memory import filled, readable
from devconv._fast.compiled.threads import PRODUCTS, share
from devconv._fast.compiled.windows import compiled, panel_width
from devconv._fast.plan import Plan

STRIP = 8 * ROWS
"""Rows of the result that one turn computes."""


def multiply(a: Array, b: Array) -> Array:
    """``a @ b`` for matrices; ``a`` is read where it lies, and ``b`` if its rows are filled.

    If they are not, the smaller of the two is laid out anew.
    """
    (m, k), n = a.shape, b.shape[1]
    a, b = readable(a, a.dtype), readable(b, a.dtype)
    if b.strides[1] != b.itemsize:
        if a.size < b.size:
            return filled(multiply(b.T, np.ascontiguousarray(a.T)).T, a.dtype)
        b = np.ascontiguousarray(b)
    c, zeros, start = np.empty((m, n), a.dtype), np.zeros(n, a.dtype), np.zeros(1, np.int64)
    zero = a.dtype.type(0)

    def work(lo: int, hi: int) -> None:
        _multiply(
            zero, lo, hi, m, n, k, a.ctypes.data, a.strides[0], a.strides[1], b.ctypes.data,
            b.strides[0], c.ctypes.data, zeros.ctypes.data, start, a.itemsize,
        )  # fmt: skip

    share(-(-m // STRIP) * -(-n // panel_width(a.itemsize)), work, m * n * k // PRODUCTS)
    return c


def suits(w: Plan, images: int, outputs: int, groups: int) -> bool:
    """Whether there are fewer windows than filters."""
    return groups == 1 and images * math.prod(w.out) < outputs


def correlate(x: Array, weight: Array, w: Plan, bias: Array | None = None) -> Array:
    """``y (N, *out, O)`` for ``x (N, *size, C)``, plus the bias."""
    filters, channels = weight.shape[:2]
    slab, places, taps = _padded(x, w), *_places(len(x), channels, w)
    columns = np.empty((channels * taps.size, places.size), x.dtype)
    zero = x.dtype.type(0)

    def work(lo: int, hi: int) -> None:
        _take_columns(zero, lo, hi, places, taps, slab.ctypes.data, columns.ctypes.data)

    share(channels, work, 4 * columns.size)
    y = multiply(weight.reshape(filters, -1), columns)
    y = filled(y.T, x.dtype).reshape(len(x), *w.out, filters)
    return y if bias is None else y + bias


def input_cotangent(dy: Array, weight: Array, w: Plan) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
    n, filters, channels = len(dy), weight.shape[0], weight.shape[1]
    columns = multiply(dy.reshape(-1, filters), weight.reshape(filters, -1))
    slab = np.zeros((n, *_extent(w), channels), dy.dtype)
    places, taps = _places(n, channels, w)
    zero, windows = dy.dtype.type(0), places.size // n

    def work(lo: int, hi: int) -> None:
        _put_rows(
            zero, lo * windows, hi * windows, channels, places, taps, slab.ctypes.data,
            columns.ctypes.data,
        )  # fmt: skip

    share(n, work, 4 * columns.size)
    return filled(slab[_inside(w)], dy.dtype)


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan) -> Array:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``."""
    filters, channels = weight.shape[:2]
    slab, places, taps = _padded(x, w), *_places(len(x), channels, w)
    columns = np.empty((places.size, channels * taps.size), x.dtype)
    zero = x.dtype.type(0)

    def work(lo: int, hi: int) -> None:
        _take_rows(zero, lo, hi, channels, places, taps, slab.ctypes.data, columns.ctypes.data)

    share(places.size, work, 4 * columns.size)
    dy = readable(dy, x.dtype).reshape(-1, filters)
    return multiply(dy.T, columns).reshape(weight.shape)


def _extent(w: Plan) -> Shape:
    """The padded image."""
    return tuple(n + before + after for n, (before, after) in zip(w.size, w.padding, strict=True))


def _inside(w: Plan) -> tuple[slice, ...]:
    """Where the image lies in it."""
    axes = zip(w.size, w.padding, strict=True)
    return (slice(None), *(slice(before, before + n) for n, (before, _) in axes))


def _padded(x: Array, w: Plan) -> Array:
    slab = np.zeros((len(x), *_extent(w), x.shape[-1]), x.dtype)
    slab[_inside(w)] = x
    return slab


def _places(n: int, channels: int, w: Plan) -> tuple[Array, Array]:
    """How many numbers into the padded images each window begins, and into a window each tap."""
    step, places, taps = channels, np.zeros(1, np.int64), np.zeros(1, np.int64)
    axes = zip(_extent(w), w.out, w.kernel, w.stride, w.dilation, strict=True)
    for extent, out, kernel, stride, dilation in reversed(list(axes)):
        places = np.add.outer(np.arange(out) * stride * step, places).reshape(-1)
        taps = np.add.outer(np.arange(kernel) * dilation * step, taps).reshape(-1)
        step *= extent
    return np.add.outer(np.arange(n) * step, places).reshape(-1), taps


@compiled
def _take_rows(zero, lo, hi, channels, places, taps, slab, columns):
    """Windows ``lo`` to ``hi`` as rows ``(channels, taps)``."""
    slab = carray(pointer(zero, slab), places[hi - 1] + taps[-1] + channels)
    columns = carray(pointer(zero, columns), (hi, channels, taps.size))
    for p in range(lo, hi):
        for t in range(taps.size):
            first = places[p] + taps[t]
            for c in range(channels):
                columns[p, c, t] = slab[first + c]


@compiled
def _take_columns(zero, lo, hi, places, taps, slab, columns):
    """The same, transposed: channels ``lo`` to ``hi`` of ``(channels, taps, windows)``."""
    slab = carray(pointer(zero, slab), places[-1] + taps[-1] + hi)
    columns = carray(pointer(zero, columns), (hi, taps.size, places.size))
    for c in range(lo, hi):
        for t in range(taps.size):
            first = taps[t] + c
            for p in range(places.size):
                columns[c, t, p] = slab[places[p] + first]


@compiled
def _put_rows(zero, lo, hi, channels, places, taps, slab, columns):
    """The adjoint of taking rows: each added where it had been read."""
    slab = carray(pointer(zero, slab), places[hi - 1] + taps[-1] + channels)
    columns = carray(pointer(zero, columns), (hi, channels, taps.size))
    for p in range(lo, hi):
        for t in range(taps.size):
            first = places[p] + taps[t]
            for c in range(channels):
                slab[first + c] += columns[p, c, t]


@compiled
def _multiply(zero, lo, hi, m, n, k, a, a_row, a_step, b, b_step, c, zeros, start, itemsize):
    """Turns ``lo`` to ``hi`` of the product: each a strip of rows, in one panel of columns."""
    width = panel_width(itemsize)
    strips = (m + STRIP - 1) // STRIP
    for turn in range(lo, hi):
        o = turn // strips * width
        columns = min(width, n - o)
        first = turn % strips * STRIP
        count = min(STRIP, m - first)
        blocks = (count + ROWS - 1) // ROWS
        for block in range(blocks):
            low = first + block * count // blocks
            high = first + (block + 1) * count // blocks
            multiply_block(
                zero, high - low, PRODUCT, a + low * a_row, a_row, a_step, start.ctypes.data,
                b + o * itemsize, b_step, start.ctypes.data, 1, k,
                c + (low * n + o) * itemsize, n * itemsize, zeros, 0, columns, 0,
            )  # fmt: skip
