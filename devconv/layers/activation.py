"""Activations as layers, and their names for ``activation=``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from devconv import _check, functional
from devconv._check import InvalidType, InvalidValue, show
from devconv.functional.activation.gates import APPROXIMATIONS, halved
from devconv.functional.activation.rectifiers import slopes_shape
from devconv.functional.activation.sigmoids import limits
from devconv.functional.activation.softmaxes import axis_of
from devconv.functional.operation import Operation
from devconv.initializers import Constant
from devconv.layers.declared import Parameter
from devconv.layers.hints import no_layer
from devconv.layers.layer import Layer
from devconv.layers.operation import OperationLayer
from devconv.layers.scope import Trace
from devconv.layers.shapes import InputShape, sized


@dataclass(repr=False, eq=False)
class Activation(OperationLayer):
    """Base of the activations without arrays; a layer's fields are its operation's options."""

    def options(self) -> dict[str, Any]:
        """The operation's options."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class ReLU(Activation):
    """Keep what is positive; see :func:`devconv.functional.relu`."""

    operation = functional.relu


class ReLU6(Activation):
    """Keep what is positive, up to 6; see :func:`devconv.functional.relu6`."""

    operation = functional.relu6


@dataclass(repr=False, eq=False)
class LeakyReLU(Activation):
    """Keep what is positive, shrink the rest; see :func:`devconv.functional.leaky_relu`.

    Args:
        negative_slope: the slope below 0.
    """

    operation = functional.leaky_relu
    negative_slope: float = 0.01

    def _check_options(self) -> None:
        self.negative_slope = _check.number("negative_slope", self.negative_slope)


@dataclass(repr=False, eq=False)
class ELU(Activation):
    """Keep what is positive, bend the rest; see :func:`devconv.functional.elu`.

    Args:
        alpha: ``-y`` far below 0.
    """

    operation = functional.elu
    alpha: float = 1.0

    def _check_options(self) -> None:
        self.alpha = _check.number("alpha", self.alpha)


@dataclass(repr=False, eq=False)
class CELU(Activation):
    """Keep what is positive, bend the rest without a kink; see :func:`devconv.functional.celu`.

    Args:
        alpha: ``-y`` far below 0; not 0.
    """

    operation = functional.celu
    alpha: float = 1.0

    def _check_options(self) -> None:
        self.alpha = _check.nonzero("alpha", self.alpha)


class SELU(Activation):
    """Keep normal numbers normal; see :func:`devconv.functional.selu`."""

    operation = functional.selu


@dataclass(repr=False, eq=False)
class GELU(Activation):
    """Weigh by the normal distribution; see :func:`devconv.functional.gelu`.

    Args:
        approximate: ``"none"`` (exact) or ``"tanh"``.
    """

    operation = functional.gelu
    approximate: str = "none"

    def _check_options(self) -> None:
        _check.choice("approximate", self.approximate, APPROXIMATIONS)


class SiLU(Activation):
    """Weigh by the sigmoid; see :func:`devconv.functional.silu`."""

    operation = functional.silu


class Mish(Activation):
    """Weigh by the tanh of the softplus; see :func:`devconv.functional.mish`."""

    operation = functional.mish


class Sigmoid(Activation):
    """Squash to (0, 1); see :func:`devconv.functional.sigmoid`."""

    operation = functional.sigmoid


class Hardsigmoid(Activation):
    """Squash to [0, 1] along a straight line; see :func:`devconv.functional.hard_sigmoid`."""

    operation = functional.hard_sigmoid


class Hardswish(Activation):
    """Weigh by the hard sigmoid; see :func:`devconv.functional.hard_swish`."""

    operation = functional.hard_swish


class Tanh(Activation):
    """Squash to (-1, 1); see :func:`devconv.functional.tanh`."""

    operation = functional.tanh


@dataclass(repr=False, eq=False)
class Hardtanh(Activation):
    """Cut off below and above; see :func:`devconv.functional.hard_tanh`.

    Args:
        min_val: the smallest value.
        max_val: the largest value, above the smallest as in ``torch.nn.Hardtanh`` (the
            operation also takes two that are the same).
    """

    operation = functional.hard_tanh
    min_val: float = -1.0
    max_val: float = 1.0

    def _check_options(self) -> None:
        self.min_val, self.max_val = limits(self.min_val, self.max_val)
        if self.min_val == self.max_val:
            raise InvalidValue(
                f"max_val must be greater than min_val, got {self.max_val!r} for both; a layer of "
                "one number is dc.Lambda(dc.functional.hard_tanh, min_val=..., max_val=...)"
            )


