"""What optimizers share: a pure update rule, and the step that binds its result.

A step binds new arrays to the model's layers and writes into none, so a pullback that was
made before it stays valid. Moments are float32 for half-precision parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from devconv import _array, _check
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, located
from devconv.device import device_of, to_device
from devconv.functional.operation import check_together
from devconv.layers import Layer
from devconv.layers.hints import no_layer

Arrays = Mapping[str, Array]
State = dict[str, dict[str, Array]]
"""The moments: ``{"momentum": {"0.weight": array, ...}, ...}``."""


class Optimizer:
    """Base of the optimizers: :meth:`rule` says how one parameter changes.

    Args:
        model: the layer whose parameters change.
        lr: the step size; may be set anew between steps.
        weight_decay: how strongly parameters are drawn to 0.

    Attributes:
        initial_lr: the step size that the optimizer was made with.
    """

    moments: tuple[str, ...] = ()

    def __init__(self, model: Layer, lr: float, *, weight_decay: float = 0.0) -> None:
        with located(type(self).__name__):
            if not isinstance(model, Layer):
                raise InvalidType(
                    f"model must be a layer, got {no_layer(model)}; an optimizer binds the new "
                    "parameters to it"
                )
            self.lr = lr
            self.weight_decay = _check.number("weight_decay", weight_decay, least=0.0)
        self.model, self.initial_lr = model, self.lr
        self.steps = 0
        self.state: State = {}

    def __repr__(self) -> str:
        words = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"{type(self).__name__}({', '.join(words)})"

    @property
    def options(self) -> dict[str, Any]:
        """The options as they are now, by the names of the arguments that follow the model.

        >>> import devconv as dc
        >>> dc.optim.SGD(dc.Dense(1, 1), lr=0.1).options["momentum"]
        0.0
        """
        names = [*inspect.signature(type(self)).parameters][1:]
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    @property
    def lr(self) -> float:
        """The step size; may be set anew between steps."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = _check.number("lr", lr, least=0.0)

    def rule(
        self, x: Array, grad: Array, moments: dict[str, Array | None], step: Any
    ) -> tuple[Array, dict[str, Array]]:
        """The new value of ``x`` and its new moments, in its ``step``-th step (from 1)."""
        raise NotImplementedError(f"{type(self).__name__} does not define rule")

    def counted(self, step: Any) -> Any:
        """What :meth:`rule` gets as ``step``, worked out once for all parameters."""
        return step

    def update(
        self,
        parameters: Arrays,
        grads: Arrays,
        state: Mapping[str, Arrays],
        step: Any,
        *,
        when: Array | None = None,
    ) -> tuple[dict[str, Array], State]:
        """The pure update, for ``jax.jit``: new parameters and new state.

        Args:
            parameters: arrays by dotted name.
            grads: gradients of some or all of them.
            state: what the previous update returned; ``{}`` at first.
            step: which step this is, from 1; an int or a 0-d array.
            when: a 0-d array of bools; where it is false, all stays as it was.

        Raises:
            ValueError: an unknown name, another shape, another device.
            TypeError: another dtype or library.
        """
        with located(type(self).__name__):
            _check_grads(parameters, grads)
        new_parameters = dict(parameters)
        new_state: State = {kind: dict(state.get(kind, {})) for kind in self.moments}
        counts: dict[str, Any] = {}
        for name, grad in grads.items():
            before = {kind: new_state[kind].get(name) for kind in self.moments}
            x = parameters[name]
            wide = _array.wide_dtype(x)
            with _array.on_device(x):
                key = _array.dtype_name(wide)
                if key not in counts:
                    is_array = _array.is_array(step)
                    counts[key] = self.counted(_array.cast(step, wide) if is_array else step)
                new, after = self.rule(
                    _array.cast(x, wide), _array.cast(grad, wide), before, counts[key]
                )
                new = _array.cast(new, x.dtype)
                new_parameters[name] = new if when is None else _chosen(when, new, x)
                for kind, array in after.items():
                    kept = array if when is None else _chosen(when, array, before[kind])
                    new_state[kind][name] = kept
        return new_parameters, new_state

    def step(
        self, grads: Arrays, *, when: Array | None = None, skipped: Array | None = None
    ) -> None:
        """Take one step: bind new parameters to the model.

        Args:
            grads: gradients by dotted name; parameters without one stay as they are.
            when: a 0-d array of bools on the model's device; where it is false, parameters and
                moments keep their values. Nothing waits to know.
            skipped: how many steps before kept their values, a 0-d array: they do not count
                as steps for the rule, though :attr:`steps` counts them.

        Raises:
            ValueError: an unknown name, another shape, another device.
            TypeError: another dtype or library. Nothing has changed then.
        """
        parameters = self.model.parameters
        with located(type(self).__name__):
            state = {
                kind: {name: _beside(name, moment, parameters) for name, moment in moments.items()}
                for kind, moments in self.state.items()
            }
        if isinstance(grads, Mapping):
            grads = {name: _array.detached(grad) for name, grad in grads.items()}
        count: Any = self.steps + 1
        if skipped is not None:
            with _array.on_device(skipped):
                count = count - skipped
        new_parameters, state = self.update(parameters, grads, state, count, when=when)
        self.model._keep({name: new_parameters[name] for name in grads})
        self.state, self.steps = state, self.steps + 1

    def state_dict(self) -> dict[str, Array]:
        """The moments by dotted name: ``{"momentum.0.weight": array, ...}``."""
        return {
            f"{kind}.{name}": array
            for kind, arrays in self.state.items()
            for name, array in arrays.items()
        }

    def load_state_dict(self, state: Mapping[str, Array], *, steps: int) -> None:
        """Take moments from ``state``, arrays of any library, and the count of steps.

        Raises:
            ValueError: a name or shape that does not belong to the model.
            TypeError: something that is not an array. Nothing has changed then.
        """
        parameters = self.model.parameters
        loaded: State = {kind: {} for kind in self.moments}
        with located(type(self).__name__):
            steps = _check.integer("steps", steps, least=0)
            for full, array in state.items():
                kind, _, name = full.partition(".")
                if kind not in self.moments or name not in parameters:
                    raise InvalidValue(
                        f"state holds {full!r}, which this model and optimizer do not have; load "
                        "it into the pair it was saved from"
                    )
                x = parameters[name]
                if not _array.is_array(array):
                    raise InvalidType(
                        f"state[{full!r}] must be an array, got {type(array).__name__}"
                    )
                if tuple(array.shape) != tuple(x.shape):
                    raise InvalidValue(
                        f"state[{full!r}] has shape {tuple(array.shape)}, the parameter "
                        f"{tuple(x.shape)}"
                    )
                host = _array.to_numpy(array)
                loaded[kind][name] = device_of(x).asarray(host, _array.wide_dtype(x))
        self.state, self.steps = loaded, steps


