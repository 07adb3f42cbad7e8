"""Arrays that a layer declares before they exist: what learns, and what passes renew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from devconv import _array
from devconv.initializers import Fans, Initializer


@dataclass(frozen=True)
class Parameter:
    """A declared array that learns: its shape and how it begins."""

    shape: tuple[int, ...]
    initializer: Initializer
    fans: Fans | None = None
    learns: ClassVar[bool] = True

    def dtype(self, model: str) -> str:
        """Its dtype in a model of the dtype ``model``: the same."""
        return model


@dataclass(frozen=True)
class Buffer:
    """A declared array that a pass may renew, but no gradient reaches.

    A ``wide`` one stays float32 in a model of half precision, where a running average would
    stand still as soon as its steps round to nothing.
    """

    shape: tuple[int, ...]
    initializer: Initializer
    fans: Fans | None = None
    wide: bool = False
    learns: ClassVar[bool] = False

    def dtype(self, model: str) -> str:
        """Its dtype in a model of the dtype ``model``."""
        return "float32" if self.wide and model in _array.HALF else model


Declared: TypeAlias = Mapping[str, Parameter | Buffer]
"""A layer's own arrays, by name."""
