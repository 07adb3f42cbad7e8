"""Convolution: every option, alone and together, in one to four dimensions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import normal
from tests.cases.plain import count, each, pairs, window_starts, windows


def conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> np.ndarray:
    size, kernel, rank = x.shape[2:], weight.shape[2:], x.ndim - 2
    stride, dilation = each(stride, rank), each(dilation, rank)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        padding = [(r // 2, r - r // 2) for r in reach]
    around = pairs(padding, rank)
    starts = window_starts(size, kernel, stride, around, dilation)
    outputs, share = weight.shape[0] // groups, weight.shape[1]
    y = np.zeros((x.shape[0], weight.shape[0], *count(starts)))
    padded = np.pad(x, [(0, 0), (0, 0), *around])
    for place, reads in windows(starts, kernel, dilation):
        inside = [r + before for r, (before, _) in zip(reads, around, strict=True)]
        window = padded[np.ix_(range(x.shape[0]), range(x.shape[1]), *inside)]
        for o in range(weight.shape[0]):
            g = o // outputs
            channels = window[:, g * share : (g + 1) * share]
            y[(slice(None), o, *place)] = (channels * weight[o]).sum(axis=tuple(range(1, x.ndim)))
    return y if bias is None else y + bias.reshape(-1, *(1,) * rank)


def _torch(rank: int, padding: Any = 0, algorithm: str = "auto", **options: Any) -> Any:
    def run(x: Any, weight: Any, bias: Any = None) -> Any:
        import torch.nn.functional as T

        around = padding
        if not isinstance(padding, str) and any(b != a for b, a in pairs(padding, rank)):
            flat = [p for pair in reversed(pairs(padding, rank)) for p in pair]
            x, around = T.pad(x, flat), 0
        with warnings.catch_warnings():  # "same" with even kernels: a copy may be needed
            warnings.simplefilter("ignore")
            return getattr(T, f"conv{rank}d")(x, weight, bias, padding=around, **options)

    return run


def _case(id: str, x: tuple[int, ...], weight: tuple[int, ...], bias: Any = ..., **options: Any):
    rank = len(x) - 2
    shapes = (x, weight) if bias is None else (x, weight, (weight[0],))
    return Case(
        id=id,
        op=F.conv,
        arrays=normal(*shapes),
        reference=conv,
        torch=_torch(rank, **options) if rank <= 3 else None,
        options=options,
    )


X1, X2, X3 = (2, 4, 9), (2, 4, 6, 5), (2, 4, 4, 3, 4)

CASES = [
    _case("2d", X2, (6, 4, 3, 3)),
    _case("2d-no-bias", X2, (6, 4, 3, 3), None),
    Case(
        id="2d-bias-is-none",
        op=F.conv,
        arrays=normal(X2, (6, 4, 3, 3), None),
        reference=conv,
        torch=_torch(2),
    ),
    _case("2d-stride", X2, (6, 4, 3, 3), stride=2),
    _case("2d-strides-padding", X2, (6, 4, 3, 3), stride=(2, 1), padding=1),
    _case("2d-stride-above-kernel", X2, (6, 4, 2, 2), stride=3),
    _case("2d-stride-above-kernel-padding", X2, (6, 4, 1, 2), stride=(2, 3), padding=(1, 0)),
    _case("2d-padding", X2, (6, 4, 3, 3), padding=(1, 2)),
    _case("2d-padding-pairs", X2, (6, 4, 3, 3), padding=[(1, 2), (0, 1)]),
    _case("2d-padding-mixed", X2, (6, 4, 3, 3), padding=[2, (0, 1)], stride=2),
    _case("2d-padding-above-kernel", X2, (6, 4, 2, 2), padding=3),
    _case("2d-padding-above-kernel-stride", X2, (6, 4, 2, 2), padding=3, stride=2),
    _case("2d-valid", X2, (6, 4, 3, 3), padding="valid", stride=2),
    _case("2d-same", X2, (6, 4, 3, 3), padding="same"),
    _case("2d-same-even", X2, (6, 4, 2, 4), padding="same"),
    _case("2d-same-even-dilation", X2, (6, 4, 2, 2), padding="same", dilation=(3, 1)),
    _case("2d-dilation", X2, (6, 4, 2, 2), dilation=2),
    _case("2d-dilation-padding", X2, (6, 4, 3, 3), dilation=(2, 1), padding=2, stride=(1, 2)),
    _case("2d-whole-image", X2, (6, 4, 6, 5)),
    _case("2d-groups", X2, (6, 2, 3, 3), groups=2),
    _case("2d-groups-everything", X2, (6, 2, 3, 2), groups=2, stride=(2, 1), padding=[(2, 1), 1]),
    _case("2d-groups-dilation", X2, (6, 2, 2, 3), groups=2, dilation=(2, 1), padding=1),
    _case("2d-depthwise", X2, (4, 1, 3, 3), groups=4),
    _case("2d-depthwise-multiplier", X2, (8, 1, 3, 3), groups=4, padding=1),
    _case("2d-depthwise-everything", X2, (8, 1, 3, 2), groups=4, stride=2, dilation=2, padding=3),
    _case("2d-pointwise", X2, (6, 4, 1, 1)),
    _case("2d-pointwise-stride", X2, (6, 4, 1, 1), stride=2),
    _case("2d-pointwise-padding", X2, (6, 4, 1, 1), padding=[(1, 0), 2]),
    _case("2d-pointwise-groups", X2, (6, 2, 1, 1), groups=2),
    _case("2d-one-channel", (3, 1, 6, 5), (1, 1, 3, 3)),
    _case("1d", X1, (6, 4, 3)),
    _case("1d-everything", X1, (6, 2, 3), groups=2, stride=2, dilation=2, padding=[(3, 1)]),
    _case("1d-same", X1, (6, 4, 4), padding="same"),
    _case("1d-depthwise", X1, (4, 1, 3), groups=4, padding=1),
    _case("3d", X3, (6, 4, 2, 2, 2)),
    _case("3d-everything", X3, (6, 2, 2, 1, 3), groups=2, stride=(2, 1, 1), padding=(1, 0, 2)),
    _case("3d-dilation", X3, (6, 4, 2, 2, 2), dilation=(2, 1, 3), padding=1),
    _case("4d", (2, 2, 3, 2, 2, 3), (3, 2, 2, 2, 1, 2), padding=(1, 0, 0, 1), stride=2),
    _case("2d-gemm", X2, (6, 4, 3, 3), padding=1, algorithm="gemm"),
    _case("2d-fft", X2, (6, 4, 3, 3), algorithm="fft"),
    _case("2d-fft-padding-pairs", X2, (6, 4, 3, 2), padding=[(1, 2), (0, 1)], algorithm="fft"),
    _case("2d-fft-padding-above-kernel", X2, (6, 4, 2, 2), None, padding=3, algorithm="fft"),
    _case(
        "2d-fft-windows-of-padding-alone",
        (2, 2, 2, 2),
        (3, 2, 1, 1),
        padding=[(5, 1), (0, 3)],
        stride=(4, 3),
        algorithm="fft",
    ),
    _case(
        "2d-fft-everything",
        X2,
        (6, 2, 3, 2),
        groups=2,
        stride=(2, 1),
        dilation=(1, 2),
        padding=[(2, 1), 1],
        algorithm="fft",
    ),
    _case("2d-fft-depthwise-multiplier", X2, (8, 1, 3, 3), groups=4, padding=1, algorithm="fft"),
    _case("2d-fft-pointwise-stride", X2, (6, 4, 1, 1), stride=2, algorithm="fft"),
    _case("1d-fft", (2, 4, 40), (6, 4, 3), padding=1, algorithm="fft"),
    _case("3d-fft", X3, (6, 4, 2, 1, 2), padding=(1, 0, 1), stride=(1, 2, 1), algorithm="fft"),
    _case("4d-fft", (2, 2, 3, 2, 2, 3), (3, 2, 2, 2, 1, 2), padding=(1, 0, 0, 1), algorithm="fft"),
]
