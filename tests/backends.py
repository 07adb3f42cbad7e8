"""The array libraries the tests run on, each on a device of its own.

A backend that is not installed, or has no usable device, is reported by name in pytest's
summary (see ``conftest.py``); ``DEVCONV_REQUIRE=numpy,cupy`` makes it an error.

``DEVCONV_TEST_DEVICES="torch:cuda,jax:cuda,cuda:1"`` puts backends on other devices than the CPU,
and CuPy on another GPU than the first; ``double`` puts CuPy's stand-in in CuPy's place.
``DEVCONV_TEST_STREAM=own`` lets every test run on streams that do not wait for the default ones.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
import pytest

from devconv import _array

NAMES = ("numpy", "array_api_strict", "torch", "jax", "cupy")


@dataclass(frozen=True)
class Backend:
    """One library: its namespace, and how arrays get onto its device and off it."""

    name: str
    xp: Any
    device: Any

    def __str__(self) -> str:
        return self.name

    def asarray(self, host: Any, dtype: str | None = None) -> Any:
        """A copy of a host array on this backend's device; ``dtype`` by name."""
        host = np.array(host)  # the test's own copy, in C order
        native = None if dtype is None else _array.dtype_of(self.xp, dtype)
        if self.name == "jax":  # a plain copy: jnp.asarray compiles a conversion for each shape
            put = importlib.import_module("jax").device_put
            return put(host if native is None else host.astype(native.dtype), self.device)
        if self.name == "cupy":
            with self.device:
                return self.xp.asarray(host, dtype=native)
        return self.xp.asarray(host, dtype=native, device=self.device)

    def here(self) -> AbstractContextManager[Any]:
        """Its GPU as CuPy's current one, for what a test computes without the library."""
        return self.device if self.name == "cupy" else nullcontext()

    def to_numpy(self, x: Any) -> np.ndarray:
        """The array on the host (bfloat16 as float32)."""
        return np.array(_array.to_numpy(x))

    def has(self, dtype: str) -> bool:
        """Whether the library has a dtype of this name."""
        return _array.find_dtype(self.xp, dtype) is not None


def _split(variable: str, spec: str | None = None) -> list[str]:
    """The names in an environment variable, or in ``spec``."""
    spec = os.environ.get(variable, "") if spec is None else spec
    return [name.strip() for name in spec.split(",") if name.strip()]


def placed(spec: str | None = None) -> dict[str, str]:
    """The backends that ``DEVCONV_TEST_DEVICES`` puts somewhere, and where.

    >>> placed("torch:cuda:1, cuda:1, jax:cuda")
    {'torch': 'cuda:1', 'cupy': 'cuda:1', 'jax': 'cuda'}
    """
    found = {}
    for each in _split("DEVCONV_TEST_DEVICES", spec):
        name, _, where = each.partition(":")
        if name in ("cuda", "double"):
            name, where = "cupy", "cuda:0" if each == "cuda" else each
        if name not in ("torch", "jax", "cupy") or not where:
            raise pytest.UsageError(
                f"DEVCONV_TEST_DEVICES names {each!r}; it takes torch:cuda, jax:cuda, cuda:1, "
                "double, and the like"
            )
        found[name] = where
    return found


def _tried(backend: Backend) -> Backend:
    """The backend, when a first product on its device gave the right number."""
    x = backend.asarray(np.full((2, 2), 2.0))
    if float(np.sum(backend.to_numpy(x @ x))) != 32.0:
        raise RuntimeError(f"a product on {backend.device} gave a wrong number")
    return backend


def _numpy() -> Backend:
    return Backend("numpy", array_api_compat.array_namespace(np.ones(1)), "cpu")


def _array_api_strict() -> Backend:
    xp = importlib.import_module("array_api_strict")
    return Backend("array_api_strict", xp, xp.Device("device1"))


def _torch() -> Backend:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)  # for small arrays, on a busy machine 50 times faster than two
    device = torch.ones(1, device=placed().get("torch", "cpu")).device  # with its number
    return _tried(Backend("torch", array_api_compat.array_namespace(torch.ones(1)), device))


def _jax() -> Backend:
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)  # the tests' choice; the library leaves it alone
    jax.config.update("jax_disable_most_optimizations", True)  # compiling takes the time here
    kind, _, index = placed().get("jax", "cpu").partition(":")
    device = jax.devices(kind)[int(index or 0)]
    return _tried(Backend("jax", importlib.import_module("jax.numpy"), device))


