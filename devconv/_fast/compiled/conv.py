"""The three maps of a convolution on NumPy arrays, as walks of a block of products.

The forward map and the map back to the input are one walk, over ``x`` or over ``dy``; the map
back to the kernel is the other. Nothing here depends on how many threads share the work.
"""

from __future__ import annotations

import math

import numpy as np

from devconv._array import Array
from devconv._fast.compiled import block, product, spread, sweep, windows
from devconv._fast.compiled.bank import Bank, is_depthwise, unpacked
from devconv._fast.compiled.memory import readable
from devconv._fast.compiled.threads import PRODUCTS, count, share
from devconv._fast.plan import Plan

PARTS = 16
PART_BYTES = 4 * 2**20
"""A sum over the batch is split into so many parts, and no more bytes of them than this."""


def correlate(x: Array, weight: Array, w: Plan, groups: int, bias: Array | None = None) -> Array:
    """``y (N, *out, O)`` for ``x (N, *size, C)``, plus the bias."""
    weight = readable(weight, x.dtype)
    if product.suits(w, len(x), weight.shape[0], groups):
        return product.correlate(x, weight, w, bias)
    y = np.empty((x.shape[0], *w.out, weight.shape[0]), x.dtype)
    axes = list(zip(w.out, w.kernel, w.stride, w.dilation, w.padding, strict=True))
    sweeps = sweep.forward(axes, _groupable(weight.shape[0], groups), x.itemsize)
    _walk(x, Bank(weight, groups, tuple(sweeps), swapped=False), y, bias)
    return y


def input_cotangent(dy: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
    channels, weight = weight.shape[1] * groups, readable(weight, dy.dtype)
    if product.suits(w, len(dy), weight.shape[0], groups):
        return product.input_cotangent(dy, weight, w)
    if spread.suits(dy, weight, w, groups):
        return spread.input_cotangent(dy, weight, w)
    dx = np.empty((dy.shape[0], *w.size, channels), dy.dtype)
    axes = list(zip(w.size, w.kernel, w.stride, w.dilation, w.padding, strict=True))
    for sweeps in sweep.backward(axes, _groupable(channels, groups), dy.itemsize):
        part = dx[(slice(None), *(slice(each.pixels[0], None, each.pixels[1]) for each in sweeps))]
        if all(each.taps for each in sweeps):
            _walk(dy, Bank(weight, groups, sweeps, swapped=True), part)
        else:
            part[...] = 0.0
    return dx


def _groupable(outputs: int, groups: int) -> int:
    """Channels of a pixel, of which neighbours may be computed together: not across groups."""
    return outputs if groups == 1 else 2**30


def _walk(x: Array, bank: Bank, y: Array, bias: Array | None = None) -> None:
    """Write the windows of ``x`` times the kernel into ``y``, both ``(N, *spatial, C)``."""
    x, y, sweeps = _flat(x, y, bank.sweeps)
    group = sweeps[-1].group
    out = (*y.shape[:-2], y.shape[-2] // group)
    job = sweep.planned(x.shape[:-1], x.shape[-1] * x.itemsize, sweeps, out)
    packed = bank.packed()
    start = np.zeros(group * y.shape[-1], y.dtype)
    if bias is not None:
        start.reshape(group, -1)[...] = bias
    masks = bank.masks() if bank.kind == block.MASKED else start
    x_strides, y_strides = sweep.strides(x), sweep.strides(y)
    y_strides[windows.ROW] *= group

    in_place = _is_read_in_place(job, x)
    share(
        windows.correlate, x.dtype, len(job.boxes), math.prod(out) * packed.size // PRODUCTS,
        in_place, bank.kind, job.boxes, job.geometry, job.along, x.shape[-1], bank.groups,
        bank.channels, bank.outputs, x, x_strides, packed, masks, start, y, y_strides, x.itemsize,
        room=0 if in_place else job.slab,
    )  # fmt: skip


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``."""
    if product.suits(w, len(x), weight.shape[0], groups):
        return product.kernel_cotangent(x, dy, weight, w)
    axes = zip(w.out, w.kernel, w.stride, w.dilation, w.padding, strict=True)
    dy = readable(dy, x.dtype)
    if dy.strides[-1] != dy.itemsize and dy.shape[-1] > 1:
        dy = np.ascontiguousarray(dy)
    x, dy, sweeps = _flat(x, dy, tuple(sweep.straight(*axis) for axis in axes))
    job = sweep.planned(x.shape[:-1], x.shape[-1] * x.itemsize, sweeps, dy.shape[:-1])
    kind = block.CHANNELS if is_depthwise(weight, groups) else block.PRODUCT
    groups = 1 if kind == block.CHANNELS else groups
    outputs, channels, taps = weight.shape[0] // groups, weight.shape[1], math.prod(w.kernel)
    parts, units = units_of(len(job.boxes), outputs, groups, weight.nbytes, x.itemsize)
    zeros = np.zeros(outputs, x.dtype)
    sums = np.empty(parts * weight.size, x.dtype)
    dweight = np.empty(weight.shape, x.dtype)
    x_strides, dy_strides = sweep.strides(x), sweep.strides(dy)

    in_place = _is_read_in_place(job, x)
    share(
        windows.kernel_cotangent, x.dtype, len(units), dy.size * taps * channels // PRODUCTS,
        in_place, job.rows, kind, units, job.boxes, job.geometry, job.along, x.shape[-1], groups,
        channels, outputs, x, x_strides, dy, dy_strides, sums, zeros, x.itemsize,
        room=16 * job.rows + (0 if in_place else job.slab),
    )  # fmt: skip
    return unpacked(sums, parts, groups, taps, channels, outputs, dweight)


def units_of(
    boxes: int, outputs: int, groups: int, weight_bytes: int, itemsize: int
) -> tuple[int, Array]:
    """How a sum over the batch is split between threads.

    In parts that are added up at the end, so many whatever the number of threads; or, where
    parts would be large, by columns of the kernel, each summed over all boxes by one thread.
    """
    panels = groups * -(-outputs // windows.panel_width(itemsize))
    parts = max(1, min(PARTS, boxes, PART_BYTES // weight_bytes))
    if parts < min(panels, PARTS // 4):
        edges = sweep.split(panels, min(panels, count()))
        return 1, np.asarray([(0, boxes, lo, hi, 0) for lo, hi in edges], np.int64)
    edges = sweep.split(boxes, parts)
    units = [(lo, hi, 0, panels, part) for part, (lo, hi) in enumerate(edges)]
    return parts, np.asarray(units, np.int64)


def _is_read_in_place(job: sweep.Job, x: Array) -> bool:
    """Whether windows are read where they lie, and not from a copy with zeros around it."""
    return not job.is_padded and (x.strides[-1] == x.itemsize or x.shape[-1] == 1)


def _flat(
    x: Array, y: Array, sweeps: tuple[sweep.Sweep, ...]
) -> tuple[Array, Array, tuple[sweep.Sweep, ...]]:
    """Images of which each pixel is a window, as one row of pixels where memory allows it."""
    one = sweep.straight(1, 1, 1, 1, (0, 0))
    pixels = all(each == one for each in sweeps) and x.shape[:-1] == y.shape[:-1]
    if pixels and x.flags.c_contiguous and y.flags.c_contiguous:
        return x.reshape(1, -1, x.shape[-1]), y.reshape(1, -1, y.shape[-1]), sweeps[:1]
    return x, y, sweeps
