"""Padding: every mode, even and uneven surrounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import normal
from tests.cases.plain import pairs


def pad(x: np.ndarray, *, padding: Any, mode: str = "constant", value: float = 0.0) -> np.ndarray:
    around = pairs(padding, x.ndim - 2)
    sizes = [n + sum(p) for n, p in zip(x.shape[2:], around, strict=True)]
    y = np.full((*x.shape[:2], *sizes), value)
    for place in np.ndindex(*sizes):
        there = [
            _source(p - before, n, mode)
            for p, n, (before, _) in zip(place, x.shape[2:], around, strict=True)
        ]
        if None not in there:
            y[(slice(None), slice(None), *place)] = x[(slice(None), slice(None), *there)]
    return y


def _source(q: int, n: int, mode: str) -> int | None:
    """The pixel shown at place ``q`` of a dimension with ``n`` pixels; none for a constant."""
    if 0 <= q < n:
        return q
    if mode == "reflect":
        return -q if q < 0 else 2 * (n - 1) - q
    if mode == "replicate":
        return 0 if q < 0 else n - 1
    return q % n if mode == "circular" else None


def _torch(padding: Any, mode: str = "constant", value: float = 0.0) -> Any:
    """PyTorch's own, which knows the other modes in up to three dimensions."""

    def run(x: Any) -> Any:
        import torch.nn.functional as T

        flat = [p for pair in reversed(pairs(padding, x.ndim - 2)) for p in pair]
        return T.pad(x, flat, mode=mode, value=value if mode == "constant" else None)

    return run


def _case(id: str, shape: tuple[int, ...], **options: Any) -> Case:
    return Case(
        id=id,
        op=F.pad,
        arrays=normal(shape),
        reference=pad,
        torch=_torch(**options),
        options=options,
        half=options.get("mode") == "replicate",  # its adjoint has the long sums
    )


X1, X2, X3 = (2, 4, 9), (2, 4, 6, 5), (2, 4, 4, 3, 4)

CASES = [
    _case("constant-1d", X1, padding=[(1, 2)]),
    _case("constant-2d", X2, padding=[(1, 2), (0, 3)], value=-1.5),
    _case("constant-2d-int", X2, padding=2, mode="constant"),
    _case("constant-2d-mixed", X2, padding=[1, (0, 2)], value=2.0),
    _case("constant-2d-nothing", X2, padding=0),
    _case("constant-3d", X3, padding=[(1, 0), (0, 1), (2, 2)]),
    *(
        _case(f"{mode}-{id}", shape, padding=padding, mode=mode)
        for mode in ("reflect", "replicate", "circular")
        for id, shape, padding in [
            ("1d", X1, [(3, 1)]),
            ("1d-one-side", X1, [(0, 4)]),
            ("2d", X2, 1),
            ("2d-uneven", X2, [(5, 2), (0, 4)]),
            ("2d-one-dimension", X2, [0, (2, 3)]),
            ("3d", X3, [(1, 3), (2, 0), (0, 1)]),
        ]
    ),
    _case("replicate-beyond-the-size", X2, padding=[(7, 0), (1, 9)], mode="replicate"),
    _case("circular-the-whole-size", X2, padding=[(6, 6), (5, 0)], mode="circular"),
]
