"""Resampling: every mode, finer and coarser, by size and by factor."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import normal
from tests.cases.plain import each

Shape = tuple[int, ...]


def upsample(
    x: np.ndarray,
    *,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> np.ndarray:
    """Each output a weighted sum of the pixels around its place."""
    spatial = x.shape[2:]
    factors = each(scale_factor, len(spatial))
    if size is None:
        sizes = [math.floor(n * f) for n, f in zip(spatial, factors, strict=True)]
    else:
        sizes = list(each(size, len(spatial)))
    y = np.zeros((*x.shape[:2], *sizes))
    for place in np.ndindex(*sizes):
        reads = [
            list(_reads(o, n, m, n / m if f is None else 1 / f, mode, align_corners))
            for o, n, m, f in zip(place, spatial, sizes, factors, strict=True)
        ]
        for taps in itertools.product(*reads):
            weight = math.prod(w for _, w in taps)
            y[(slice(None), slice(None), *place)] += (
                weight * x[(slice(None), slice(None), *(p for p, _ in taps))]
            )
    return y


def _reads(
    o: int, n: int, m: int, scale: float, mode: str, align_corners: bool
) -> Iterator[tuple[int, float]]:
    """The pixels around the place of output ``o``, and their weights."""
    if mode == "nearest" or (mode == "linear" and n == m):
        yield (min(math.floor(o * scale), n - 1) if mode == "nearest" else o), 1.0
        return
    place = (o + 0.5) * scale - 0.5
    if align_corners:
        place = o * (n - 1) / (m - 1) if m > 1 else 0.0
    if mode == "linear":
        place = min(max(place, 0.0), n - 1.0)
    for p in range(math.floor(place) - 1, math.floor(place) + 3):
        weight = (_cubic if mode == "cubic" else _hat)(abs(place - p))
        yield min(max(p, 0), n - 1), weight


def _hat(d: float) -> float:
    return max(0.0, 1.0 - d)


def _cubic(d: float, a: float = -0.75) -> float:
    if d <= 1.0:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2.0 else 0.0


def _torch(rank: int, mode: str = "nearest", **options: Any) -> Any:
    """PyTorch's own, which has cubic in two dimensions alone."""
    names = {"linear": ("linear", "bilinear", "trilinear"), "cubic": (None, "bicubic", None)}
    name = names.get(mode, (mode,) * 3)[rank - 1] if rank <= 3 else None
    if name is None:
        return None

    def run(x: Any) -> Any:
        import torch.nn.functional as T

        return T.interpolate(x, mode=name, **options)

    return run


def _case(id: str, shape: Shape, **options: Any) -> Case:
    # Where a factor keeps the size, PyTorch's forward resamples but its backward only copies.
    sure = not id.endswith("factor-that-keeps")
    return Case(
        id=id,
        op=F.upsample,
        arrays=normal(shape),
        reference=upsample,
        torch=_torch(len(shape) - 2, **options) if sure else None,
        options=options,
        half=options.get("mode") is not None,
    )


X1, X2, X3 = (2, 4, 9), (2, 4, 6, 5), (2, 4, 4, 3, 4)

CASES = [
    _case("nearest-2d", X2, scale_factor=2),
    _case("nearest-2d-sizes", X2, size=(9, 3)),
    _case("nearest-2d-factors", X2, scale_factor=(0.7, 2.3)),
    _case("nearest-2d-factor-that-keeps", X2, scale_factor=1.1),
    _case("nearest-1d", X1, size=4),
    _case("nearest-3d", X3, scale_factor=(1.5, 2, 0.5)),
    *(
        _case(f"{mode}{'-corners' * corners}-{id}", shape, mode=mode, align_corners=corners, **by)
        for mode in ("linear", "cubic")
        for corners in (False, True)
        for id, shape, by in [
            ("2d", X2, {"scale_factor": 2}),
            ("2d-sizes", X2, {"size": (9, 3)}),
            ("2d-to-one", X2, {"size": 1}),
            ("2d-factors", X2, {"scale_factor": (0.7, 2.3)}),
            ("1d", X1, {"size": 13}),
            ("3d", X3, {"scale_factor": (1.5, 2.0, 0.5)}),
        ]
    ),
    _case("linear-2d-factors-of-which-one-keeps", X2, scale_factor=(1.1, 2.0), mode="linear"),
    _case("cubic-1d-factor-that-keeps", X1, scale_factor=1.1, mode="cubic"),
    _case("cubic-2d-of-one-pixel", (2, 4, 1, 2), size=(3, 4), mode="cubic"),
    _case("linear-2d-of-one-pixel", (2, 4, 1, 2), size=(3, 4), mode="linear"),
]
