"""Winograd's convolution F(m, 3) of images, box by box, while a box is in a cache.

``y = Aᵀ [(G k) ⊙ (Bᵀ d)] A``: a box's tiles go over to their points, at each point a block of
products sums over the channels, and the result comes back. The matrices and their sources
are in :mod:`devconv._winograd`. Two dimensions, kernels of 3 at stride 1.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.compiled import passes, sweep
from devconv._fast.compiled.bank import Bank, unpacked
from devconv._fast.compiled.block import PRODUCT, ROWS, copy_bytes, multiply_block
from devconv._fast.compiled.conv import units_of
from devconv._fast.compiled.memory import filled, readable
from devconv._fast.compiled.native import Task, compiled, integers
from devconv._fast.compiled.sandwich import sandwich
from devconv._fast.compiled.threads import PRODUCTS, share
from devconv._fast.compiled.windows import panel_width, slab_of
from devconv._fast.plan import Plan
from devconv._winograd import TAPS, Matrix, matrices

TILES = 28, 256
"""The fewest and the most tiles of a box, about: its points are read for each kernel's panel,
the kernel's points for each box."""
POINTS = 2 * 2**20
"""Bytes, about, that a box of images and results takes up at the points."""
BATCH, HEIGHT, WIDTH = 0, 4, 6
"""Where the edges of a box on these axes begin."""


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


(_A2, _B2, _G2), (_A4, _B4, _G4) = matrices(2), matrices(4)
_image_2, _image_4 = sandwich(_B2), sandwich(_B4)
_result_2, _result_4 = sandwich(_transposed(_A2)), sandwich(_transposed(_A4))
_result_back_2, _result_back_4 = sandwich(_A2), sandwich(_A4)
_kernel_2, _kernel_4 = sandwich(_G2), sandwich(_G4)
_kernel_back_2, _kernel_back_4 = sandwich(_transposed(_G2)), sandwich(_transposed(_G4))


def correlate(x: Array, weight: Array, w: Plan, tile: int, bias: Array | None = None) -> Array:
    """``y (N, *out, O)`` for ``x (N, *size, C)``."""
    before = tuple(pair[0] for pair in w.padding)
    bank = Bank(readable(weight, x.dtype), 1, _read(range(TAPS)), swapped=False)
    return _walk(x, bank, w.out, before, tile, bias)


