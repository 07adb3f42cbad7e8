"""How many digits may be given up for speed: ``precision("exact" | "fast")``."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, overload

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
    largest entry. ``"fast"`` allows what trades digits for speed: on a CPU Winograd's F(4, 3) for
    convolution, within 2e-4; on a GPU, for CuPy arrays, products of matrices in TF32, within 2e-3.
    Only float32 is touched: other dtypes, sums and transforms keep their digits. TF32 needs a GPU
    of compute capability 8.0 or more; elsewhere products are exact.

    PyTorch's products follow PyTorch's own switch, ``torch.backends.cuda.matmul``, which is one
    for the whole process: it is left alone. So is CuPy's, the environment variable
    ``CUPY_TF32``, which rounds all products under either level.

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


def kept(name: str) -> AbstractContextManager[Any]:
    """The level a forward pass had found, in force again on its way back."""
    return nullcontext() if _level.name == name else Precision(name)
