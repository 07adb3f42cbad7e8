"""Pieces that several published networks begin and end with."""

from __future__ import annotations

from devconv.initializers import Normal, VarianceScaling
from devconv.layers import Conv2d, Dense

HE_FAN_OUT = VarianceScaling(2.0, "fan_out", "normal")
"""He's normal numbers, sized for the way back, as torchvision's networks begin."""


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    bias: bool = False,
) -> Conv2d:
    """A convolution centred on its pixel; without a bias, which a batch norm would take away."""
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=bias,
        weight_init=HE_FAN_OUT,
    )


def dense(in_features: int, out_features: int) -> Dense:
    """A dense layer that begins normal with deviation 0.01, bias zero."""
    return Dense(in_features, out_features, weight_init=Normal(0.01))
