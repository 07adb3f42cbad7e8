"""Products of two matrices, and convolutions of few windows with many filters as such.

Where there are fewer windows than filters, laying the kernel out anew costs more than the
sums. Here the kernel is read where it lies and the windows are laid out, as columns:
``y = W · columnsᵀ``, ``dcolumns = dy · W`` and ``dW = dyᵀ · columns``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.compiled.block import PRODUCT, ROWS, copy_bytes, multiply_block
from devconv._fast.compiled.memory import filled, readable
from devconv._fast.compiled.native import Task, integers, numbers
from devconv._fast.compiled.threads import PRODUCTS, share
from devconv._fast.compiled.windows import panel_width
from devconv._fast.plan import Plan

STRIP = 8 * ROWS
"""The most rows of the result that one turn computes."""
SIDE = 8
"""Channels that are laid apart side by side."""


FLAT = 64
"""Where sums are no longer than this, whole rows of the result are computed at once."""
STRIPE = 18
DEPTH = 32
"""Where ``a`` is one strip, each turn reads a stripe of ``b``, so many panels wide, from top to
bottom, so many rows at a time: rows that are pages apart are read in long runs."""


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
    panels = -(-n // panel_width(a.itemsize))
    if k <= FLAT:
        task, turns = _multiply_flat, -(-m // ROWS)
    elif m <= STRIP and panels > STRIPE:
        task, turns = _multiply_thin, -(-panels // STRIPE)
    else:
        task, turns = _multiply, -(-m // STRIP) * panels
    room = k * panel_width(a.itemsize) * a.itemsize if task is _multiply else 0
    share(
        task, a.dtype, turns, m * n * k // PRODUCTS, m, n, k, a, *a.strides, b, b.strides[0], c,
        zeros, start, a.itemsize, room=room,
    )  # fmt: skip
    return c


def suits(w: Plan, images: int, outputs: int, groups: int) -> bool:
    """Whether there are fewer windows than filters."""
    return groups == 1 and images * math.prod(w.out) < outputs


def correlate(x: Array, weight: Array, w: Plan, bias: Array | None = None) -> Array:
    """``y (N, *out, O)`` for ``x (N, *size, C)``, plus the bias."""
    filters, channels = weight.shape[:2]
    slab, (places, taps) = _padded(x, w), _places(len(x), channels, w)
    columns = np.empty((channels * taps.size, places.size), x.dtype)
    told = places, places.size, taps, taps.size, slab, columns
    share(_take_columns, x.dtype, channels, columns.size, *told)
    y = multiply(weight.reshape(filters, -1), columns)
    y = filled(y.T, x.dtype).reshape(len(x), *w.out, filters)
    return y if bias is None else y + bias


def input_cotangent(dy: Array, weight: Array, w: Plan) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
    n, filters, channels = len(dy), weight.shape[0], weight.shape[1]
    columns = multiply(dy.reshape(-1, filters), weight.reshape(filters, -1))
    slab = np.zeros((n, *_extent(w), channels), dy.dtype)
    places, taps = _places(n, channels, w)
    told = places.size // n, channels, places, taps, taps.size, slab, columns
    share(_put_rows, dy.dtype, n, columns.size, *told)
    return filled(slab[_inside(w)], dy.dtype)


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan) -> Array:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``."""
    filters, channels = weight.shape[:2]
    slab, (places, taps) = _padded(x, w), _places(len(x), channels, w)
    columns = np.empty((places.size, channels * taps.size), x.dtype)
    told = channels, places, taps, taps.size, slab, columns
    share(_take_rows, x.dtype, places.size, columns.size, *told)
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
    return _offsets(n, channels, _extent(w), w.out, w.kernel, w.stride, w.dilation)


@lru_cache(maxsize=1024)
def _offsets(n: int, channels: int, *axes: Shape) -> tuple[Array, Array]:
    step, places, taps = channels, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for extent, out, kernel, stride, dilation in reversed(list(zip(*axes, strict=True))):
        places = np.add.outer(np.arange(out) * stride * step, places).reshape(-1)
        taps = np.add.outer(np.arange(kernel) * dilation * step, taps).reshape(-1)
        step *= extent
    return np.add.outer(np.arange(n) * step, places).reshape(-1), taps


@Task
def _take_rows(zero, who, lo, hi, room, channels, places, taps, tap_count, slab, columns):
    """Windows ``lo`` to ``hi`` as rows ``(channels, taps)``."""
    places, taps = integers(places, hi), integers(taps, tap_count)
    slab = numbers(zero, slab, places[hi - 1] + taps[-1] + channels)
    columns = numbers(zero, columns, (hi, channels, tap_count))
    for p in range(lo, hi):
        for t in range(tap_count):
            first = places[p] + taps[t]
            for c in range(channels):
                columns[p, c, t] = slab[first + c]


