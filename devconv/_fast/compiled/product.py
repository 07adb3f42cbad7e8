"""Products of two matrices, and convolutions of few windows with many filters as such.

Where there are fewer windows than filters, laying the kernel out anew costs more than the
sums. Here the kernel is read where it lies and the windows are laid out, as columns:
``y = W · columnsᵀ``, ``dcolumns = dy · W`` and ``dW = dyᵀ · columns``.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from devconv._array import Array
from devconv._fast.compiled.block import PRODUCT, ROWS, multiply_block
from devconv._fast.compiled.memory import filled, readable
from devconv._fast.compiled.threads import PRODUCTS, share
from devconv._fast.compiled.windows import compiled, panel_width
from devconv._fast.plan import Plan
from devconv._fast.strides import layout

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
    rank = len(w.out)
    windows = _windows(x, w).transpose(
        2 * rank + 1, *range(rank + 1, 2 * rank + 1), *range(rank + 1)
    )
    filters = len(weight)
    y = multiply(weight.reshape(filters, -1), windows.reshape(weight[0].size, -1))
    y = filled(y.T, x.dtype).reshape(len(x), *w.out, filters)
    return y if bias is None else y + bias


def input_cotangent(dy: Array, weight: Array, w: Plan) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
    n, filters, channels = len(dy), weight.shape[0], weight.shape[1]
    columns = multiply(dy.reshape(-1, filters), weight.reshape(filters, -1))
    columns = columns.reshape(n, *w.out, channels, *w.kernel)
    slab = np.zeros((n, *_padded(w), channels), dy.dtype)
    for tap in itertools.product(*map(range, w.kernel)):
        reads = (
            slice(k * d, k * d + (o - 1) * s + 1, s)
            for k, d, o, s in zip(tap, w.dilation, w.out, w.stride, strict=True)
        )
        slab[(slice(None), *reads)] += columns[(..., *tap)]
    return filled(slab[_inside(w)], dy.dtype)


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan) -> Array:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``."""
    rank = len(w.out)
    windows = _windows(x, w).transpose(
        *range(rank + 1), 2 * rank + 1, *range(rank + 1, 2 * rank + 1)
    )
    dy = readable(dy, x.dtype).reshape(-1, len(weight))
    return multiply(dy.T, windows.reshape(-1, weight[0].size)).reshape(weight.shape)


def _windows(x: Array, w: Plan) -> Array:
    """The windows ``(N, *out, *kernel, C)``, a view of the padded image."""
    slab = np.zeros((len(x), *_padded(w), x.shape[-1]), x.dtype)
    slab[_inside(w)] = x
    shape, strides = layout(slab.shape, slab.strides, w.out, w.kernel, w.stride, w.dilation)
    return np.lib.stride_tricks.as_strided(slab, shape, strides)


def _padded(w: Plan) -> tuple[int, ...]:
    return tuple(n + before + after for n, (before, after) in zip(w.size, w.padding, strict=True))


def _inside(w: Plan) -> tuple[slice, ...]:
    axes = zip(w.size, w.padding, strict=True)
    return (slice(None), *(slice(before, before + n) for n, (before, _) in axes))


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
