"""VGG: depth by small kernels, one 3×3 convolution after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from devconv._check import flag
from devconv.layers import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Dropout,
    Flatten,
    Layer,
    MaxPool2d,
    ReLU,
    Sequential,
)
from devconv.models.parts import conv, dense

Stages: TypeAlias = Sequence[tuple[int, int]]
"""Per stage its convolutions and their channels; a max pooling ends each."""

VGG11: Stages = ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512))
VGG13: Stages = ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512))
VGG16: Stages = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
VGG19: Stages = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
SMALL: Stages = ((2, 64), (2, 128), (2, 256))


def vgg(
    stages: Stages,
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    batch_norm: bool = False,
    pixels: int = 7,
    width: int = 4096,
    dropout: float = 0.5,
) -> Sequential:
    """Make a network of VGG's kind.

    Args:
        stages: per stage its convolutions and their channels, such as :data:`VGG16`.
        num_classes: logits.
        in_channels: channels of the images.
        batch_norm: whether a batch norm follows each convolution.
        pixels: height and width of what the classifier sees; other sizes are averaged to it.
        width: features of the classifier's two hidden layers.
        dropout: the probability with which these are dropped.

    Names are those of torchvision: ``features.0.weight``, ..., ``classifier.6.bias``.
    """
    batch_norm = flag("batch_norm", batch_norm)
    features: list[Layer] = []
    channels = in_channels
    for depth, out_channels in stages:
        for _ in range(depth):
            features.append(conv(channels, out_channels, 3, bias=True))
            if batch_norm:
                features.append(BatchNorm2d(out_channels))
            features.append(ReLU())
            channels = out_channels
        features.append(MaxPool2d(2))
    classifier = Sequential(
        dense(channels * pixels * pixels, width),
        ReLU(),
        Dropout(dropout),
        dense(width, width),
        ReLU(),
        Dropout(dropout),
        dense(width, num_classes),
    )
    return Sequential(
        {
            "features": Sequential(*features),
            "avgpool": AdaptiveAvgPool2d(pixels),
            "flatten": Flatten(),
            "classifier": classifier,
        }
    )


def vgg_small(num_classes: int = 10, in_channels: int = 3, *, dropout: float = 0.5) -> Sequential:
    """Make a small network of VGG's kind, with batch norm, for 32×32 images.

    ===========================  ============  ==========
    stage                        output shape  parameters
    ===========================  ============  ==========
    2 × 3×3, 64, max pooling     64×16×16      38,976
    2 × 3×3, 128, max pooling    128×8×8       221,952
    2 × 3×3, 256, max pooling    256×4×4       886,272
    dense 256, 256, num_classes  10            1,117,194
    ===========================  ============  ==========

    Args:
        num_classes: logits.
        in_channels: channels of the images.
        dropout: the probability with which hidden features of the classifier are dropped.

    Returns:
        A layer from ``(N, 3, 32, 32)`` (or anything from 8×8 on) to logits ``(N, 10)``;
        2,264,394 parameters, called and begun as in :func:`vgg16`.

    The design of :func:`vgg16` cut to CIFAR's images; no paper has exactly this one.

    >>> vgg_small().output_shape((3, 32, 32))
    (10,)
    """
    return vgg(
        SMALL, num_classes, in_channels, batch_norm=True, pixels=4, width=256, dropout=dropout
    )


def vgg11(num_classes: int = 1000, in_channels: int = 3, *, batch_norm: bool = False) -> Sequential:
    """Make VGG with 11 layers, configuration A: 132,863,336 parameters; see :func:`vgg16`."""
    return vgg(VGG11, num_classes, in_channels, batch_norm=batch_norm)


def vgg13(num_classes: int = 1000, in_channels: int = 3, *, batch_norm: bool = False) -> Sequential:
    """Make VGG with 13 layers, configuration B: 133,047,848 parameters; see :func:`vgg16`."""
    return vgg(VGG13, num_classes, in_channels, batch_norm=batch_norm)


def vgg16(num_classes: int = 1000, in_channels: int = 3, *, batch_norm: bool = False) -> Sequential:
    """Make VGG with 16 layers, configuration D.

    =============================  ============  ===========
    stage                          output shape  parameters
    =============================  ============  ===========
    2 × 3×3, 64, max pooling       64×112×112    38,720
    2 × 3×3, 128, max pooling      128×56×56     221,440
    3 × 3×3, 256, max pooling      256×28×28     1,475,328
    3 × 3×3, 512, max pooling      512×14×14     5,899,776
    3 × 3×3, 512, max pooling      512×7×7       7,079,424
    dense 4096, 4096, num_classes  1000          123,642,856
    =============================  ============  ===========

    Args:
        num_classes: logits.
        in_channels: channels of the images.
        batch_norm: whether a batch norm follows each convolution, as in torchvision's
            ``vgg16_bn`` (138,365,992 parameters).

    Returns:
        A layer from ``(N, 3, 224, 224)`` (or anything from 32×32 on) to logits ``(N, 1000)``;
        138,357,544 parameters. Kernels begin He normal by ``fan_out``, dense weights normal
        with deviation 0.01, biases zero.

    Source: K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale
    image recognition", arXiv:1409.1556. Names, and the mean over 7×7 fields that lets other
    sizes in, are those of torchvision's ``vgg16``. The paper's network has no batch norm, and
    began the deep configurations with layers of a trained shallow one.

    >>> vgg16().output_shape((3, 224, 224))
    (1000,)
    """
    return vgg(VGG16, num_classes, in_channels, batch_norm=batch_norm)


def vgg19(num_classes: int = 1000, in_channels: int = 3, *, batch_norm: bool = False) -> Sequential:
    """Make VGG with 19 layers, configuration E: 143,667,240 parameters; see :func:`vgg16`."""
    return vgg(VGG19, num_classes, in_channels, batch_norm=batch_norm)
