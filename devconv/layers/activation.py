"""Activations as layers, and their names for ``activation=``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from devconv import _check, functional
from devconv._check import InvalidType
from devconv.layers.operation import OperationLayer


@dataclass(repr=False, eq=False)
class Activation(OperationLayer):
    """Base of the activations; a layer's fields are its operation's options."""

    def options(self) -> dict[str, Any]:
        """The operation's options."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class ReLU(Activation):
    """Keep what is positive; see :func:`devconv.functional.relu`."""

    operation = functional.relu


@dataclass(repr=False, eq=False)
class LeakyReLU(Activation):
    """Keep what is positive, shrink the rest; see :func:`devconv.functional.leaky_relu`."""

    operation = functional.leaky_relu
    negative_slope: float = 0.01


class Sigmoid(Activation):
    """Squash to (0, 1); see :func:`devconv.functional.sigmoid`."""

    operation = functional.sigmoid


class Tanh(Activation):
    """Squash to (-1, 1); see :func:`devconv.functional.tanh`."""

    operation = functional.tanh


@dataclass(repr=False, eq=False)
class GELU(Activation):
    """Weigh by the normal distribution; see :func:`devconv.functional.gelu`."""

    operation = functional.gelu
    approximate: str = "none"


@dataclass(repr=False, eq=False)
class Softmax(Activation):
    """Turn logits into probabilities; see :func:`devconv.functional.softmax`."""

    operation = functional.softmax
    axis: int = -1


@dataclass(repr=False, eq=False)
class LogSoftmax(Activation):
    """Turn logits into log-probabilities; see :func:`devconv.functional.log_softmax`."""

    operation = functional.log_softmax
    axis: int = -1


BY_NAME: dict[str, type[Activation]] = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "gelu": GELU,
}


def activation_layer(spec: str | Activation | None) -> Activation | None:
    """The activation that ``activation=`` asks for, by name or as a layer."""
    if spec is None or isinstance(spec, Activation):
        return spec
    if not isinstance(spec, str):
        raise InvalidType(
            f"activation must be a name or an activation layer such as dc.GELU(), got {spec!r}; "
            "put any other layer after this one"
        )
    return BY_NAME[_check.choice("activation", spec, tuple(BY_NAME))]()
