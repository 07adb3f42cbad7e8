"""Transposed convolution: every option, alone and together, in one to four dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import normal
from tests.cases.plain import each, pairs


def conv_transpose(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> np.ndarray:
    """Every pixel lays a copy of its kernel down; then the padding is cut off."""
    rank, size, kernel = x.ndim - 2, x.shape[2:], weight.shape[2:]
    stride, dilation, extra = each(stride, rank), each(dilation, rank), each(output_padding, rank)
    around = pairs(padding, rank)
    whole = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)
    ]
    inputs, share = x.shape[1] // groups, weight.shape[1]
    y = np.zeros((x.shape[0], share * groups, *whole))
    for p in np.ndindex(*size):
        for k in np.ndindex(*kernel):
            q = tuple(a * s + b * d for a, s, b, d in zip(p, stride, k, dilation, strict=True))
            for c in range(x.shape[1]):
                outputs = slice(c // inputs * share, (c // inputs + 1) * share)
                tap = weight[(c, slice(None), *k)]
                y[(slice(None), outputs, *q)] += x[(slice(None), c, *p)][:, None] * tap
    inside = (slice(b, n - a) for n, (b, a) in zip(whole, around, strict=True))
    y = y[(slice(None), slice(None), *inside)]
    return y if bias is None else y + bias.reshape(-1, *(1,) * rank)


def _torch(rank: int, padding: Any = 0, algorithm: str = "auto", **options: Any) -> Any:
    if rank > 3 or any(before != after for before, after in pairs(padding, rank)):
        return None

    def run(x: Any, weight: Any, bias: Any = None) -> Any:
        import torch.nn.functional as T

        op = getattr(T, f"conv_transpose{rank}d")
        return op(x, weight, bias, padding=padding, **options)

    return run


def _case(id: str, x: tuple[int, ...], weight: tuple[int, ...], bias: Any = ..., **options: Any):
    rank, groups = len(x) - 2, options.get("groups", 1)
    shapes = (x, weight) if bias is None else (x, weight, (weight[1] * groups,))
    return Case(
        id=id,
        op=F.conv_transpose,
        arrays=normal(*shapes),
        reference=conv_transpose,
        torch=_torch(rank, **options),
        options=options,
    )


X1, X2, X3 = (2, 4, 5), (2, 4, 3, 4), (2, 4, 2, 3, 2)

CASES = [
    _case("2d", X2, (4, 6, 3, 3)),
    _case("2d-no-bias", X2, (4, 6, 3, 3), None),
    _case("2d-stride", X2, (4, 6, 3, 3), stride=2),
    _case("2d-strides-padding", X2, (4, 6, 3, 3), stride=(2, 1), padding=1),
    _case("2d-stride-above-kernel", X2, (4, 6, 2, 2), stride=3),
    _case("2d-padding", X2, (4, 6, 3, 3), padding=(1, 2)),
    _case("2d-padding-pairs", X2, (4, 6, 3, 3), padding=[(1, 0), (0, 2)], stride=2),
    _case("2d-padding-above-kernel", X2, (4, 6, 1, 2), padding=(1, 1), stride=(1, 2)),
    _case("2d-output-padding", X2, (4, 6, 3, 3), stride=2, padding=1, output_padding=1),
    _case("2d-output-paddings", X2, (4, 6, 2, 3), stride=(3, 2), output_padding=(2, 0)),
    _case("2d-output-padding-below-dilation", X2, (4, 6, 2, 2), dilation=3, output_padding=2),
    _case(
        "2d-output-padding-above-stride",
        X2,
        (4, 6, 2, 2),
        stride=2,
        dilation=(4, 3),
        output_padding=(3, 2),
        padding=1,
    ),
    _case("2d-dilation", X2, (4, 6, 2, 2), dilation=2),
    _case("2d-dilation-padding", X2, (4, 6, 3, 3), dilation=(2, 1), padding=2, stride=(1, 2)),
    _case("2d-groups", X2, (4, 3, 3, 3), groups=2),
    _case(
        "2d-groups-everything",
        X2,
        (4, 3, 3, 2),
        groups=2,
        stride=(2, 1),
        padding=[(2, 1), 1],
        output_padding=(1, 0),
        dilation=(1, 2),
    ),
    _case("2d-depthwise", X2, (4, 1, 3, 3), groups=4, stride=2, padding=1),
    _case("2d-depthwise-multiplier", X2, (4, 2, 3, 3), groups=4),
    _case("2d-groups-to-one", X2, (4, 1, 2, 2), groups=2, stride=2),
    _case("2d-pointwise", X2, (4, 6, 1, 1)),
    _case("2d-pointwise-stride", X2, (4, 6, 1, 1), stride=2, output_padding=1),
    _case("1d", X1, (4, 6, 3)),
    _case("1d-everything", X1, (4, 3, 3), groups=2, stride=2, dilation=2, padding=2),
    _case("3d", X3, (4, 6, 2, 2, 2)),
    _case(
        "3d-everything",
        X3,
        (4, 3, 2, 1, 3),
        groups=2,
        stride=(2, 1, 2),
        padding=(1, 0, 2),
        output_padding=(1, 0, 1),
    ),
    _case("4d", (2, 2, 2, 2, 1, 2), (2, 3, 2, 1, 2, 2), stride=2, padding=(1, 0, 0, 0)),
    _case("2d-gemm", X2, (4, 6, 3, 3), stride=2, algorithm="gemm"),
    _case("2d-fft", X2, (4, 6, 3, 3), padding=(1, 2), algorithm="fft"),
    _case(
        "2d-fft-everything",
        X2,
        (4, 3, 3, 2),
        groups=2,
        stride=(2, 1),
        padding=[(2, 1), 1],
        output_padding=(1, 0),
        dilation=(1, 2),
        algorithm="fft",
    ),
    _case(
        "2d-fft-output-padding-above-stride",
        X2,
        (4, 6, 2, 2),
        stride=2,
        dilation=(4, 3),
        output_padding=(3, 2),
        padding=1,
        algorithm="fft",
    ),
    _case("1d-fft", (2, 4, 40), (4, 6, 3), stride=2, algorithm="fft"),
    _case("3d-fft", X3, (4, 6, 2, 2, 2), padding=(1, 0, 1), algorithm="fft"),
]
