"""What an operation is: a function of all its arrays, and the way back to each of them.

``f(k, x) = k * x`` has two arguments, the kernel and the input. Evaluating it is the
forward pass; its *pullback* takes a dual vector ``dy`` back and returns one contribution
per argument: the one in ``x`` goes on to the preceding layer, the one in ``k`` is for the
update. :func:`differentiable` gives a function written that way its two faces, and checks
once, for every operation, what they all ask of their arrays.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, overload

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, located
from devconv.precision import kept, precision

P = ParamSpec("P")
Pullback = Callable[..., tuple[Array | None, ...]]
"""Takes ``dy`` to one cotangent per positional argument; ``None`` where there is none."""


class Operation(Generic[P]):
    """A differentiable operation: ``op(...)`` evaluates it, ``op.vjp(...)`` also goes back.

    Made by :func:`differentiable`. The function it wraps returns ``(y, pullback)``.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., tuple[Any, Pullback]]

    def __init__(
        self,
        function: Callable[P, tuple[Any, Pullback]],
        *,
        integers: Sequence[str] = (),
        constants: Sequence[str] = (),
        statistics: Sequence[str] = (),
        skips: bool = False,
    ) -> None:
        functools.update_wrapper(self, function)
        signature = inspect.signature(function)
        self.__signature__ = signature.replace(return_annotation=Any)
        self.arguments = tuple(
            name for name, p in signature.parameters.items() if p.kind is p.POSITIONAL_ONLY
        )
        self._optional = frozenset(
            name for name, p in signature.parameters.items() if p.default is None
        )
        self._integers = frozenset(integers)
        self._constants = tuple(constants)
        self._statistics = frozenset(statistics)
        self.skips = skips
        """Whether the way back leaves out work for cotangents that nobody asks for."""
        self.origin: Operation[Any] = self
        """The operation itself, nothing filled in."""
        self.options: Mapping[str, Any] = {}
        """What :meth:`with_options` filled in."""

    def __repr__(self) -> str:
        filled = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"<devconv operation {self.__name__}{self.__signature__}{filled}>"

    @property
    def required(self) -> tuple[str, ...]:
        """The arrays that every call needs."""
        return tuple(name for name in self.arguments if name not in self._optional)

    def with_options(self, **options: Any) -> Operation[Any]:
        """The same operation with options filled in, or arrays after the first.

        A caller may still give another value; an array that is filled in is a constant, for
        which the pullback returns nothing.

        Raises:
            TypeError: an option that the operation does not have.

        >>> import numpy as np
        >>> from devconv.functional import softmax
        >>> over_classes = softmax.with_options(axis=1)
        >>> over_classes(np.zeros((1, 2)))
        array([[0.5, 0.5]])
        """
        known = tuple(self.__signature__.parameters)[1:]
        for name in options:
            if name not in known:
                raise InvalidType(
                    f"{self.__name__} has no option {name!r}; it takes {', '.join(known) or 'none'}"
                )
        return _filled(type(self), self, {**self.options, **options})

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Where it is found, as for a function, and what was filled in; a copy is the same."""
        if self.origin is self:
            return self.__qualname__
        return _filled, (type(self), self.origin, dict(self.options))

    def __call__(self, *args: P.args, **options: P.kwargs) -> Any:
        """Evaluate the operation; nothing is kept for a way back."""
        return self.vjp(*args, **options)[0]

    def vjp(self, *args: P.args, **options: P.kwargs) -> tuple[Any, Pullback]:
        """Evaluate the operation and return ``(y, pullback)``.

        ``pullback(dy)`` returns a tuple with one cotangent for each positional argument that
        was handed in, each with its argument's shape and dtype; ``None`` for an argument that
        was ``None`` or has no derivative. It changes nothing and may be called again.
        Of positions in ``skip``, ``pullback(dy, skip)`` may return ``None`` instead: where
        :attr:`skips`, they cost nothing.
        """
        with located(self.__name__):
            every, chosen = self._completed(args, options)
            self._check(every, chosen)
            with _array.on_device(every[0]):
                made = self.__wrapped__(*every, **chosen)
            if not (isinstance(made, tuple) and len(made) == 2 and callable(made[1])):
                raise InvalidType(
                    f"the operation's function must return (y, pullback), got {type(made).__name__}"
                )
            y, pullback = made
        out = y[0] if isinstance(y, tuple) else _array.as_array(y)
        return (y if isinstance(y, tuple) else out), self._guarded(pullback, out, args)

    def _completed(
        self, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arrays and options of a call, with what was filled in."""
        if not self.options:
            return args, options
        merged = {**self.options, **options}
        arrays = [merged.pop(name, None) for name in self.arguments][len(args) :]
        while arrays and arrays[-1] is None:
            arrays.pop()
        return (*args, *arrays), merged

    def _guarded(self, pullback: Pullback, y: Array, args: tuple[Any, ...]) -> Pullback:
        place, level = _Place(y), precision()
        name = f"{self.__name__} pullback"

        def checked(dy: Array, skip: tuple[int, ...] = ()) -> tuple[Array | None, ...]:
            with located(name):
                _check_cotangent(dy, place)
                with _array.on_device(dy), kept(level):
                    found = pullback(dy, skip) if skip and self.skips else pullback(dy)
                    _check_cotangents(found, args)
                    return tuple(
                        None if d is None or x is None else _array.as_array(_array.cast(d, x.dtype))
                        for x, d in zip(args, found, strict=False)
                    )

        return checked

    def _check(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if not args:
            raise InvalidType(f"expected {', '.join(self.arguments)}, got no array")
        if self._are_alike(args) and not any(options.get(n) is not None for n in self._constants):
            return
        named = [*zip(self.arguments, args, strict=False)]
        named += [(name, options.get(name)) for name in self._constants]
        present = []
        for name, x in named:
            if x is None:
                if name not in self._optional:
                    raise InvalidType(f"{name} must be an array, got None")
                continue
            if not _array.is_array(x):
                raise InvalidType(
                    f"{name} must be an array, got {type(x).__name__}; "
                    f"make one of the library you compute with, such as numpy.asarray({name})"
                )
            present.append((name, x))
            may_be_integer = name in self._integers
            if not (_array.is_floating(x) or (may_be_integer and _array.is_integer(x))):
                kind, other = _array.dtype_name(x.dtype), "integers or " if may_be_integer else ""
                raise InvalidType(
                    f"{name} {tuple(x.shape)} has dtype {kind}, expected {other}a real floating "
                    f"dtype; convert it first: {_array.how_to_cast(name, x, 'float32')}"
                )
        if len(present) > 1:
            check_together(present)
            self._check_dtypes(present)

    def _are_alike(self, args: tuple[Any, ...]) -> bool:
        """Whether all is as it should be, which it mostly is: seen without further questions."""
        if not (_array.is_array(args[0]) and _array.is_floating(args[0])):
            return False
        place = _Place(args[0])
        return all(
            name in self._optional if x is None else place.holds(x)
            for name, x in zip(self.arguments[1:], args[1:], strict=False)
        )

    def _check_dtypes(self, named: list[tuple[str, Array]]) -> None:
        floating = [(name, x) for name, x in named if _array.is_floating(x)]
        if not floating:
            return
        first, lead = floating[0]
        for name, x in floating[1:]:
            if x.dtype == lead.dtype:
                continue
            ours, theirs = _array.dtype_name(lead.dtype), _array.dtype_name(x.dtype)
            if ours == theirs:  # in another byte order, as files have it
                continue
            if name in self._statistics and ours in _array.HALF and theirs == "float32":
                continue
            raise InvalidType(
                f"{first} is {ours} and {name} is {theirs}, expected one dtype; "
                f"convert: {_array.how_to_cast(first, lead, theirs)}, "
                f'{_array.how_to_cast(name, x, ours)} or model.to(dtype="{ours}")'
            )


def _filled(
    kind: type[Operation[Any]], operation: Operation[Any], options: dict[str, Any]
) -> Operation[Any]:
    """The operation with these options filled in, as a ``kind`` of operation."""
    filled = object.__new__(kind)
    vars(filled).update(vars(operation), options=options)
    return filled


def check_together(named: Sequence[tuple[str, Array]], *, held: str = "") -> None:
    """Refuse arrays of two libraries or on two devices, naming which is where.

    ``held`` is the name of an array that a model holds: ``model.to`` moves it.
    """
    (first, lead), *others = named
    if all(_array.is_plain(x) for _, x in named):
        return
    ours = _array.library_of(lead)
    here = _array.device(lead)
    for name, x in others:
        theirs = _array.library_of(x)
        there = _array.device(x)
        if theirs == ours and (here is None or there is None or here == there):
            continue
        a, b = _array.device_name(lead), _array.device_name(x)
        moves = {
            first: f'{first} = dc.to_device({first}, "{b}")',
            "a model": f'model.to("{b if held == first else a}")',
            name: f'{name} = dc.to_device({name}, "{a}")',
        }
        moves.pop(held, None)
        if theirs != ours:
            raise InvalidType(
                f"{first} is a {_array.NAMES.get(ours, ours)} array on {a} and {name} a "
                f"{_array.NAMES.get(theirs, theirs)} array on {b}; bring them together: "
                f"{' or '.join(moves.values())}"
            )
        raise InvalidValue(
            f"{first} is on {a} and {name} on {b}; bring them together: "
            f"{' or '.join(moves.values())}"
        )


def _check_cotangents(found: Any, args: tuple[Any, ...]) -> None:
    """Refuse what a pullback must not return: the mistakes of whoever wrote it."""
    if not isinstance(found, tuple) or len(found) < len(args):
        what = f"{len(found)} of them" if isinstance(found, tuple) else type(found).__name__
        raise InvalidType(
            f"the pullback must return a tuple with one cotangent for each of {len(args)} "
            f"arguments (None where there is none), got {what}"
        )
    for position, (x, d) in enumerate(zip(args, found, strict=False)):
        if x is not None and d is not None and tuple(d.shape) != tuple(x.shape):
            raise InvalidValue(
                f"the pullback returned a cotangent of shape {tuple(d.shape)} for argument "
                f"{position}, whose shape is {tuple(x.shape)}"
            )


class _Place:
    """Where an array is, without the array: its library, device, shape and dtype."""

    __slots__ = ("device", "dtype", "kind", "shape", "xp")

    def __init__(self, x: Array) -> None:
        self.kind, self.shape, self.dtype = type(x), x.shape, x.dtype
        self.xp, self.device = _array.array_namespace(x), _array.device(x)

    def holds(self, x: Any) -> bool:
        """Whether another array is of the same kind and dtype, on the same device."""
        alike = type(x) is self.kind and x.dtype == self.dtype
        return alike and (_array.is_plain(x) or _array.device(x) == self.device)


def _check_cotangent(dy: Any, y: _Place) -> None:
    if y.holds(dy) and dy.shape == y.shape:
        return
    shape, dtype, place = tuple(y.shape), y.dtype, y.device
    if not _array.is_array(dy):
        raise InvalidType(f"dy must be an array of shape {shape}, got {type(dy).__name__}")
    name, expected = _array.library_of(dy), _array.library(y.xp)
    if name != expected:
        raise InvalidType(
            f"dy is a {_array.NAMES.get(name, name)} array and y a "
            f"{_array.NAMES.get(expected, expected)} array; "
            f'dy = dc.to_device(dy, "{_array.spec_of(expected, place)}")'
        )
    there = _array.device(dy)
    if place is not None and there is not None and place != there:
        raise InvalidValue(
            f"dy is on {_array.device_name(dy)} and y on {_array.spec_of(expected, place)}; "
            f'dy = dc.to_device(dy, "{_array.spec_of(expected, place)}")'
        )
    if tuple(dy.shape) != shape:
        raise InvalidValue(f"dy has shape {tuple(dy.shape)}, expected that of y, {shape}")
    ours, theirs = _array.dtype_name(dtype), _array.dtype_name(dy.dtype)
    if ours != theirs:
        fix = _array.how_to_cast("dy", dy, ours)
        raise InvalidType(f"dy is {theirs} and y is {ours}; convert: {fix}")


@overload
def differentiable(function: Callable[P, tuple[Any, Pullback]], /) -> Operation[P]: ...


@overload
def differentiable(
    *,
    integers: Sequence[str] = (),
    constants: Sequence[str] = (),
    statistics: Sequence[str] = (),
    skips: bool = False,
) -> Callable[[Callable[P, tuple[Any, Pullback]]], Operation[P]]: ...


def differentiable(
    function: Any = None,
    /,
    *,
    integers: Sequence[str] = (),
    constants: Sequence[str] = (),
    statistics: Sequence[str] = (),
    skips: bool = False,
) -> Any:
    """Make an :class:`Operation` of a function that returns ``(y, pullback)``.

    The function's arrays are positional-only, its options keyword-only. Before it runs, its
    arrays are checked to be arrays of one library, on one device, of one real floating
    dtype; afterwards each cotangent is given the dtype of its argument.

    Args:
        function: ``function(x, ..., /, *, option=...) -> (y, pullback)``; ``y`` may be a
            tuple whose first entry is the differentiable one.
        integers: arguments that may also hold integers (labels, indices).
        constants: options that are arrays (``class_weight``): checked like arguments, but
            without a derivative.
        statistics: arguments that may be float32 beside a half-precision ``x``.
        skips: whether the pullback is ``pullback(dy, skip=())`` and leaves out the cotangents
            whose positions are in ``skip``.

    >>> import numpy as np
    >>> @differentiable
    ... def square(x, /):
    ...     return x * x, lambda dy: (2.0 * x * dy,)
    >>> y, pullback = square.vjp(np.asarray([3.0]))
    >>> y, pullback(np.asarray([1.0]))
    (array([9.]), (array([6.]),))
    """
    if function is None:
        return lambda f: Operation(
            f, integers=integers, constants=constants, statistics=statistics, skips=skips
        )
    return Operation(function)
