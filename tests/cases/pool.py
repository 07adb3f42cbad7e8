"""Pooling: every option, alone and together, in one to three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import distinct, normal
from tests.cases.plain import count, each, pairs, window_starts, windows

X1, X2, X3 = (2, 4, 9), (2, 4, 6, 5), (2, 4, 4, 3, 4)


def _laid_out(x: np.ndarray, options: dict[str, Any]) -> Any:
    """Windows as ``(place, pixels inside the image)``, and what they are made of."""
    rank = x.ndim - 2
    kernel = each(options["kernel_size"], rank)
    stride = kernel if options.get("stride") is None else each(options["stride"], rank)
    dilation = each(options.get("dilation", 1), rank)
    around = pairs(options.get("padding", 0), rank)
    ceil_mode = options.get("ceil_mode", False)
    starts = window_starts(x.shape[2:], kernel, stride, around, dilation, ceil_mode)
    return starts, windows(starts, kernel, dilation), around


def _inside(reads: list[np.ndarray], size: tuple[int, ...]) -> list[np.ndarray]:
    return [r[(r >= 0) & (r < n)] for r, n in zip(reads, size, strict=True)]


def max_pool(x: np.ndarray, *, return_indices: bool = False, **options: Any) -> Any:
    starts, laid, _ = _laid_out(x, options)
    y = np.zeros((*x.shape[:2], *count(starts)))
    indices = np.zeros(y.shape, dtype=np.int64)
    numbers = np.arange(np.prod(x.shape[2:])).reshape(x.shape[2:])
    for place, reads in laid:
        seen = np.ix_(*_inside(reads, x.shape[2:]))
        for n, c in np.ndindex(*x.shape[:2]):
            window = x[n, c][seen]
            y[(n, c, *place)] = window.max()
            indices[(n, c, *place)] = numbers[seen].reshape(-1)[window.reshape(-1).argmax()]
    return (y, indices) if return_indices else y


def avg_pool(
    x: np.ndarray,
    *,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    **options: Any,
) -> np.ndarray:
    starts, laid, around = _laid_out(x, options)
    y = np.zeros((*x.shape[:2], *count(starts)))
    for place, reads in laid:
        inside = _inside(reads, x.shape[2:])
        seen = np.ix_(range(x.shape[0]), range(x.shape[1]), *inside)
        counted = [
            r[(r >= -before) & (r < n + after)] if count_include_pad else own
            for r, own, n, (before, after) in zip(reads, inside, x.shape[2:], around, strict=True)
        ]
        divisor = divisor_override or np.prod([len(r) for r in counted])
        y[(slice(None), slice(None), *place)] = x[seen].sum(axis=tuple(range(2, x.ndim))) / divisor
    return y


def _torch(kind: str, rank: int, **options: Any) -> Any:
    """PyTorch's own pooling; none where it lacks the option (uneven padding, a divisor, ...)."""
    padding = options.get("padding", 0)
    if any(before != after for before, after in pairs(padding, rank)):
        return None
    if rank == 1 and "divisor_override" in options:
        return None
    if kind == "avg" and "dilation" in options:
        return None

    def run(x: Any) -> Any:
        import torch.nn.functional as T

        return getattr(T, f"{kind}_pool{rank}d")(x, **options)

    return run


def _max(id: str, shape: tuple[int, ...], **options: Any) -> Case:
    return Case(
        id=id,
        op=F.max_pool,
        arrays=distinct(shape),
        reference=max_pool,
        torch=_torch("max", len(shape) - 2, **options),
        options=options,
    )


def _avg(id: str, shape: tuple[int, ...], **options: Any) -> Case:
    return Case(
        id=id,
        op=F.avg_pool,
        arrays=normal(shape),
        reference=avg_pool,
        torch=_torch("avg", len(shape) - 2, **options),
        options=options,
    )


def _global(op: Any, shape: tuple[int, ...], reduce: Any, torch: Any) -> Case:
    axes = tuple(range(2, len(shape)))
    return Case(
        id=f"{len(axes)}d",
        op=op,
        arrays=distinct(shape),
        reference=lambda x: reduce(x, axis=axes),
        torch=lambda x: torch(x, axes),
        half=op is F.global_avg_pool,
    )


