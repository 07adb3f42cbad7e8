"""Dropout: the mask is drawn on the host, from the same key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from devconv import functional as F
from devconv import random
from tests.cases.case import Case
from tests.cases.draw import Shape, normal

KEY = random.fold_in(random.key(2**40 + 3), "dropout")
SHAPES = ((4,), (3, 4), (2, 4, 5), (2, 4, 3, 5), (2, 4, 2, 3, 2))


def dropout(x: np.ndarray, *, p: float, training: bool, key: Any = None) -> np.ndarray:
    if not training:
        return x
    if x.ndim < 3:
        kept = random.bernoulli(key, 1 - p, x.shape)
    else:  # channels last
        kept = random.bernoulli(key, 1 - p, (x.shape[0], *x.shape[2:], x.shape[1]))
        kept = np.moveaxis(kept, -1, 1)
    return np.where(kept, x / (1 - p), 0.0)


def dropout_channels(x: np.ndarray, *, p: float, training: bool, key: Any = None) -> np.ndarray:
    y = np.zeros(x.shape)
    kept = random.bernoulli(key, 1 - p, x.shape[:2]) if training else np.ones(x.shape[:2], bool)
    for n, c in np.ndindex(*x.shape[:2]):
        if kept[n, c]:
            y[n, c] = x[n, c] / (1 - p) if training else x[n, c]
    return y


def _case(op: Any, reference: Callable[..., Any], name: str, shape: Shape, **options: Any) -> Case:
    return Case(
        id=f"{len(shape)}d-{name}",
        op=op,
        arrays=normal(shape),
        reference=reference,
        options=options,
    )


CASES = [
    *(_case(F.dropout, dropout, "half", s, p=0.5, key=KEY, training=True) for s in SHAPES),
    _case(F.dropout, dropout, "some", SHAPES[3], p=0.1, key=KEY, training=True),
    _case(F.dropout, dropout, "none", SHAPES[3], p=0.0, key=KEY, training=True),
    _case(F.dropout, dropout, "off", SHAPES[3], p=0.5, training=False),
    *(
        _case(F.dropout_channels, dropout_channels, "half", s, p=0.5, key=KEY, training=True)
        for s in SHAPES[1:]
    ),
    _case(F.dropout_channels, dropout_channels, "some", SHAPES[3], p=0.1, key=KEY, training=True),
    _case(F.dropout_channels, dropout_channels, "off", SHAPES[3], p=0.5, key=KEY, training=False),
]