@Task
def _take_columns(zero, who, lo, hi, room, places, windows, taps, tap_count, slab, columns):
    """The same, transposed: channels ``lo`` to ``hi`` of ``(channels, taps, windows)``."""
    places, taps = integers(places, windows), integers(taps, tap_count)
    slab = numbers(zero, slab, places[-1] + taps[-1] + hi)
    columns = numbers(zero, columns, (hi, tap_count, windows))
    for low in range(lo, hi, SIDE):
        for t in range(tap_count):
            some = columns[low : min(low + SIDE, hi), t]
            if len(some) == SIDE:  # a loop of known length
                for p in range(windows):
                    first = places[p] + taps[t] + low
                    for c in range(SIDE):
                        some[c, p] = slab[first + c]
            else:
                for p in range(windows):
                    first = places[p] + taps[t] + low
                    for c in range(len(some)):
                        some[c, p] = slab[first + c]


@Task
def _put_rows(zero, who, lo, hi, room, windows, channels, places, taps, tap_count, slab, columns):
    """The adjoint of taking rows, images ``lo`` to ``hi``: each added where it had been read."""
    places, taps = integers(places, hi * windows), integers(taps, tap_count)
    slab = numbers(zero, slab, places[-1] + taps[-1] + channels)
    columns = numbers(zero, columns, (hi * windows, channels, tap_count))
    for p in range(lo * windows, hi * windows):
        for t in range(tap_count):
            first = places[p] + taps[t]
            for c in range(channels):
                slab[first + c] += columns[p, c, t]


@Task
def _multiply(
    zero, who, lo, hi, room, m, n, k, a, a_row, a_step, b, b_step, c, zeros, start, itemsize
):  # fmt: skip
    """Turns ``lo`` to ``hi`` of the product: each a strip of rows, in one panel of columns."""
    width = panel_width(itemsize)
    strips = (m + STRIP - 1) // STRIP
    for turn in range(lo, hi):
        o = turn // strips * width
        columns = min(width, n - o)
        first = turn % strips * m // strips
        count = (turn % strips + 1) * m // strips - first
        blocks = (count + ROWS - 1) // ROWS
        panel, step = b + o * itemsize, b_step
        if blocks > 1 and b_step != columns * itemsize:
            step = columns * itemsize
            for i in range(k):
                copy_bytes(room + i * step, panel + i * b_step, step)
            panel = room
        for block in range(blocks):
            low = first + block * count // blocks
            high = first + (block + 1) * count // blocks
            multiply_block(
                zero, high - low, PRODUCT, a + low * a_row, a_row, a_step, start,
                panel, step, start, 1, k,
                c + (low * n + o) * itemsize, n * itemsize, zeros, 0, columns, 0,
            )  # fmt: skip


@Task
def _multiply_flat(
    zero, who, lo, hi, room, m, n, k, a, a_row, a_step, b, b_step, c, zeros, start, itemsize
):  # fmt: skip
    """Turns ``lo`` to ``hi`` of the product: each a block of rows, from end to end."""
    width = panel_width(itemsize)
    turns = (m + ROWS - 1) // ROWS
    for turn in range(lo, hi):
        low, high = turn * m // turns, (turn + 1) * m // turns
        for o in range(0, n, width):
            columns = min(width, n - o)
            multiply_block(
                zero, high - low, PRODUCT, a + low * a_row, a_row, a_step, start,
                b + o * itemsize, b_step, start, 1, k,
                c + (low * n + o) * itemsize, n * itemsize, zeros, 0, columns, 0,
            )  # fmt: skip


@Task
def _multiply_thin(
    zero, who, lo, hi, room, m, n, k, a, a_row, a_step, b, b_step, c, zeros, start, itemsize
):  # fmt: skip
    """Turns ``lo`` to ``hi`` of the product: each a stripe of columns, from top to bottom."""
    width = panel_width(itemsize)
    blocks = (m + ROWS - 1) // ROWS
    for turn in range(lo, hi):
        for top in range(0, k, DEPTH):
            for o in range(turn * STRIPE * width, min((turn + 1) * STRIPE * width, n), width):
                columns = min(width, n - o)
                for block in range(blocks):
                    low, high = block * m // blocks, (block + 1) * m // blocks
                    place = c + (low * n + o) * itemsize
                    multiply_block(
                        zero, high - low, PRODUCT, a + low * a_row + top * a_step, a_row, a_step,
                        start, b + top * b_step + o * itemsize, b_step, start, 1,
                        min(DEPTH, k - top), place, n * itemsize, zeros if top == 0 else place,
                        0 if top == 0 else n * itemsize, columns, 0,
                    )  # fmt: skip
