"""The array libraries the tests run on, each on a device of its own.

A backend that is not installed, or has no usable device, is reported by name in pytest's
summary (see ``conftest.py``); ``DEVCONV_REQUIRE=numpy,cupy`` makes it an error.
"""

from __future__ import annotations

import functools
import importlib
import os
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

    def to_numpy(self, x: Any) -> np.ndarray:
        """The array on the host (bfloat16 as float32)."""
        return np.array(_array.to_numpy(x))

    def has(self, dtype: str) -> bool:
        """Whether the library has a dtype of this name."""
        return getattr(self.xp, dtype, None) is not None


def _numpy() -> Backend:
    return Backend("numpy", array_api_compat.array_namespace(np.ones(1)), "cpu")


def _array_api_strict() -> Backend:
    xp = importlib.import_module("array_api_strict")
    return Backend("array_api_strict", xp, xp.Device("device1"))


def _torch() -> Backend:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)  # for small arrays, on a busy machine 50 times faster than two
    return Backend("torch", array_api_compat.array_namespace(torch.ones(1)), torch.device("cpu"))


def _jax() -> Backend:
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)  # the tests' choice; the library leaves it alone
    jax.config.update("jax_disable_most_optimizations", True)  # compiling takes the time here
    return Backend("jax", importlib.import_module("jax.numpy"), jax.devices("cpu")[0])


def _cupy() -> Backend:
    cupy = importlib.import_module("cupy")
    if not cupy.is_available():
        raise RuntimeError("no CUDA device")
    x = cupy.ones((2, 2)) + 1.0
    if float((x @ x).sum()) != 32.0:
        raise RuntimeError("a product on the GPU gave a wrong number")
    return Backend("cupy", array_api_compat.array_namespace(x), cupy.cuda.Device(0))


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


def missing() -> dict[str, str]:
    """The backends there are not, and why."""
    found = {name: look(name) for name in NAMES}
    return {name: b for name, b in found.items() if isinstance(b, str)}


def required(spec: str | None = None) -> tuple[str, ...]:
    """The names in ``DEVCONV_REQUIRE``, refused when there is no such backend here."""
    spec = os.environ.get("DEVCONV_REQUIRE", "") if spec is None else spec
    names = tuple(name.strip() for name in spec.split(",") if name.strip())
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


def get(name: str) -> Backend:
    """The backend called ``name``; the test is skipped where there is none."""
    found = look(name)
    if isinstance(found, str):
        pytest.skip(f"{name} is not usable here: {found}")
    return found


def gpu(index: int) -> Backend:
    """CuPy on the GPU of this number; the test is skipped where there is none."""
    first = get("cupy")
    there = importlib.import_module("cupy").cuda
    if index >= there.runtime.getDeviceCount():
        pytest.skip(f"there is no cuda:{index} here")
    return Backend(first.name, first.xp, there.Device(index))
