"""The one door for speed: a table ``(primitive, library) -> a quicker route``.

Operations are written once against the standard and ask :func:`route` whether their
array's library has a quicker way through a *whole primitive*. An entry stays only with a
test that it equals the written-once route (``tests/test_fast.py``) and a recorded
benchmark that says what it buys (``benchmarks/results``). Nothing above
:mod:`devconv.functional` knows that this room exists.

``DEVCONV_GENERIC=1`` in the environment, or :func:`generic` around a call, closes the door:
everything then runs as it is written once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from devconv._array import Array, array_namespace, library
from devconv._fast import cupy, jax, numpy, torch
from devconv._fast.plan import Plan

Route = Callable[..., Any]

TABLE: dict[tuple[str, str], Route] = {
    ("take", "numpy"): numpy.take,
    ("take", "cupy"): cupy.take,  # unmeasured: no run on a GPU is on record yet
    ("take", "torch"): torch.take,
    ("columns", "numpy"): numpy.columns,
    ("weigh", "numpy"): numpy.weigh,
    ("weigh_back", "numpy"): numpy.weigh_back,
    ("correlate", "torch"): torch.correlate,
    ("correlate", "jax"): jax.correlate,
    ("input_cotangent", "torch"): torch.input_cotangent,
    ("input_cotangent", "jax"): jax.input_cotangent,
    ("kernel_cotangent", "torch"): torch.kernel_cotangent,
    ("kernel_cotangent", "jax"): jax.kernel_cotangent,
}
_SUITS: dict[str, Callable[..., bool]] = {"torch": torch.suits, "jax": jax.suits}

MIB = 2**20
_WORKSPACE = {
    "numpy": 4 * MIB,  # columns that stay in a cache, and enough of them for one product
    "array_api_strict": 1 * MIB,
    "torch": 4 * MIB,
    "cupy": 1024 * MIB,  # one large product per launch
}

_generic: ContextVar[bool] = ContextVar(
    "devconv_generic", default=os.environ.get("DEVCONV_GENERIC", "") not in ("", "0")
)


@contextmanager
def generic(enabled: bool = True) -> Iterator[None]:
    """Run everything inside by the written-once routes alone (or not, with ``False``)."""
    token = _generic.set(enabled)
    try:
        yield
    finally:
        _generic.reset(token)


def route(primitive: str, x: Array) -> Route | None:
    """The quicker route through ``primitive`` for arrays like ``x``, if there is one."""
    if _generic.get():
        return None
    return TABLE.get((primitive, library(array_namespace(x))))


def convolution(primitive: str, x: Array, windows: Plan, groups: int) -> Route | None:
    """The quicker route through a whole convolution, where it says the same for these arrays."""
    found = route(primitive, x)
    if found is None or not windows.is_whole:  # a library works the number of windows out itself
        return None
    if _SUITS[library(array_namespace(x))](x, windows, groups):
        return found
    return None


def workspace(x: Array) -> int | None:
    """How many bytes of columns one tile may hold; ``None`` for no limit.

    A constant of the library and the kind of device, never of what is free at the moment:
    tile edges decide the order of sums, and the same call must give the same bits. JAX
    arrays are immutable and its loops are unrolled, so there one tile holds everything.
    """
    name = library(array_namespace(x))
    if name == "torch" and x.device.type != "cpu":
        name = "cupy"
    return _WORKSPACE.get(name)
