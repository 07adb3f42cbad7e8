"""The map back to images of few channels: what each window sends back, added where it was read.

A walk over ``dy`` (:mod:`.conv`) fills vectors with the channels of a pixel, of which there are
few here. What a window sends back to all of its taps, ``(taps, channels)``, is a long run: a block
of products gives it for some windows at once, and it is added to the image row by row, as long
as both are in the first cache.
"""

from __future__ import annotations

import math

import numpy as np

from devconv._array import Array
from devconv._fast.compiled import sweep
from devconv._fast.compiled.block import (
    PRODUCT,
    ROWS,
    VECTOR_BYTES,
    clear_bytes,
    copy_bytes,
    multiply_block,
)
from devconv._fast.compiled.native import Task, compiled, integers
from devconv._fast.compiled.sandwich import sandwich
from devconv._fast.compiled.threads import PRODUCTS, share
from devconv._fast.compiled.windows import (
    DILATION,
    KERNEL,
    ORIGIN,
    SIZE,
    STRIDE,
    panel_width,
)
from devconv._fast.plan import Plan

IMAGES = 4
"""Threads share whole images, so there must be some of them."""
SUM = 4
"""Products that take the time of one sum, which goes to memory and back."""
ROOM = 2**20
"""Bytes that a padded image may have, to stay in a cache of one core while it is put together."""
WASTE = 1.5
"""How much more than with full vectors is still quicker than a walk; measured."""

_add = sandwich(((1.0,),))


def suits(dy: Array, weight: Array, w: Plan, groups: int) -> bool:
    """Whether pixels have few channels, and a window's run fills its vectors well enough.

    In vector products and sums: what a window costs here, beside what it would cost if all
    vectors were full. A walk over ``dy`` wastes about as much, more with a stride.
    """
    filters, channels = weight.shape[:2]
    if groups > 1 or len(dy) < IMAGES or channels * dy.itemsize > VECTOR_BYTES // 2:
        return False
    padded = (n + before + after for n, (before, after) in zip(w.size, w.padding, strict=True))
    if math.prod(padded) * channels * dy.itemsize > ROOM:
        return False
    lanes, (*rows, last) = VECTOR_BYTES // dy.itemsize, w.kernel
    taps = math.prod(w.kernel)
    here = filters * -(-taps * channels // lanes)
    here += SUM * math.prod(rows) * -(-last * channels // lanes)
    full = filters * taps * channels / lanes
    return taps > 1 and here < WASTE * full * (1 if math.prod(w.stride) == 1 else 2)


def input_cotangent(dy: Array, weight: Array, w: Plan) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
    filters, channels = weight.shape[:2]
    dx = np.empty((len(dy), *w.size, channels), dy.dtype)
    matrix = np.ascontiguousarray(np.moveaxis(weight, 1, -1)).reshape(filters, -1)
    axes = zip(w.out, w.kernel, w.stride, w.dilation, w.padding, strict=True)
    sweeps = tuple(sweep.straight(*axis) for axis in axes)
    pixel = channels * dy.itemsize
    geometry = sweep.planned(dx.shape[:-1], pixel, sweeps, dy.shape[:-1]).geometry
    out = np.ones(sweep.AXES, np.int64)
    out[sweep.AXES - len(w.out) :] = w.out
    reach = (out - 1) * geometry[STRIDE] + (geometry[KERNEL] - 1) * geometry[DILATION] + 1
    slab = -(-int(reach[1:].prod()) * pixel // VECTOR_BYTES) * VECTOR_BYTES
    share(
        _spread, dy.dtype, len(dy), dy.size * matrix.shape[1] // PRODUCTS, geometry, out, reach,
        slab, filters, channels, matrix.shape[1], dy, sweep.strides(dy), matrix,
        np.zeros(matrix.shape[1], dy.dtype), np.zeros(1, np.int64), dx, dy.itemsize,
        room=slab + int(out[-1]) * matrix.shape[1] * dy.itemsize,
    )  # fmt: skip
    return dx


@Task
def _spread(
    zero, who, lo, hi, room, geometry, out, reach, slab, filters, channels, numbers, dy, dy_strides,
    matrix, zeros, none, dx, itemsize,
):  # fmt: skip
    """The images from ``lo`` to ``hi``, each put together in memory with its padding."""
    geometry, out, reach = integers(geometry, (5, 4)), integers(out, 4), integers(reach, 4)
    dy_strides, pixel, columns = integers(dy_strides, 5), channels * itemsize, room + slab
    line = reach[3] * pixel
    plane = reach[2] * line
    step, kernel, dilation = geometry[STRIDE], geometry[KERNEL], geometry[DILATION]
    taps = kernel[3] if dilation[3] > 1 else 1
    run = numbers // (kernel[1] * kernel[2] * taps)
    for n in range(lo, hi):
        clear_bytes(room, reach[1] * plane)
        for d in range(out[1]):
            for h in range(out[2]):
                source = dy + n * dy_strides[0] + d * dy_strides[1] + h * dy_strides[2]
                _windows(
                    zero, out[3], source, dy_strides, filters, numbers, matrix, zeros, none,
                    columns, itemsize,
                )  # fmt: skip
                place = columns
                for w in range(out[3]):
                    first = room + d * step[1] * plane + h * step[2] * line + w * step[3] * pixel
                    for i in range(kernel[1]):
                        for j in range(kernel[2]):
                            for k in range(taps):
                                target = first + i * dilation[1] * plane + j * dilation[2] * line
                                target += k * dilation[3] * pixel
                                _add(zero, place, 0, 0, target, 0, 0, target, run)
                                place += run * itemsize
        _crop(n, geometry, reach, room, plane, line, pixel, dx)


@compiled
def _windows(
    zero, count, source, dy_strides, filters, numbers, matrix, zeros, none, columns, itemsize
):  # fmt: skip
    """What a row of windows sends back to all of their taps, side by side."""
    width, row = panel_width(itemsize), numbers * itemsize
    blocks = (count + ROWS - 1) // ROWS
    for block in range(blocks):
        low, high = block * count // blocks, (block + 1) * count // blocks
        for o in range(0, numbers, width):
            multiply_block(
                zero, high - low, PRODUCT, source + low * dy_strides[3], dy_strides[3],
                dy_strides[4], none, matrix + o * itemsize, row, none, 1, filters,
                columns + low * row + o * itemsize, row, zeros, 0, min(width, numbers - o), 0,
            )  # fmt: skip


@compiled
def _crop(n, geometry, reach, slab, plane, line, pixel, dx):
    """Image ``n`` without its padding; pixels that no window has read are 0."""
    size, origin = geometry[SIZE], geometry[ORIGIN]
    low = max(0, origin[3])
    high = max(low, min(size[3], origin[3] + reach[3]))
    for d in range(size[1]):
        for h in range(size[2]):
            target = dx + ((n * size[1] + d) * size[2] + h) * size[3] * pixel
            if 0 <= d - origin[1] < reach[1] and 0 <= h - origin[2] < reach[2]:
                source = slab + (d - origin[1]) * plane + (h - origin[2]) * line
                clear_bytes(target, low * pixel)
                place = source + (low - origin[3]) * pixel
                copy_bytes(target + low * pixel, place, (high - low) * pixel)
                clear_bytes(target + high * pixel, (size[3] - high) * pixel)
            else:
                clear_bytes(target, size[3] * pixel)
