"""Convolution layers: a bank of filters, each with its own kernel over every input channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from devconv import _check, functional
from devconv._array import Array
from devconv._check import InvalidValue, Shape, show
from devconv.functional.algorithm import ALGORITHMS
from devconv.functional.conv import Padding
from devconv.functional.operation import Pullback as OperationPullback
from devconv.functional.pad import MODES, padding_pairs
from devconv.functional.windows import Windows, checked_plan
from devconv.initializers import Fans, Initializer, fans, initializer
from devconv.layers.activation import Activation, activation_layer
from devconv.layers.declared import Parameter
from devconv.layers.operation import OperationLayer
from devconv.layers.scope import Scope, Trace
from devconv.layers.shapes import InputShape, channels_last, check_image, roomy, settled, sized

Size = int | Sequence[int]


class FilterBank(OperationLayer):
    """What convolution and its transpose share: channels, groups, a kernel for each pair."""

    arrays = ("weight", "bias")
    rank: ClassVar[int]

    in_channels: int | None
    out_channels: int
    kernel_size: Size
    groups: int
    bias: bool
    activation: str | Activation | None
    weight_init: str | Initializer
    bias_init: str | Initializer
    algorithm: str

    def _check_options(self) -> None:
        self.groups = _check.integer("groups", self.groups, least=1)
        self.out_channels = _check.integer("out_channels", self.out_channels, least=1)
        self._kernel: Shape = _check.per_dimension(
            "kernel_size", self.kernel_size, self.rank, least=1
        )
        if self.in_channels is not None:
            self.in_channels = _check.integer("in_channels", self.in_channels, least=1)
            self._check_groups("in_channels", self.in_channels)
        self._check_groups("out_channels", self.out_channels)
        _check.choice("algorithm", self.algorithm, ALGORITHMS)
        self._windows(roomy(self.rank, self.groups))
        self._activation = activation_layer(self.activation)
        self._inits = (
            initializer("weight_init", self.weight_init),
            initializer("bias_init", self.bias_init),
        )

    def _check_groups(self, name: str, channels: int) -> None:
        if channels % self.groups:
            raise InvalidValue(f"groups={self.groups} must divide {name}={channels}")

    def _windows(self, shape: Shape) -> Windows:
        raise NotImplementedError

    def _out(self, shape: InputShape) -> Shape:
        """The pixels of ``y`` in each dimension."""
        raise NotImplementedError

    def _weight_shape(self, channels: int) -> Shape:
        raise NotImplementedError

    def _channels(self, weight: Shape) -> int:
        """``in_channels``, read off the shape of the weight."""
        raise NotImplementedError

    def _fans(self, weight: Shape) -> Fans:
        return fans(weight)

    def declare(self, shape: InputShape | None) -> dict[str, Parameter]:
        """``weight`` and, unless ``bias`` is false, ``bias``."""
        channels = settled("in_channels", self.in_channels, shape, 1)
        self._check_groups("in_channels", channels)
        weight = self._weight_shape(channels)
        declared = {"weight": Parameter(weight, self._inits[0], self._fans(weight))}
        if self.bias:
            declared["bias"] = Parameter((self.out_channels,), self._inits[1], self._fans(weight))
        return declared

    def sizes(self, declared: Mapping[str, Any]) -> dict[str, int]:
        """``in_channels``, read off the weight."""
        return {"in_channels": self._channels(declared["weight"].shape)}

    def input_from(self, shapes: Mapping[str, Shape]) -> InputShape | None:
        """The channels of the input are those of the weight."""
        weight = shapes.get("weight", ())
        return (None, self._channels(weight)) if len(weight) == 2 + self.rank else None

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C_in, *spatial)`` becomes ``(N, C_out, *out)``."""
        check_image(shape, self.rank)
        if self.in_channels not in (None, shape[1]):
            raise InvalidValue(
                f"expected {self.in_channels} input channels (weight "
                f"{self._weight_shape(self.in_channels or 0)}), got x {show(shape)}"
                f"{channels_last(shape, self.in_channels)}"
            )
        self._check_groups("in_channels", shape[1] or 0)
        return self.activated(trace, (shape[0], self.out_channels, *self._out(shape)))


@dataclass(repr=False, eq=False)
class _Conv(FilterBank):
    operation = functional.conv

    in_channels: int | None
    out_channels: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = 0
    dilation: Size = 1
    groups: int = 1
    bias: bool = True
    padding_mode: str = "zeros"
    _: KW_ONLY
    activation: str | Activation | None = None
    weight_init: str | Initializer = "he_normal"
    bias_init: str | Initializer = "zeros"
    algorithm: str = "auto"

    def _check_options(self) -> None:
        super()._check_options()
        _check.choice("padding_mode", self.padding_mode, ("zeros", *MODES[1:]))

    def _windows(self, shape: Shape) -> Windows:
        return checked_plan(
            shape,
            self._kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )

    def _out(self, shape: InputShape) -> Shape:
        w = self._windows(sized(shape))
        if self.padding_mode != "zeros":
            padding_pairs(sized(shape), w.padding, self.padding_mode)
        return w.out

    def _weight_shape(self, channels: int) -> Shape:
        return (self.out_channels, channels // self.groups, *self._kernel)

    def _channels(self, weight: Shape) -> int:
        return weight[1] * self.groups

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.conv`."""
        return {
            "stride": self.stride,
            "padding": self.padding if self.padding_mode == "zeros" else 0,
            "dilation": self.dilation,
            "groups": self.groups,
            "algorithm": self.algorithm,
        }

    @property
    def skips(self) -> bool:
        """Not where the way back leads through the padding."""
        return self.padding_mode == "zeros"

    def evaluate(self, scope: Scope, x: Array, *arrays: Array) -> tuple[Array, OperationPullback]:
        """The convolution of ``x``, padded first where padding is more than zeros."""
        if self.padding_mode == "zeros":
            return super().evaluate(scope, x, *arrays)
        around = self._windows(tuple(x.shape)).padding
        padded, unpad = functional.pad.vjp(x, padding=around, mode=self.padding_mode)
        y, back = super().evaluate(scope, padded, *arrays)

        def pullback(dy: Array) -> tuple[Array | None, ...]:
            dpadded, *shares = back(dy)
            return (*unpad(dpadded), *shares)

        return y, pullback


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
        padding: pixels around the image: int, ints, ``(before, after)`` pairs, ``"valid"``
            or ``"same"``.
        dilation: pixels between taps.
        groups: parts the channels are split into.
        bias: whether a bias is added.
        padding_mode: what the padding shows: ``"zeros"``, or ``"reflect"``, ``"replicate"`` or
            ``"circular"`` as in :func:`devconv.functional.pad`.
        activation: the name of an activation, or an activation layer, that follows.
        weight_init: an initializer or its name.
        bias_init: likewise.
        algorithm: how it is computed, as for :func:`devconv.functional.conv`.

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
