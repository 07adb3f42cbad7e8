"""Winograd's convolution F(m, 3): m outputs of three taps with m + 2 multiplications.

A polynomial of degree d is known by its values at d + 1 points, and the values of a product
are products of values. So the product of a polynomial with m coefficients and one with 3
takes m + 2 multiplications, one for each point; correlation is the transpose of that map::

    y = Aᵀ [ (G k) ⊙ (Bᵀ d) ]

``G`` evaluates the kernel at the points and ``A`` a polynomial with m coefficients; ``Bᵀ``
is the transpose of interpolation. The last point is "infinity", the leading coefficient. In
more dimensions the same matrices act along each axis: F(2x2, 3x3) has 16 multiplications
where the definition has 36, F(4x4, 3x3) 36 where it has 144.

Toom's and Cook's construction; S. Winograd, "Arithmetic complexity of computations", 1980; for
networks A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks",
arXiv:1509.09308. Their points for F(4, 3) are 0, ±1, ±2; with 0, ±√½, ±√2 as here no power of a
point is far from 1, and a fourth of the rounding error is left.
"""

from __future__ import annotations

import math
from functools import lru_cache

from devconv import _array
from devconv._array import Array
from devconv._check import Shape
from devconv.functional import blocks
from devconv.functional.blocks import points_first, points_last
from devconv.functional.windows import Windows

TAPS = 3
POINTS = {
    2: (0.0, 1.0, -1.0),
    4: (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0)),
}
"""Where polynomials are evaluated, by the outputs of a tile; infinity comes last."""

Matrix = tuple[tuple[float, ...], ...]


@lru_cache
def matrices(tile: int) -> tuple[Matrix, Matrix, Matrix]:
    """``A`` (m + 2, m), ``Bᵀ`` (m + 2, m + 2) and ``G`` (m + 2, 3), a row for each point.

    >>> a, b, g = matrices(2)
    >>> b
    ((-1.0, 0.0, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, -1.0, 0.0, 1.0))
    >>> g
    ((-1.0, -0.0, -0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
    """
    points = POINTS[tile]
    a, b, g = [], [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = math.prod([p - q for q in others])
        a.append(tuple(p**k for k in range(tile)))
        b.append((*_polynomial(others), 0.0))
        g.append(tuple(p**k / scale for k in range(TAPS)))
    infinity = (0.0,) * (tile - 1), (0.0,) * (TAPS - 1)
    a.append((*infinity[0], 1.0))
    b.append(_polynomial(points))
    g.append((*infinity[1], 1.0))
    return tuple(a), tuple(b), tuple(g)


def _polynomial(roots: tuple[float, ...] | list[float]) -> tuple[float, ...]:
    """The coefficients of ``∏ (t - root)``, the constant first."""
    found = [1.0]
    for root in roots:
        found = [a - root * b for a, b in zip([0.0, *found], [*found, 0.0], strict=True)]
    return tuple(found)


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
            x = xp.reshape(m @ rows, (*lead, m.shape[0], *trail))
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

    def correlate(self, x: Array, weight: Array, w: Windows, groups: int) -> Array:
        """``y (N, *out, O)``."""
        return blocks.correlate(x, weight, w, groups, self._choose)

    def input_cotangent(self, dy: Array, weight: Array, w: Windows, groups: int) -> Array:
        """``dx (N, *size, C)``."""
        return blocks.input_cotangent(dy, weight, w, groups, self._choose)

    def kernel_cotangent(
        self, x: Array, dy: Array, weight: Array, w: Windows, groups: int
    ) -> Array:
        """``dweight (O, C/G, *kernel)``."""
        return blocks.kernel_cotangent(x, dy, weight, w, groups, self._choose)
