"""Walks of the block of products over the windows of images, between two box edges.

Images have four axes here, batch and three spatial ones (a batch is an axis with a kernel of
one), and channels last. Arrays are an address and strides in bytes, so that one compiled
function serves every memory order. A *box* is what one turn computes: an interval of the
output on each axis. The part of the image that its windows read, its *slab*, is copied into
scratch memory with zeros around it, or read where it lies if nothing is missing.
"""

from __future__ import annotations

import numpy as np

from devconv._fast.compiled.block import (
    CHANNELS,
    ROWS,
    VECTOR_BYTES,
    VECTORS,
    clear_bytes,
    copy_bytes,
    multiply_block,
    peek,
    poke,
)
from devconv._fast.compiled.native import Task, compiled, integers, numbers

BATCH, ROW = 0, 3
SIZE, KERNEL, STRIDE, DILATION, ORIGIN = range(5)
"""The rows of a geometry: the image, the kernel, pixels between windows, pixels between taps,
and where on the image the first tap of the first window lies. A column for each axis."""

STRIP = 8
"""Output channels that are copied side by side: no more than a cache has ways, for they lie a
kernel apart, which is often a power of two."""

MISSING = -(2**63)
"""In place of an offset where there is no tap: no array is as large."""


@compiled
def panel_width(itemsize):
    """Columns that one block multiplies at once."""
    return VECTORS * VECTOR_BYTES // itemsize


@compiled
def slab_of(box, geometry, channels, x, strides, scratch, itemsize, extents):
    """Address of the slab of a box; its strides are written to ``extents``.

    With ``scratch`` 0 it is read in place.
    """
    first = np.empty(4, np.int64)
    count = np.empty(4, np.int64)
    for a in range(4):
        first[a] = box[2 * a] * geometry[STRIDE, a] + geometry[ORIGIN, a]
        count[a] = (box[2 * a + 1] - 1 - box[2 * a]) * geometry[STRIDE, a] + 1
        count[a] += (geometry[KERNEL, a] - 1) * geometry[DILATION, a]
    if scratch == 0:
        place = x
        for a in range(4):
            extents[a] = strides[a]
            place += first[a] * strides[a]
        return place
    pixel = channels * itemsize
    extents[3] = pixel
    for a in range(2, -1, -1):
        extents[a] = extents[a + 1] * count[a + 1]
    low = max(0, min(count[3], -first[3]))
    high = max(low, min(count[3], geometry[SIZE, 3] - first[3]))
    target = scratch
    for n in range(first[0], first[0] + count[0]):
        for d in range(first[1], first[1] + count[1]):
            for h in range(first[2], first[2] + count[2]):
                if 0 <= d < geometry[SIZE, 1] and 0 <= h < geometry[SIZE, 2]:
                    source = x + n * strides[0] + d * strides[1] + h * strides[2]
                    source += (first[3] + low) * strides[3]
                    clear_bytes(target, low * pixel)
                    _copy_pixels(
                        target + low * pixel, source, high - low, channels, strides, itemsize
                    )
                    clear_bytes(target + high * pixel, (count[3] - high) * pixel)
                else:
                    clear_bytes(target, count[3] * pixel)
                target += extents[2]
    return scratch


@compiled
def _copy_pixels(target, source, count, channels, strides, itemsize):
    if strides[4] == itemsize and strides[3] == channels * itemsize:
        copy_bytes(target, source, count * channels * itemsize)
    elif strides[4] == itemsize:
        for w in range(count):
            pixel = target + w * channels * itemsize
            copy_bytes(pixel, source + w * strides[3], channels * itemsize)
    else:
        zero = np.int32(0)  # numbers are moved as bits: one way for every dtype
        words = itemsize // 4
        for w in range(count):
            for c in range(channels):
                for word in range(words):
                    bits = peek(zero, source + w * strides[3] + c * strides[4] + 4 * word)
                    poke(target + (w * channels + c) * itemsize + 4 * word, bits)


@compiled
def _runs(kind, geometry, extents, channels, merged):
    """Byte offsets of a window's runs in its slab; numbers in each, and bytes between them.

    A run is one tap's channels, or a whole row of taps if its pixels are neighbours. Channel
    by channel it is one channel's row of taps.
    """
    taps = 1 if merged or kind == CHANNELS else geometry[KERNEL, 3]
    offsets = np.empty(geometry[KERNEL, 1] * geometry[KERNEL, 2] * taps, np.int64)
    i = 0
    for d in range(geometry[KERNEL, 1]):
        for h in range(geometry[KERNEL, 2]):
            for w in range(taps):
                offsets[i] = d * geometry[DILATION, 1] * extents[1]
                offsets[i] += h * geometry[DILATION, 2] * extents[2]
                offsets[i] += w * geometry[DILATION, 3] * extents[3]
                i += 1
    if kind == CHANNELS:
        return offsets, geometry[KERNEL, 3], geometry[DILATION, 3] * extents[3]
    return offsets, geometry[KERNEL, 3] * channels if merged else channels, 0


