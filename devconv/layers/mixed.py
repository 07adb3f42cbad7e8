"""Mixed precision: passes in half precision, or in TF32, over arrays that stay float32.

In half precision half the memory and, on a GPU, products several times as quick; but a parameter
that moves by less than a thousandth of itself would stand still. So the arrays that learn stay
float32, and a pass takes copies of them. TF32 is no dtype: it is float32 arrays under
``precision("fast")``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, located
from devconv.layers.layer import Layer
from devconv.layers.operation import OperationLayer
from devconv.layers.scope import Grads, Pullback, Scope
from devconv.layers.state import join
from devconv.precision import kept

PRECISIONS = ("float32", "tf32", *_array.HALF)
"""How a pass may compute."""


def digits(precision: str) -> AbstractContextManager[Any]:
    """What a pass in one of :data:`PRECISIONS` may give up: under ``"tf32"``, what is "fast"."""
    return kept("fast") if precision == "tf32" else nullcontext()


def check_tf32(layer: Layer) -> None:
    """Refuse a layer that is not float32."""
    if layer.dtype != "float32":
        with located('precision="tf32"'):
            raise InvalidType(
                f"expected a model with float32 parameters, got {layer.dtype}; say "
                'model.to(dtype="float32")'
            )


class Mixed:
    """The passes of a float32 layer in half precision.

    Parameters, buffers and ``x`` are cast on the way in; the output comes back as float32,
    gradients and renewed buffers with the dtype of what they belong to. Wide buffers (running
    statistics) and what an operation takes as statistics (the weights of norms) are not cast.

    Args:
        layer: a layer whose arrays are float32.
        dtype: ``"float16"`` or ``"bfloat16"``.

    Raises:
        TypeError: a layer of another dtype, or on a device without half precision.
    """

    def __init__(self, layer: Layer, dtype: str) -> None:
        self.layer, self.dtype = layer, dtype
        with located(f'precision="{dtype}"'):
            self.check()

    def check(self) -> None:
        """Refuse a layer of another dtype, or on a device that lacks this one."""
        if self.layer.dtype != "float32":
            raise InvalidType(
                f"expected a model with float32 parameters, which are cast for each pass, got "
                f'{self.layer.dtype}; say model.to(dtype="float32")'
            )
        place = self.layer.device
        if not place.has_dtype(self.dtype):
            names = [name for name in (*_array.HALF, "float32") if place.has_dtype(name)]
            others = " or ".join(f'"{name}"' for name in names)
            raise InvalidType(
                f"{place} has no {self.dtype}; use {others}, or move the model to a device that "
                'has it, such as model.to("torch")'
            )

    @cached_property
    def kept(self) -> frozenset[str]:
        """The dotted names of the arrays that are not cast."""
        kept = set()
        for path, layer in self.layer._firsts():
            kept |= {
                join(path, name)
                for name, declared in (layer._declared or {}).items()
                if declared.dtype(self.dtype) != self.dtype
            }
            if isinstance(layer, OperationLayer):
                taken = zip(layer.arrays, layer.operation.arguments[1:], strict=False)
                kept |= {join(path, n) for n, a in taken if a in layer.operation._statistics}
        return frozenset(kept)

    def __call__(self, x: Array) -> Array:
        """Infer, as ``layer(x)`` does."""
        return self.layer._face(x, lambda: self.apply(self.layer._scope(training=False), x))

    def apply(self, scope: Scope, x: Array) -> Array:
        """The layer's output in a pass over its own arrays."""
        with _array.overflowing():
            y = scope.over(self._halved).apply("", self.layer, self._halved("", x))
            return _array.widen(y)

    def vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The layer's output in a pass over its own arrays, and the way back."""
        with _array.overflowing():
            y, pullback = scope.over(self._halved).vjp("", self.layer, self._halved("", x))
            for name, buffer in scope.renewed.items():
                scope.renewed[name] = _like(buffer, scope._arrays[name])

        def back(dy: Array) -> tuple[Array, Grads]:
            with _array.overflowing():
                dx, grads = pullback(_like(dy, y))
                wide = {name: _like(grad, scope._arrays[name]) for name, grad in grads.items()}
                return _like(dx, x), wide

        return _array.widen(y), back

    def _halved(self, name: str, x: Array) -> Array:
        """An array as a pass takes it."""
        if name in self.kept or not _array.is_floating(x):
            return x
        return _array.cast(x, _array.dtype_of(_array.array_namespace(x), self.dtype))


def _like(x: Array, other: Array) -> Array:
    """``x`` with the dtype of ``other``."""
    return _array.cast(x, other.dtype)
