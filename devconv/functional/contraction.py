"""Windows contracted with a kernel: one bilinear map, seen from its three sides.

``y = f(k, x)`` is linear in the kernel and linear in the input. :meth:`forward` evaluates
it, :meth:`to_input` sends ``dy`` back along ``x`` and :meth:`to_kernel` along ``k``. The map
is the same for every kernel; which of the two classes carries it out is a question of how
many channels a window sum runs over. :mod:`devconv.functional.conv` calls them tile by tile.

Shapes: slab ``(n, *reach, C)``, tile of ``y`` ``(n, *out, O)``, weight
``(O, C // groups, *kernel)``. Products of half-precision arrays add up in float32, tiles too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from devconv import _array, _fast
from devconv._array import Array
from devconv._check import Shape
from devconv.functional.products import factor, itemsize, product
from devconv.functional.windows import Windows, put, put_back, take, tap


class Contraction(Protocol):
    """One bilinear map of slab and kernel."""

    bytes_per_window: int

    def forward(self, slab: Array, w: Windows) -> Array:
        """The tile of ``y`` for a slab of ``x``."""
        ...

    def to_input(self, dy: Array, w: Windows) -> Array:
        """The cotangent of the slab for a tile of ``dy``."""
        ...

    def to_kernel(self, slab: Array, dy: Array, w: Windows) -> Array:
        """This tile's share of the kernel's cotangent, in the class's own layout."""
        ...

    def kernel_shaped(self, share: Array) -> Array:
        """A sum of such shares with the shape of the weight."""
        ...


def contraction(weight: Array, groups: int) -> Contraction:
    """The way to contract that suits the kernel: by products, or channel by channel."""
    if groups > 1 and weight.shape[1] == 1:
        return Depthwise(weight, groups)
    return Product(weight, groups)


class _Bank:
    """A kernel, laid out as it is multiplied when that is first asked for.

    Its own cotangent does without.
    """

    def __init__(self, weight: Array) -> None:
        self._weight = weight
        self._made: Array | None = None

    @property
    def _kernel(self) -> Array:
        if self._made is None:
            self._made = self._laid_out()
        return self._made

    def _laid_out(self) -> Array:
        raise NotImplementedError


