"""A layer as a pure function of its arrays: for ``jax.jit``, and for whoever holds them.

``pure(parameters, buffers, x)`` is the same mathematics as ``layer(x)``; the caller passes
the arrays in and gets new buffers out, and nothing is kept in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, brief, choice, flag, located
from devconv.functional.operation import Operation, check_together
from devconv.layers.hints import no_layer
from devconv.layers.layer import Layer, placed_back
from devconv.layers.mixed import PRECISIONS, Mixed, check_tf32, digits
from devconv.layers.scope import Pullback, Scope, Trace

Arrays = Mapping[str, Array]


class Pure:
    """The pure function of a layer; made by :func:`pure`."""

    def __init__(self, layer: Layer, precision: str = "float32") -> None:
        self.layer, self.precision = layer, precision
        if precision == "tf32":
            check_tf32(layer)
        self._mixed = Mixed(layer, precision) if precision in _array.HALF else None
        self._parameters = {name: tuple(x.shape) for name, x in layer.parameters.items()}
        self._buffers = {name: tuple(x.shape) for name, x in layer.buffers.items()}

    def __repr__(self) -> str:
        return f"pure({type(self.layer).__name__})"

    def __call__(self, parameters: Arrays, buffers: Arrays, x: Array) -> Array:
        """Infer: the layer's output for ``x``."""
        scope = self._scope(parameters, buffers, x, training=False, key=None)
        with _array.on_device(x), digits(self.precision):
            if self._mixed is not None:
                return self._mixed.apply(scope, x)
            return scope.apply("", self.layer, x)

    def vjp(
        self,
        parameters: Arrays,
        buffers: Arrays,
        x: Array,
        *,
        training: bool = True,
        key: Array | None = None,
    ) -> tuple[tuple[Array, dict[str, Array]], Pullback]:
        """Learn: ``(y, new_buffers), pullback``, and ``dx, grads = pullback(dy)``.

        Args:
            parameters: arrays by dotted name, as ``layer.parameters`` has them.
            buffers: likewise, ``layer.buffers``.
            x: a batch.
            training: whether dropout drops and batch statistics are used.
            key: where dropout draws from.
        """
        scope = self._scope(parameters, buffers, x, training=training, key=key)
        with _array.on_device(x), digits(self.precision):
            if self._mixed is not None:
                y, pullback = self._mixed.vjp(scope, x)
            else:
                y, pullback = scope.vjp("", self.layer, x)
        return (y, {**buffers, **scope.renewed}), placed_back(pullback)

    def _scope(
        self,
        parameters: Arrays,
        buffers: Arrays,
        x: Array,
        *,
        training: bool,
        key: Array | None,
    ) -> Scope:
        with located(type(self.layer).__name__):
            training = flag("training", training)
            _check_names("parameters", parameters, self._parameters)
            _check_names("buffers", buffers, self._buffers)
            if not _array.is_array(x):
                raise InvalidType(f"x must be an array, got {type(x).__name__}")
            for name, array in parameters.items():
                check_together([("x", x), (name, array)], held=name)
        Trace().apply(self.layer, tuple(x.shape))
        return Scope(self.layer, {**parameters, **buffers}, training=training, key=key)


def _check_names(kind: str, given: Arrays, wanted: Mapping[str, tuple[int, ...]]) -> None:
    if not isinstance(given, Mapping):
        raise InvalidType(f"{kind} must map names to arrays, got {type(given).__name__}")
    if given.keys() != wanted.keys():
        missing, unknown = (
            sorted(wanted.keys() - given.keys()),
            sorted(given.keys() - wanted.keys()),
        )
        raise InvalidValue(
            f"{kind} do not fit this layer: missing {missing}, unknown {unknown}; pass "
            f"layer.{kind} or a mapping with the same names"
        )
    for name, shape in wanted.items():
        if not _array.is_array(given[name]):
            raise InvalidType(
                f"{kind}[{name!r}] must be an array, got {type(given[name]).__name__}"
            )
        if tuple(given[name].shape) != shape:
            raise InvalidValue(
                f"{kind}[{name!r}] has shape {tuple(given[name].shape)}, expected {shape}"
            )


def pure(layer: Layer, *, precision: str = "float32") -> Pure:
    """The same mathematics as ``layer``, without state.

    ``y = pure(parameters, buffers, x)`` and
    ``(y, new_buffers), pullback = pure.vjp(parameters, buffers, x, key=key)``.

    Args:
        layer: a layer whose sizes are known.
        precision: ``"float16"`` or ``"bfloat16"`` computes in half precision over float32
            arrays: parameters, buffers and ``x`` are cast on the way in (norm weights and
            running statistics are not), the output, gradients and new buffers come back as
            float32. ``"float32"`` casts nothing, ``"tf32"`` neither: it computes under
            ``dc.precision("fast")``.

    Returns:
        A function that may be traced by ``jax.jit``, with the arrays handed in.

    Raises:
        ValueError: a layer with sizes that are not known yet, another precision.
        TypeError: half precision where the device has none, or another precision than float32
            of a layer that is not float32.

    >>> import numpy as np
    >>> import devconv as dc
    >>> model = dc.Dense(2, 1, weight_init="ones").build()
    >>> f = dc.pure(model)
    >>> f(model.parameters, model.buffers, np.ones((1, 2), dtype="float32"))
    array([[2.]], dtype=float32)
    """
    if not isinstance(layer, Layer):
        raise InvalidType(f"pure: layer must be a layer, got {no_layer(layer)}")
    with located("pure"):
        choice("precision", precision, PRECISIONS)
        return Pure(layer, precision)


