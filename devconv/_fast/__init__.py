"""The one door for speed: a table ``(primitive, library) -> a quicker route``.

Operations are written once against the standard and ask :func:`route` whether their
array's library has a quicker way through a *whole primitive*. An entry stays only with a
test that it equals the written-once route (``tests/test_fast.py``) and a recorded
benchmark that says what it buys (``benchmarks/results``). Nothing above
:mod:`devconv.functional` knows that this room exists.

A route that only a GPU can run is *on trial* until it ran on one: :data:`TRIALS` has those, under
a name, and nobody takes them who does not ask, by ``DEVCONV_TRIAL=kernels,cudnn`` in the
environment or :func:`trial` around a call.

``DEVCONV_GENERIC=1`` in the environment, or :func:`generic` around a call, closes the door:
everything then runs as it is written once. ``DEVCONV_NUMBA=0``, or :func:`numba`, leaves out
only what Numba, if it is installed, has compiled for NumPy arrays.
"""

from __future__ import annotations

import operator
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from devconv._array import Array, library_of
from devconv._check import InvalidValue, choice
from devconv._fast import cudnn, cupy, jax, kernels, numpy, tf32, torch
from devconv._fast.budget import MIB
from devconv._fast.plan import Plan
from devconv.precision import precision

Route = Callable[..., Any]

