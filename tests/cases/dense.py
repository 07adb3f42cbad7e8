"""The dense product, for one example, a batch and more."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import normal


def dense(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    y = np.zeros((*x.shape[:-1], weight.shape[0]))
    for o, row in enumerate(weight):
        y[..., o] = (x * row).sum(axis=-1) + (0.0 if bias is None else bias[o])
    return y


def _torch(x: Any, weight: Any, bias: Any = None) -> Any:
    import torch.nn.functional as T

    return T.linear(x, weight, bias)


def _case(id: str, *shapes: tuple[int, ...] | None, batched: bool = True) -> Case:
    return Case(
        id=id,
        op=F.dense,
        arrays=normal(*shapes),
        reference=dense,
        torch=_torch,
        batched=batched,
    )


CASES = [
    _case("batch", (3, 5), (4, 5), (4,)),
    _case("no-bias", (3, 5), (4, 5)),
    _case("bias-is-none", (3, 5), (4, 5), None),
    _case("one-example", (5,), (4, 5), (4,), batched=False),
    _case("sequence", (3, 2, 5), (4, 5), (4,)),
    _case("one-feature", (3, 1), (1, 1), (1,)),
]