def value_and_grad(model: Layer | Pure, loss: Operation[Any], **options: Any) -> Callable[..., Any]:
    """The loss of a model and its gradient in the parameters, as one function.

    For a layer, ``f(x, *targets, training=True, key=None) -> (loss, grads)``; for a pure
    one, ``f(parameters, buffers, x, *targets, training=True, key=None, scale=None) -> ((loss,
    new_buffers), grads)``, where a 0-d array ``scale`` multiplies the gradients from the loss
    on, but not the loss (see :class:`devconv.training.LossScale`).

    Args:
        model: a layer, or :func:`pure` of one.
        loss: an operation whose first argument is the model's output and whose result is
            one number, such as ``devconv.functional.cross_entropy``.
        options: the loss's options.

    Returns:
        The function; ``grads`` has an entry for each parameter, by dotted name.

    Raises:
        ValueError: a loss that is not one number.

    >>> import numpy as np
    >>> import devconv as dc
    >>> model = dc.Dense(1, 1, weight_init="ones").build()
    >>> x, target = np.asarray([[2.0]], dtype="float32"), np.asarray([[1.0]], dtype="float32")
    >>> loss, grads = dc.value_and_grad(model, dc.functional.mse_loss)(x, target)
    >>> float(loss), grads["weight"]
    (1.0, array([[4.]], dtype=float32))
    """
    if not isinstance(loss, Operation):
        raise InvalidType(
            f"value_and_grad: loss must be an operation such as devconv.functional.mse_loss, "
            f"got {brief(loss)}"
        )

    if isinstance(model, Pure):
        return _stateless(model, loss, options)
    if isinstance(model, Layer):
        return _stateful(model, loss, options)
    raise InvalidType(
        f"value_and_grad: model must be a layer or dc.pure(layer), got {no_layer(model)}"
    )


def _stateful(
    model: Layer, loss: Operation[Any], options: Mapping[str, Any]
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    def evaluate(
        x: Array, /, *targets: Array, training: bool = True, key: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        value, _, grads = loss_and_grad(model, loss, x, targets, options, training, key)
        return value, grads

    return evaluate


def _stateless(
    model: Pure, loss: Operation[Any], options: Mapping[str, Any]
) -> Callable[..., tuple[tuple[Array, dict[str, Array]], dict[str, Array]]]:
    def evaluate(
        parameters: Arrays,
        buffers: Arrays,
        x: Array,
        /,
        *targets: Array,
        training: bool = True,
        key: Array | None = None,
        scale: Array | None = None,
    ) -> tuple[tuple[Array, dict[str, Array]], dict[str, Array]]:
        (y, new_buffers), pullback = model.vjp(parameters, buffers, x, training=training, key=key)
        value, dy = _loss_and_cotangent(loss, y, targets, options, scale)
        return (value, new_buffers), pullback(dy)[1]

    return evaluate


def loss_and_grad(
    model: Layer,
    loss: Operation[Any],
    x: Array,
    targets: tuple[Array, ...],
    options: Mapping[str, Any],
    training: bool = True,
    key: Array | None = None,
    *,
    mixed: Mixed | None = None,
    scale: Array | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """One evaluation of a layer's loss: ``(loss, prediction, grads)``."""

    def finish(y: Array, pullback: Pullback) -> tuple[Array, Array, dict[str, Array]]:
        value, dy = _loss_and_cotangent(loss, y, targets, options, scale)
        return value, y, pullback(dy)[1]

    return model._learn(x, training, key, finish, mixed, wants_dx=False)


def _loss_and_cotangent(
    loss: Operation[Any],
    y: Array,
    targets: tuple[Array, ...],
    options: Mapping[str, Any],
    scale: Array | None = None,
) -> tuple[Array, Array]:
    value, pullback = loss.vjp(y, *targets, **options)
    if value.ndim:
        raise InvalidValue(
            f"value_and_grad: the loss has shape {tuple(value.shape)}, expected one number; "
            'use reduction="mean" or "sum"'
        )
    with _array.on_device(value):
        one = _array.array_namespace(value).ones_like(value)
        dy = pullback(one if scale is None else one * _array.cast(scale, value.dtype))[0]
    if dy is None:
        raise InvalidValue(f"value_and_grad: {loss.__name__} has no derivative in its input")
    return value, dy
