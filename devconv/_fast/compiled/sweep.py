"""How a convolution is swept: windows along each dimension, and the boxes of one turn.

All arithmetic on ints, from shapes alone. A :class:`Sweep` says for one dimension which
pixels of the image a window reads and which of the result it writes; :func:`planned` puts the
sweeps of all dimensions together and cuts the result into boxes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from devconv._array import Array
from devconv._check import Pair, Shape
from devconv._fast.compiled.block import ROWS, VECTOR_BYTES, VECTORS
from devconv._fast.compiled.windows import BATCH, DILATION, KERNEL, ORIGIN, ROW, SIZE, STRIDE

AXES = 4
SLAB = 256 * 2**10
"""Bytes of an image that one box reads: a quarter of a common second-level cache."""
TURNS = 16
"""As many boxes as the batch allows, up to this, are made for threads to share."""


@dataclass(frozen=True)
class Sweep:
    """Windows along one dimension of the image.

    Tap ``t`` of window ``o`` reads pixel ``origin + o·stride + t·dilation``. A window gives
    ``group`` neighbouring pixels of the result: with few channels, neighbours fill a vector
    together. ``taps[t][i]`` is the kernel's tap by which tap ``t`` of the window counts for the
    ``i``-th of them, or -1. ``pixels`` is the first pixel of the result, and how many on the
    next one is.
    """

    pixels: tuple[int, int]
    taps: tuple[tuple[int, ...], ...]
    stride: int
    dilation: int
    origin: int

    @property
    def group(self) -> int:
        """How many pixels of the result a window gives."""
        return len(self.taps[0]) if self.taps else 1


Axis = tuple[int, int, int, int, Pair]
"""Pixels of the result, kernel, stride, dilation and padding in one dimension."""


def straight(out: int, kernel: int, stride: int, dilation: int, padding: Pair) -> Sweep:
    """Each window as it is: the forward map."""
    taps = tuple((k,) for k in range(kernel))
    return Sweep((0, 1), taps, stride, dilation, -padding[0])


def phases(size: int, kernel: int, stride: int, dilation: int, padding: Pair) -> Iterator[Sweep]:
    """The map back to an image, for the pixels of each remainder by the stride.

    Window ``o`` has read pixel ``q`` by tap ``k`` where ``o·stride + k·dilation = q + before``.
    Pixels of one remainder were read by the same taps, one pixel after the other by one
    window after the other: a convolution of ``dy`` at stride 1, with these taps backwards.
    """
    before = padding[0]
    for residue in range(stride):
        first = (residue - before) % stride
        if first >= size:
            continue
        taps = [k for k in range(kernel) if k * dilation % stride == residue]
        back = [(k * dilation - residue) // stride for k in taps]
        window = (first + before - residue) // stride
        yield Sweep(
            (first, stride),
            tuple((k,) for k in reversed(taps)),
            1,
            back[1] - back[0] if len(back) > 1 else 1,
            window - back[-1] if back else 0,
        )


def forward(axes: Sequence[Axis], outputs: int, itemsize: int) -> list[Sweep]:
    """The sweeps of the forward map, grouped along the last dimension where that pays."""
    return [*(straight(*axis) for axis in axes[:-1]), _forward_last(axes[-1], outputs, itemsize)]


def backward(axes: Sequence[Axis], outputs: int, itemsize: int) -> list[tuple[Sweep, ...]]:
    """The sweeps of the map back to the image: each phase of each dimension with each other.

    Grouped along the last dimension where that pays; its phases are then swept together.
    """
    lists = [list(phases(*axis)) for axis in axes[:-1]]
    return list(itertools.product(*lists, _backward_last(axes[-1], outputs, itemsize)))


@lru_cache(maxsize=1024)
def _forward_last(axis: Axis, outputs: int, itemsize: int) -> Sweep:
    out, kernel, stride, _, (before, _) = axis

    def grouped(group: int) -> Sweep:
        taps = tuple(
            tuple(t - i * stride if 0 <= t - i * stride < kernel else -1 for i in range(group))
            for t in range(kernel + (group - 1) * stride)
        )
        return Sweep((0, 1), taps, group * stride, 1, -before)

    one = straight(*axis)
    return _cheaper([one], grouped, range(2, out + 1), axis, outputs, itemsize)[0]


@lru_cache(maxsize=1024)
def _backward_last(axis: Axis, outputs: int, itemsize: int) -> list[Sweep]:
    size, kernel, stride, _, (before, _) = axis
    origin = -((kernel - 1 - before) // stride)

    def grouped(group: int) -> Sweep:
        def tap(t: int, i: int) -> int:
            k = i + before - (origin + t) * stride
            return k if 0 <= k < kernel else -1

        reach = (group - 1 + before) // stride - origin + 1
        taps = tuple(tuple(tap(t, i) for i in range(group)) for t in range(reach))
        return Sweep((0, 1), taps, group // stride, 1, origin)

    several = list(phases(*axis))
    return _cheaper(several, grouped, range(stride, size + 1, stride), axis, outputs, itemsize)


def _cheaper(
    plain: list[Sweep],
    grouped: Callable[[int], Sweep],
    groups: Iterable[int],
    axis: Axis,
    outputs: int,
    itemsize: int,
) -> list[Sweep]:
    """The plain sweeps, or the best of those that give several neighbours at once.

    A window costs as many vector products as it has taps and its result has vectors.
    """
    size, _, _, dilation, _ = axis
    lanes = VECTOR_BYTES // itemsize
    best = plain
    least = -(-outputs // lanes) * sum(len(sweep.taps) for sweep in plain) / len(plain)
    for group in groups:
        if dilation > 1 or group * outputs > VECTORS * lanes:
            break
        if size % group == 0:
            sweep = grouped(group)
            cost = -(-group * outputs // lanes) * len(sweep.taps) / group
            if cost < 0.9 * least:
                best, least = [sweep], cost
    return best


@dataclass(frozen=True)
class Job:
    """A walk that is planned: its geometry (see :mod:`.windows`) and its boxes."""

    geometry: Array
    boxes: Array
    along: int
    is_padded: bool
    slab: int

    @cached_property
    def most(self) -> int:
        """The most windows that a box has."""
        return int((self.boxes[:, 1::2] - self.boxes[:, ::2]).prod(axis=1).max())

    @cached_property
    def rows(self) -> int:
        """The most rows of windows, along the axis that blocks follow, that a box has."""
        sizes = np.delete(self.boxes[:, 1::2] - self.boxes[:, ::2], self.along, axis=1)
        return int(sizes.prod(axis=1).max())


@lru_cache(maxsize=1024)
def planned(
    size: Shape,
    pixel: int,
    sweeps: tuple[Sweep, ...],
    out: Shape,
    budget: int = SLAB,
    may_cross: bool = True,
) -> Job:
    """The walk over images of ``size`` (N, *spatial), ``pixel`` bytes each, to ``out`` windows.

    A box reads about ``budget`` bytes. The rows of a block are the windows of an image's
    row, or those of several images at one place if a row is short and they ``may_cross``.
    """
    ones = (1,) * (AXES - len(sweeps))
    geometry = np.empty((5, AXES), np.int64)
    geometry[SIZE] = size[0], *ones[1:], *size[1:]
    geometry[KERNEL] = *ones, *(len(sweep.taps) for sweep in sweeps)
    geometry[STRIDE] = *ones, *(sweep.stride for sweep in sweeps)
    geometry[DILATION] = *ones, *(sweep.dilation for sweep in sweeps)
    geometry[ORIGIN] = *(0 for _ in ones), *(sweep.origin for sweep in sweeps)
    results = (out[0], *ones[1:], *out[1:])
    last = geometry[ORIGIN] + (np.asarray(results) - 1) * geometry[STRIDE]
    last += (geometry[KERNEL] - 1) * geometry[DILATION]
    padded = bool((geometry[ORIGIN] < 0).any() or (last >= geometry[SIZE]).any())
    short = results[ROW] <= ROWS // 2 and results[ROW] < results[BATCH]
    along = BATCH if short and may_cross else ROW
    boxes = _boxes(results, geometry, pixel, along, budget)
    slab = max(_slab_bytes(box, geometry, pixel) for box in boxes)
    flat = [[edge for pair in box for edge in pair] for box in boxes]
    return Job(geometry, np.asarray(flat, np.int64), along, padded, slab)


def with_boxes(job: Job, boxes: Array, pixel: int) -> Job:
    """The same walk in other boxes."""
    slab = max(_slab_bytes(box.reshape(-1, 2).tolist(), job.geometry, pixel) for box in boxes)
    return replace(job, boxes=boxes, slab=slab)


def _boxes(out: Sequence[int], geometry: Array, pixel: int, along: int, budget: int) -> list[Any]:
    """Some images, or a band of one, whose slab has about ``budget`` bytes."""
    image = _slab_bytes([(0, 1), *((0, n) for n in out[1:])], geometry, pixel)
    pieces = [1] * AXES
    least = min(out[0], ROWS) if along == BATCH else 1
    images = max(least, min(budget // image, -(-out[0] // TURNS)))
    pieces[0] = -(-out[0] // images)
    if image > budget and along == ROW:
        axis = next((a for a in range(1, AXES) if out[a] > 1), ROW)
        unit = ROWS if axis == ROW else 1
        pieces[axis] = min(-(-out[axis] // unit), -(-image // budget))
    return list(itertools.product(*map(split, out, pieces)))


def _slab_bytes(box: Any, geometry: Array, pixel: int) -> int:
    """What the windows of a box read."""
    _, kernel, stride, dilation, _ = geometry.tolist()
    reach = (
        (hi - lo - 1) * s + (k - 1) * d + 1
        for (lo, hi), k, s, d in zip(box, kernel, stride, dilation, strict=True)
    )
    return math.prod(reach) * pixel


def split(length: int, pieces: int) -> list[tuple[int, int]]:
    """``range(length)`` in so many nearly equal pieces."""
    return [(i * length // pieces, (i + 1) * length // pieces) for i in range(pieces)]


def strides(x: Array) -> Array:
    """Bytes from entry to entry on the four axes and between channels, of which one has none."""
    n, *spatial, channel = x.strides
    channel = x.itemsize if x.shape[-1] == 1 else channel
    return np.asarray([n, *(0,) * (AXES - 1 - len(spatial)), *spatial, channel], np.int64)
