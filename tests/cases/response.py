"""Local response normalisation: even, odd and too large neighbourhoods."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import Shape, normal

X1, X2, X3 = (2, 4, 5), (2, 4, 3, 5), (2, 4, 2, 3, 2)


def local_response_norm(
    x: np.ndarray, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> np.ndarray:
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        total = np.zeros(x[:, c].shape)
        for j in range(c - size // 2, c + (size - 1) // 2 + 1):
            if 0 <= j < x.shape[1]:
                total += x[:, j] ** 2
        y[:, c] = x[:, c] / (k + alpha / size * total) ** beta
    return y


def _case(shape: Shape, **options: Any) -> Case:
    def theirs(x: Any) -> Any:
        import torch

        return torch.nn.functional.local_response_norm(x, **options)

    named = "-".join(f"{k}{v}" for k, v in options.items())
    return Case(
        id=f"{len(shape)}d-{named}",
        op=F.local_response_norm,
        arrays=normal(shape),
        reference=local_response_norm,
        torch=theirs,
        options=options,
    )


CASES = [
    _case(X1, size=2),
    _case(X2, size=1, alpha=0.5),
    _case(X2, size=2, alpha=0.5, beta=1.0),
    _case(X2, size=3, alpha=0.5, k=2.0),
    _case(X2, size=4, alpha=0.5),
    _case(X2, size=9, alpha=0.5, beta=-0.5),
    _case(X3, size=3, alpha=0.5),
]
