"""Operations that only move numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import normal
from tests.cases.plain import each, prod


def flatten(x: np.ndarray, *, start: int = 1) -> np.ndarray:
    return np.reshape(np.ascontiguousarray(x), (*x.shape[:start], -1))


def _torch_flatten(start: int = 1) -> Any:
    return lambda x: x.unsqueeze(-1) if start == x.ndim else x.flatten(start)


def _flatten(id: str, shape: tuple[int, ...], **options: Any) -> Case:
    return Case(
        id=id,
        op=F.flatten,
        arrays=normal(shape),
        reference=flatten,
        torch=_torch_flatten(**options),
        options=options,
        batched=options.get("start") != 0,
    )


def pixel_shuffle(x: np.ndarray, *, factor: Any) -> np.ndarray:
    size = x.shape[2:]
    factors = each(factor, len(size))
    y = np.zeros(
        (
            x.shape[0],
            x.shape[1] // prod(factors),
            *(n * r for n, r in zip(size, factors, strict=True)),
        )
    )
    for c in range(y.shape[1]):
        for q in np.ndindex(*y.shape[2:]):
            channel, pixel = c, []
            for place, r in zip(q, factors, strict=True):
                channel = channel * r + place % r
                pixel.append(place // r)
            y[(slice(None), c, *q)] = x[(slice(None), channel, *pixel)]
    return y


def pixel_unshuffle(x: np.ndarray, *, factor: Any) -> np.ndarray:
    size = x.shape[2:]
    factors = each(factor, len(size))
    smaller = [n // r for n, r in zip(size, factors, strict=True)]
    numbers = np.arange(prod(x.shape[1:])).reshape(1, x.shape[1] * prod(factors), *smaller)
    places = pixel_shuffle(numbers, factor=factor).reshape(-1).astype(int)
    y = np.zeros((x.shape[0], prod(x.shape[1:])))
    y[:, places] = x.reshape(x.shape[0], prod(x.shape[1:]))
    return y.reshape(x.shape[0], *numbers.shape[1:])


def _shuffle(op: Any, reference: Any, id: str, shape: tuple[int, ...], factor: Any) -> Case:
    def torch(x: Any) -> Any:
        import torch.nn.functional as T

        return getattr(T, op.__name__)(x, factor)

    return Case(
        id=id,
        op=op,
        arrays=normal(shape),
        reference=reference,
        torch=torch if len(shape) == 4 and isinstance(factor, int) else None,
        options={"factor": factor},
    )


CASES = [
    _flatten("images", (2, 4, 6, 5)),
    _flatten("from-the-start", (2, 4, 6, 5), start=0),
    _flatten("from-the-third", (2, 4, 6, 5), start=2),
    _flatten("nothing-to-join", (2, 4), start=1),
    _flatten("beyond-the-last", (2, 4), start=2),
    _shuffle(F.pixel_shuffle, pixel_shuffle, "2d", (2, 12, 3, 2), 2),
    _shuffle(F.pixel_shuffle, pixel_shuffle, "2d-three", (2, 9, 2, 3), 3),
    _shuffle(F.pixel_shuffle, pixel_shuffle, "2d-factors", (2, 12, 3, 2), (3, 2)),
    _shuffle(F.pixel_shuffle, pixel_shuffle, "2d-nothing", (2, 3, 3, 2), 1),
    _shuffle(F.pixel_shuffle, pixel_shuffle, "1d", (2, 6, 4), 3),
    _shuffle(F.pixel_shuffle, pixel_shuffle, "3d", (2, 16, 2, 1, 3), 2),
    _shuffle(F.pixel_unshuffle, pixel_unshuffle, "2d", (2, 3, 6, 4), 2),
    _shuffle(F.pixel_unshuffle, pixel_unshuffle, "2d-three", (2, 1, 6, 9), 3),
    _shuffle(F.pixel_unshuffle, pixel_unshuffle, "2d-factors", (2, 2, 9, 4), (3, 2)),
    _shuffle(F.pixel_unshuffle, pixel_unshuffle, "1d", (2, 2, 12), 3),
    _shuffle(F.pixel_unshuffle, pixel_unshuffle, "3d", (2, 2, 4, 2, 6), 2),
]
