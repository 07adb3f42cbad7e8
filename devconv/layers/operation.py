"""A layer that is one operation with its arrays and options filled in.

``f(k, x)`` with ``k`` held fixed is the filter ``f_k(x)``: that is all a convolution layer
adds to the operation. An activation may follow inside the layer, ``g(f_k(x))``; the way
back then leads through the activation first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

from devconv import _array, _check
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, located
from devconv.functional.operation import Operation
from devconv.functional.operation import Pullback as OperationPullback
from devconv.layers.layer import Layer
from devconv.layers.scope import Grads, Pullback, Scope, Trace
from devconv.layers.shapes import InputShape, sized


class OperationLayer(Layer):
    """Base of layers that apply :attr:`operation` to their input and their own arrays.

    A subclass names the operation and its array arguments after ``x``, in order, and gives
    the options; shapes stay as they are unless it defines :meth:`infer`. What depends on
    the pass, such as whether it is for training, is decided in :meth:`evaluate`.
    """

    operation: Operation[Any]
    arrays: ClassVar[tuple[str, ...]] = ()
    _activation: OperationLayer | None = None

    def __post_init__(self) -> None:
        """Check the description as soon as a layer that is a dataclass is made."""
        with located(type(self).__name__):
            for field in fields(self):  # type: ignore[arg-type]
                if field.type in ("bool", bool):
                    value = _check.flag(field.name, getattr(self, field.name))
                    setattr(self, field.name, value)
            self._check_options()

    def _check_options(self) -> None:
        """Refuse options that suit no input, by the checks that the operation makes itself."""

    def options(self) -> Mapping[str, Any]:
        """The operation's options."""
        return {}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input."""
        return shape

    def activated(self, trace: Trace, shape: InputShape) -> InputShape:
        """The shape that leaves the activation, if there is one."""
        return shape if self._activation is None else self._activation.infer(trace, shape)

    def evaluate(self, scope: Scope, x: Array, *arrays: Array) -> tuple[Array, OperationPullback]:
        """The operation on ``x`` and the layer's arrays, and its own pullback."""
        return self.operation.vjp(x, *arrays, **self.options())

    @property
    def skips(self) -> bool:
        """Whether the way back leaves out ``dx`` where nobody asks for it."""
        return self.operation.skips

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The operation on ``x`` and the layer's arrays; the way back names each share."""
        present = [name for name in self.arrays if name in scope]
        y, pullback = self.evaluate(scope, x, *(scope[name] for name in present))
        names = [scope.name(name) for name in present]
        skip = () if scope.wants_dx or not self.skips else (0,)

        def back(dy: Array) -> tuple[Array, Grads]:
            dx, *shares = pullback(dy, skip) if skip else pullback(dy)
            return dx, dict(zip(names, shares, strict=True))

        if self._activation is None:
            return y, back
        z, activation_back = self._activation.apply_vjp(scope, y)
        return z, lambda dz: back(activation_back(dz)[0])


class Lambda(OperationLayer):
    """A layer of an operation without arrays of its own, such as one that you wrote.

    Args:
        operation: an operation that ``x`` is the one array of; made by
            :func:`devconv.functional.differentiable`.
        output_shape: a function from the shape of ``x`` to that of ``y``, both without the
            batch. ``None`` finds out by a trial: the operation on a float32 NumPy array of
            that shape with one example, all ones.
        options: the operation's options.

    Raises:
        TypeError: no operation, one that needs more arrays, an option that it does not have.

    >>> from devconv import functional as F
    >>> Lambda(F.flatten, start=2).output_shape((3, 4, 5))
    (3, 20)
    """

    def __init__(
        self,
        operation: Operation[Any],
        *,
        output_shape: Callable[[tuple[int, ...]], Sequence[int]] | None = None,
        **options: Any,
    ) -> None:
        with located("Lambda"):
            if not isinstance(operation, Operation):
                raise InvalidType(
                    f"operation must be an operation, got {operation!r}; make one of a function "
                    "that returns (y, pullback) with devconv.functional.differentiable"
                )
            if len(operation.required) > 1:
                raise InvalidType(
                    f"{operation.__name__} needs {' and '.join(operation.required)}; write an "
                    "OperationLayer that declares the arrays after the first"
                )
            self.operation = operation.with_options(**options)
        self._shape_of = output_shape

    def describe(self) -> str:
        """The operation's name and options."""
        options = [f"{name}={value!r}" for name, value in self.operation.options.items()]
        return ", ".join([self.operation.__name__, *options])

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """What the given function says, or a trial."""
        example = sized(shape)[1:]
        if self._shape_of is not None:
            return (shape[0], *self._shape_of(example))
        xp = _array.host()
        y = self.operation(xp.ones((1, *example), dtype=xp.float32))
        if isinstance(y, tuple) or tuple(y.shape[:1]) != (1,):
            kind = "a tuple" if isinstance(y, tuple) else f"shape {tuple(y.shape)}"
            raise InvalidValue(
                f"{self.operation.__name__} gives {kind} for x {(1, *example)}; a layer gives one "
                "array, with the batch in front"
            )
        return (shape[0], *y.shape[1:])


def rank_of(*options: Any) -> int:
    """How many spatial dimensions some options speak of: 1 if they are all numbers."""
    each = (o for o in options if isinstance(o, Sequence) and not isinstance(o, str))
    return next((len(option) for option in each), 1)