CASES = [
    _max("2d", X2, kernel_size=2),
    _max("2d-kernels", X2, kernel_size=(3, 2)),
    _max("2d-overlap", X2, kernel_size=3, stride=1),
    _max("2d-strides", X2, kernel_size=2, stride=(3, 2)),
    _max("2d-padding", X2, kernel_size=3, stride=2, padding=1),
    _max("2d-padding-pairs", X2, kernel_size=3, stride=2, padding=[(1, 0), (0, 1)]),
    _max("2d-padding-overlap", X2, kernel_size=(3, 2), stride=1, padding=1),
    _max("2d-dilation", X2, kernel_size=2, stride=1, dilation=(3, 2)),
    _max("2d-dilation-padding", X2, kernel_size=2, stride=2, dilation=2, padding=1),
    _max("2d-ceil", X2, kernel_size=2, stride=2, ceil_mode=True),
    _max("2d-ceil-padding", X2, kernel_size=(3, 2), stride=(2, 3), padding=1, ceil_mode=True),
    _max("2d-ceil-drops-last", (2, 4, 5, 5), kernel_size=2, stride=3, padding=1, ceil_mode=True),
    _max("2d-indices", X2, kernel_size=2, return_indices=True),
    _max(
        "2d-indices-everything",
        X2,
        kernel_size=(3, 2),
        stride=2,
        padding=1,
        dilation=(1, 2),
        ceil_mode=True,
        return_indices=True,
    ),
    _max("1d", X1, kernel_size=3, stride=2, padding=1),
    _max("1d-indices", X1, kernel_size=2, stride=3, ceil_mode=True, return_indices=True),
    _max("3d", X3, kernel_size=2, stride=1),
    _max("3d-everything", X3, kernel_size=(2, 3, 2), stride=2, padding=1, ceil_mode=True),
    _avg("2d", X2, kernel_size=2),
    _avg("2d-overlap", X2, kernel_size=3, stride=1),
    _avg("2d-strides", X2, kernel_size=(3, 2), stride=(1, 3)),
    _avg("2d-padding", X2, kernel_size=3, stride=2, padding=1),
    _avg("2d-padding-uncounted", X2, kernel_size=3, stride=2, padding=1, count_include_pad=False),
    _avg("2d-padding-pairs", X2, kernel_size=3, stride=2, padding=[(1, 0), (0, 1)]),
    _avg(
        "2d-padding-pairs-uncounted",
        X2,
        kernel_size=3,
        padding=[(1, 0), 1],
        count_include_pad=False,
    ),
    _avg("2d-ceil", X2, kernel_size=2, stride=2, ceil_mode=True),
    _avg("2d-ceil-padding", X2, kernel_size=(3, 2), stride=(2, 3), padding=1, ceil_mode=True),
    _avg(
        "2d-ceil-padding-uncounted",
        X2,
        kernel_size=(3, 2),
        stride=(2, 3),
        padding=1,
        ceil_mode=True,
        count_include_pad=False,
    ),
    _avg("2d-ceil-drops-last", (2, 4, 5, 5), kernel_size=2, stride=3, padding=1, ceil_mode=True),
    _avg("2d-divisor", X2, kernel_size=2, divisor_override=3),
    _avg("2d-divisor-padding", X2, kernel_size=3, padding=1, ceil_mode=True, divisor_override=5),
    _avg("2d-dilation", X2, kernel_size=2, stride=1, dilation=(3, 2)),
    _avg(
        "2d-dilation-everything",
        X2,
        kernel_size=(3, 2),
        stride=2,
        padding=1,
        dilation=2,
        ceil_mode=True,
        count_include_pad=False,
    ),
    _avg("1d", X1, kernel_size=3, stride=2, padding=1),
    _avg("1d-ceil", X1, kernel_size=2, stride=3, ceil_mode=True, count_include_pad=False),
    _avg("3d", X3, kernel_size=2, stride=1),
    _avg("3d-everything", X3, kernel_size=(2, 3, 2), stride=2, padding=1, ceil_mode=True),
    *(
        _global(F.global_avg_pool, shape, np.mean, lambda x, axes: x.mean(axes))
        for shape in (X1, X2, X3)
    ),
    *(
        _global(F.global_max_pool, shape, np.max, lambda x, axes: x.amax(axes))
        for shape in (X1, X2, X3)
    ),
]
