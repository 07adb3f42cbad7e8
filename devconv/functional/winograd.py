"""Winograd's convolution by F(m, 3): the same matrices along each axis of an image.

F(2x2, 3x3) has 16 multiplications where the definition has 36, F(4x4, 3x3) 36 where it has
144. What the matrices are and where they come from is said in :mod:`devconv._winograd`.
"""

from __future__ import annotations

import math

from devconv import _array, _fast
from devconv._array import Array
from devconv._check import Shape
from devconv._winograd import TAPS, Matrix, matrices
from devconv.functional import blocks
from devconv.functional.blocks import points_first, points_last
from devconv.functional.products import stacked
from devconv.functional.windows import Windows


class Tiles:
    """The matrices of F(m, 3) along each axis: see :class:`devconv.functional.blocks.Transform`."""

    def __init__(self, tile: int, rank: int) -> None:
        self.rank = rank
        self.step: Shape = (tile,) * rank
        self.bytes_per_channel = 4 * (tile + TAPS - 1) ** rank
        self._a, self._b, self._g = matrices(tile)

    def image(self, blocks: Array) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        return self._flat(self._along(self._b, points_first(blocks, 1 + self.rank, self.rank)))

    def kernel(self, weight: Array) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        xp = _array.array_namespace(weight)
        taps = xp.permute_dims(weight, (*range(2, 2 + self.rank), 1, 0))  # (*kernel, C, O)
        return self._flat(self._along(self._g, taps))

    def result(self, points: Array, lead: Shape) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        return points_last(self._along(_transposed(self._a), self._split(points)), lead)

    def result_back(self, blocks: Array) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        return self._flat(self._along(self._a, points_first(blocks, 1 + self.rank, self.rank)))

    def kernel_back(self, points: Array) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        xp = _array.array_namespace(points)
        taps = self._along(_transposed(self._g), self._split(points))
        return xp.permute_dims(taps, (self.rank + 1, self.rank, *range(self.rank)))

    def _along(self, matrix: Matrix, x: Array) -> Array:
        """``x (*axes, M, C)`` with the matrix applied to each of its first axes."""
        xp = _array.array_namespace(x)
        m = xp.asarray(matrix, dtype=x.dtype, device=_array.device(x))
        for axis in range(self.rank):
            lead, trail = x.shape[:axis], x.shape[axis + 1 :]
            rows = xp.reshape(x, (math.prod(lead), x.shape[axis], math.prod(trail)))
            x = xp.reshape(stacked(m, rows), (*lead, m.shape[0], *trail))
        return x

    def _flat(self, x: Array) -> Array:
        """``(*points, M, C)`` with its points in one axis."""
        shape = (math.prod(x.shape[: self.rank]), *x.shape[self.rank :])
        return _array.array_namespace(x).reshape(x, shape)

    def _split(self, x: Array) -> Array:
        """The inverse of :meth:`_flat`."""
        shape = (len(self._b),) * self.rank
        return _array.array_namespace(x).reshape(x, (*shape, *x.shape[1:]))


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


class Winograd:
    """The three faces of convolution by F(m, 3); kernels of 3 at stride 1 and dilation 1."""

    def __init__(self, tile: int) -> None:
        self.tile = tile

    def _choose(self, w: Windows) -> Tiles:
        return Tiles(self.tile, len(w.out))

    def correlate(
        self, x: Array, weight: Array, w: Windows, groups: int, bias: Array | None = None
    ) -> Array:
        """``y (N, *out, O)``, plus the bias."""
        route = _fast.winograd("correlate", x, w, groups)
        if route is not None:
            return route(x, weight, w, self.tile, bias)
        y = blocks.correlate(x, weight, w, groups, self._choose)
        return y if bias is None else y + bias

    def input_cotangent(self, dy: Array, weight: Array, w: Windows, groups: int) -> Array:
        """``dx (N, *size, C)``."""
        route = _fast.winograd("input_cotangent", dy, w, groups)
        if route is not None:
            return route(dy, weight, w, self.tile)
        return blocks.input_cotangent(dy, weight, w, groups, self._choose)

    def kernel_cotangent(
        self, x: Array, dy: Array, weight: Array, w: Windows, groups: int
    ) -> Array:
        """``dweight (O, C/G, *kernel)``."""
        route = _fast.winograd("kernel_cotangent", x, w, groups)
        if route is not None:
            return route(x, dy, weight, w, self.tile)
        return blocks.kernel_cotangent(x, dy, weight, w, groups, self._choose)
