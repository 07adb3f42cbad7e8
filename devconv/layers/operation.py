"""A layer that is one operation with its arrays and options filled in.

``f(k, x)`` with ``k`` held fixed is the filter ``f_k(x)``: that is all a convolution layer
adds to the operation. An activation may follow inside the layer, ``g(f_k(x))``; the way
back then leads through the activation first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from devconv._array import Array
from devconv.functional.operation import Operation
from devconv.layers.layer import Grads, InputShape, Layer, Pullback, Scope, Trace


class OperationLayer(Layer):
    """Base of layers that apply :attr:`operation` to their input and their own arrays.

    A subclass names the operation and its array arguments after ``x``, in order, and gives
    the options; shapes stay as they are unless it defines :meth:`infer`.
    """

    operation: ClassVar[Operation[Any]]
    arrays: ClassVar[tuple[str, ...]] = ()
    _activation: OperationLayer | None = None

    def options(self) -> Mapping[str, Any]:
        """The operation's options."""
        return {}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input."""
        return shape

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The operation on ``x`` and the layer's arrays; the way back names each share."""
        present = [name for name in self.arrays if name in scope]
        y, pullback = self.operation.vjp(x, *(scope[name] for name in present), **self.options())
        names = [scope.name(name) for name in present]

        def back(dy: Array) -> tuple[Array, Grads]:
            dx, *shares = pullback(dy)
            return dx, dict(zip(names, shares, strict=True))

        if self._activation is None:
            return y, back
        z, activation_back = self._activation.apply_vjp(scope, y)
        return z, lambda dz: back(activation_back(dz)[0])
