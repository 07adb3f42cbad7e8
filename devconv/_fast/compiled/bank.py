"""A bank of filters laid out for blocks of products, in panels of columns, and back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.compiled import block, sweep, windows
from devconv._fast.compiled.threads import share


def is_depthwise(weight: Array, groups: int) -> bool:
    """Whether each output channel sums over the taps of one input channel alone."""
    return weight.shape[0] == groups > 1 and weight.shape[1] == 1


class Bank:
    """A kernel, and the taps of it that windows meet; ``swapped`` reads it from ``O`` to ``C``.

    With one channel to each of the groups, and one output, these are the columns of one group.

    Attributes:
        kind: the kind of block that walks over it.
        groups: groups that are summed over apart.
        channels: channels a sum runs over, in one group.
        outputs: numbers a window gives, in one group: channels of each pixel it writes.
    """

    def __init__(
        self, weight: Array, groups: int, sweeps: tuple[sweep.Sweep, ...], *, swapped: bool
    ) -> None:
        self.weight, self.sweeps, self.swapped = weight, sweeps, swapped
        filters, channels, pixels = weight.shape[0] // groups, weight.shape[1], sweeps[-1].group
        self.groups, self.kind = groups, block.PRODUCT if pixels == 1 else block.MASKED
        self.channels, self.outputs = (filters, channels) if swapped else (channels, filters)
        if is_depthwise(weight, groups):
            self.groups, self.kind = 1, block.CHANNELS
            self.outputs *= groups
        self.outputs *= pixels

    def packed(self) -> Array:
        """The kernel in the order in which blocks read it."""
        weight, groups = self.weight, self.groups
        offsets = _tap_offsets(self.sweeps, weight.strides[2:])
        shape = (groups, len(offsets) * self.channels * self.outputs)
        packed = np.empty(shape, weight.dtype)
        out, inner = weight.strides[:2]
        if self.swapped and self.kind != block.CHANNELS:
            out, inner = inner, out
        group = weight.shape[0] // groups * weight.strides[0]
        panels = groups * -(-self.outputs // windows.panel_width(weight.itemsize))
        share(
            windows.pack, weight.dtype, panels, packed.size, weight, group, out, inner, offsets,
            *offsets.shape, self.channels, self.outputs, packed, weight.itemsize,
        )  # fmt: skip
        return packed

    def masks(self) -> Array:
        """For each number of a window, bits that say which columns it counts for."""
        group = self.sweeps[-1].group
        counts = (
            _tap_offsets(self.sweeps, self.weight.strides[2:]) != windows.MISSING
        )  # (taps, pixels)
        columns = np.repeat(counts, self.outputs // group, axis=1)
        bits = columns @ (1 << np.arange(self.outputs, dtype=np.int64))
        return np.repeat(bits, self.channels)


@lru_cache(maxsize=1024)
def _tap_offsets(sweeps: tuple[sweep.Sweep, ...], strides: Shape) -> Array:
    """Bytes from the first weight to that of each tap and pixel of a window, or ``MISSING``."""
    offsets, missing = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.bool_)
    for each, stride in zip(sweeps, strides, strict=True):
        taps = np.asarray(each.taps, np.int64)
        shape = (-1, taps.shape[1])
        offsets = (offsets[:, None, :] + taps * stride).reshape(shape)
        missing = (missing[:, None, :] | (taps < 0)).reshape(shape)
    return np.where(missing, windows.MISSING, offsets)


def unpacked(
    sums: Array, parts: int, groups: int, taps: int, channels: int, outputs: int, dweight: Array
) -> Array:
    """``dweight`` from the sums of some parts, which lie as :meth:`Bank.packed` lays kernels."""
    panels = groups * -(-outputs // windows.panel_width(sums.itemsize))
    share(
        windows.unpack, sums.dtype, panels, sums.size, sums, parts, groups, taps, channels,
        outputs, dweight, sums.itemsize,
    )  # fmt: skip
    return dweight
