"""Layers made of layers: one after the other, or side by side.

A run through several layers in a row is :func:`chain`; side by side they all see the same
input, and its cotangent is the sum of what each sends back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias, overload

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, located, show
from devconv.layers.activation import Activation, activation_layer
from devconv.layers.hints import no_layer
from devconv.layers.layer import Layer
from devconv.layers.scope import Grads, Pullback, Scope, Trace, summed
from devconv.layers.shapes import InputShape

Layers: TypeAlias = Mapping[str, Layer]


def named(kind: str, layers: tuple[Layer | Layers, ...]) -> dict[str, Layer]:
    """Layers by name: numbered, or as one mapping names them."""
    with located(kind):
        first = layers[0] if layers else None
        if len(layers) == 1 and isinstance(first, Mapping):
            found = dict(first)
        else:
            found = {str(i): layer for i, layer in enumerate(layers)}  # type: ignore[misc]
        for name, layer in found.items():
            if not isinstance(layer, Layer):
                raise InvalidType(f"layer {name} must be a layer, got {no_layer(layer)}")
            if not isinstance(name, str) or not name or "." in name:
                raise InvalidValue(f"a layer's name must be a word without dots, got {name!r}")
        return found


def chain_shape(trace: Trace, layers: Layers, shape: InputShape) -> InputShape:
    """The shape that leaves the last of some layers in a row."""
    for name, layer in layers.items():
        shape = trace.apply(layer, shape, name)
    return shape


def chain(scope: Scope, layers: Layers, x: Array) -> Array:
    """Layers in a row; each result is let go when the next is there."""
    for name, layer in layers.items():
        x = scope.apply(name, layer, x)
    return x


def chain_vjp(
    scope: Scope, layers: Layers, x: Array, *, wants_dx: bool = True
) -> tuple[Array, Pullback]:
    """Layers in a row, and back through them in reverse.

    Unless somebody ``wants_dx``, only as far as there are parameters; ``dx`` is ``None`` then.
    """
    backs: list[Pullback] = []
    wanted = wants_dx
    for name, layer in layers.items():
        x, back = scope.vjp(name, layer, x, wants_dx=wanted)
        wanted = wanted or scope.learns(layer)
        if wanted:
            backs.append(back)

    def pullback(dy: Array) -> tuple[Array, Grads]:
        shares = []
        for back in reversed(backs):
            dy, grads = back(dy)
            shares.append(grads)
        return dy if wants_dx else None, summed(*reversed(shares))

    return x, pullback


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

    def __init__(self, *layers: Layer | Layers) -> None:
        self._layers = named("Sequential", layers)

    @property
    def children(self) -> Layers:
        """The layers, by name."""
        return MappingProxyType(self._layers)

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The shape that leaves the last layer."""
        return chain_shape(trace, self._layers, shape)

    def apply(self, scope: Scope, x: Array) -> Array:
        """The layers in turn."""
        return chain(scope, self._layers, x)

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The layers in turn, and back through them in reverse."""
        return chain_vjp(scope, self._layers, x, wants_dx=scope.wants_dx)

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


class Residual(Layer):
    """A body beside a shortcut, added: ``y = activation(body(x) + shortcut(x))``.

    Args:
        body: a layer, called ``body``, or a mapping of layers that run in a row under their own
            names.
        shortcut: a projection that gives ``x`` the body's shape, called ``shortcut``, or a
            mapping likewise; ``None`` for ``x`` itself.
        activation: the name of an activation, or an activation layer, that follows the sum.

    Raises:
        ValueError: (when shapes are known) body and shortcut give different shapes.

    Source: K. He et al., "Deep residual learning for image recognition", arXiv:1512.03385.

    >>> from devconv import Conv2d
    >>> Residual(Conv2d(8, 8, 3, padding=1), activation="relu").output_shape((8, 5, 5))
    (8, 5, 5)
    """

    def __init__(
        self,
        body: Layer | Layers,
        shortcut: Layer | Layers | None = None,
        *,
        activation: str | Activation | None = None,
    ) -> None:
        self._body = named("Residual", (body if isinstance(body, Mapping) else {"body": body},))
        if shortcut is None:
            shortcut = {}
        elif not isinstance(shortcut, Mapping):
            shortcut = {"shortcut": shortcut}
        self._shortcut = named("Residual", (shortcut,))
        with located("Residual"):
            twice = sorted(self._body.keys() & self._shortcut.keys())
            if twice:
                raise InvalidValue(f"body and shortcut both have a layer called {twice[0]!r}")
            self._activation = activation_layer(activation)
        self.activation = activation

    @property
    def children(self) -> Layers:
        """The body's layers and then the shortcut's, by name."""
        return MappingProxyType({**self._body, **self._shortcut})

    def describe(self) -> str:
        """The activation, if there is one."""
        return "" if self.activation is None else f"activation={self.activation!r}"

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The body's output shape, which the shortcut's must equal."""
        out = chain_shape(trace, self._body, shape)
        beside = chain_shape(trace, self._shortcut, shape)
        if out != beside:
            raise InvalidValue(
                f"the body gives {show(out)} and the shortcut {show(beside)} for x {show(shape)}; "
                "a shortcut= that projects x to the body's shape mends it"
            )
        if self._activation is None:
            return out
        after = self._activation.infer(trace, out)
        if after != out:
            raise InvalidValue(
                f"the activation {type(self._activation).__name__} gives {show(after)} for "
                f"{show(out)}, expected the same shape; put such a layer after this one"
            )
        return out

    def apply(self, scope: Scope, x: Array) -> Array:
        """The sum, and the activation of it."""
        y = chain(scope, self._body, x) + chain(scope, self._shortcut, x)
        return y if self._activation is None else self._activation.apply(scope, y)

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The sum; ``dy`` goes back along both."""
        y, body_back = chain_vjp(scope, self._body, x)
        beside, shortcut_back = chain_vjp(scope, self._shortcut, x)
        y = y + beside
        activation_back = None
        if self._activation is not None:
            y, activation_back = self._activation.apply_vjp(scope, y)

        def pullback(dy: Array) -> tuple[Array, Grads]:
            if activation_back is not None:
                dy, _ = activation_back(dy)
            dx, grads = body_back(dy)
            dx_beside, grads_beside = shortcut_back(dy)
            return dx + dx_beside, summed(grads, grads_beside)

        return y, pullback


class _Branches(Layer):
    """Layers side by side on the same input."""

    def __init__(self, *branches: Layer | Layers) -> None:
        kind = type(self).__name__
        self._branches = named(kind, branches)
        with located(kind):
            if not self._branches:
                raise InvalidValue("expected at least one branch, got none")

    @property
    def children(self) -> Layers:
        """The branches, by name."""
        return MappingProxyType(self._branches)

    def _shapes(self, trace: Trace, shape: InputShape) -> list[InputShape]:
        return [trace.apply(layer, shape, name) for name, layer in self._branches.items()]

    def _run(self, scope: Scope, x: Array) -> list[Array]:
        return [scope.apply(name, layer, x) for name, layer in self._branches.items()]

    def _run_vjp(self, scope: Scope, x: Array) -> tuple[list[Array], list[Pullback]]:
        pairs = [scope.vjp(name, layer, x) for name, layer in self._branches.items()]
        return [y for y, _ in pairs], [back for _, back in pairs]


def _joined(shares: list[tuple[Array, Grads]]) -> tuple[Array, Grads]:
    """What all branches send back: their ``dx`` added, their grads in one mapping."""
    dx = shares[0][0]
    for share, _ in shares[1:]:
        dx = dx + share
    return dx, summed(*(grads for _, grads in shares))


class Parallel(_Branches):
    """Branches side by side, added: ``y = f_1(x) + f_2(x) + ...``.

    Args:
        branches: layers, or one mapping from names to layers; all give the same shape.

    >>> from devconv import Dense
    >>> Parallel(Dense(3, 2), Dense(3, 2)).output_shape((3,))
    (2,)
    """

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The shape that all branches give."""
        shapes = self._shapes(trace, shape)
        for name, out in zip(self._branches, shapes, strict=True):
            if out != shapes[0]:
                first = next(iter(self._branches))
                raise InvalidValue(
                    f"branch {first} gives {show(shapes[0])} and branch {name} {show(out)} for x "
                    f"{show(shape)}; branches that are added need one shape"
                )
        return shapes[0]

    def apply(self, scope: Scope, x: Array) -> Array:
        """The sum of the branches."""
        first, *others = self._run(scope, x)
        for y in others:
            first = first + y
        return first

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The sum of the branches; ``dy`` goes back along each."""
        (y, *others), backs = self._run_vjp(scope, x)
        for other in others:
            y = y + other
        return y, lambda dy: _joined([back(dy) for back in backs])


class Concatenate(_Branches):
    """Branches side by side, their outputs laid one after the other along ``axis``.

    Args:
        branches: layers, or one mapping from names to layers; all give the same shape except
            along ``axis``.
        axis: 1, the channels, by default.

    >>> from devconv import Conv2d
    >>> Concatenate(Conv2d(3, 4, 1), Conv2d(3, 6, 3, padding=1)).output_shape((3, 5, 5))
    (10, 5, 5)
    """

    def __init__(self, *branches: Layer | Layers, axis: int = 1) -> None:
        super().__init__(*branches)
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise InvalidValue(f"Concatenate: axis must be an int other than 0, got {axis!r}")
        self.axis = axis

    def describe(self) -> str:
        """The axis, unless it is the default."""
        return "" if self.axis == 1 else f"axis={self.axis}"

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The branches' shape, with their sizes along ``axis`` added."""
        shapes = self._shapes(trace, shape)
        rank = len(shapes[0])
        axis = self.axis + rank if self.axis < 0 else self.axis
        if not 0 < axis < rank:
            raise InvalidValue(f"axis={self.axis} is out of range for {show(shapes[0])}")
        for name, out in zip(self._branches, shapes, strict=True):
            if out[:axis] + out[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :]:
                first = next(iter(self._branches))
                raise InvalidValue(
                    f"branch {first} gives {show(shapes[0])} and branch {name} {show(out)} for x "
                    f"{show(shape)}; they may differ along axis {axis} alone"
                )
        return (*shapes[0][:axis], sum(out[axis] or 0 for out in shapes), *shapes[0][axis + 1 :])

    def apply(self, scope: Scope, x: Array) -> Array:
        """The outputs one after the other."""
        return _array.array_namespace(x).concat(self._run(scope, x), axis=self.axis)

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The outputs one after the other; each branch gets its part of ``dy`` back."""
        outputs, backs = self._run_vjp(scope, x)
        axis = self.axis % outputs[0].ndim
        sizes = [y.shape[axis] for y in outputs]

        def pullback(dy: Array) -> tuple[Array, Grads]:
            shares, start = [], 0
            for back, size in zip(backs, sizes, strict=True):
                part = (slice(None),) * axis + (slice(start, start + size), ...)
                shares.append(back(dy[part]))
                start += size
            return _joined(shares)

        return _array.array_namespace(x).concat(outputs, axis=axis), pullback
