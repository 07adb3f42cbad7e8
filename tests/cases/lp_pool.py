"""Pooling by a norm: exponents, windows, and what falls over the edge."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import normal
from tests.cases.plain import count, each, prod, window_starts, windows

Shape = tuple[int, ...]


def lp_pool(
    x: np.ndarray,
    *,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> np.ndarray:
    rank, size = x.ndim - 2, x.shape[2:]
    kernel = each(kernel_size, rank)
    steps = kernel if stride is None else each(stride, rank)
    starts = window_starts(size, kernel, steps, [(0, 0)] * rank, (1,) * rank, ceil_mode)
    y = np.zeros((*x.shape[:2], *count(starts)))
    for place, reads in windows(starts, kernel, (1,) * rank):
        inside = [r[r < n] for r, n in zip(reads, size, strict=True)]
        window = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *inside)]
        mean = (window**norm_type).mean(axis=tuple(range(2, x.ndim)))
        y[(slice(None), slice(None), *place)] = (mean * prod(kernel)) ** (1 / norm_type)
    return y


def _positive(shape: Shape) -> Any:
    return lambda rng: (rng.uniform(0.1, 2.0, shape),)


def _case(id: str, shape: Shape, arrays: Any = normal, **options: Any) -> Case:
    def torch(x: Any) -> Any:
        import torch.nn.functional as T

        return getattr(T, f"lp_pool{len(shape) - 2}d")(x, **options)

    return Case(
        id=id,
        op=F.lp_pool,
        arrays=arrays(shape),
        reference=lp_pool,
        torch=torch,
        options=options,
    )


X1, X2, X3 = (2, 4, 9), (2, 4, 6, 5), (2, 4, 4, 3, 4)

CASES = [
    _case("2d", X2, norm_type=2, kernel_size=2),
    _case("2d-overlap", X2, norm_type=2.0, kernel_size=(3, 2), stride=(1, 2)),
    _case("2d-ceil", X2, norm_type=2, kernel_size=2, stride=3, ceil_mode=True),
    _case("2d-four", X2, norm_type=4, kernel_size=2, ceil_mode=True),
    _case("2d-sum", X2, norm_type=1, kernel_size=2, stride=1),
    _case("2d-odd", X2, _positive, norm_type=3, kernel_size=2),
    _case("2d-fraction", X2, _positive, norm_type=1.5, kernel_size=2, ceil_mode=True),
    _case("1d", X1, norm_type=2, kernel_size=3, stride=2),
    _case("1d-ceil", X1, _positive, norm_type=2.5, kernel_size=2, stride=3, ceil_mode=True),
    _case("3d", X3, norm_type=2, kernel_size=2, stride=1),
    _case("3d-ceil", X3, norm_type=2, kernel_size=(2, 2, 3), ceil_mode=True),
]
