"""A layer that is one operation with its arrays and options filled in.

``f(k, x)`` with ``k`` held fixed is the filter ``f_k(x)``: that is all a convolution layer
adds to the operation. An activation may follow inside the layer, ``g(f_k(x))``; the way
back then leads through the activation first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from devconv import _array
from devconv._array import Array
from devconv.functional.operation import Operation
from devconv.functional.operation import Pullback as OperationPullback
from devconv.layers.layer import Grads, InputShape, Layer, Pullback, Scope, Trace


class OperationLayer(Layer):
    """Base of layers that apply :attr:`operation` to their input and their own arrays.

    A subclass names the operation and its array arguments after ``x``, in order, and gives
    the options; shapes stay as they are unless it defines :meth:`infer`. What depends on
    the pass, such as whether it is for training, is decided in :meth:`evaluate`.
    """

    operation: ClassVar[Operation[Any]]
    arrays: ClassVar[tuple[str, ...]] = ()
    _activation: OperationLayer | None = None

    def options(self) -> Mapping[str, Any]:
        """The operation's options."""
        return {}

    def try_options(self, *shape: int) -> None:
        """Let the operation refuse its own options, on a host array that holds nothing."""
        xp = _array.host()
        self.operation.__wrapped__(xp.zeros(shape, dtype=xp.float32), **self.options())

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input."""
        return shape

    def activated(self, trace: Trace, shape: InputShape) -> InputShape:
        """The shape that leaves the activation, if there is one."""
        return shape if self._activation is None else self._activation.infer(trace, shape)

    def evaluate(self, scope: Scope, x: Array, *arrays: Array) -> tuple[Array, OperationPullback]:
        """The operation on ``x`` and the layer's arrays, and its own pullback."""
        return self.operation.vjp(x, *arrays, **self.options())

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The operation on ``x`` and the layer's arrays; the way back names each share."""
        present = [name for name in self.arrays if name in scope]
        y, pullback = self.evaluate(scope, x, *(scope[name] for name in present))
        names = [scope.name(name) for name in present]

        def back(dy: Array) -> tuple[Array, Grads]:
            dx, *shares = pullback(dy)
            return dx, dict(zip(names, shares, strict=True))

        if self._activation is None:
            return y, back
        z, activation_back = self._activation.apply_vjp(scope, y)
        return z, lambda dz: back(activation_back(dz)[0])