@Task
def correlate(
    zero, who, lo, hi, room, in_place, kind, boxes, geometry, along, pixel, groups, channels,
    outputs, x, x_strides, packed, masks, bias, y, y_strides, itemsize,
):  # fmt: skip
    """``y`` for the boxes from ``lo`` to ``hi``: windows of ``x`` times the packed kernel.

    A window sums over ``channels`` of the ``pixel`` channels that the image has and gives
    ``outputs`` numbers, in each of ``groups``; ``along`` is the axis whose windows are the rows
    of a block; ``bias`` is the address of a number for each output, ``masks`` that of the
    masks of a block.
    """
    boxes, geometry = integers(boxes, (hi, 8)), integers(geometry, (5, 4))
    x_strides, y_strides = integers(x_strides, 5), integers(y_strides, 5)
    scratch = 0 if in_place else room
    extents = np.empty(4, np.int64)
    width = panel_width(itemsize)
    p, q, r = [a for a in range(4) if a != along]
    for i in range(lo, hi):
        box = boxes[i]
        slab = slab_of(box, geometry, pixel, x, x_strides, scratch, itemsize, extents)
        merged = groups == 1 and geometry[DILATION, 3] == 1 and extents[3] == channels * itemsize
        runs, length, step = _runs(kind, geometry, extents, channels, merged)
        weights = np.empty_like(runs)
        steps = extents * geometry[STRIDE]
        count = box[2 * along + 1] - box[2 * along]
        blocks = (count + ROWS - 1) // ROWS
        for g in range(groups):
            for o in range(0, outputs, width):
                columns = min(width, outputs - o)
                for run in range(runs.size):
                    weights[run] = run * length * columns * itemsize
                panel = packed + (g * outputs + o) * runs.size * length * itemsize
                read = slab + (o if kind == CHANNELS else g * channels) * itemsize
                written = y + (g * outputs + o) * itemsize + box[2 * along] * y_strides[along]
                for a in range(box[2 * p], box[2 * p + 1]):
                    for b in range(box[2 * q], box[2 * q + 1]):
                        for c in range(box[2 * r], box[2 * r + 1]):
                            window = read + (a - box[2 * p]) * steps[p]
                            window += (b - box[2 * q]) * steps[q] + (c - box[2 * r]) * steps[r]
                            result = written + a * y_strides[p] + b * y_strides[q]
                            result += c * y_strides[r]
                            for block in range(blocks):
                                low = block * count // blocks
                                high = (block + 1) * count // blocks
                                multiply_block(
                                    zero, high - low, kind,
                                    window + low * steps[along], steps[along],
                                    step if kind == CHANNELS else itemsize, runs.ctypes.data,
                                    panel, columns * itemsize, weights.ctypes.data,
                                    runs.size, length,
                                    result + low * y_strides[along], y_strides[along],
                                    bias + (g * outputs + o) * itemsize, 0, columns, masks,
                                )  # fmt: skip


@Task
def kernel_cotangent(
    zero, who, lo, hi, room, in_place, rows_most, kind, units, boxes, geometry, along, pixel,
    groups, channels, outputs, x, x_strides, dy, dy_strides, sums, zeros, itemsize,
):  # fmt: skip
    """What each weight has met, for the units from ``lo`` to ``hi``.

    A unit ``(first box, last box, first panel, last panel, part)`` adds its boxes, in their
    order, to some panels of the sums numbered ``part``, which lie as :func:`pack` lays kernels.
    """
    units, geometry = integers(units, (hi, 5)), integers(geometry, (5, 4))
    x_strides, dy_strides = integers(x_strides, 5), integers(dy_strides, 5)
    scratch = 0 if in_place else room + 16 * rows_most
    extents = np.empty(4, np.int64)
    width = panel_width(itemsize)
    panels = (outputs + width - 1) // width
    taps = geometry[KERNEL, 1] * geometry[KERNEL, 2] * geometry[KERNEL, 3]
    p, q, r = [a for a in range(4) if a != along]
    for u in range(lo, hi):
        total = sums + units[u, 4] * groups * taps * channels * outputs * itemsize
        for i in range(units[u, 0], units[u, 1]):
            box = integers(boxes + 64 * i, 8)
            slab = slab_of(box, geometry, pixel, x, x_strides, scratch, itemsize, extents)
            merged = groups == 1 and geometry[DILATION, 3] == 1
            merged = merged and extents[3] == channels * itemsize
            runs, length, step = _runs(kind, geometry, extents, channels, merged)
            step = step if kind == CHANNELS else itemsize
            steps = extents * geometry[STRIDE]
            rows = (box[2 * p + 1] - box[2 * p]) * (box[2 * q + 1] - box[2 * q])
            rows *= box[2 * r + 1] - box[2 * r]
            pixels, cotangents = integers(room, rows), integers(room + 8 * rows_most, rows)
            row = 0
            for a in range(box[2 * p], box[2 * p + 1]):
                for b in range(box[2 * q], box[2 * q + 1]):
                    for c in range(box[2 * r], box[2 * r + 1]):
                        pixels[row] = (a - box[2 * p]) * steps[p] + (b - box[2 * q]) * steps[q]
                        pixels[row] += (c - box[2 * r]) * steps[r]
                        cotangents[row] = a * dy_strides[p] + b * dy_strides[q]
                        cotangents[row] += c * dy_strides[r] + box[2 * along] * dy_strides[along]
                        row += 1
            blocks = (length + ROWS - 1) // ROWS
            for panel in range(units[u, 2], units[u, 3]):
                g, o = panel // panels, panel % panels * width
                columns = min(width, outputs - o)
                read = slab + (o if kind == CHANNELS else g * channels) * itemsize
                for run in range(runs.size):
                    for block in range(blocks):
                        low = block * length // blocks
                        high = (block + 1) * length // blocks
                        place = total + (g * outputs + o) * taps * channels * itemsize
                        place += (run * length + low) * columns * itemsize
                        fresh = i == units[u, 0]
                        multiply_block(
                            zero, high - low, kind,
                            read + runs[run] + low * step, step, steps[along],
                            pixels.ctypes.data,
                            dy + (g * outputs + o) * itemsize, dy_strides[along],
                            cotangents.ctypes.data,
                            rows, box[2 * along + 1] - box[2 * along],
                            place, columns * itemsize,
                            zeros if fresh else place, 0 if fresh else columns * itemsize,
                            columns, 0,
                        )  # fmt: skip