TABLE: dict[tuple[str, str], Route] = {
    ("take", "numpy"): numpy.take,
    ("take", "cupy"): cupy.take,  # CuPy's are unmeasured: no run on a GPU is on record
    ("channel_sums", "cupy"): cupy.channel_sums,
    ("multiply", "cupy"): tf32.multiply,  # under precision("fast") alone, and tried before
    ("multiply", "jax"): jax.multiply,
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
_ROOMS: dict[str, Any] = {"numpy": numpy, "torch": torch, "jax": jax, "cupy": cupy}
"""Which arrays a route suits, its room knows: ``suits``, ``alike``, ``contiguous``."""

_TRIAL_ROOMS: dict[str, Any] = {"kernels": kernels, "cudnn": cudnn}
TRIALS: dict[str, dict[tuple[str, str], Route]] = {
    name: room.ROUTES for name, room in _TRIAL_ROOMS.items()
}

_WORKSPACE: dict[str, int] = {
    "numpy": 4 * MIB,  # columns that stay in a cache, and enough of them for one product
    "array_api_strict": 1 * MIB,
    "torch": 4 * MIB,
}

_WINOGRAD_FROM = 48  # where it is compiled; written once it is not quicker than the direct sum
_FFT_BELOW = {"numpy": 0.5}  # others: their own choice, or nothing measured yet


def _named(names: Iterable[str]) -> tuple[str, ...]:
    """The trials of these names; cuDNN first, which knows whole convolutions."""
    asked = [choice("trial", name.strip(), tuple(_TRIAL_ROOMS)) for name in names if name.strip()]
    return tuple(name for name in ("cudnn", "kernels") if name in asked)


def _asked_for(value: str) -> tuple[str, ...]:
    """The trials that ``DEVCONV_TRIAL`` names; a name it does not know is no reason to stop."""
    try:
        return _named(value.split(","))
    except InvalidValue as problem:
        warnings.warn(f"DEVCONV_TRIAL={value!r} is ignored: {problem}", stacklevel=2)
        return ()


class _Door(threading.local):
    """Whether the door is closed, for each thread by itself."""

    closed = os.environ.get("DEVCONV_GENERIC", "") not in ("", "0")
    compiling = os.environ.get("DEVCONV_NUMBA", "") != "0"
    trials = _asked_for(os.environ.get("DEVCONV_TRIAL", ""))


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


@contextmanager
def trial(*names: str) -> Iterator[None]:
    """Take the routes on trial of these names inside, ``"kernels"`` or ``"cudnn"``; none: none.

    In this thread; others go on as they were. Another name raises ``ValueError``.
    """
    before, _door.trials = _door.trials, _named(names)
    try:
        yield
    finally:
        _door.trials = before


def trials() -> tuple[str, ...]:
    """The trials whose routes are taken, if the door is open."""
    return _door.trials


def route(primitive: str, x: Array) -> Route | None:
    """The quicker route through ``primitive`` for arrays like ``x``, if there is one."""
    if _door.closed:
        return None
    name = library_of(x)
    for on_trial in _door.trials:
        found = TRIALS[on_trial].get((primitive, name))
        if found is not None:
            return found
    return _settled(primitive, name)


def _settled(primitive: str, name: str) -> Route | None:
    """The route through ``primitive`` that is not on trial for arrays of the library ``name``."""
    if name == "numpy" and _door.compiling:
        found = numpy.compiled().get(primitive)
        if found is not None:
            return found
    return TABLE.get((primitive, name))


def _suited(primitive: str, x: Array, question: str, *about: Any) -> Route | None:
    """The first route through ``primitive`` whose room says yes to a ``question`` about it."""
    if _door.closed:
        return None
    name = library_of(x)
    for on_trial in _door.trials:
        found = TRIALS[on_trial].get((primitive, name))
        if found is not None and getattr(_TRIAL_ROOMS[on_trial], question)(*about):
            return found
    found = _settled(primitive, name)
    if found is not None and getattr(_ROOMS[name], question)(*about):
        return found
    return None


def convolution(primitive: str, x: Array, windows: Plan, groups: int) -> Route | None:
    """The quicker route through a whole convolution, where it says the same for these arrays."""
    return _suited(primitive, x, "suits", x, windows, groups)


def winograd(primitive: str, x: Array, windows: Plan, groups: int) -> Route | None:
    """The quicker route through Winograd's convolution of these arrays."""
    return _suited(f"winograd_{primitive}", x, "suits_winograd", x, windows, groups)


def pooling(primitive: str, x: Array, windows: Plan) -> Route | None:
    """The quicker route through a whole pooling, where it says the same for these arrays."""
    return convolution(primitive, x, windows, 1)


def passing(primitive: str, *arrays: Array) -> Route | None:
    """The quicker route through arrays that lie in memory alike, without gaps, in one pass."""
    return _suited(primitive, arrays[0], "alike", *arrays)


def multiplication(a: Array, b: Array) -> Route:
    """How two matrices, or stacks of them, are multiplied, as :func:`precision` says."""
    return _suited("multiply", a, "matrices", a, b) or operator.matmul


def rows(primitive: str, x: Array) -> Route | None:
    """The quicker route through channels-last images ``(..., C)`` without gaps, row by row."""
    return _suited(primitive, x, "contiguous", x)


def workspace(x: Array) -> int | None:
    """How many bytes of columns one tile may hold; ``None`` for no limit.

    A constant of the library and the kind of device (a GPU: its class by memory in all), never of
    what is free at the moment: tile edges decide the order of sums, and the same call must give
    the same bits. JAX arrays are immutable and its loops are unrolled, so there one tile holds
    everything.
    """
    name = library_of(x)
    if name == "cupy":
        return cupy.workspace(x)
    if name == "torch" and x.device.type != "cpu":
        return torch.workspace(x)
    return _WORKSPACE.get(name)


def multiplies_stacks(x: Array) -> bool:
    """Whether the library of ``x`` multiplies stacks of matrices well.

    CuPy copies what is not in C order, widens float16 and refuses bfloat16.
    """
    return library_of(x) != "cupy"


def adds_up_wide(x: Array) -> bool:
    """Whether products of two matrices in half precision like ``x`` add up in float32 as they are.

    CuPy's do, and the GPU has units for just that; to widen them first would do without.
    """
    return library_of(x) == "cupy"


def rounds_products(x: Array) -> bool:
    """Whether products of float32 arrays like ``x`` are rounded to TF32 in this thread now."""
    may = not _door.closed and precision() == "fast" and library_of(x) == "cupy"
    return may and tf32.has_tf32(x.device)


def winograd_from(x: Array, windows: Plan, groups: int) -> int | None:
    """From how many channels on Winograd's way is quicker on arrays like ``x``; ``None``: never."""
    return _WINOGRAD_FROM if winograd("correlate", x, windows, groups) is not None else None


def fft_below(x: Array) -> float:
    """Below which share of the direct sum's work Fourier's way is quicker on arrays like ``x``."""
    return _FFT_BELOW.get(library_of(x), 0.0)
