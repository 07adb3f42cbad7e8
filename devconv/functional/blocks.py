"""Convolution in another basis: one algorithm, of which Winograd's and Fourier's are two cases.

Cut the image into blocks that overlap, and give each block and the kernel other coordinates,
in which a convolution is a product *point by point*: in place of one multiplication per
tap, one per point. What is left is linear algebra::

    y        = Aᵀ [ (G k) ⊙ (Bᵀ d) ]            a block d of the image, a kernel k
    dkernel  = Gᵀ [ (Bᵀ d) ⊙ (A dy) ]           the same bilinear map, read from its other side

with the sum over input channels (or over blocks, for ``dkernel``) inside the brackets: a
matrix product for each point. The cotangent of the input is the first line again, with the
flipped kernel. A :class:`Transform` is a choice of ``A``, ``B`` and ``G``: small matrices
(:mod:`devconv.functional.winograd`) or Fourier transforms
(:mod:`devconv.functional.fourier`). Blocks are windows, taken as all windows are.

All of this is at stride 1 and dilation 1. Images are ``(N, *spatial, C)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from devconv import _array, _fast
from devconv._array import Array
from devconv._check import Shape
from devconv.functional.direct import flipped
from devconv.functional.products import stacked
from devconv.functional.windows import Tile, Windows, cut, take, tiles


class Transform(Protocol):
    """Other coordinates for blocks of an image: the matrices A, B and G."""

    step: Shape
    """The pixels of ``y`` that a block gives; it reads ``step + kernel - 1``."""
    bytes_per_channel: int
    """What one channel of one block takes up in the new coordinates."""

    def image(self, blocks: Array) -> Array:
        """``Bᵀ d``: ``(points, M, C)`` for M blocks ``(N, *count, *block, C)``."""
        ...

    def kernel(self, weight: Array) -> Array:
        """``G k``: ``(points, C/G, O)`` for a weight ``(O, C/G, *kernel)``."""
        ...

    def result(self, points: Array, lead: Shape) -> Array:
        """``Aᵀ p``: blocks of ``y`` ``(*lead, *step, O)`` for ``(points, M, O)``."""
        ...

    def result_back(self, blocks: Array) -> Array:
        """``A dy``: ``(points, M, O)`` for blocks ``(N, *count, *step, O)``."""
        ...

    def kernel_back(self, points: Array) -> Array:
        """``Gᵀ p``: ``(O, C/G, *kernel)`` for ``(points, C/G, O)``."""
        ...


Choose = Callable[[Windows], Transform]
"""A transform that suits the plan it is given."""


def correlate(x: Array, weight: Array, w: Windows, groups: int, choose: Choose) -> Array:
    """``y (N, *out, O)`` in the dtype of ``x``."""
    xp, outputs = _array.array_namespace(x), weight.shape[0]
    transform = choose(w)
    kernel = _grouped(transform.kernel(_array.widen(weight)), groups)  # (P, G, C/G, O/G)

    def block_of(tile: Tile) -> Array:
        image = _grouped(transform.image(_taken(x, tile)), groups)  # (P, G, M, C/G)
        points = _ungrouped(_product(image, kernel), groups)  # (P, M, O)
        lead = (tile.images.stop - tile.images.start, *tile.windows.out)
        y = _side_by_side(transform.result(points, lead), len(lead))
        inside = [slice(0, s.stop - s.start) for s in _pixels(tile, w, transform)]
        return _array.cast(y[(slice(None), *inside, ...)], x.dtype)

    pieces = _pieces(x, w, transform, outputs)
    if len(pieces) == 1:
        return block_of(pieces[0])
    y = xp.empty((x.shape[0], *w.out, outputs), dtype=x.dtype, device=_array.device(x))
    for tile in pieces:
        where = (tile.images, *_pixels(tile, w, transform), ...)
        y = _array.written(y, where, block_of(tile))
    return y


def input_cotangent(dy: Array, weight: Array, w: Windows, groups: int, choose: Choose) -> Array:
    """``dx (N, *size, C)``: ``dy`` convolved with the flipped kernel."""
    xp = _array.array_namespace(dy)
    seeing = _seeing(w)
    if seeing is None:
        shape = (dy.shape[0], *w.size, weight.shape[1] * groups)
        return xp.zeros(shape, dtype=dy.dtype, device=_array.device(dy))
    where, met = seeing
    back = met.transposed()
    assert back is not None  # stride 1, and no window beyond the image
    return correlate(dy[(slice(None), *where, ...)], flipped(weight, groups), back, groups, choose)


def kernel_cotangent(
    x: Array, dy: Array, weight: Array, w: Windows, groups: int, choose: Choose
) -> Array:
    """``dweight (O, C/G, *kernel)``, added up over the tiles in their order."""
    xp = _array.array_namespace(x)
    transform = choose(w)
    once = (1,) * len(w.out)
    none = ((0, 0),) * len(w.out)
    total = None
    for tile in _pieces(x, w, transform, weight.shape[0]):
        where = _pixels(tile, w, transform)
        size = tuple([s.stop - s.start for s in where])
        given = Windows(size, transform.step, transform.step, none, once, tile.windows.out)
        part = cut(_array.widen(dy[(tile.images, *where, ...)]), given)
        dual = _grouped(transform.result_back(take(part, given)), groups)  # (P, G, M, O/G)
        image = _grouped(transform.image(_taken(x, tile)), groups)  # (P, G, M, C/G)
        share = stacked(xp.matrix_transpose(image), dual)  # (P, G, C/G, O/G)
        total = share if total is None else total + share
    if total is None:
        return xp.zeros_like(weight)
    return transform.kernel_back(_ungrouped(total, groups))


def _pieces(x: Array, w: Windows, transform: Transform, outputs: int) -> tuple[Tile, ...]:
    """The blocks of the image, as many at a time as the workspace holds."""
    step = transform.step
    blocks = replace(
        w,
        kernel=tuple(s + k - 1 for s, k in zip(step, w.kernel, strict=True)),
        stride=step,
        out=tuple(-(-o // s) for o, s in zip(w.out, step, strict=True)),
    )
    size = transform.bytes_per_channel * (x.shape[-1] + outputs)
    return tiles(x.shape[0], blocks, size, _fast.workspace(x))


def _taken(x: Array, tile: Tile) -> Array:
    """A tile's blocks ``(n, *count, *block, C)``, with zeros beyond the image."""
    return take(cut(_array.widen(x[tile.of_x]), tile.windows), tile.windows)


