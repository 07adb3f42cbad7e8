"""Argument checks in one voice: one line that names the argument, its shape and the fix.

Every error the package raises on purpose is a :class:`DevconvError`, and at the same time
a ``ValueError`` (values, shapes, devices) or a ``TypeError`` (kinds, dtypes, libraries).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import AbstractContextManager
from numbers import Real
from types import TracebackType
from typing import Any, TypeAlias

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[int, int]


class DevconvError(Exception):
    """An error raised on purpose; ``path`` and ``kind`` name the layer it happened in.

    >>> str(InvalidValue("stride must be at least 1, got 0"))
    'stride must be at least 1, got 0'
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: tuple[str, ...] = ()
        self.kind = ""

    def __str__(self) -> str:
        where = _where(self.path, self.kind)
        return f"{where}: {self.args[0]}" if where else str(self.args[0])


class InvalidValue(DevconvError, ValueError):
    """A value, shape or device that cannot be used."""


class InvalidType(DevconvError, TypeError):
    """A kind of argument, a dtype or a library that cannot be used."""


def located(kind: str, name: str | None = None) -> AbstractContextManager[None]:
    """Tell an error raised inside where it happened: in what, and under which name.

    The innermost layer that has a name is the one the message names; a layer that is run by
    itself has the name ``""``, and is named if no layer inside is. An error that is not this
    package's own keeps its type and message, and gets a note.
    """
    return _Located(kind, name)


class _Located:
    """A place that errors are told of; every operation has one, so it costs next to nothing."""

    __slots__ = ("_kind", "_name")

    def __init__(self, kind: str, name: str | None) -> None:
        self._kind, self._name = kind, name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        if isinstance(error, DevconvError):
            error.path, error.kind = _within(error.path, error.kind, self._kind, self._name)
        elif isinstance(error, Exception):
            _note(error, self._kind, self._name)


def _within(
    path: tuple[str, ...], inner: str, kind: str, name: str | None
) -> tuple[tuple[str, ...], str]:
    """The place of an error, seen from one room further out."""
    if name is None:
        return path, inner or kind
    return ((name, *path) if name else path), (inner if path else kind)


def _where(path: tuple[str, ...], kind: str) -> str:
    """A place in words: ``0.1 (Conv2d)``, or the kind alone."""
    return f"{'.'.join(path)} ({kind})" if path else kind


def _note(error: Exception, kind: str, name: str | None) -> None:
    """Write the place into the one note that says it."""
    path, inner = getattr(error, "_place", ((), ""))
    if inner:
        error.__notes__.remove(f"in {_where(path, inner)}")
    place = _within(path, inner, kind, name)
    error.add_note(f"in {_where(*place)}")
    vars(error)["_place"] = place


def brief(value: Any) -> str:
    """A value as messages show it: on one line, and not a long one.

    >>> brief(["relu"] * 50)
    "['relu', 'relu', 'relu', 'relu', 'relu', 'relu', 'relu', 're..."
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:60]}..."


def flag(name: str, value: Any) -> bool:
    """``value`` as a bool; nothing else is taken for one."""
    if isinstance(value, bool):
        return value
    if type(value).__name__ not in ("bool", "bool_"):  # NumPy's own
        raise InvalidType(f"{name} must be True or False, got {brief(value)}")
    return bool(value)


def integer(name: str, value: Any, *, least: int) -> int:
    """``value`` as an int of at least ``least``."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise InvalidType(f"{name} must be an int, got {brief(value)}") from None
    if number < least:
        raise InvalidValue(f"{name} must be at least {least}, got {number}")
    return number


def per_dimension(name: str, value: Any, rank: int, *, least: int) -> Shape:
    """An int, or one int per spatial dimension, as a tuple with ``rank`` entries."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != rank:
            raise InvalidValue(
                f"{name} needs one entry for each of {rank} spatial dimensions, got {brief(value)}"
            )
        return tuple(integer(f"{name}[{i}]", v, least=least) for i, v in enumerate(value))
    return (integer(name, value, least=least),) * rank


def pairs_per_dimension(name: str, value: Any, rank: int) -> tuple[Pair, ...]:
    """An int, or one int or ``(before, after)`` pair per dimension, as pairs."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        amount = integer(name, value, least=0)
        return ((amount, amount),) * rank
    if len(value) != rank:
        raise InvalidValue(
            f"{name} needs one entry (an int or a (before, after) pair) for each of "
            f"{rank} spatial dimensions, got {brief(value)}"
        )
    return tuple(_pair(f"{name}[{i}]", entry) for i, entry in enumerate(value))


def _pair(name: str, entry: Any) -> Pair:
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        if len(entry) != 2:
            raise InvalidValue(
                f"{name} must be an int or a (before, after) pair, got {brief(entry)}"
            )
        return integer(name, entry[0], least=0), integer(name, entry[1], least=0)
    amount = integer(name, entry, least=0)
    return amount, amount


def number(
    name: str, value: Any, *, least: float | None = None, above: float | None = None
) -> float:
    """``value`` as a float, at least ``least`` or strictly above ``above``; NaN is refused."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidType(f"{name} must be a number, got {brief(value)}")
    result = float(value)
    if result != result:
        raise InvalidValue(f"{name} must be a number, got {brief(value)}")
    if least is not None and result < least:
        raise InvalidValue(f"{name} must be at least {least}, got {brief(value)}")
    if above is not None and result <= above:
        raise InvalidValue(f"{name} must be greater than {above}, got {brief(value)}")
    return result


def nonzero(name: str, value: Any) -> float:
    """``value`` as a float other than 0."""
    result = number(name, value)
    if result == 0.0:
        raise InvalidValue(f"{name} must not be 0")
    return result


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """``value`` if it is one of ``options``."""
    if not isinstance(value, str) or value not in options:
        raise InvalidValue(
            f"{name} must be one of {', '.join(map(repr, options))}, got {brief(value)}"
        )
    return value


def rank_at_least(name: str, shape: Shape, least: int, layout: str) -> None:
    """Refuse an array with fewer than ``least`` dimensions."""
    if len(shape) < least:
        raise InvalidValue(f"{name} must have shape {layout}, got {shape}")


def show(shape: Sequence[int | None]) -> str:
    """A shape in words, with ``N`` for a batch of unknown size.

    >>> show((None, 3, 28, 28))
    '(N, 3, 28, 28)'
    """
    entries = ["N" if n is None else str(n) for n in shape]
    return f"({entries[0]},)" if len(entries) == 1 else f"({', '.join(entries)})"
