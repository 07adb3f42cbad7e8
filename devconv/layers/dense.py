"""The dense layer: a matrix and a bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from devconv import _check, functional
from devconv._check import InvalidValue, show
from devconv.initializers import Initializer, initializer
from devconv.layers.activation import Activation, activation_layer
from devconv.layers.declared import Parameter
from devconv.layers.operation import OperationLayer
from devconv.layers.scope import Trace
from devconv.layers.shapes import InputShape, settled


@dataclass(repr=False, eq=False)
class Dense(OperationLayer):
    """A dense product over the last dimension, ``y = x · weightᵀ + bias``.

    Args:
        in_features: size of the last dimension of ``x``; ``None`` to work it out.
        out_features: size of the last dimension of ``y``.
        bias: whether a bias is added.
        activation: the name of an activation, or an activation layer, that follows.
        weight_init: an initializer or its name.
        bias_init: likewise.

    Arrays: ``weight (out_features, in_features)``, ``bias (out_features,)``, as in
    ``torch.nn.Linear`` (which starts uniform on ``±1/sqrt(in_features)``; this starts He
    normal with zero bias).

    >>> Dense(3, 2).build().output_shape((5, 3))
    (5, 2)
    """

    operation = functional.dense
    arrays = ("weight", "bias")

    in_features: int | None
    out_features: int
    bias: bool = True
    _: KW_ONLY
    activation: str | Activation | None = None
    weight_init: str | Initializer = "he_normal"
    bias_init: str | Initializer = "zeros"

    def _check_options(self) -> None:
        if self.in_features is not None:
            self.in_features = _check.integer("in_features", self.in_features, least=1)
        self.out_features = _check.integer("out_features", self.out_features, least=1)
        self._activation = activation_layer(self.activation)
        self._inits = (
            initializer("weight_init", self.weight_init),
            initializer("bias_init", self.bias_init),
        )

    def declare(self, shape: InputShape | None) -> dict[str, Parameter]:
        """``weight`` and, unless ``bias`` is false, ``bias``."""
        features = settled("in_features", self.in_features, shape, -1)
        weight = Parameter((self.out_features, features), self._inits[0])
        if not self.bias:
            return {"weight": weight}
        bias = Parameter((self.out_features,), self._inits[1], (features, self.out_features))
        return {"weight": weight, "bias": bias}

    def sizes(self, declared: Mapping[str, object]) -> dict[str, int]:
        """``in_features``, read off the weight."""
        return {"in_features": declared["weight"].shape[1]}  # type: ignore[attr-defined]

    def input_from(self, shapes: Mapping[str, tuple[int, ...]]) -> InputShape | None:
        """The last dimension of the input is that of the weight."""
        weight = shapes.get("weight", ())
        return (None, weight[1]) if len(weight) == 2 else None

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(..., in_features)`` becomes ``(..., out_features)``."""
        features = self.in_features
        if not shape or (features is not None and shape[-1] != features) or shape[-1] == 0:
            wanted = "at least one feature"
            if features is not None:
                wanted = f"{features} input features (weight ({self.out_features}, {features}))"
            raise InvalidValue(f"expected {wanted}, got x {show(shape)}")
        return self.activated(trace, (*shape[:-1], self.out_features))
