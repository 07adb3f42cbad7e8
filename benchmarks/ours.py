"""One convolution by this library, on NumPy or CuPy, each way it can be switched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.place import Place
from benchmarks.shapes import Shape, arrays, channels_last
from benchmarks.switches import Switch, as_it_is
from devconv import functional as F

Call = Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Contestant:
    """Forward, giving ``(y,)``, and with both gradients, giving ``(y, dx, dweight)``."""

    forward: Call
    both: Call


def devconv(
    shape: Shape, place: Place, dtype: str = "float32", switch: Switch = as_it_is
) -> Contestant:
    """The library, with arrays of its own."""
    return on(shape, placed(shape, place, dtype), switch)


def placed(shape: Shape, place: Place, dtype: str = "float32") -> tuple[Any, Any, Any]:
    """``x``, ``weight`` and ``dy``, images in the memory order in which layers hand them on."""
    x, weight, dy = arrays(shape)
    x, dy = (place.ours(channels_last(each), dtype) for each in (x, dy))
    return x, place.ours(weight, dtype), dy


def on(shape: Shape, given: tuple[Any, Any, Any], switch: Switch = as_it_is) -> Contestant:
    """The library on arrays that are there."""
    x, weight, dy = given

    def forward() -> tuple[Any, ...]:
        with switch():
            return (F.conv(x, weight, **shape.options),)

    def both() -> tuple[Any, ...]:
        with switch():
            y, pullback = F.conv.vjp(x, weight, **shape.options)
            return y, *pullback(dy)

    return Contestant(forward, both)