def input_cotangent(dy: Array, weight: Array, w: Plan, tile: int) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``: the same with the kernel read backwards."""
    before = tuple(TAPS - 1 - pair[0] for pair in w.padding)
    bank = Bank(readable(weight, dy.dtype), 1, _read(range(TAPS - 1, -1, -1)), swapped=True)
    return _walk(dy, bank, w.size, before, tile, None)


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan, tile: int) -> Array:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``: ``Gᵀ [(Bᵀ d) ⊙ (A dy)] G``."""
    dy, outputs, channels, kind = readable(dy, x.dtype), len(weight), x.shape[-1], x.dtype
    before = tuple(pair[0] for pair in w.padding)
    described = x.shape, x.itemsize, w.out, before, tile, outputs
    job, back = _job(*described), _job_back(*described)
    points, tiles = (tile + TAPS - 1) ** 2, job.most
    share_bytes = points * channels * outputs * x.itemsize
    parts, units = units_of(len(job.boxes), outputs, 1, share_bytes, x.itemsize)
    sums = np.empty((parts, points * channels * outputs), kind)
    zeros = np.zeros(max(channels, outputs), kind)
    rooms = [job.slab, back.slab, *(points * tiles * c * x.itemsize for c in (channels, outputs))]
    places, room = _apart(rooms)
    x_strides, dy_strides, start = sweep.strides(x), sweep.strides(dy), np.zeros(1, np.int64)
    share(
        _kernel_cotangent, kind, len(units),
        len(job.boxes) * tiles * points * channels * outputs // PRODUCTS, places, tile, units,
        job.boxes, job.geometry, back.geometry, channels, outputs, x, x_strides, dy, dy_strides,
        sums, zeros, start, x.itemsize, room=room,
    )  # fmt: skip
    size = points * channels * outputs
    share(passes.add_up, kind, size, sums.size if parts > 1 else 0, size, parts, sums)
    packed, width = np.empty(weight.size, kind), panel_width(x.itemsize)
    zeros, panels = np.zeros(width, kind), -(-outputs // width)
    told = tile, channels, outputs, sums, packed, zeros, x.itemsize
    share(_kernels_back, kind, panels, size, *told)
    return unpacked(packed, 1, 1, TAPS**2, channels, outputs, np.empty(weight.shape, kind))


def _walk(x: Array, bank: Bank, out: Shape, before: Shape, tile: int, bias: Array | None) -> Array:
    """The windows of ``x`` times the kernel."""
    channels, outputs, kind = bank.channels, bank.outputs, x.dtype
    job = _job(x.shape, x.itemsize, out, before, tile, outputs)
    y = np.empty((len(x), *out, outputs), kind)
    kernels = _points(bank, tile)
    start = np.zeros(outputs, kind) if bias is None else filled(bias, kind)
    points, tiles = (tile + TAPS - 1) ** 2, job.most
    rooms = [job.slab, *(points * tiles * c * x.itemsize for c in (channels, outputs))]
    places, room = _apart([*rooms, tile * tile * outputs * x.itemsize])
    none, zeros = np.zeros(1, np.int64), np.zeros(max(channels, outputs), kind)
    x_strides, y_strides, edges = sweep.strides(x), sweep.strides(y), np.asarray(out, np.int64)
    share(
        _correlate, kind, len(job.boxes),
        len(job.boxes) * tiles * points * channels * outputs // PRODUCTS, places, tile, job.boxes,
        job.geometry, channels, outputs, x, x_strides, kernels, start, y, y_strides, edges, zeros,
        none, x.itemsize, room=room,
    )  # fmt: skip
    return y


def _points(bank: Bank, tile: int) -> Array:
    """The kernels at the points, in panels: ``G k Gᵀ``."""
    packed, outputs, channels = bank.packed(), bank.outputs, bank.channels
    width = panel_width(packed.itemsize)
    kernels = np.empty((tile + TAPS - 1) ** 2 * channels * outputs, packed.dtype)
    zeros, panels = np.zeros(width, packed.dtype), -(-outputs // width)
    told = tile, channels, outputs, packed, kernels, zeros, packed.itemsize
    share(_kernels, packed.dtype, panels, kernels.size, *told)
    return kernels


def _read(taps: range) -> tuple[sweep.Sweep, ...]:
    """Sweeps that read a kernel's taps in some order."""
    return (sweep.Sweep((0, 1), tuple((k,) for k in taps), 1, 1, 0),) * 2


@lru_cache(maxsize=1024)
def _job(
    shape: Shape, itemsize: int, out: Shape, before: Shape, tile: int, outputs: int
) -> sweep.Job:
    """The tiles of images ``(N, *size, C)`` as windows that overlap, ``tile`` apart.

    In boxes that suit the channels of images and of results together.
    """
    reach, pixel = tile + TAPS - 1, shape[-1] * itemsize
    count = POINTS // (reach * reach * max(1, shape[-1] + outputs) * itemsize)
    budget = min(max(count, TILES[0]), TILES[1]) * tile * tile * pixel
    return _tiled(shape, pixel, out, before, tile, reach, budget)


@lru_cache(maxsize=1024)
def _job_back(
    shape: Shape, itemsize: int, out: Shape, before: Shape, tile: int, outputs: int
) -> sweep.Job:
    """The tiles of the results ``(N, *out, outputs)``, in the same boxes."""
    pixel, none = outputs * itemsize, tuple(0 for _ in out)
    job = _tiled((shape[0], *out, outputs), pixel, out, none, tile, tile, POINTS)
    like = _job(shape, itemsize, out, before, tile, outputs)
    return sweep.with_boxes(job, like.boxes, pixel)


def _tiled(
    shape: Shape, pixel: int, out: Shape, before: Shape, tile: int, reach: int, budget: int
) -> sweep.Job:
    taps = tuple((k,) for k in range(reach))
    sweeps = tuple(sweep.Sweep((0, 1), taps, tile, 1, -edge) for edge in before)
    tiles = (shape[0], *(-(-n // tile) for n in out))
    return sweep.planned(shape[:-1], pixel, sweeps, tiles, budget, False)


def _apart(sizes: list[int]) -> tuple[Array, int]:
    """Where in a thread's memory rooms of these sizes begin, and how much it takes."""
    edges = np.cumsum([0, *(-(-size // 64) * 64 for size in sizes)])
    return edges[:-1], int(edges[-1])


@Task
def _correlate(
    zero, who, lo, hi, room, rooms, tile, boxes, geometry, channels, outputs, x, x_strides,
    kernels, start, y, y_strides, edges, zeros, none, itemsize,
):  # fmt: skip
    """``y`` for the boxes from ``lo`` to ``hi``."""
    boxes, geometry = integers(boxes, (hi, 8)), integers(geometry, (5, 4))
    x_strides, y_strides, edges = integers(x_strides, 5), integers(y_strides, 5), integers(edges, 2)
    rooms = integers(rooms, 4) + room
    extents = np.empty(4, np.int64)
    side, width = tile + TAPS - 1, panel_width(itemsize)
    image, result, spare = rooms[1], rooms[2], rooms[3]
    for i in range(lo, hi):
        box = boxes[i]
        slab = slab_of(box, geometry, channels, x, x_strides, rooms[0], itemsize, extents)
        tiles = _to_points(
            zero, tile, box, slab, extents, image, channels, zeros, itemsize, tile + TAPS - 1
        )
        blocks = (tiles + ROWS - 1) // ROWS
        for point in range(side * side):
            for o in range(0, outputs, width):
                columns = min(width, outputs - o)
                kernel = kernels + (o * side * side + point * columns) * channels * itemsize
                for block in range(blocks):
                    low, high = block * tiles // blocks, (block + 1) * tiles // blocks
                    multiply_block(
                        zero, high - low, PRODUCT,
                        image + (point * tiles + low) * channels * itemsize, channels * itemsize,
                        itemsize, none, kernel, columns * itemsize, none,
                        1, channels, result + ((point * tiles + low) * outputs + o) * itemsize,
                        outputs * itemsize, zeros, 0, columns, 0,
                    )  # fmt: skip
        plane, t = tiles * outputs * itemsize, 0
        for n in range(box[BATCH], box[BATCH + 1]):
            for h in range(box[HEIGHT], box[HEIGHT + 1]):
                for w in range(box[WIDTH], box[WIDTH + 1]):
                    target = y + n * y_strides[0] + h * tile * y_strides[2]
                    target += w * tile * y_strides[3]
                    rows, pixels = min(tile, edges[0] - h * tile), min(tile, edges[1] - w * tile)
                    source = result + t * outputs * itemsize
                    if rows == tile and pixels == tile:
                        _result(
                            zero, tile, source, side * plane, plane, target, y_strides[2],
                            y_strides[3], start, outputs,
                        )  # fmt: skip
                    else:
                        pixel = outputs * itemsize
                        _result(
                            zero, tile, source, side * plane, plane, spare, tile * pixel, pixel,
                            start, outputs,
                        )  # fmt: skip
                        for r in range(rows):
                            line = spare + r * tile * pixel
                            copy_bytes(target + r * y_strides[2], line, pixels * pixel)
                    t += 1


@Task
def _kernel_cotangent(
    zero, who, lo, hi, room, rooms, tile, units, boxes, geometry, back, channels, outputs, x,
    x_strides, dy, dy_strides, sums, zeros, none, itemsize,
):  # fmt: skip
    """What each weight has met, at the points; units and parts as for the direct sum."""
    geometry, back = integers(geometry, (5, 4)), integers(back, (5, 4))
    units = integers(units, (hi, 5))
    x_strides, dy_strides = integers(x_strides, 5), integers(dy_strides, 5)
    rooms = integers(rooms, 4) + room
    extents = np.empty(4, np.int64)
    side, width = tile + TAPS - 1, panel_width(itemsize)
    image, result = rooms[2], rooms[3]
    blocks = (channels + ROWS - 1) // ROWS
    for u in range(lo, hi):
        total = sums + units[u, 4] * side * side * channels * outputs * itemsize
        for i in range(units[u, 0], units[u, 1]):
            box = integers(boxes + 64 * i, 8)
            slab = slab_of(box, geometry, channels, x, x_strides, rooms[0], itemsize, extents)
            tiles = _to_points(
                zero, tile, box, slab, extents, image, channels, zeros, itemsize, side
            )
            slab = slab_of(box, back, outputs, dy, dy_strides, rooms[1], itemsize, extents)
            _to_points(zero, tile, box, slab, extents, result, outputs, zeros, itemsize, tile)
            fresh = i == units[u, 0]
            for point in range(side * side):
                for panel in range(units[u, 2], units[u, 3]):
                    o = panel * width
                    columns = min(width, outputs - o)
                    for block in range(blocks):
                        low, high = block * channels // blocks, (block + 1) * channels // blocks
                        place = total + o * side * side * channels * itemsize
                        place += (point * channels + low) * columns * itemsize
                        multiply_block(
                            zero, high - low, PRODUCT,
                            image + (point * tiles * channels + low) * itemsize, itemsize,
                            channels * itemsize, none,
                            result + (point * tiles * outputs + o) * itemsize,
                            outputs * itemsize, none, 1, tiles, place,
                            columns * itemsize, zeros if fresh else place,
                            0 if fresh else columns * itemsize, columns, 0,
                        )  # fmt: skip


@compiled
def _to_points(zero, tile, box, slab, extents, target, channels, zeros, itemsize, reach):
    """Lay out the tiles of a slab, ``reach`` wide, as ``(points, tiles, channels)``; how many."""
    side = tile + TAPS - 1
    height, width = box[HEIGHT + 1] - box[HEIGHT], box[WIDTH + 1] - box[WIDTH]
    tiles = (box[BATCH + 1] - box[BATCH]) * height * width
    plane, t = tiles * channels * itemsize, 0
    for n in range(box[BATCH + 1] - box[BATCH]):
        for h in range(height):
            for w in range(width):
                source = slab + n * extents[0] + h * tile * extents[2] + w * tile * extents[3]
                place = target + t * channels * itemsize
                if reach == tile and tile == 2:
                    _result_back_2(
                        zero, source, extents[2], extents[3], place, side * plane, plane, zeros,
                        channels,
                    )  # fmt: skip
                elif reach == tile:
                    _result_back_4(
                        zero, source, extents[2], extents[3], place, side * plane, plane, zeros,
                        channels,
                    )  # fmt: skip
                elif tile == 2:
                    _image_2(
                        zero, source, extents[2], extents[3], place, side * plane, plane, zeros,
                        channels,
                    )  # fmt: skip
                else:
                    _image_4(
                        zero, source, extents[2], extents[3], place, side * plane, plane, zeros,
                        channels,
                    )  # fmt: skip
                t += 1
    return tiles


@compiled
def _result(zero, tile, source, row, column, target, t_row, t_column, start, count):
    if tile == 2:
        _result_2(zero, source, row, column, target, t_row, t_column, start, count)
    else:
        _result_4(zero, source, row, column, target, t_row, t_column, start, count)


@Task
def _kernels(zero, who, lo, hi, room, tile, channels, outputs, packed, kernels, zeros, itemsize):
    """Panels ``lo`` to ``hi`` of the kernels, from taps to points."""
    side, width = tile + TAPS - 1, panel_width(itemsize)
    for panel in range(lo, hi):
        o = panel * width
        columns = min(width, outputs - o)
        plane = channels * columns * itemsize
        for c in range(channels):
            source = packed + o * TAPS * TAPS * channels * itemsize + c * columns * itemsize
            target = kernels + o * side * side * channels * itemsize + c * columns * itemsize
            if tile == 2:
                _kernel_2(
                    zero, source, TAPS * plane, plane, target, side * plane, plane, zeros, columns
                )
            else:
                _kernel_4(
                    zero, source, TAPS * plane, plane, target, side * plane, plane, zeros, columns
                )


@Task
def _kernels_back(zero, who, lo, hi, room, tile, channels, outputs, sums, packed, zeros, itemsize):
    """The transpose: panels ``lo`` to ``hi`` of the kernels, from points to taps."""
    side, width = tile + TAPS - 1, panel_width(itemsize)
    for panel in range(lo, hi):
        o = panel * width
        columns = min(width, outputs - o)
        plane = channels * columns * itemsize
        for c in range(channels):
            source = sums + o * side * side * channels * itemsize + c * columns * itemsize
            target = packed + o * TAPS * TAPS * channels * itemsize + c * columns * itemsize
            if tile == 2:
                _kernel_back_2(
                    zero, source, side * plane, plane, target, TAPS * plane, plane, zeros, columns
                )
            else:
                _kernel_back_4(
                    zero, source, side * plane, plane, target, TAPS * plane, plane, zeros, columns
                )
