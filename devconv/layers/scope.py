"""A pass through the layers: with arrays, and with shapes alone.

A layer meets its arrays in a :class:`Scope`, which hands them over by name and runs the
layers inside; :class:`Trace` does the same walk with shapes. Both are made by
:mod:`devconv.layers.layer` and :mod:`devconv.layers.pure`, and handed to each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from devconv import random
from devconv._array import Array
from devconv._check import InvalidValue, located, show
from devconv.layers.shapes import InputShape
from devconv.layers.state import join

if TYPE_CHECKING:
    from devconv.layers.layer import Layer

Grads: TypeAlias = dict[str, Array]
Key: TypeAlias = Array | Callable[[], Array] | None
"""A key of :mod:`devconv.random`, or what makes it when it is needed."""
Pullback: TypeAlias = Callable[[Array], tuple[Array, Grads]]
"""Takes ``dy`` to ``(dx, grads)``, grads by the parameters' dotted names."""


class Trace:
    """A walk through the layers with shapes instead of arrays.

    ``inputs`` remembers what shape reached each layer.
    """

    def __init__(self) -> None:
        self.inputs: dict[int, InputShape] = {}

    def apply(self, layer: Layer, shape: InputShape, name: str | None = None) -> InputShape:
        """The shape that leaves ``layer``, a child called ``name``, for ``shape`` entering it."""
        with located(type(layer).__name__, name or ""):
            before = self.inputs.setdefault(id(layer), shape)
            if before[1:] != shape[1:] and layer.declare(before) != layer.declare(shape):
                raise InvalidValue(
                    f"the layer is shared, but gets {show(before)} and {show(shape)}, which need "
                    "different parameters; use two layers"
                )
            return layer.infer(self, shape)


class Scope:
    """What a layer meets in one pass: its own arrays, its children, and how the pass is meant.

    ``scope["weight"]`` is an array of the layer, ``scope.name("weight")`` its dotted name.
    ``scope.apply(name, child, x)`` and ``scope.vjp(name, child, x)`` run a layer inside.
    Where not ``scope.wants_dx``, nobody asks for the cotangent of the layer's input, and its
    pullback may return ``None`` for it.
    """

    def __init__(
        self,
        layer: Layer,
        arrays: Mapping[str, Array],
        *,
        training: bool,
        key: Key = None,
        wants_dx: bool = True,
    ) -> None:
        self.training = training
        self.wants_dx = wants_dx
        self.renewed: dict[str, Array] = {}
        self._arrays = arrays
        self._paths = {id(each): path for path, each in layer._firsts()}
        self._path = ""
        self._key = key
        self._uses: dict[str, int] = {}

    @property
    def key(self) -> Array | None:
        """A key of the layer's own, another at each use: the pass's, with its path folded in."""
        key = self._key() if callable(self._key) else self._key
        if key is None:
            return None
        use = self._uses[self._path] = self._uses.get(self._path, -1) + 1
        return random.fold_in(random.fold_in(key, self._path), use)

    @property
    def has_drawn(self) -> bool:
        """Whether any layer has asked for a key."""
        return bool(self._uses)

    def over(self, change: Callable[[str, Array], Array]) -> Scope:
        """The same pass over other arrays: what ``change`` makes of each and its dotted name."""
        scope = object.__new__(type(self))
        arrays = {name: change(name, x) for name, x in self._arrays.items()}
        scope.__dict__.update(self.__dict__, _arrays=arrays)
        return scope

    def learns(self, layer: Layer) -> bool:
        """Whether a layer, or one inside it, has parameters."""
        declared = (each._declared or {} for _, each in layer._walk())
        return any(array.learns for arrays in declared for array in arrays.values())

    def _inside(self, layer: Layer) -> Scope:
        scope = object.__new__(type(self))
        scope.__dict__.update(self.__dict__)
        scope._path = self._paths[id(layer)]
        return scope

    def name(self, name: str) -> str:
        """The dotted name of the layer's own array ``name``."""
        return join(self._path, name)

    def __getitem__(self, name: str) -> Array:
        full = self.name(name)
        return self.renewed[full] if full in self.renewed else self._arrays[full]

    def __contains__(self, name: str) -> bool:
        return self.name(name) in self._arrays

    def renew(self, **buffers: Array) -> None:
        """Replace buffers of the layer when the pass has succeeded."""
        for name, array in buffers.items():
            self.renewed[self.name(name)] = array

    def apply(self, name: str, child: Layer, x: Array) -> Array:
        """Run a layer inside, keeping nothing."""
        with located(type(child).__name__, name):
            return child.apply(self._inside(child), x)

    def vjp(
        self, name: str, child: Layer, x: Array, *, wants_dx: bool = True
    ) -> tuple[Array, Pullback]:
        """Run a layer inside, with the way back."""
        inside = self._inside(child)
        inside.wants_dx = wants_dx
        with located(type(child).__name__, name):
            return child.apply_vjp(inside, x)


def summed(*grads: Grads) -> Grads:
    """Gradients of several layers as one mapping; those of a shared parameter add up."""
    total: Grads = {}
    for each in grads:
        for name, grad in each.items():
            total[name] = total[name] + grad if name in total else grad
    return total