def _pixels(tile: Tile, w: Windows, transform: Transform) -> list[slice]:
    """Where a tile's blocks of ``y`` lie in each dimension."""
    axes = zip(tile.box, transform.step, w.out, strict=True)
    return [slice(some.start * step, min(some.stop * step, out)) for some, step, out in axes]


def _side_by_side(blocks: Array, lead: int) -> Array:
    """Blocks ``(N, *count, *step, O)`` as one image ``(N, *(count · step), O)``."""
    xp = _array.array_namespace(blocks)
    n, *rest, o = blocks.shape
    rank = lead - 1
    order = [axis for d in range(rank) for axis in (1 + d, lead + d)]
    size = [rest[d] * rest[rank + d] for d in range(rank)]
    return xp.reshape(xp.permute_dims(blocks, (0, *order, lead + rank)), (n, *size, o))


def _seeing(w: Windows) -> tuple[tuple[slice, ...], Windows] | None:
    """The windows that see any of the image, not padding alone; ``None`` if there are none."""
    where, padding = [], []
    for size, kernel, out, (before, after) in zip(w.size, w.kernel, w.out, w.padding, strict=True):
        first, last = max(0, before - kernel + 1), min(out, before + size)
        if first >= last:
            return None
        where.append(slice(first, last))
        padding.append((before - first, after))
    seen = tuple([s.stop - s.start for s in where])
    return tuple(where), replace(w, padding=tuple(padding), out=seen)


def _product(image: Array, kernel: Array) -> Array:
    """``(P, ..., M, C) (P, ..., C, O)`` at each point; one channel needs no sum."""
    return image * kernel if image.shape[-1] == 1 else stacked(image, kernel)


def _grouped(points: Array, groups: int) -> Array:
    """``(P, M, C)`` as ``(P, G, M, C/G)``: the groups of the last axis beside the points."""
    if groups == 1:
        return points
    xp = _array.array_namespace(points)
    p, m, c = points.shape
    return xp.permute_dims(xp.reshape(points, (p, m, groups, c // groups)), (0, 2, 1, 3))


def _ungrouped(points: Array, groups: int) -> Array:
    """The adjoint, and inverse, of :func:`_grouped`."""
    if groups == 1:
        return points
    xp = _array.array_namespace(points)
    p, _, m, c = points.shape
    return xp.reshape(xp.permute_dims(points, (0, 2, 1, 3)), (p, m, groups * c))


def points_first(x: Array, lead: int, rank: int) -> Array:
    """``(*lead, *points, C)``, ``rank`` axes of points, as ``(*points, M, C)``."""
    xp = _array.array_namespace(x)
    order = (*range(lead, lead + rank), *range(lead), lead + rank)
    shape = (*x.shape[lead : lead + rank], math.prod(x.shape[:lead]), x.shape[-1])
    return xp.reshape(xp.permute_dims(x, order), shape)


def points_last(x: Array, lead: Shape) -> Array:
    """``(*points, M, C)`` as ``(*lead, *points, C)``: the inverse of :func:`points_first`."""
    xp = _array.array_namespace(x)
    *points, _, c = x.shape
    split = xp.reshape(x, (*points, *lead, c))
    rank, n = len(points), len(lead)
    return xp.permute_dims(split, (*range(rank, rank + n), *range(rank), rank + n))