def _cupy() -> Backend:
    where = placed().get("cupy", "cuda:0")
    if where == "double":
        return importlib.import_module("tests.doubles.cupy").backend()
    cupy = importlib.import_module("cupy")
    if not cupy.is_available():
        raise RuntimeError("no CUDA device")
    device = cupy.cuda.Device(int(where.removeprefix("cuda:")))
    with device:
        xp = array_api_compat.array_namespace(cupy.ones(1))
    return _tried(Backend("cupy", xp, device))


_MAKERS = {name: globals()[f"_{name}"] for name in NAMES}


@functools.cache
def look(name: str) -> Backend | str:
    """The backend called ``name``, or why there is none, in one line."""
    try:
        return _MAKERS[name]()
    except Exception as error:  # a broken driver raises what it likes
        return f"{type(error).__name__}: {error}".splitlines()[0]


def usable() -> dict[str, Backend]:
    """The backends there are here, by name."""
    found = {name: look(name) for name in NAMES}
    return {name: b for name, b in found.items() if isinstance(b, Backend)}


def told() -> list[str]:
    """The usable backends, and where those are that were put somewhere."""
    where = placed()
    return [f"{name} on {where[name]}" if name in where else name for name in usable()]


def missing() -> dict[str, str]:
    """The backends there are not, and why."""
    found = {name: look(name) for name in NAMES}
    return {name: b for name, b in found.items() if isinstance(b, str)}


def required(spec: str | None = None) -> tuple[str, ...]:
    """The names in ``DEVCONV_REQUIRE``, refused when there is no such backend here."""
    names = tuple(_split("DEVCONV_REQUIRE", spec))
    for name in names:
        if name not in NAMES:
            raise pytest.UsageError(
                f"DEVCONV_REQUIRE names {name!r}, which is none of {', '.join(NAMES)}"
            )
        if name in missing():
            raise pytest.UsageError(
                f"DEVCONV_REQUIRE asks for {name}, which is not usable here: {missing()[name]}"
            )
    return names


def check() -> None:
    """Refuse what the environment asks of the tests and cannot be had."""
    required()
    for name, where in placed().items():
        if name in missing():
            raise pytest.UsageError(
                f"DEVCONV_TEST_DEVICES puts {name} on {where}, which is not usable here: "
                f"{missing()[name]}"
            )
    streams()


@functools.cache
def streams() -> tuple[tuple[Any, Any], ...]:
    """Each GPU and a stream of its own, if ``DEVCONV_TEST_STREAM`` asks for them."""
    asked = os.environ.get("DEVCONV_TEST_STREAM", "")
    if asked not in ("", "own"):
        raise pytest.UsageError(f"DEVCONV_TEST_STREAM is {asked!r}; it can be own")
    if not asked:
        return ()
    if "cupy" in missing() or placed().get("cupy") == "double":
        raise pytest.UsageError("DEVCONV_TEST_STREAM=own needs CuPy and a GPU")
    cuda = importlib.import_module("cupy").cuda
    made = []
    for index in range(cuda.runtime.getDeviceCount()):
        with cuda.Device(index) as device:
            made.append((device, cuda.Stream(non_blocking=True)))
    return tuple(made)


@contextmanager
def on_streams() -> Iterator[None]:
    """Let the streams of :func:`streams` be the current ones."""
    with ExitStack() as stack:
        for device, stream in streams():
            stack.enter_context(_on(device, stream))
        yield


@contextmanager
def _on(device: Any, stream: Any) -> Iterator[None]:
    """A stream as its device's current one, whichever device is current."""
    with device:
        stream.__enter__()
    try:
        yield
    finally:
        with device:
            stream.__exit__(None, None, None)


def get(name: str) -> Backend:
    """The backend called ``name``; the test is skipped where there is none."""
    found = look(name)
    if isinstance(found, str):
        pytest.skip(f"{name} is not usable here: {found}")
    return found


def gpu(index: int) -> Backend:
    """CuPy on the GPU of this number; the test is skipped where there is none."""
    first = get("cupy")
    if placed().get("cupy") == "double":
        pytest.skip("the double stands in for CuPy")
    there = importlib.import_module("cupy").cuda
    if index >= there.runtime.getDeviceCount():
        pytest.skip(f"there is no cuda:{index} here")
    return Backend(first.name, first.xp, there.Device(index))
