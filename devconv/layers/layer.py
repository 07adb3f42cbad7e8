"""What a layer is: a description, its arrays, and a pure function that uses them.

A layer's mathematics takes arrays and returns arrays; :mod:`devconv.layers.scope` hands them
over. The stateful faces, ``layer(x)`` and ``layer.vjp(x)``, fetch the arrays, run the pure
function and, after success, keep the new buffers. Parameters change through an optimizer
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from devconv import _array, _check, random
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, located
from devconv.device import Device, device_of, to_device
from devconv.device import device as device_by_spec
from devconv.functional.operation import check_together
from devconv.initializers import fans, generator
from devconv.layers.declared import Buffer, Parameter
from devconv.layers.scope import Key, Pullback, Scope, Trace
from devconv.layers.shapes import InputShape
from devconv.layers.state import arguments, join, match, table

if TYPE_CHECKING:
    from devconv.layers.mixed import Mixed

T = TypeVar("T")


class Layer:
    """A description plus its arrays; base of all layers.

    A new kind of layer defines :meth:`infer` and :meth:`apply_vjp`, and :meth:`declare` if it
    has arrays or :attr:`children` if it has layers inside. A container that must not keep
    its intermediate results during inference defines :meth:`apply` too. A layer that is
    one operation with some arguments filled in is an
    :class:`~devconv.layers.operation.OperationLayer`.
    """

    _declared: Mapping[str, Parameter | Buffer] | None = None
    _arrays: Mapping[str, Array] = MappingProxyType({})
    _device: Device | None = None
    _dtype: str = "float32"
    _seed: int = 0
    _draws: int = 0
    _settled: frozenset[str] = frozenset()
    _accepted: InputShape | None = None

    # What a kind of layer defines.

    @property
    def children(self) -> Mapping[str, Layer]:
        """The layers inside, by name."""
        return {}

    def declare(self, shape: InputShape | None) -> Mapping[str, Parameter | Buffer]:
        """The layer's own arrays for an input of ``shape``, which is ``None`` if not known."""
        return {}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape for an input of ``shape``; refuses what does not fit."""
        raise NotImplementedError(f"{type(self).__name__} does not define infer")

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The layer's function of its arrays and ``x``, and the way back to both."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply_vjp")

    def apply(self, scope: Scope, x: Array) -> Array:
        """The layer's function alone, keeping nothing for a way back."""
        return self.apply_vjp(scope, x)[0]

    def input_from(self, shapes: Mapping[str, tuple[int, ...]]) -> InputShape | None:
        """The input's shape as far as the layer's arrays, with these shapes, tell it."""
        return None

    def sizes(self, declared: Mapping[str, Parameter | Buffer]) -> Mapping[str, int]:
        """The values of attributes that were left ``None``, read off the declared arrays."""
        return {}

    def describe(self) -> str:
        """The arguments the layer was made with, for ``repr``."""
        return arguments(self)

    # The stateful faces.

    def __call__(self, x: Array) -> Array:
        """Infer: the layer's output for ``x``; nothing is kept, no buffer changes."""
        return self._face(x, lambda: self._scope(training=False).apply("", self, x))

    def vjp(
        self, x: Array, *, training: bool = True, key: Array | None = None
    ) -> tuple[Array, Pullback]:
        """Learn: the layer's output and the way back, ``dx, grads = pullback(dy)``.

        Args:
            x: a batch.
            training: whether dropout drops and batch statistics are used (and running ones
                renewed); ``False`` gives gradients of the inference pass.
            key: a key of :mod:`devconv.random` for dropout to draw from; without one, the
                model's own, another in each pass (see :attr:`generator_state`).

        Returns:
            ``(y, pullback)``; ``grads`` has an entry for each parameter, by dotted name.
        """
        return self._learn(x, training, key, lambda y, pullback: (y, pullback))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The output's shape for an input of ``shape``, both without the batch.

        Raises:
            ValueError: when a layer inside does not accept what reaches it.
        """
        return tuple(n or 0 for n in Trace().apply(self, self._without_batch(shape))[1:])

    def build(self, shape: tuple[int, ...] | None = None, seed: int = 0) -> Self:
        """Check all layers, then make all arrays anew.

        Every parameter is drawn on the host by a generator keyed by ``(seed, dotted path)``:
        the same numbers on every device, whatever the order of the layers.

        Args:
            shape: the input's shape without the batch; needed only where a size is ``None``.
            seed: at least 0.

        Returns:
            The layer.

        Raises:
            ValueError: when layers do not fit together, or a size is not known.
        """
        self._make(None if shape is None else self._without_batch(shape), seed, anew=True)
        self._seed, self._draws = seed, 0
        return self

    @property
    def is_built(self) -> bool:
        """Whether all arrays exist."""
        return all(layer._declared is not None for _, layer in self._walk())

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The arrays that learn, by dotted name; a shared layer's by its first name."""
        self._make(None, 0, anew=False)
        return _array.ReadOnly(self._collect(Parameter))

    @property
    def buffers(self) -> Mapping[str, Array]:
        """The arrays that passes renew, such as running statistics, by dotted name."""
        self._make(None, 0, anew=False)
        return _array.ReadOnly(self._collect(Buffer))

    @property
    def parameter_count(self) -> int | None:
        """How many numbers learn; ``None`` while a size is not known."""
        try:
            return sum(
                math.prod(declared.shape)
                for _, layer in self._firsts()
                for declared in (layer._declared or layer.declare(None)).values()
                if declared.learns
            )
        except ValueError:
            return None

    @property
    def device(self) -> Device:
        """Where the arrays are, or will be."""
        for _, layer in self._walk():
            for array in layer._arrays.values():
                return device_of(array)
        return self._device or device_by_spec("cpu")

    @property
    def dtype(self) -> str:
        """The parameters' dtype by name; ``"float32"`` unless :meth:`to` said otherwise."""
        return self._dtype

    def to(self, device: Any = None, dtype: Any = None) -> Self:
        """Move all arrays to a device, give them a dtype, or both.

        Args:
            device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ``"torch"``, ... (see :func:`device`).
            dtype: ``"float32"``, ``"float64"``, ``"float16"``, ``"bfloat16"``, or a library's own.

        Returns:
            The layer.

        Raises:
            ValueError: a device that is not usable.
            TypeError: a dtype the device does not have.
        """
        _check_device(device)
        place = self.device if device is None else device_by_spec(device)
        kind = self._dtype if dtype is None else _floating_name(dtype)
        place.dtype(kind)
        with self._whole_or_not_at_all():
            for _, layer in self._firsts():
                layer._commit(layer._declared, layer._arrays, place, kind)
        return self

    @property
    def generator_state(self) -> dict[str, int]:
        """Where the generator stands: its seed, and how many passes drew from it.

        Part of a training checkpoint, not of the state dict; may be set.
        """
        return {"seed": self._seed, "draws": self._draws}

    @generator_state.setter
    def generator_state(self, state: Mapping[str, int]) -> None:
        seed = _check.integer("seed", state["seed"], least=0)
        self._seed, self._draws = seed, _check.integer("draws", state["draws"], least=0)

    def state_dict(self) -> dict[str, Array]:
        """Parameters and buffers, a shared layer's under every name it has."""
        self._make(None, 0, anew=False)
        return {
            join(path, name): array
            for path, layer in self._walk()
            for name, array in layer._arrays.items()
        }

    def load_state_dict(self, state: Mapping[str, Array], *, dtype: Any = None) -> Self:
        """Take parameters and buffers from ``state``, arrays of any library.

        Every name, shape and dtype is checked before anything changes; the arrays are copied.
        A layer that is not built takes open sizes from them. ``num_batches_tracked``, which PyTorch
        stores, is passed over.

        Args:
            state: arrays by dotted name.
            dtype: cast to this; without it the dtypes must be the layer's own.

        Returns:
            The layer.

        Raises:
            ValueError: missing or unknown names, other shapes.
            TypeError: other dtypes.
        """
        kind = self._dtype if dtype is None else _floating_name(dtype)
        with self._whole_or_not_at_all():
            place = self.device
            for layer, declared, arrays in match(self, state, kind, cast=dtype is not None):
                copies = {
                    name: _copied(x, place, declared[name].dtype(kind))
                    for name, x in arrays.items()
                }
                layer._commit(declared, copies, place, kind)
        return self

    def __repr__(self) -> str:
        return table(self)

    # Inner workings.

    def _face(self, x: Array, run: Callable[[], T]) -> T:
        with located(type(self).__name__):
            if not _array.is_array(x):
                raise InvalidType(
                    f"x must be an array, got {type(x).__name__}; make one of the library you "
                    "compute with, such as numpy.asarray(x)"
                )
        shape = tuple(x.shape)
        if self.is_built:  # there is nothing to undo
            if shape[1:] != self._accepted:
                Trace().apply(self, shape)
                self._accepted = shape[1:]
            return self._work(x, run)
        with self._whole_or_not_at_all():
            self._make(shape, 0, anew=False)
            return self._work(x, run)

    def _without_batch(self, shape: tuple[int, ...]) -> InputShape:
        with located(type(self).__name__):
            if not isinstance(shape, Sequence) or isinstance(shape, str):
                raise InvalidType(f"shape must be ints, without the batch, got {shape!r}")
            return (None, *(_check.integer("shape", n, least=0) for n in shape))

    def _work(self, x: Array, run: Callable[[], T]) -> T:
        with located(type(self).__name__):
            self._check_place(x)
        with _array.on_device(x):
            return run()

    def _learn(
        self,
        x: Array,
        training: bool,
        key: Array | None,
        finish: Callable[[Array, Pullback], T],
        mixed: Mixed | None = None,
        wants_dx: bool = True,
    ) -> T:
        """Run the layer, then ``finish(y, pullback)``; if that succeeds, keep new buffers.

        Unless it ``wants_dx``, the pullback returns ``None`` in its place.
        """
        with located(type(self).__name__):
            training = _check.flag("training", training)
        if _array.is_array(x) and _array.is_traced(x):
            with located(type(self).__name__):
                raise InvalidType(
                    "x is traced by jax.jit, which would keep this layer's arrays as they are "
                    "now; trace dc.pure(layer).vjp(parameters, buffers, x) instead"
                )

        def run() -> T:
            scope = self._scope(training=training, key=self._next_key if key is None else key)
            if mixed is None:
                y, pullback = scope.vjp("", self, x, wants_dx=wants_dx)
            else:
                y, pullback = mixed.vjp(scope, x)
            result = finish(y, placed_back(pullback))
            self._keep(scope.renewed)
            self._draws += key is None and scope.has_drawn
            return result

        return self._face(x, run)

    def _next_key(self) -> Array:
        """The key of the pass that draws next."""
        return random.fold_in(random.key(self._seed), self._draws)

    def _check_place(self, x: Array) -> None:
        name, array = self._first_floating()
        if array is not None:
            check_together([("x", x), (name, array)], held=name)
            self._check_dtype(x)

    def _check_dtype(self, x: Array) -> None:
        """Refuse an ``x`` that the layer's arrays cannot compute with, wherever it is."""
        name, array = self._first_floating()
        if array is None:
            return
        ours, theirs = _array.dtype_name(x.dtype), _array.dtype_name(array.dtype)
        if not _array.is_floating(x):
            raise InvalidType(
                f"x {tuple(x.shape)} has dtype {ours}, expected {theirs}; convert it first: "
                f"{_array.how_to_cast('x', x, theirs)}"
            )
        if ours != theirs and not (ours in _array.HALF and theirs == "float32"):
            raise InvalidType(
                f"x is {ours} and {name} is {theirs}, expected one dtype; convert: "
                f'{_array.how_to_cast("x", x, theirs)} or model.to(dtype="{ours}")'
            )

    def _first_floating(self) -> tuple[str, Array | None]:
        """The first array of floating numbers, by its dotted name."""
        for path, layer in self._walk():
            for name, array in layer._arrays.items():
                if _array.is_floating(array):
                    return join(path, name), array
        return "", None

    def _scope(self, *, training: bool, key: Key = None) -> Scope:
        arrays = self._collect(Parameter, Buffer)
        return Scope(self, arrays, training=training, key=key)

    def _walk(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """All layers with their dotted paths, this one first; a shared one more than once."""
        yield path, self
        for name, child in self.children.items():
            yield from child._walk(join(path, name))

    def _firsts(self) -> Iterator[tuple[str, Layer]]:
        """All layers, each once, under its first path."""
        seen = set()
        for path, layer in self._walk():
            if id(layer) not in seen:
                seen.add(id(layer))
                yield path, layer

    def _collect(self, *kinds: type) -> dict[str, Array]:
        return {
            join(path, name): layer._arrays[name]
            for path, layer in self._firsts()
            for name, declared in (layer._declared or {}).items()
            if isinstance(declared, kinds)
        }

    def _make(self, shape: InputShape | None, seed: int, *, anew: bool) -> None:
        """Make the arrays of all layers, or of those that have none yet."""
        with self._whole_or_not_at_all():
            if anew:
                for _, layer in self._firsts():
                    layer._declared = layer._accepted = None
                    vars(layer).update(dict.fromkeys(layer._settled))
            trace = Trace()
            if shape is not None and not self.is_built:
                trace.apply(self, shape)
            plans = []
            for path, layer in self._firsts():
                random.remember(path)
                if layer._declared is None:
                    with located(type(layer).__name__, path or None):
                        plans.append((path, layer, layer.declare(trace.inputs.get(id(layer)))))
            for path, layer, declared in plans:
                with located(type(layer).__name__, path or None):
                    arrays = {
                        name: _drawn(name, d, generator(seed, join(path, name)))
                        for name, d in declared.items()
                    }
                home = layer if self._device is None else self
                place = home._device or device_by_spec("cpu")
                layer._commit(declared, arrays, place, home._dtype)

    def _commit(
        self,
        declared: Mapping[str, Parameter | Buffer] | None,
        arrays: Mapping[str, Array],
        place: Device,
        dtype: str,
    ) -> None:
        """Hold these arrays, on a device and in a dtype."""
        self._arrays = {
            name: _placed(x, place, declared[name].dtype(dtype) if declared else dtype)
            for name, x in arrays.items()
        }
        self._declared, self._device, self._dtype = declared, place, dtype
        if declared is not None:
            sizes = self.sizes(declared)
            self._settled = frozenset(n for n in sizes if getattr(self, n) is None) | self._settled
            vars(self).update(sizes)

    @contextmanager
    def _whole_or_not_at_all(self) -> Iterator[None]:
        """Leave the layer and all inside as they were if what happens fails.

        Arrays are bound and never written into, so remembering the bindings is enough.
        """
        before = [(layer, dict(vars(layer))) for _, layer in self._firsts()]
        try:
            yield
        except BaseException:
            for layer, attributes in before:
                for added in vars(layer).keys() - attributes.keys():
                    delattr(layer, added)
                vars(layer).update(attributes)
            raise

    def _keep(self, renewed: Mapping[str, Array]) -> None:
        """Bind new arrays, by dotted name, in place of the old ones."""
        if not renewed:
            return
        for path, layer in self._firsts():
            mine = {
                n: _array.detached(renewed[join(path, n)])
                for n in layer._arrays
                if join(path, n) in renewed
            }
            if mine:
                layer._arrays = {**layer._arrays, **mine}


def _check_device(device: Any) -> None:
    """Refuse a dtype where a device goes."""
    if isinstance(device, Device) or not isinstance(device, Hashable) or _array.is_array(device):
        return
    name = _array.dtype_name(device)
    if name in _FLOATING:
        raise InvalidType(f'{name} is a dtype and no device; say model.to(dtype="{name}")')


_FLOATING = ("float32", "float64", *_array.HALF)


def _floating_name(dtype: Any) -> str:
    name = _array.dtype_name(dtype)
    if name not in _FLOATING:
        raise InvalidType(f"dtype must be float16, bfloat16, float32 or float64, got {name}")
    return name


def placed_back(pullback: Pullback) -> Pullback:
    """The same pullback, run with the device of ``dy`` as the current one."""

    def back(dy: Array) -> tuple[Array, dict[str, Array]]:
        if not _array.is_array(dy):
            raise InvalidType(f"pullback: dy must be an array, got {type(dy).__name__}")
        with _array.on_device(dy):
            return pullback(dy)

    return back


def _drawn(name: str, declared: Parameter | Buffer, rng: Any) -> Array:
    """What the initializer makes, checked: an array of the declared shape."""
    array = declared.initializer(rng, declared.shape, declared.fans or fans(declared.shape))
    shape = tuple(array.shape) if _array.is_array(array) else None
    if shape != declared.shape or (declared.learns and not _array.is_floating(array)):
        kind = type(array).__name__ if shape is None else _array.dtype_name(array.dtype)
        raise InvalidValue(
            f"the initializer of {name} made {kind} {shape or ()}, expected floating numbers "
            f"of shape {declared.shape}"
        )
    return _array.to_numpy(array).copy()  # the initializer may hand out one array twice


def _copied(x: Array, place: Device, dtype: str) -> Array:
    """A copy on the device, also of what is there already and may be written into."""
    return place.asarray(_array.to_numpy(x), dtype if _array.is_floating(x) else None)


def _placed(x: Array, place: Device, dtype: str) -> Array:
    if not _array.is_floating(x) or _array.dtype_name(x.dtype) == dtype:
        return to_device(x, place)
    if device_of(x) == place:
        with _array.on_device(x):
            return _array.cast(x, place.dtype(dtype))
    return place.asarray(_array.to_numpy(x), dtype=dtype)
