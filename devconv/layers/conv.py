"""Convolution layers: a bank of filters, each with its own kernel over every input channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from devconv import _check, functional
from devconv._check import InvalidValue, Shape, located, show
from devconv.functional.conv import Padding
from devconv.functional.windows import checked_plan
from devconv.initializers import Initializer, initializer
from devconv.layers.activation import Activation, activation_layer
from devconv.layers.layer import InputShape, Parameter, Trace, check_image
from devconv.layers.operation import OperationLayer


@dataclass(repr=False, eq=False)
class _Conv(OperationLayer):
    operation = functional.conv
    arrays = ("weight", "bias")
    rank: ClassVar[int]

    in_channels: int | None
    out_channels: int
    kernel_size: int | Sequence[int]
    stride: int | Sequence[int] = 1
    padding: Padding = 0
    dilation: int | Sequence[int] = 1
    groups: int = 1
    bias: bool = True
    _: KW_ONLY
    activation: str | Activation | None = None
    weight_init: str | Initializer = "he_normal"
    bias_init: str | Initializer = "zeros"

    def __post_init__(self) -> None:
        with located(type(self).__name__):
            self.groups = _check.integer("groups", self.groups, least=1)
            self.out_channels = _check.integer("out_channels", self.out_channels, least=1)
            self._kernel: Shape = _check.per_dimension(
                "kernel_size", self.kernel_size, self.rank, least=1
            )
            if self.in_channels is not None:
                self.in_channels = _check.integer("in_channels", self.in_channels, least=1)
                self._check_groups("in_channels", self.in_channels)
            self._check_groups("out_channels", self.out_channels)
            huge = (1, 1, *(2**40,) * self.rank)  # no kernel is too large for it
            self._windows(huge)
            self._activation = activation_layer(self.activation)
            self._inits = (
                initializer("weight_init", self.weight_init),
                initializer("bias_init", self.bias_init),
            )

    def _check_groups(self, name: str, channels: int) -> None:
        if channels % self.groups:
            raise InvalidValue(f"groups={self.groups} must divide {name}={channels}")

    def _windows(self, shape: Shape) -> Shape:
        return checked_plan(
            shape,
            self._kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        ).out

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.conv`."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def _weight_shape(self, channels: int) -> Shape:
        return (self.out_channels, channels // self.groups, *self._kernel)

    def declare(self, shape: InputShape | None) -> dict[str, Parameter]:
        """``weight`` and, unless ``bias`` is false, ``bias``."""
        channels = self.in_channels if shape is None or self.in_channels else shape[1]
        if channels is None:
            raise InvalidValue(
                "in_channels is None and no shape is known; call model.build(shape) with the "
                "input's shape without the batch, or run a batch first"
            )
        self._check_groups("in_channels", channels)
        weight = Parameter(self._weight_shape(channels), self._inits[0])
        if not self.bias:
            return {"weight": weight}
        return {"weight": weight, "bias": Parameter((self.out_channels,), self._inits[1])}

    def sizes(self, declared: Mapping[str, Any]) -> dict[str, int]:
        """``in_channels``, read off the weight."""
        return {"in_channels": declared["weight"].shape[1] * self.groups}

    def input_from(self, shapes: Mapping[str, Shape]) -> InputShape | None:
        """The channels of the input are those of the weight."""
        weight = shapes.get("weight", ())
        return (None, weight[1] * self.groups) if len(weight) == 2 + self.rank else None

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C_in, *spatial)`` becomes ``(N, C_out, *out)``."""
        check_image(shape, self.rank)
        if self.in_channels not in (None, shape[1]):
            raise InvalidValue(
                f"expected {self.in_channels} input channels (weight "
                f"{self._weight_shape(self.in_channels or 0)}), got x {show(shape)}"
            )
        spatial = tuple(n or 0 for n in shape[2:])
        return (shape[0], self.out_channels, *self._windows((1, 1, *spatial)))


class Conv1d(_Conv):
    """A convolution over one spatial dimension; see :class:`Conv2d`."""

    rank = 1


class Conv2d(_Conv):
    """A convolution over two spatial dimensions; see :func:`devconv.functional.conv`.

    Args:
        in_channels: channels of ``x (N, C, H, W)``; ``None`` to work it out.
        out_channels: filters in the bank.
        kernel_size: pixels, an int or one per dimension.
        stride: pixels between windows.
        padding: zeros around the image: int, ints, ``(before, after)`` pairs, ``"valid"``
            or ``"same"``.
        dilation: pixels between taps.
        groups: parts the channels are split into.
        bias: whether a bias is added.
        activation: the name of an activation, or an activation layer, that follows.
        weight_init: an initializer or its name.
        bias_init: likewise.

    Arrays: ``weight (out_channels, in_channels // groups, *kernel)``, ``bias
    (out_channels,)``, as in ``torch.nn.Conv2d`` (which starts uniform on
    ``±1/sqrt(fan_in)``; this starts He normal with zero bias).

    >>> Conv2d(3, 16, 3, stride=2, padding=1).output_shape((3, 32, 32))
    (16, 16, 16)
    """

    rank = 2


class Conv3d(_Conv):
    """A convolution over three spatial dimensions; see :class:`Conv2d`."""

    rank = 3
