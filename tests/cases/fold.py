"""Unfold and fold: windows as columns, and their adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import normal
from tests.cases.plain import count, each, pairs, prod, window_starts, windows

Shape = tuple[int, ...]


def _laid_out(size: Shape, options: dict[str, Any]) -> Any:
    rank = len(size)
    kernel = each(options["kernel_size"], rank)
    stride, dilation = each(options.get("stride", 1), rank), each(options.get("dilation", 1), rank)
    around = pairs(options.get("padding", 0), rank)
    starts = window_starts(size, kernel, stride, around, dilation)
    return kernel, around, starts, windows(starts, kernel, dilation)


def unfold(x: np.ndarray, **options: Any) -> np.ndarray:
    _, around, starts, laid = _laid_out(x.shape[2:], options)
    padded = np.pad(x, [(0, 0), (0, 0), *around])
    columns = []
    for _, reads in laid:
        inside = [r + before for r, (before, _) in zip(reads, around, strict=True)]
        window = padded[np.ix_(range(x.shape[0]), range(x.shape[1]), *inside)]
        columns.append(window.reshape(x.shape[0], prod(window.shape[1:])))
    assert len(columns) == prod(count(starts))
    return np.stack(columns, axis=-1)


def fold(cols: np.ndarray, *, output_size: Shape, **options: Any) -> np.ndarray:
    kernel, around, _, laid = _laid_out(tuple(output_size), options)
    channels = cols.shape[1] // prod(kernel)
    whole = [n + sum(pair) for n, pair in zip(output_size, around, strict=True)]
    padded = np.zeros((cols.shape[0], channels, *whole))
    for column, (_, reads) in enumerate(laid):
        inside = [r + before for r, (before, _) in zip(reads, around, strict=True)]
        window = cols[:, :, column].reshape(cols.shape[0], channels, *kernel)
        padded[np.ix_(range(cols.shape[0]), range(channels), *inside)] += window
    inside = (slice(b, n - a) for n, (b, a) in zip(whole, around, strict=True))
    return padded[(slice(None), slice(None), *inside)]


def _torch(name: str, rank: int, **options: Any) -> Any:
    """PyTorch's own, which is for two dimensions and even padding."""
    if rank != 2 or any(b != a for b, a in pairs(options.get("padding", 0), rank)):
        return None

    def run(x: Any) -> Any:
        import torch.nn.functional as T

        return getattr(T, name)(x, **options)

    return run


def _unfold(id: str, shape: Shape, **options: Any) -> Case:
    return Case(
        id=id,
        op=F.unfold,
        arrays=normal(shape),
        reference=unfold,
        torch=_torch("unfold", len(shape) - 2, **options),
        options=options,
    )


def _fold(id: str, shape: Shape, **options: Any) -> Case:
    """Columns for images of a shape."""
    kernel, _, starts, _ = _laid_out(shape[2:], options)
    options["output_size"] = shape[2:]
    return Case(
        id=id,
        op=F.fold,
        arrays=normal((shape[0], shape[1] * prod(kernel), prod(count(starts)))),
        reference=fold,
        torch=_torch("fold", len(shape) - 2, **options),
        options=options,
    )


X1, X2, X3 = (2, 3, 9), (2, 3, 6, 5), (2, 3, 4, 3, 4)

CASES = [
    make(id, shape, **options)
    for make in (_unfold, _fold)
    for id, shape, options in [
        ("2d", X2, {"kernel_size": 2}),
        ("2d-kernels", X2, {"kernel_size": (3, 2)}),
        ("2d-stride", X2, {"kernel_size": 3, "stride": (2, 1)}),
        ("2d-gaps", X2, {"kernel_size": (2, 1), "stride": 3}),
        ("2d-padding", X2, {"kernel_size": (3, 2), "stride": 2, "padding": (2, 1)}),
        ("2d-padding-pairs", X2, {"kernel_size": 2, "padding": [(1, 0), (0, 2)]}),
        ("2d-dilation", X2, {"kernel_size": 2, "dilation": (3, 2)}),
        (
            "2d-everything",
            X2,
            {"kernel_size": (3, 2), "stride": (1, 2), "padding": 1, "dilation": (2, 3)},
        ),
        ("1d", X1, {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("1d-dilation", X1, {"kernel_size": (3,), "dilation": 2}),
        ("3d", X3, {"kernel_size": 2}),
        (
            "3d-everything",
            X3,
            {"kernel_size": (2, 1, 3), "stride": (2, 1, 1), "padding": (1, 0, 2), "dilation": 2},
        ),
    ]
]