@dataclass(repr=False, eq=False)
class Softplus(Activation):
    """Keep what is positive, with a round corner; see :func:`devconv.functional.softplus`.

    Args:
        beta: the larger, the sharper the corner; not 0.
        threshold: where ``beta · x`` is above it, ``y = x``.
    """

    operation = functional.softplus
    beta: float = 1.0
    threshold: float = 20.0

    def _check_options(self) -> None:
        self.beta = _check.nonzero("beta", self.beta)
        self.threshold = _check.number("threshold", self.threshold)


class Softsign(Activation):
    """Squash to (-1, 1), slowly; see :func:`devconv.functional.softsign`."""

    operation = functional.softsign


class LogSigmoid(Activation):
    """Take the logarithm of the sigmoid; see :func:`devconv.functional.log_sigmoid`."""

    operation = functional.log_sigmoid


@dataclass(repr=False, eq=False)
class _AlongAxis(Activation):
    axis: int = -1

    def _check_options(self) -> None:
        self.axis = _check.integer("axis", self.axis, least=-(2**31))

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input, which has the axis."""
        axis_of(sized(shape), self.axis)
        return shape


class Softmax(_AlongAxis):
    """Turn logits into probabilities; see :func:`devconv.functional.softmax`.

    Args:
        axis: the axis whose entries add up to 1, the batch being axis 0.
    """

    operation = functional.softmax


class LogSoftmax(_AlongAxis):
    """Turn logits into log-probabilities; see :func:`devconv.functional.log_softmax`.

    Args:
        axis: the axis of the distribution, the batch being axis 0.
    """

    operation = functional.log_softmax


@dataclass(repr=False, eq=False)
class GLU(OperationLayer):
    """Let one half of the entries gate the other; see :func:`devconv.functional.glu`.

    Args:
        axis: the axis that is halved, the batch being axis 0.

    >>> GLU(1).output_shape((16, 5, 5))
    (8, 5, 5)
    """

    operation = functional.glu
    axis: int = -1

    def _check_options(self) -> None:
        self.axis = _check.integer("axis", self.axis, least=-(2**31))

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.glu`."""
        return {"axis": self.axis}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The input's shape with half the entries along the axis."""
        axis, half = halved(sized(shape), self.axis)
        if axis == 0:
            raise InvalidValue(f"axis {self.axis} of x {show(shape)} is the batch; halve another")
        return (*shape[:axis], half, *shape[axis + 1 :])


@dataclass(repr=False, eq=False)
class PReLU(OperationLayer):
    """Keep what is positive, shrink the rest by a learned slope.

    See :func:`devconv.functional.prelu`.

    Args:
        num_parameters: 1, or one slope for each channel.
        init: where the slopes begin.

    Arrays: ``weight (num_parameters,)``, as in ``torch.nn.PReLU``.

    >>> PReLU(3).build().parameters["weight"]
    array([0.25, 0.25, 0.25], dtype=float32)
    """

    operation = functional.prelu
    arrays = ("weight",)

    num_parameters: int = 1
    init: float = 0.25

    def _check_options(self) -> None:
        self.num_parameters = _check.integer("num_parameters", self.num_parameters, least=1)
        self.init = _check.number("init", self.init)

    def declare(self, shape: InputShape | None) -> Mapping[str, Parameter]:
        """``weight``, the slopes."""
        return {"weight": Parameter((self.num_parameters,), Constant(self.init))}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input, which has a channel for each slope."""
        slopes_shape(sized(shape), (self.num_parameters,))
        return shape


BY_NAME: dict[str, type[Activation]] = {
    kind.operation.__name__: kind
    for kind in (
        ReLU,
        ReLU6,
        LeakyReLU,
        ELU,
        CELU,
        SELU,
        GELU,
        SiLU,
        Mish,
        Sigmoid,
        Hardsigmoid,
        Hardswish,
        Tanh,
        Hardtanh,
        Softplus,
        Softsign,
        LogSigmoid,
        Softmax,
        LogSoftmax,
    )
}
"""Activations that need nothing, by the names of their operations."""


def activation_layer(spec: str | Activation | None) -> Activation | None:
    """The activation that ``activation=`` asks for, by name or as a layer."""
    if spec is None or isinstance(spec, Activation):
        return spec
    if isinstance(spec, str):
        return BY_NAME[_check.choice("activation", spec, tuple(BY_NAME))]()
    wanted = "activation must be a name or an activation layer such as dc.GELU()"
    if isinstance(spec, Layer):
        raise InvalidType(f"{wanted}, got {spec!r}; put any other layer after this one")
    if isinstance(spec, Operation) and spec.__name__ in BY_NAME:
        raise InvalidType(f'{wanted}, got the operation {spec.__name__}; say "{spec.__name__}"')
    raise InvalidType(f"{wanted}, got {no_layer(spec)}")
