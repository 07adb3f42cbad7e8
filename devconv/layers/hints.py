"""What messages say of something that stands where a layer should, and how it is mended."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

from devconv import functional
from devconv._check import brief
from devconv.functional.operation import Operation
from devconv.layers.layer import Layer


def no_layer(value: Any) -> str:
    """What ``value`` is, and how to make a layer of it.

    >>> no_layer(functional.relu)
    'the operation relu; make a layer: dc.ReLU(...) or dc.Lambda(dc.functional.relu)'
    """
    if isinstance(value, type):
        fix = f"; make one with parentheses, {value.__name__}(...)"
        return f"the class {value.__name__}{fix if issubclass(value, Layer) else ''}"
    if isinstance(value, Operation):
        return f"the operation {value.__name__}; {_layer_of(value)}"
    if isinstance(value, list | tuple | Iterator):
        kind = type(value).__name__
        return f"a {kind}; hand the layers in one by one, dc.Sequential(*layers) for a row of them"
    if hasattr(value, "state_dict") and hasattr(value, "forward"):
        return (
            f"{type(value).__name__}, a module of another library; make the layer of that kind "
            "here, and give it the arrays: layer.load_state_dict(module.state_dict())"
        )
    if isinstance(value, FunctionType):
        return (
            f"the function {value.__name__}; make an operation of it with "
            "dc.functional.differentiable, and of that a layer with dc.Lambda"
        )
    return brief(value)


def _layer_of(operation: Operation[Any]) -> str:
    """How to make a layer of an operation."""
    if "target" in operation.required:
        return "a loss stands beside the model: dc.value_and_grad(model, loss)"
    kinds = [f"dc.{kind.__name__}(...)" for kind in _kinds(Layer) if _is_of(kind, operation)]
    if len(operation.required) == 1:
        name = operation.__name__
        known = getattr(functional, name, None) is operation.origin
        kinds.append(f"dc.Lambda({'dc.functional.' if known else ''}{name})")
    if not kinds:
        return "write an OperationLayer that declares the arrays after the first"
    return f"make a layer: {' or '.join(kinds)}"


def _is_of(kind: type[Layer], operation: Operation[Any]) -> bool:
    public = kind.__module__.startswith("devconv.layers.") and not kind.__name__.startswith("_")
    return public and getattr(kind, "operation", None) is operation.origin


def _kinds(kind: type[Layer]) -> Iterator[type[Layer]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


def name_constructor(kind: type) -> None:
    """Let Python's complaint about wrong arguments name ``kind``, which inherits its constructor.

    The same function under another name: ``Conv2d.__init__() got an unexpected ...``.
    """
    inherited = kind.__init__  # type: ignore[misc]
    if "__init__" in vars(kind) or not isinstance(inherited, FunctionType):
        return
    own = FunctionType(
        inherited.__code__,
        inherited.__globals__,
        inherited.__name__,
        inherited.__defaults__,
        inherited.__closure__,
    )
    own.__kwdefaults__ = inherited.__kwdefaults__
    own.__annotations__ = inherited.__annotations__
    own.__qualname__ = f"{kind.__qualname__}.__init__"
    kind.__init__ = own  # type: ignore[misc]
