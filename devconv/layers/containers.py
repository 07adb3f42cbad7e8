"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import overload

from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, located
from devconv.layers.layer import Grads, InputShape, Layer, Pullback, Scope, Trace, summed


def named_layers(kind: str, layers: tuple[Layer | Mapping[str, Layer], ...]) -> dict[str, Layer]:
    """Layers by name: numbered, or as one mapping names them."""
    with located(kind):
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = dict(layers[0])
        else:
            named = {str(i): layer for i, layer in enumerate(layers)}  # type: ignore[misc]
        for name, layer in named.items():
            if not isinstance(layer, Layer):
                hint = (
                    "; write it out, or make it with parentheses" if isinstance(layer, type) else ""
                )
                raise InvalidType(f"layer {name} must be a layer, got {layer!r}{hint}")
            if not isinstance(name, str) or not name or "." in name:
                raise InvalidValue(f"a layer's name must be a word without dots, got {name!r}")
        return named


class Sequential(Layer):
    """Layers one after the other: ``y = f_n(... f_2(f_1(x)))``.

    The way back passes through them in reverse order. A layer that appears twice is shared:
    its gradients add up.

    Args:
        layers: layers, or one mapping from names to layers.

    ``model[0]``, ``model["name"]`` and slices give the layers back, the same objects.

    >>> import numpy as np
    >>> from devconv import Dense, ReLU
    >>> model = Sequential(Dense(2, 3), ReLU(), Dense(3, 1)).build(seed=0)
    >>> model(np.ones((5, 2), dtype="float32")).shape
    (5, 1)
    >>> model
    Sequential(       # 13
      0: Dense(2, 3)  # 9
      1: ReLU()
      2: Dense(3, 1)  # 4
    )
    """

    def __init__(self, *layers: Layer | Mapping[str, Layer]) -> None:
        self._layers = named_layers("Sequential", layers)

    @property
    def children(self) -> Mapping[str, Layer]:
        """The layers, by name."""
        return MappingProxyType(self._layers)

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The shape that leaves the last layer."""
        for name, layer in self._layers.items():
            shape = trace.apply(layer, shape, name)
        return shape

    def apply(self, scope: Scope, x: Array) -> Array:
        """The layers in turn; each result is let go when the next is there."""
        for name, layer in self._layers.items():
            x = scope.apply(name, layer, x)
        return x

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The layers in turn, and back through them in reverse."""
        backs = []
        for name, layer in self._layers.items():
            x, back = scope.vjp(name, layer, x)
            backs.append(back)

        def pullback(dy: Array) -> tuple[Array, Grads]:
            shares = []
            for back in reversed(backs):
                dy, grads = back(dy)
                shares.append(grads)
            return dy, summed(*reversed(shares))

        return x, pullback

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers.values())

    @overload
    def __getitem__(self, index: int | str) -> Layer: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | str | slice) -> Layer:
        if isinstance(index, slice):
            return Sequential(dict(list(self._layers.items())[index]))
        if isinstance(index, str):
            return self._layers[index]
        return list(self._layers.values())[index]
