"""Transposed convolution layers: the way back of a convolution, as a layer of its own."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

from devconv import _check, functional
from devconv._check import Shape
from devconv.functional.conv_transpose import Padding, transposed_windows
from devconv.functional.windows import Windows
from devconv.initializers import Fans, Initializer
from devconv.layers.activation import Activation
from devconv.layers.conv import FilterBank, Size
from devconv.layers.shapes import InputShape, sized


@dataclass(repr=False, eq=False)
class _ConvTranspose(FilterBank):
    operation = functional.conv_transpose

    in_channels: int | None
    out_channels: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = 0
    output_padding: Size = 0
    groups: int = 1
    bias: bool = True
    dilation: Size = 1
    _: KW_ONLY
    activation: str | Activation | None = None
    weight_init: str | Initializer = "he_normal"
    bias_init: str | Initializer = "zeros"
    algorithm: str = "auto"

    def _windows(self, shape: Shape) -> Windows:
        return transposed_windows(shape, self._weight_shape(shape[1]), **self._geometry())

    def _out(self, shape: InputShape) -> Shape:
        return self._windows(sized(shape)).size

    def _weight_shape(self, channels: int) -> Shape:
        return (channels, self.out_channels // self.groups, *self._kernel)

    def _channels(self, weight: Shape) -> int:
        return weight[0]

    def _fans(self, weight: Shape) -> Fans:
        """A pixel of ``y`` meets every ``stride``-th tap of a kernel, one of ``x`` all taps."""
        steps = _check.per_dimension("stride", self.stride, self.rank, least=1)
        met = math.prod(-(-k // s) for k, s in zip(self._kernel, steps, strict=True))
        return weight[0] // self.groups * met, weight[1] * math.prod(self._kernel)

    def _geometry(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.conv_transpose`."""
        return {**self._geometry(), "algorithm": self.algorithm}


class ConvTranspose1d(_ConvTranspose):
    """A transposed convolution over one spatial dimension; see :class:`ConvTranspose2d`."""

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """A transposed convolution; see :func:`devconv.functional.conv_transpose`.

    Args:
        in_channels: channels of ``x (N, C, H, W)``; ``None`` to work it out.
        out_channels: channels of ``y``.
        kernel_size: pixels, an int or one per dimension.
        stride: pixels of ``y`` from one copy of the kernel to the next.
        padding: pixels cut off around ``y``: int, ints or ``(before, after)`` pairs.
        output_padding: pixels added at the end of each dimension.
        groups: parts the channels are split into.
        bias: whether a bias is added.
        dilation: pixels between taps.
        activation: the name of an activation, or an activation layer, that follows.
        weight_init: an initializer or its name.
        bias_init: likewise.
        algorithm: how it is computed, as for :func:`devconv.functional.conv`.

    Arrays: ``weight (in_channels, out_channels // groups, *kernel)``, ``bias
    (out_channels,)``, as in ``torch.nn.ConvTranspose2d``, also in the order of the arguments.
    ``fan_in`` counts the taps that meet in one pixel of ``y``.

    >>> ConvTranspose2d(16, 3, 4, stride=2, padding=1).output_shape((16, 8, 8))
    (3, 16, 16)
    """

    rank = 2


class ConvTranspose3d(_ConvTranspose):
    """A transposed convolution over three spatial dimensions; see :class:`ConvTranspose2d`."""

    rank = 3
