"""MobileNetV2: depthwise convolutions between a widening and a narrowing 1×1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from devconv import _check
from devconv._check import located
from devconv.layers import (
    BatchNorm2d,
    Dropout,
    GlobalAvgPool,
    Layer,
    ReLU6,
    Residual,
    Sequential,
)
from devconv.models.parts import conv, dense

Stages: TypeAlias = Sequence[tuple[int, int, int, int]]

STAGES: Stages = (
    # expansion, channels, blocks, stride of the first: the paper's table 2
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_norm_relu6(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> Sequential:
    """A convolution, a batch norm and ReLU6."""
    return Sequential(
        conv(in_channels, out_channels, kernel_size, stride, groups=groups),
        BatchNorm2d(out_channels),
        ReLU6(),
    )


def inverted_residual(
    in_channels: int, out_channels: int, stride: int, expansion: int
) -> Sequential | Residual:
    """Widen, filter each channel, narrow; beside a shortcut where the shape stays."""
    width = in_channels * expansion
    widen = [conv_norm_relu6(in_channels, width, 1)] if expansion != 1 else []
    body = Sequential(
        *widen,
        conv_norm_relu6(width, width, 3, stride, groups=width),
        conv(width, out_channels, 1),
        BatchNorm2d(out_channels),
    )
    if stride == 1 and in_channels == out_channels:
        return Residual({"conv": body})
    return Sequential({"conv": body})


def mobilenet_v2(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    width: float = 1.0,
    dropout: float = 0.2,
    stages: Stages = STAGES,
) -> Sequential:
    """Make MobileNetV2.

    ==========================  ============  ==========
    stage                       output shape  parameters
    ==========================  ============  ==========
    3×3, 32, stride 2           32×112×112    928
    1 block, 16                 16×112×112    896
    2 blocks of 6, 24           24×56×56      13,968
    3 blocks of 6, 32           32×28×28      39,696
    4 blocks of 6, 64           64×14×14      183,872
    3 blocks of 6, 96           96×14×14      303,168
    3 blocks of 6, 160          160×7×7       795,264
    1 block of 6, 320           320×7×7       473,920
    1×1, 1280                   1280×7×7      412,160
    mean, dropout, dense        1000          1,281,000
    ==========================  ============  ==========

    A block of ``t`` widens its ``C`` channels to ``t·C``, filters each by a 3×3 kernel of its
    own and narrows them; ReLU6 follows the first two, nothing the third.

    Args:
        num_classes: logits.
        in_channels: channels of the images.
        width: factor on all channels, which are then rounded to multiples of 8; the last
            convolution does not go below 1280.
        dropout: the probability with which the classifier's features are dropped.
        stages: per stage expansion, channels, blocks and the stride of the first.

    Returns:
        A layer from ``(N, 3, 224, 224)`` (or any other size) to logits ``(N, 1000)``;
        3,504,872 parameters at width 1. Kernels begin He normal by ``fan_out``, the dense
        weight normal with deviation 0.01, biases zero.

    Raises:
        ValueError: a width that is not above 0.

    Source: M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks",
    arXiv:1801.04381. Names, shapes and rounding are those of torchvision's ``mobilenet_v2``:
    ``features.1.conv.0.0.weight``, ...

    >>> mobilenet_v2().output_shape((3, 224, 224))
    (1000,)
    """
    with located("mobilenet_v2"):
        width = _check.number("width", width, above=0.0)
    channels, last = rounded(32 * width), rounded(1280 * max(1.0, width))
    features: list[Layer] = [conv_norm_relu6(in_channels, channels, 3, stride=2)]
    for expansion, c, blocks, stride in stages:
        out_channels = rounded(c * width)
        for i in range(blocks):
            features.append(
                inverted_residual(channels, out_channels, stride if i == 0 else 1, expansion)
            )
            channels = out_channels
    features.append(conv_norm_relu6(channels, last, 1))
    return Sequential(
        {
            "features": Sequential(*features),
            "avgpool": GlobalAvgPool(),
            "classifier": Sequential(Dropout(dropout), dense(last, num_classes)),
        }
    )


def rounded(channels: float, step: int = 8) -> int:
    """The nearest multiple of ``step``, unless that is 10 % less.

    >>> rounded(8.8), rounded(9), rounded(12)
    (8, 16, 16)
    """
    nearest = max(step, int(channels + step / 2) // step * step)
    return nearest if nearest >= 0.9 * channels else nearest + step
