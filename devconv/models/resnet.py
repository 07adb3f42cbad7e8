"""ResNet: blocks that learn what to add to their input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from devconv.layers import (
    BatchNorm2d,
    GlobalAvgPool,
    Layer,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)
from devconv.models.parts import conv, dense

Block: TypeAlias = Callable[[int, int, int], Residual]
"""Makes a block of its input's channels, its output's channels and its stride."""


def basic_block(in_channels: int, out_channels: int, stride: int = 1) -> Residual:
    """Two 3×3 convolutions beside a shortcut."""
    return Residual(
        {
            "conv1": conv(in_channels, out_channels, 3, stride),
            "bn1": BatchNorm2d(out_channels),
            "relu": ReLU(),
            "conv2": conv(out_channels, out_channels, 3),
            "bn2": BatchNorm2d(out_channels),
        },
        projection(in_channels, out_channels, stride),
        activation="relu",
    )


def bottleneck(in_channels: int, out_channels: int, stride: int = 1) -> Residual:
    """A 3×3 convolution over a quarter of the channels, 1×1 ones around it, and a shortcut."""
    width = out_channels // 4
    return Residual(
        {
            "conv1": conv(in_channels, width, 1),
            "bn1": BatchNorm2d(width),
            "relu1": ReLU(),
            "conv2": conv(width, width, 3, stride),
            "bn2": BatchNorm2d(width),
            "relu2": ReLU(),
            "conv3": conv(width, out_channels, 1),
            "bn3": BatchNorm2d(out_channels),
        },
        projection(in_channels, out_channels, stride),
        activation="relu",
    )


def projection(in_channels: int, out_channels: int, stride: int) -> dict[str, Layer]:
    """The shortcut of a block: nothing, or a 1×1 convolution where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return {}
    layers = conv(in_channels, out_channels, 1, stride), BatchNorm2d(out_channels)
    return {"downsample": Sequential(*layers)}


def resnet(
    block: Block,
    stages: Sequence[tuple[int, int]],
    num_classes: int = 1000,
    in_channels: int = 3,
) -> Sequential:
    """Make a residual network.

    Args:
        block: :func:`basic_block` or :func:`bottleneck`.
        stages: per stage its blocks and their output's channels; each but the first begins by
            halving height and width.
        num_classes: logits.
        in_channels: channels of the images.

    Names are those of torchvision: ``conv1.weight``, ``layer1.0.bn1.running_mean``, ...
    """
    layers: dict[str, Layer] = {
        "conv1": conv(in_channels, 64, 7, 2),
        "bn1": BatchNorm2d(64),
        "relu": ReLU(),
        "maxpool": MaxPool2d(3, 2, padding=1),
    }
    channels = 64
    for stage, (depth, out_channels) in enumerate(stages, start=1):
        first = block(channels, out_channels, 1 if stage == 1 else 2)
        others = (block(out_channels, out_channels, 1) for _ in range(depth - 1))
        layers[f"layer{stage}"] = Sequential(first, *others)
        channels = out_channels
    return Sequential({**layers, "avgpool": GlobalAvgPool(), "fc": dense(channels, num_classes)})


def resnet18(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Make ResNet-18.

    ========================  ============  ==========
    stage                     output shape  parameters
    ========================  ============  ==========
    7×7, 64, stride 2         64×112×112    9,536
    3×3 max pool, stride 2    64×56×56
    2 × (3×3, 64; 3×3, 64)    64×56×56      147,968
    2 × (3×3, 128; twice)     128×28×28     525,568
    2 × (3×3, 256; twice)     256×14×14     2,099,712
    2 × (3×3, 512; twice)     512×7×7       8,393,728
    mean, dense               1000          513,000
    ========================  ============  ==========

    Args:
        num_classes: logits.
        in_channels: channels of the images.

    Returns:
        A layer from ``(N, 3, 224, 224)`` (or any other size) to logits ``(N, 1000)``;
        11,689,512 parameters. Kernels begin He normal by ``fan_out``, the dense weight normal
        with deviation 0.01, biases zero.

    Source: K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image
    recognition", arXiv:1512.03385. Names and shapes are those of torchvision's ``resnet18``
    (which begins its dense layer uniform), and shortcuts that change the shape are
    projections (the paper's option B).

    >>> resnet18().output_shape((3, 224, 224))
    (1000,)
    """
    return resnet(basic_block, ((2, 64), (2, 128), (2, 256), (2, 512)), num_classes, in_channels)


def resnet34(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Make ResNet-34: 3, 4, 6 and 3 blocks, 21,797,672 parameters; see :func:`resnet18`."""
    return resnet(basic_block, ((3, 64), (4, 128), (6, 256), (3, 512)), num_classes, in_channels)


def resnet50(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """Make ResNet-50.

    ================================  ============  ==========
    stage                             output shape  parameters
    ================================  ============  ==========
    7×7, 64, stride 2                 64×112×112    9,536
    3×3 max pool, stride 2            64×56×56
    3 × (1×1, 64; 3×3; 1×1, 256)      256×56×56     215,808
    4 × (1×1, 128; 3×3; 1×1, 512)     512×28×28     1,219,584
    6 × (1×1, 256; 3×3; 1×1, 1024)    1024×14×14    7,098,368
    3 × (1×1, 512; 3×3; 1×1, 2048)    2048×7×7      14,964,736
    mean, dense                       1000          2,049,000
    ================================  ============  ==========

    Args:
        num_classes: logits.
        in_channels: channels of the images.

    Returns:
        A layer from ``(N, 3, 224, 224)`` (or any other size) to logits ``(N, 1000)``;
        25,557,032 parameters, which begin as those of :func:`resnet18`.

    Source: as :func:`resnet18`. A stage that halves the image does so in its first 3×3
    convolution, as torchvision's ``resnet50`` ("V1.5"); the paper has it in the 1×1 before.

    >>> resnet50().output_shape((3, 224, 224))
    (1000,)
    """
    return resnet(bottleneck, ((3, 256), (4, 512), (6, 1024), (3, 2048)), num_classes, in_channels)
