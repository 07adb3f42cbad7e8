"""Winograd's F(m, 3): m outputs of three taps with m + 2 multiplications, as three matrices.

A polynomial of degree d is known by its values at d + 1 points, and the values of a product
are products of values. So the product of a polynomial with m coefficients and one with 3
takes m + 2 multiplications, one for each point; correlation is the transpose of that map::

    y = Aᵀ [ (G k) ⊙ (Bᵀ d) ]

``G`` evaluates the kernel at the points and ``A`` a polynomial with m coefficients; ``Bᵀ``
is the transpose of interpolation. The last point is "infinity", the leading coefficient.

Toom's and Cook's construction; S. Winograd, "Arithmetic complexity of computations", 1980; for
networks A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks",
arXiv:1509.09308. Their points for F(4, 3) are 0, ±1, ±2; with 0, ±√½, ±√2 as here no power of a
point is far from 1, and a fourth of the rounding error is left.
"""

from __future__ import annotations

import math
from functools import lru_cache

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
