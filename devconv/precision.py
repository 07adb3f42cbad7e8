"""How many digits may be given up for speed: ``precision("exact" | "fast")``."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import overload

from devconv._check import choice

LEVELS = ("exact", "fast")


class _Level(threading.local):
    """The level in force, for each thread by itself."""

    name = "exact"


_level = _Level()


class Precision:
    """A level of precision in force; at the end of a ``with`` block the one before is again."""

    def __init__(self, name: str) -> None:
        self.name = choice("precision", name, LEVELS)
        self._before = _level.name
        _level.name = name

    def __enter__(self) -> Precision:
        _level.name = self.name
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _level.name = self._before

    def __repr__(self) -> str:
        return f"precision({self.name!r})"


@overload
def precision() -> str: ...


@overload
def precision(name: str) -> Precision: ...


def precision(name: str | None = None) -> str | Precision:
    """Set how many digits may be given up for speed, or tell what is set.

    ``"exact"``, the default, is float32 as everybody expects it: results within 1e-5 of the
    largest entry. ``"fast"`` allows what trades digits for speed, within 2e-4: Winograd's
    F(4, 3) for convolution. Other dtypes than float32 are not touched.

    An operation looks once, in its forward pass; its pullback goes back the same way. The
    setting belongs to the thread: others stay as they were, and new ones begin exact.

    Args:
        name: ``"exact"`` or ``"fast"``; without it, nothing is changed.

    Returns:
        The name in force if none was given. Otherwise a context manager: the setting holds
        from the call on, and at the end of a ``with`` block the one before is back.

    Raises:
        ValueError: another name.

    >>> with precision("fast"):
    ...     precision()
    'fast'
    >>> precision()
    'exact'
    """
    return _level.name if name is None else Precision(name)