class Product(_Bank):
    """Windows as the rows of a matrix, and one product; with groups, a stack of products.

    A matrix of columns is ``(windows, taps · C)``, the kernel's ``(taps · C, O)``. With groups
    each has the groups in front and ``C / G`` and ``O / G`` in place of ``C`` and ``O``.
    """

    def __init__(self, weight: Array, groups: int) -> None:
        super().__init__(weight)
        self.groups = groups
        self.shape: Shape = tuple(weight.shape)
        _, c, *kernel = self.shape
        self.taps = math.prod(kernel)
        self.bytes_per_window = self.taps * c * groups * max(4, itemsize(weight))

    def _laid_out(self) -> Array:
        """The kernel as ``(taps · C, O)``."""
        xp = _array.array_namespace(self._weight)
        o, c, *_ = self.shape
        split = (self.groups, o // self.groups, c, self.taps)
        grouped = xp.reshape(self._factor(self._weight), split)
        ordered = xp.permute_dims(grouped, (0, 3, 2, 1))  # (G, taps, C/G, O/G)
        return xp.reshape(ordered, self._stacked(self.taps * c, o // self.groups))

    def _factor(self, x: Array) -> Array:
        """One side of a product in the dtype that it is computed in."""
        return factor(x) if self.groups == 1 else _array.widen(x)

    def _part(self, x: Array) -> Array:
        """One side of products that are added up outside, for each tap: not rounded before."""
        return factor(x) if self.groups == self.taps == 1 else _array.widen(x)

    def _stacked(self, *shape: int) -> Shape:
        return shape if self.groups == 1 else (self.groups, *shape)

    def _columns(self, slab: Array, w: Windows) -> Array:
        """The windows of a slab as rows: ``(windows, taps · C)``, valid until the next call."""
        route = _fast.route("columns", slab)
        if route is not None and self.groups == 1 and not w.is_pointwise:
            return self._factor(route(slab, w.out, w.kernel, w.stride, w.dilation))
        windows = slab if w.is_pointwise else take(slab, w)
        return self._rows(windows, slab.shape[0] * math.prod(w.out), self.taps, self.shape[1])

    def _rows(self, x: Array, rows: int, taps: int, channels: int) -> Array:
        """``(rows, taps · channels)``, the groups of channels in front if there are any."""
        xp = _array.array_namespace(x)
        if self.groups > 1:
            # A view, so that one copy is left.
            split = xp.reshape(x, (*x.shape[:-1], self.groups, channels))
            x = xp.permute_dims(split, (x.ndim - 1, *range(x.ndim - 1), x.ndim))
        return self._factor(xp.reshape(x, self._stacked(rows, taps * channels)))

    def _image(self, rows: Array, shape: Shape, channels: int) -> Array:
        """The rows as ``(*shape, channels)``: the adjoint of :meth:`_rows`."""
        xp = _array.array_namespace(rows)
        if self.groups > 1:
            taps = rows.shape[-1] * self.groups // channels
            split = (self.groups, rows.shape[1], taps, channels // self.groups)
            rows = xp.permute_dims(xp.reshape(rows, split), (1, 2, 0, 3))
        return xp.reshape(rows, (*shape, channels))

    def _dy(self, dy: Array) -> Array:
        """``dy`` as rows: ``(windows, O)``."""
        return self._rows(dy, math.prod(dy.shape[:-1]), 1, self.shape[0] // self.groups)

    def forward(self, slab: Array, w: Windows) -> Array:
        """See :class:`Contraction`."""
        y = product(self._columns(slab, w), self._kernel)  # (windows, taps·C) (taps·C, O)
        return self._image(y, (slab.shape[0], *w.out), self.shape[0])

    def to_input(self, dy: Array, w: Windows) -> Array:
        """See :class:`Contraction`."""
        rows, kernel = self._part(self._dy(dy)), self._part(_transposed(self._kernel))
        columns = product(rows, kernel)  # (windows, O) (O, taps·C)
        shape = (dy.shape[0], *w.out, self.taps)
        windows = self._image(columns, shape, self.shape[1] * self.groups)
        return put_back(windows, w)

    def to_kernel(self, slab: Array, dy: Array, w: Windows) -> Array:
        """See :class:`Contraction`."""
        columns = _transposed(self._columns(slab, w))
        dy = _array.cast(self._dy(dy), columns.dtype)
        return _array.widen(product(columns, dy))  # (taps·C, windows) (windows, O)

    def kernel_shaped(self, share: Array) -> Array:
        """See :class:`Contraction`."""
        xp = _array.array_namespace(share)
        o, c, *_ = self.shape
        split = xp.reshape(share, (self.groups, self.taps, c, o // self.groups))
        return xp.reshape(xp.permute_dims(split, (0, 3, 2, 1)), self.shape)


class Depthwise(_Bank):
    """Every output channel reads one input channel: tap by tap, without a product.

    With ``m = O / C`` outputs per channel, ``y[..., c, j] = sum over taps of
    slab[tap][..., c] · weight[c, j, tap]``.
    """

    def __init__(self, weight: Array, groups: int) -> None:
        super().__init__(weight)
        self.channels, self.multiple = groups, weight.shape[0] // groups
        self.shape: Shape = tuple(weight.shape)
        self.taps = math.prod(self.shape[2:])
        self.bytes_per_window = 4 * weight.shape[0] * max(4, itemsize(weight))

    def _laid_out(self) -> Array:
        """The kernel as ``(taps, C, m)``, in this order in memory."""
        xp = _array.array_namespace(self._weight)
        flat = xp.reshape(_array.widen(self._weight), (self.channels, self.multiple, self.taps))
        in_a_row = xp.reshape(xp.permute_dims(flat, (2, 0, 1)), (self.shape[0] * self.taps,))
        return xp.reshape(in_a_row, (self.taps, self.channels, self.multiple))

    def _taps(self, slab: Array, w: Windows) -> Iterator[Array]:
        xp = _array.array_namespace(slab)
        slab = _array.widen(slab)
        for offset in w.offsets():
            yield xp.expand_dims(tap(slab, w, offset), axis=-1)  # (n, *out, C, 1)

    def _split(self, dy: Array) -> Array:
        xp = _array.array_namespace(dy)
        return _array.widen(xp.reshape(dy, (*dy.shape[:-1], self.channels, self.multiple)))

    def forward(self, slab: Array, w: Windows) -> Array:
        """See :class:`Contraction`."""
        xp = _array.array_namespace(slab)
        route = _fast.route("weigh", slab) if self.multiple == 1 else None
        if route is not None:
            kernel = xp.reshape(self._kernel, (*w.kernel, self.channels))
            return route(take(_array.widen(slab), w), kernel)
        total = None
        for t, pixels in enumerate(self._taps(slab, w)):
            product = pixels * self._kernel[t, ...]
            total = product if total is None else total + product
        return xp.reshape(total, (slab.shape[0], *w.out, self.shape[0]))

    def to_input(self, dy: Array, w: Windows) -> Array:
        """See :class:`Contraction`."""
        xp = _array.array_namespace(dy)
        route = _fast.route("weigh_input", dy) if self.multiple == 1 else None
        if route is not None:
            kernel = xp.reshape(self._kernel, (*w.kernel, self.channels))
            return route(_array.widen(dy), kernel, w)
        dy = self._split(dy)
        shares = (xp.sum(dy * self._kernel[t, ...], axis=-1) for t in range(self.taps))
        return put(shares, w, like=dy[..., 0])

    def to_kernel(self, slab: Array, dy: Array, w: Windows) -> Array:
        """See :class:`Contraction`."""
        xp = _array.array_namespace(slab)
        route = _fast.route("weigh_back", slab) if self.multiple == 1 else None
        if route is not None:
            share = route(take(_array.widen(slab), w), _array.widen(dy))
            return xp.reshape(share, (self.taps, self.channels, 1))
        dy, axes = self._split(dy), tuple(range(1 + len(w.out)))
        return xp.stack([xp.sum(pixels * dy, axis=axes) for pixels in self._taps(slab, w)])

    def kernel_shaped(self, share: Array) -> Array:
        """See :class:`Contraction`."""
        xp = _array.array_namespace(share)
        return xp.reshape(xp.permute_dims(share, (1, 2, 0)), self.shape)


def _transposed(matrix: Array) -> Array:
    return _array.array_namespace(matrix).matrix_transpose(matrix)
