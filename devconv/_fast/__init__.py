"""The one door for speed: a table ``(primitive, library) -> a quicker route``.

Operations are written once against the standard and ask :func:`route` whether their
array's library has a quicker way through a *whole primitive*. An entry stays only with a
test that it equals the written-once route (``tests/test_fast.py``) and a recorded
benchmark that says what it buys (``benchmarks/results``). Nothing above
:mod:`devconv.functional` knows that this room exists.

``DEVCONV_GENERIC=1`` in the environment, or :func:`generic` around a call, closes the door:
everything then runs as it is written once. ``DEVCONV_NUMBA=0``, or :func:`numba`, leaves out
only what Numba, if it is installed, has compiled for NumPy arrays.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_SUITS: dict[str, Callable[..., bool]] = {
    "numpy": numpy.suits,
    "torch": torch.suits,
    "jax": jax.suits,
}

MIB = 2**20
_WORKSPACE = {
    "numpy": 4 * MIB,  # columns that stay in a cache, and enough of them for one product
    "array_api_strict": 1 * MIB,
    "torch": 4 * MIB,
    "cupy": 1024 * MIB,  # one large product per launch
}

_WINOGRAD_FROM = 48  # where it is compiled; written once it is not quicker than the direct sum
_FFT_BELOW = {"numpy": 0.5}  # others: their own choice, or nothing measured yet


class _Door(threading.local):
    """Whether the door is closed, for each thread by itself."""

    closed = os.environ.get("DEVCONV_GENERIC", "") not in ("", "0")
    compiling = os.environ.get("DEVCONV_NUMBA", "") != "0"


_door = _Door()


@contextmanager
def generic(enabled: bool = True) -> Iterator[None]:
    """Run everything inside by the written-once routes alone (or not, with ``False``).

    In this thread; others go on as they were.
    """
    before, _door.closed = _door.closed, enabled
    try:
        yield
    finally:
        _door.closed = before


@contextmanager
def numba(enabled: bool = True) -> Iterator[None]:
    """Use what Numba has compiled inside, or not: then NumPy arrays are NumPy's alone.

    In this thread; others go on as they were.
    """
    before, _door.compiling = _door.compiling, enabled
    try:
        yield
    finally:
        _door.compiling = before


def route(primitive: str, x: Array) -> Route | None:
    """The quicker route through ``primitive`` for arrays like ``x``, if there is one."""
    if _door.closed:
        return None
    name = library(array_namespace(x))
    if name == "numpy" and _door.compiling:
        found = numpy.compiled().get(primitive)
        if found is not None:
            return found
    return TABLE.get((primitive, name))


def convolution(primitive: str, x: Array, windows: Plan, groups: int) -> Route | None:
    """The quicker route through a whole convolution, where it says the same for these arrays."""
    found = route(primitive, x)
    if found is not None and _SUITS[library(array_namespace(x))](x, windows, groups):
        return found
    return None


def winograd(primitive: str, x: Array, windows: Plan, groups: int) -> Route | None:
    """The quicker route through Winograd's convolution of these arrays."""
    found = route(f"winograd_{primitive}", x)
    return found if found is not None and numpy.suits_winograd(x, windows, groups) else None


def pooling(primitive: str, x: Array, windows: Plan) -> Route | None:
    """The quicker route through a whole pooling, where it says the same for these arrays."""
    return convolution(primitive, x, windows, 1)


def passing(primitive: str, *arrays: Array) -> Route | None:
    """The quicker route through arrays that lie in memory alike, without gaps, in one pass."""
    found = route(primitive, arrays[0])
    return found if found is not None and numpy.alike(*arrays) else None


def multiplication(a: Array, b: Array) -> Route:
    """How two matrices are multiplied."""
    found = route("multiply", a)
    return found if found is not None and numpy.matrices(a, b) else operator.matmul


def rows(primitive: str, x: Array) -> Route | None:
    """The quicker route through channels-last images ``(..., C)`` without gaps, row by row."""
    found = route(primitive, x)
    return found if found is not None and numpy.contiguous(x) else None


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


def winograd_from(x: Array, windows: Plan, groups: int) -> int | None:
    """From how many channels on Winograd's way is quicker on arrays like ``x``; ``None``: never."""
    return _WINOGRAD_FROM if winograd("correlate", x, windows, groups) is not None else None


def fft_below(x: Array) -> float:
    """Below which share of the direct sum's work Fourier's way is quicker on arrays like ``x``."""
    return _FFT_BELOW.get(library(array_namespace(x)), 0.0)