@Task
def pack(
    zero, who, lo, hi, room, weight, group, out, inner, taps, tap_count, group_pixels, channels,
    outputs, packed, itemsize,
):  # fmt: skip
    """The kernel as panels of columns, ``(groups, panels, taps, channels, width)``.

    Args:
        zero: a number of the dtype.
        who: which worker this is.
        lo: the first panel, counted over all groups.
        hi: the panel after the last.
        room: memory of its own.
        weight: address of the kernel.
        group: bytes from one group to the next.
        out: bytes from one output channel to the next.
        inner: bytes from one channel of the sum to the next.
        taps: byte offsets of the taps, ``(tap_count, group_pixels)``: for each pixel that a
            window gives, or ``MISSING`` where it does not count for that pixel.
        tap_count: see ``taps``.
        group_pixels: see ``taps``.
        channels: channels of the sum, in one group.
        outputs: numbers that a window gives in one group, ``(pixels, output channels)``.
        packed: address of the result.
        itemsize: bytes of a number.
    """
    width = panel_width(itemsize)
    panels = (outputs + width - 1) // width
    taps = integers(taps, (tap_count, group_pixels))
    each = outputs // group_pixels
    for i in range(lo, hi):
        g, o = i // panels, i % panels * width
        columns = min(width, outputs - o)
        panel = packed + (g * outputs + o) * tap_count * channels * itemsize
        for low in range(0, columns, STRIP):
            high = min(low + STRIP, columns)
            for c in range(channels):
                source = weight + g * group + c * inner
                for t in range(tap_count):
                    target = panel + (t * channels + c) * columns * itemsize
                    if group_pixels == 1:
                        place = source + o * out + taps[t, 0]
                        for j in range(low, high):
                            poke(target + j * itemsize, peek(zero, place + j * out))
                        continue
                    for j in range(low, high):
                        tap = taps[t, (o + j) // each]
                        place = source + (o + j) % each * out + tap
                        poke(target + j * itemsize, zero if tap == MISSING else peek(zero, place))


@Task
def unpack(
    zero, who, lo, hi, room, sums, parts, groups, taps, channels, outputs, dweight, itemsize
):  # fmt: skip
    """``dweight (groups · outputs, channels, taps)``: parts added up, panels ``lo`` to ``hi``.

    The sum takes the place of the first part.
    """
    width = panel_width(itemsize)
    panels = (outputs + width - 1) // width
    part = groups * taps * channels * outputs
    for i in range(lo, hi):
        g, o = i // panels, i % panels * width
        columns = min(width, outputs - o)
        panel = sums + (g * outputs + o) * taps * channels * itemsize
        count = columns * taps * channels
        total = numbers(zero, panel, count)
        for q in range(1, parts):
            more = numbers(zero, panel + q * part * itemsize, count)
            for j in range(count):
                total[j] += more[j]
        row = taps * channels * itemsize
        target = dweight + (g * outputs + o) * row
        for low in range(0, columns, STRIP):
            high = min(low + STRIP, columns)
            for c in range(channels):
                for t in range(taps):
                    source = panel + (t * channels + c) * columns * itemsize
                    place = target + (c * taps + t) * itemsize
                    for j in range(low, high):
                        poke(place + j * row, peek(zero, source + j * itemsize))