def _chosen(when: Array, new: Array, old: Array | None) -> Array:
    """The new values where ``when`` is true, else the old ones: zeros, if there are none."""
    xp = _array.array_namespace(new)
    return xp.where(when, new, xp.zeros_like(new) if old is None else old)


def _beside(name: str, moment: Array, parameters: Arrays) -> Array:
    """The moment where its parameter is, which ``model.to`` may have moved."""
    x = parameters.get(name)
    if x is None or tuple(moment.shape) != tuple(x.shape):
        raise InvalidValue(
            f"{name} is not the parameter it was, the model was built anew; make a new optimizer"
        )
    wide = _array.wide_dtype(x)
    if type(moment) is type(x) and moment.dtype == wide:
        here, there = _array.device(moment), _array.device(x)
        if here is None or there is None or here == there:
            return moment
    return to_device(moment, device_of(x), dtype=wide)


def _check_grads(parameters: Arrays, grads: Arrays) -> None:
    if not isinstance(grads, Mapping):
        raise InvalidType(
            f"grads must map names to arrays, got {type(grads).__name__}; a pullback returns "
            "(dx, grads)"
        )
    for name, grad in grads.items():
        if name not in parameters:
            raise InvalidValue(
                f"grads holds {name!r}, but the model's parameters are {list(parameters)}"
            )
        x = parameters[name]
        if not _array.is_array(grad):
            raise InvalidType(f"grads[{name!r}] must be an array, got {type(grad).__name__}")
        check_together([(name, x), (f"grads[{name!r}]", grad)], held=name)
        if tuple(grad.shape) != tuple(x.shape):
            raise InvalidValue(
                f"grads[{name!r}] has shape {tuple(grad.shape)}, the parameter {tuple(x.shape)}"
            )
        if grad.dtype != x.dtype:
            raise InvalidType(
                f"grads[{name!r}] is {_array.dtype_name(grad.dtype)}, the parameter "
                f"{_array.dtype_name(x.dtype)}"
            )
