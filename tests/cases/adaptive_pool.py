"""Adaptive pooling: fewer, as many and more windows than pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import distinct, normal
from tests.cases.plain import each

Shape = tuple[int, ...]


def _adaptive(reduce: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A summary of each box, by the definition of where boxes lie."""

    def reference(x: np.ndarray, *, output_size: Any) -> np.ndarray:
        rank = x.ndim - 2
        wanted = each(output_size, rank)
        sizes = [n if m is None else m for n, m in zip(x.shape[2:], wanted, strict=True)]
        y = np.zeros((*x.shape[:2], *sizes))
        for place in np.ndindex(*sizes):
            box = tuple(
                slice(math.floor(o * n / m), math.ceil((o + 1) * n / m))
                for o, n, m in zip(place, x.shape[2:], sizes, strict=True)
            )
            window = x[(slice(None), slice(None), *box)]
            y[(slice(None), slice(None), *place)] = reduce(window, axis=tuple(range(2, x.ndim)))
        return y

    return reference


def _case(op: Any, id: str, shape: Shape, output_size: Any) -> Case:
    average = op is F.adaptive_avg_pool

    def torch(x: Any) -> Any:
        import torch.nn.functional as T

        return getattr(T, f"{op.__name__}{len(shape) - 2}d")(x, output_size)

    return Case(
        id=id,
        op=op,
        arrays=(normal if average else distinct)(shape),
        reference=_adaptive(np.mean if average else np.max),
        torch=torch,
        options={"output_size": output_size},
    )


X1, X2, X3 = (2, 4, 9), (2, 4, 6, 5), (2, 4, 4, 3, 4)

CASES = [
    _case(op, id, shape, output_size)
    for op in (F.adaptive_avg_pool, F.adaptive_max_pool)
    for id, shape, output_size in [
        ("1d", X1, 3),
        ("1d-uneven", X1, 4),
        ("1d-more-than-pixels", X1, (13,)),
        ("2d", X2, (3, 5)),
        ("2d-one", X2, 1),
        ("2d-uneven", X2, 4),
        ("2d-overlap", X2, (5, 3)),
        ("2d-keep", X2, (None, 2)),
        ("2d-keep-all", X2, (None, None)),
        ("2d-more-than-pixels", X2, (7, 11)),
        ("3d", X3, 2),
        ("3d-everything", X3, (3, None, 5)),
    ]
]
