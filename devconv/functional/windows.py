"""Windows over an image: where they lie, taking them, and the adjoint of taking them.

One sentence carries every spatial operation: take windows, contract, and go back by the
transposed contraction and the adjoint of taking windows. :class:`Windows` is the plan, pure
arithmetic on ints; the functions below it carry it out. Images are ``(N, *spatial, C)``
here: a row of a window is then one contiguous run of memory. Convolution and pooling are
built on this room; layers ask it for output sizes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import EllipsisType
from typing import Any, TypeAlias

from devconv import _array, _check, _fast
from devconv._array import Array
from devconv._check import InvalidValue, Pair, Shape

Index: TypeAlias = tuple[slice | EllipsisType, ...]
Box: TypeAlias = tuple[slice, ...]
"""From where to where, in each spatial dimension."""


@dataclass(frozen=True)
class Windows:
    """Where windows lie: tap ``k`` of window ``o`` reads ``o·stride + k·dilation - before``.

    All in pixels, one entry per spatial dimension. ``size`` is the image, ``padding`` what
    windows may read around it, ``out`` the number of windows.
    """

    size: Shape
    kernel: Shape
    stride: Shape
    padding: tuple[Pair, ...]
    dilation: Shape
    out: Shape

    taps: int = field(init=False, compare=False, repr=False)
    """How many elements a window has."""
    reach: Shape = field(init=False, compare=False, repr=False)
    """The extent of the padded image that the windows read."""
    edges: tuple[tuple[int, int, int], ...] = field(init=False, compare=False, repr=False)
    """Per dimension: padding before, pixels of the image read, padding after; in all the reach."""
    is_padded: bool = field(init=False, compare=False, repr=False)
    """Whether any window reads padding."""
    is_pointwise: bool = field(init=False, compare=False, repr=False)
    """Whether the windows are the pixels of the slab, each once (a 1x1 convolution)."""

    def __post_init__(self) -> None:
        """Work out once what every pass asks for."""
        reach = tuple(
            (o - 1) * s + d * (k - 1) + 1 if o else 0
            for o, s, d, k in zip(self.out, self.stride, self.dilation, self.kernel, strict=True)
        )
        edges = []
        for size, (before, _), extent in zip(self.size, self.padding, reach, strict=True):
            before = min(before, extent)
            used = min(size, extent - before)
            edges.append((before, used, extent - before - used))
        taps = math.prod(self.kernel)
        vars(self).update(
            taps=taps,
            reach=reach,
            edges=tuple(edges),
            is_padded=any(before or after for before, _, after in edges),
            is_pointwise=taps == 1 and all(s == 1 for s in self.stride),
        )

    @property
    def is_whole(self) -> bool:
        """Whether these are all the windows that fit, as :func:`plan` lays them (no ``ceil_mode``).

        A transposed convolution may leave more than a stride of its image unread.
        """
        return self == plan(self.size, self.kernel, self.stride, self.padding, self.dilation)

    def offsets(self) -> Iterator[Shape]:
        """The taps of a window as indices into the kernel, in C order."""
        return itertools.product(*map(range, self.kernel))

    def part(self, box: Box) -> tuple[Box, Windows]:
        """The box of the image that the windows in ``box`` read, and the plan of them alone."""
        padding, read = [], []
        for some, n, kernel, stride, dilation, (before, _) in zip(
            box, self.size, self.kernel, self.stride, self.dilation, self.padding, strict=True
        ):
            first = some.start * stride - before
            last = (some.stop - 1) * stride - before + dilation * (kernel - 1) + 1
            low = min(max(first, 0), n)
            high = max(min(last, n), low)
            before = min(max(-first, 0), last - first)
            padding.append((before, last - first - before - (high - low)))
            read.append(slice(low, high))
        size, out = _lengths(read), _lengths(box)
        return tuple(read), replace(self, size=size, padding=tuple(padding), out=out)

    def transposed(self) -> Windows | None:
        """The windows over ``y`` by which ``x``'s cotangent is a convolution of ``dy``.

        Only for stride 1, and no more padding than a kernel's reach; else ``None``.
        """
        return _transposed(self)


@lru_cache(maxsize=1024)
def _transposed(w: Windows) -> Windows | None:
    spans = [d * (k - 1) for d, k in zip(w.dilation, w.kernel, strict=True)]
    padding = tuple(
        (span - before, size - out + before)
        for size, out, span, (before, _) in zip(w.size, w.out, spans, w.padding, strict=True)
    )
    if any(s != 1 for s in w.stride) or any(min(pair) < 0 for pair in padding):
        return None
    return replace(w, size=w.out, padding=padding, out=w.size)


def _lengths(box: Iterable[slice]) -> Shape:
    return tuple(some.stop - some.start for some in box)


@lru_cache(maxsize=1024)
def plan(
    size: Shape,
    kernel: Shape,
    stride: Shape,
    padding: tuple[Pair, ...],
    dilation: Shape,
    ceil_mode: bool = False,
) -> Windows:
    """Lay windows over an image.

    ``out = floor((size + before + after - dilation·(kernel - 1) - 1) / stride) + 1``; with
    ``ceil_mode`` the quotient is rounded up, but no window starts beyond the image and the
    padding before it (PyTorch's rule).

    Raises:
        InvalidValue: when a window does not fit into the padded image.
    """
    out = []
    for n, k, s, (before, after), d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = n + before + after - d * (k - 1) - 1
        count = room // s + 1
        if ceil_mode and room % s and count * s < n + before:
            count += 1
        if count < 1:
            padded = tuple(a + sum(p) for a, p in zip(size, padding, strict=True))
            extent = tuple(e * (c - 1) + 1 for e, c in zip(dilation, kernel, strict=True))
            raise InvalidValue(
                f"the output would be empty: kernel {kernel} with dilation {dilation} spans "
                f"{extent} pixels, the padded input {padded}; use a smaller kernel or more padding"
            )
        out.append(count)
    return Windows(size, kernel, stride, padding, dilation, tuple(out))


def channels_last(x: Array) -> Array:
    """``(N, C, *spatial)`` seen as ``(N, *spatial, C)``: a view where the library has views."""
    return _array.array_namespace(x).permute_dims(x, (0, *range(2, x.ndim), 1))


def channels_first(x: Array) -> Array:
    """``(N, *spatial, C)`` seen as ``(N, C, *spatial)``: the memory stays channels-last."""
    return _array.array_namespace(x).permute_dims(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def cut(x: Array, w: Windows, fill: float = 0.0) -> Array:
    """The slab of ``x`` (N, *size, C) that the windows read, padded to ``w.reach``."""
    n, *spatial, c = x.shape
    edges = w.edges
    if any(used != size for size, (_, used, _) in zip(spatial, edges, strict=True)):
        x = x[(slice(None), *(slice(0, used) for _, used, _ in edges), ...)]
    if not w.is_padded:
        return x
    shape = (n, *w.reach, c)
    route = _fast.route("cut", x)
    if route is not None:
        return route(x, (0, *(before for before, _, _ in edges), 0), shape, fill)
    xp = _array.array_namespace(x)
    if fill:
        padded = xp.full(shape, fill, dtype=x.dtype, device=_array.device(x))
    else:
        padded = xp.zeros(shape, dtype=x.dtype, device=_array.device(x))
    return _array.written(padded, _inside(edges), x)


def _inside(edges: tuple[tuple[int, int, int], ...]) -> Index:
    return (slice(None), *(slice(before, before + used) for before, used, _ in edges), ...)


def tap(slab: Array, w: Windows, offset: Shape) -> Array:
    """What tap ``offset`` of every window reads: ``(N, *out, C)``, a strided slice."""
    return slab[_reads(w, offset)]


def _reads(w: Windows, offset: Shape) -> Index:
    axes = zip(offset, w.out, w.stride, w.dilation, strict=True)
    return (slice(None), *(slice(k * d, k * d + (o - 1) * s + 1, s) for k, o, s, d in axes), ...)


def take(slab: Array, w: Windows) -> Array:
    """All windows of a slab: ``(N, *out, *kernel, C)``."""
    route = _fast.route("take", slab)
    if route is not None:
        return route(slab, w.out, w.kernel, w.stride, w.dilation)
    xp = _array.array_namespace(slab)
    n, c, rank = slab.shape[0], slab.shape[-1], len(w.out)
    stacked = xp.stack([tap(slab, w, offset) for offset in w.offsets()], axis=1 + rank)
    return xp.reshape(stacked, (n, *w.out, *w.kernel, c))


def put(taps: Iterable[Array], w: Windows, like: Array) -> Array:
    """The adjoint of taking windows: each tap's share added where the tap had read.

    Takes one ``(N, *out, C)`` array per tap, in the order of :meth:`Windows.offsets`, and
    returns the slab's cotangent ``(N, *reach, C)``. Within one tap every target is distinct
    and the taps are added in a fixed order, so there is nothing to race for. ``like`` gives
    batch, channels, dtype and device.
    """
    xp = _array.array_namespace(like)
    shape = (like.shape[0], *w.reach, like.shape[-1])
    total = xp.zeros(shape, dtype=like.dtype, device=_array.device(like))
    for offset, share in zip(w.offsets(), taps, strict=True):
        total = _array.added(total, _reads(w, offset), share)
    return total


def put_back(windows: Array, w: Windows) -> Array:
    """The adjoint of taking all windows: ``(N, *reach, C)`` for ``windows (N, *out, taps, C)``."""
    route = _fast.route("put", windows)
    if route is not None:
        return route(windows, w)
    return put((windows[..., t, :] for t in range(w.taps)), w, like=windows)


@dataclass(frozen=True)
class Tile:
    """Some windows of some images: the unit of work.

    ``y[tile.of_y]`` is what the tile computes, ``x[tile.of_x]`` what it needs, and ``windows``
    the plan that leads from one to the other.
    """

    images: slice
    box: Box
    read: Box
    windows: Windows

    @property
    def of_y(self) -> Index:
        """Its windows, as an index into ``y (N, *out, O)``."""
        return (self.images, *self.box, ...)

    @property
    def of_x(self) -> Index:
        """What they read, as an index into ``x (N, *size, C)``."""
        return (self.images, *self.read, ...)


@lru_cache(maxsize=1024)
def tiles(n: int, w: Windows, bytes_per_window: int, budget: int | None) -> tuple[Tile, ...]:
    """Cut ``n`` images of windows into tiles of about ``budget`` bytes of columns.

    A tile is several small images, or some rows of a large one; of a row that is too large by
    itself it is some rows of the next dimension, and so on. Edges depend on the shapes and
    the constant ``budget`` alone.
    """
    if n == 0:
        return ()
    images, box = n, list(w.out)
    if budget is not None:
        room = max(1, budget // bytes_per_window)
        for d in reversed(range(len(box))):
            box[d] = min(w.out[d], max(1, room))
            room //= w.out[d]
        images = min(n, max(1, room))
    along = [
        [slice(j, min(j + some, out)) for j in range(0, out, some)]
        for some, out in zip(box, w.out, strict=True)
    ]
    return tuple(
        Tile(slice(i, min(i + images, n)), part, *w.part(part))
        for i in range(0, n, images)
        for part in itertools.product(*along)
    )


def assemble(
    body: Callable[[Array, Windows], Array],
    x: Array,
    w: Windows,
    *,
    channels: int,
    bytes_per_window: int,
    fill: float = 0.0,
    dtype: Any = None,
) -> Array:
    """``y`` (N, *out, channels), tile by tile: ``body(slab, windows)`` gives one tile of it.

    In the dtype of ``x`` unless told otherwise.
    """
    xp = _array.array_namespace(x)
    dtype = x.dtype if dtype is None else dtype
    pieces = tiles(x.shape[0], w, bytes_per_window, _fast.workspace(x))
    if len(pieces) == 1:
        return _array.cast(body(cut(x, w, fill), w), dtype)
    y = xp.empty((x.shape[0], *w.out, channels), dtype=dtype, device=_array.device(x))

    for tile in pieces:
        block = body(cut(x[tile.of_x], tile.windows, fill), tile.windows)
        y = _array.written(y, tile.of_y, _array.cast(block, dtype))
    return y


def spread(
    body: Callable[[Tile], Array],
    shape: Shape,
    w: Windows,
    *,
    bytes_per_window: int,
    like: Array,
) -> Array:
    """The adjoint of :func:`assemble`: ``dx`` with ``shape`` (N, *size, C).

    ``body(tile)`` gives the cotangent of the tile's slab; slabs that overlap are added in
    the order of the tiles, in the dtype of ``like``.
    """
    xp = _array.array_namespace(like)
    pieces = tiles(shape[0], w, bytes_per_window, _fast.workspace(like))
    if len(pieces) == 1 and all(used == n for n, (_, used, _) in zip(w.size, w.edges, strict=True)):
        return body(pieces[0])[_inside(w.edges)]
    dx = xp.zeros(shape, dtype=like.dtype, device=_array.device(like))
    for tile in pieces:
        dx = _array.added(dx, tile.of_x, body(tile)[_inside(tile.windows.edges)])
    return dx


def accumulate(
    body: Callable[[Tile, Array], Array],
    x: Array,
    w: Windows,
    *,
    bytes_per_window: int,
) -> Array | None:
    """The sum of ``body(tile, slab)`` over all tiles, in their order; ``None`` of none."""
    pieces = tiles(x.shape[0], w, bytes_per_window, _fast.workspace(x))

    total = None
    for tile in pieces:
        slab = cut(x[tile.of_x], tile.windows)  # what is added up outside is not rounded before
        share = body(tile, slab if len(pieces) == 1 else _array.widen(slab))
        total = share if total is None else total + share
    return total


def checked_plan(
    shape: Shape,
    kernel: Shape,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool = False,
) -> Windows:
    """The :func:`plan` for an image ``(N, C, *spatial)`` from options as a user wrote them."""
    size, rank = tuple(shape[2:]), len(kernel)
    steps = _check.per_dimension("stride", stride, rank, least=1)
    apart = _check.per_dimension("dilation", dilation, rank, least=1)
    if isinstance(padding, str):
        around = _named_padding(padding, kernel, steps, apart)
    else:
        around = _check.pairs_per_dimension("padding", padding, rank)
    return plan(size, kernel, steps, around, apart, _check.flag("ceil_mode", ceil_mode))


def _named_padding(name: str, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[Pair, ...]:
    _check.choice("padding", name, ("valid", "same"))
    if name == "valid":
        return ((0, 0),) * len(kernel)
    if any(s != 1 for s in stride):
        raise InvalidValue(
            f'padding="same" needs stride 1, got stride {stride}; give the padding as numbers'
        )
    totals = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    return tuple((total // 2, total - total // 2) for total in totals)
