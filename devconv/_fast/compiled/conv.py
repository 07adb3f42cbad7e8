"""The three maps of a convolution on NumPy arrays, as walks of a block of products.

The forward map and the map back to the input are one walk, over ``x`` or over ``dy``; the map
back to the kernel is the other. Nothing here depends on how many threads share the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.compiled import block, product, sweep, windows
from devconv._fast.compiled.memory import readable
from devconv._fast.compiled.threads import count, share
from devconv._fast.plan import Plan
from devconv._fast.scratch import scratch

PARTS = 16
PART_BYTES = 4 * 2**20
"""A sum over the batch is split into so many parts, and no more bytes of them than this."""
PRODUCTS = 32
"""Products done in the time in which one number is moved."""


def correlate(x: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``y (N, *out, O)`` for ``x (N, *size, C)``."""
    weight = readable(weight, x.dtype)
    if product.suits(w, len(x), weight.shape[0], groups):
        return product.correlate(x, weight, w)
    y = np.empty((x.shape[0], *w.out, weight.shape[0]), x.dtype)
    axes = list(zip(w.out, w.kernel, w.stride, w.dilation, w.padding, strict=True))
    sweeps = sweep.forward(axes, _groupable(weight.shape[0], groups), x.itemsize)
    _walk(x, _Bank(weight, groups, tuple(sweeps), swapped=False), y)
    return y


def input_cotangent(dy: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
    channels, weight = weight.shape[1] * groups, readable(weight, dy.dtype)
    if product.suits(w, len(dy), weight.shape[0], groups):
        return product.input_cotangent(dy, weight, w)
    dx = np.empty((dy.shape[0], *w.size, channels), dy.dtype)
    axes = list(zip(w.size, w.kernel, w.stride, w.dilation, w.padding, strict=True))
    for sweeps in sweep.backward(axes, _groupable(channels, groups), dy.itemsize):
        part = dx[(slice(None), *(slice(each.pixels[0], None, each.pixels[1]) for each in sweeps))]
        if all(each.taps for each in sweeps):
            _walk(dy, _Bank(weight, groups, sweeps, swapped=True), part)
        else:
            part[...] = 0.0
    return dx


def _is_depthwise(weight: Array, groups: int) -> bool:
    """Whether each output channel sums over the taps of one input channel alone."""
    return weight.shape[0] == groups > 1 and weight.shape[1] == 1


def _groupable(outputs: int, groups: int) -> int:
    """Channels of a pixel, of which neighbours may be computed together: not across groups."""
    return outputs if groups == 1 else 2**30


@dataclass(frozen=True)
class _Bank:
    """A kernel, and the taps of it that windows meet; ``swapped`` reads it from ``O`` to ``C``.

    With one channel to each of the groups, and one output, these are the columns of one group.
    """

    weight: Array
    parts: int
    sweeps: tuple[sweep.Sweep, ...]
    swapped: bool

    @property
    def kind(self) -> int:
        """The kind of block that walks over it."""
        if self.groups < self.parts:
            return block.CHANNELS
        return block.PRODUCT if self.sweeps[-1].group == 1 else block.MASKED

    @property
    def groups(self) -> int:
        """Groups that are summed over apart."""
        return 1 if _is_depthwise(self.weight, self.parts) else self.parts

    @property
    def channels(self) -> int:
        """Channels a sum runs over, in one group."""
        return self.weight.shape[0] // self.parts if self.swapped else self.weight.shape[1]

    @property
    def outputs(self) -> int:
        """Numbers a window gives, in one group: channels of each pixel it writes."""
        each = self.weight.shape[1] if self.swapped else self.weight.shape[0] // self.parts
        return each * self.parts // self.groups * self.sweeps[-1].group

    def packed(self) -> Array:
        """The kernel in the order in which blocks read it."""
        weight, groups = self.weight, self.groups
        offsets = _tap_offsets(self.sweeps, weight.strides[2:])
        shape = (groups, len(offsets) * self.channels * self.outputs)
        packed = np.empty(shape, weight.dtype)
        out, inner = weight.strides[:2]
        if self.swapped and self.kind != block.CHANNELS:
            out, inner = inner, out
        zero, group = weight.dtype.type(0), weight.shape[0] // groups * weight.strides[0]
        panels = groups * -(-self.outputs // windows.panel_width(weight.itemsize))

        def work(lo: int, hi: int) -> None:
            windows.pack(
                zero, lo, hi, weight.ctypes.data, group, out, inner, offsets, self.channels,
                self.outputs, packed.ctypes.data, weight.itemsize,
            )  # fmt: skip

        share(panels, work, packed.size)
        return packed

    def masks(self) -> Array:
        """For each number of a window, bits that say which columns it counts for."""
        group = self.sweeps[-1].group
        counts = _tap_offsets(self.sweeps, self.weight.strides[2:]) >= 0  # (taps, pixels)
        columns = np.repeat(counts, self.outputs // group, axis=1)
        bits = columns @ (1 << np.arange(self.outputs, dtype=np.int64))
        return np.repeat(bits, self.channels)


@lru_cache(maxsize=1024)
def _tap_offsets(sweeps: tuple[sweep.Sweep, ...], strides: Shape) -> Array:
    """Bytes from the first weight to that of each tap and pixel of a window, or -1."""
    offsets, missing = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.bool_)
    for each, stride in zip(sweeps, strides, strict=True):
        taps = np.asarray(each.taps, np.int64)
        shape = (-1, taps.shape[1])
        offsets = (offsets[:, None, :] + taps * stride).reshape(shape)
        missing = (missing[:, None, :] | (taps < 0)).reshape(shape)
    return np.where(missing, -1, offsets)


def _walk(x: Array, bank: _Bank, y: Array) -> None:
    """Write the windows of ``x`` times the kernel into ``y``, both ``(N, *spatial, C)``."""
    x, y, sweeps = _flat(x, y, bank.sweeps)
    group = sweeps[-1].group
    out = (*y.shape[:-2], y.shape[-2] // group)
    job = sweep.planned(x.shape[:-1], x.shape[-1] * x.itemsize, sweeps, out)
    zero, packed, bias = x.dtype.type(0), bank.packed(), np.zeros(group * y.shape[-1], y.dtype)
    masks = bank.masks() if bank.kind == block.MASKED else bias
    x_strides, y_strides = _strides(x), _strides(y)
    y_strides[windows.ROW] *= group

    def work(lo: int, hi: int) -> None:
        windows.correlate(
            zero, lo, hi, bank.kind, job.boxes, job.geometry, job.along, x.shape[-1], bank.groups,
            bank.channels, bank.outputs, x.ctypes.data, x_strides, packed.ctypes.data,
            masks.ctypes.data, bias.ctypes.data, y.ctypes.data, y_strides, _slab(job, x),
            x.itemsize,
        )  # fmt: skip

    share(len(job.boxes), work, math.prod(out) * packed.size // PRODUCTS)


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``."""
    if product.suits(w, len(x), weight.shape[0], groups):
        return product.kernel_cotangent(x, dy, weight, w)
    axes = zip(w.out, w.kernel, w.stride, w.dilation, w.padding, strict=True)
    dy = readable(dy, x.dtype)
    dy = dy if dy.strides[-1] == dy.itemsize else np.ascontiguousarray(dy)
    x, dy, sweeps = _flat(x, dy, tuple(sweep.straight(*axis) for axis in axes))
    job = sweep.planned(x.shape[:-1], x.shape[-1] * x.itemsize, sweeps, dy.shape[:-1])
    kind = block.CHANNELS if _is_depthwise(weight, groups) else block.PRODUCT
    groups = 1 if kind == block.CHANNELS else groups
    outputs, channels, taps = weight.shape[0] // groups, weight.shape[1], math.prod(w.kernel)
    parts, units = _units(len(job.boxes), outputs, groups, weight.nbytes, x.itemsize)
    zero, zeros = x.dtype.type(0), np.zeros(outputs, x.dtype)
    sums = np.empty(parts * weight.size, x.dtype)
    dweight = np.empty(weight.shape, x.dtype)
    x_strides, dy_strides = _strides(x), _strides(dy)

    def work(lo: int, hi: int) -> None:
        windows.kernel_cotangent(
            zero, lo, hi, kind, units, job.boxes, job.geometry, job.along, x.shape[-1], groups,
            channels, outputs, x.ctypes.data, x_strides, dy.ctypes.data, dy_strides,
            sums.ctypes.data, zeros.ctypes.data, _slab(job, x), x.itemsize,
        )  # fmt: skip

    def gather(lo: int, hi: int) -> None:
        windows.unpack(
            zero, lo, hi, sums.ctypes.data, parts, groups, taps, channels, outputs,
            dweight.ctypes.data, x.itemsize,
        )  # fmt: skip

    share(len(units), work, dy.size * taps * channels // PRODUCTS)
    share(groups * -(-outputs // windows.panel_width(x.itemsize)), gather, sums.size)
    return dweight


def _units(
    boxes: int, outputs: int, groups: int, weight_bytes: int, itemsize: int
) -> tuple[int, Array]:
    """How a sum over the batch is split between threads.

    In parts that are added up at the end, so many whatever the number of threads; or, where
    parts would be large, by columns of the kernel, each summed over all boxes by one thread.
    """
    panels = groups * -(-outputs // windows.panel_width(itemsize))
    parts = max(1, min(PARTS, boxes, PART_BYTES // weight_bytes))
    if parts < PARTS // 4 <= panels:
        edges = sweep.split(panels, min(panels, count()))
        return 1, np.asarray([(0, boxes, lo, hi, 0) for lo, hi in edges], np.int64)
    edges = sweep.split(boxes, parts)
    units = [(lo, hi, 0, panels, part) for part, (lo, hi) in enumerate(edges)]
    return parts, np.asarray(units, np.int64)


def _strides(x: Array) -> Array:
    """Bytes from entry to entry on the four axes and between channels."""
    n, *rest = x.strides
    return np.asarray([n, *(0,) * (sweep.AXES - len(rest)), *rest], np.int64)


def _slab(job: sweep.Job, x: Array) -> int:
    """Where this thread copies slabs to; 0 where they are read in place."""
    if job.is_padded or x.strides[-1] != x.itemsize:
        return scratch(job.slab).ctypes.data
    return 0


def _flat(
    x: Array, y: Array, sweeps: tuple[sweep.Sweep, ...]
) -> tuple[Array, Array, tuple[sweep.Sweep, ...]]:
    """Images of which each pixel is a window, as one row of pixels where memory allows it."""
    one = sweep.straight(1, 1, 1, 1, (0, 0))
    pixels = all(each == one for each in sweeps) and x.shape[:-1] == y.shape[:-1]
    if pixels and x.flags.c_contiguous and y.flags.c_contiguous:
        return x.reshape(1, -1, x.shape[-1]), y.reshape(1, -1, y.shape[-1]), sweeps[:1]
    return x, y, sweeps
