"""Where a table is measured: all that differs between the CPU and a GPU."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

import devconv as dc

DTYPES = {"cpu": ("float32",), "cuda": ("float32", "float16", "bfloat16")}


def installed(library: str) -> bool:
    """Whether a library is there, without importing it."""
    return importlib.util.find_spec(library) is not None


def refused(name: str) -> str:
    """Why a device cannot be used, in one line; empty where it can."""
    try:
        dc.device(name)
    except dc.InvalidValue as problem:
        return str(problem)
    return ""


@dataclass(frozen=True)
class Place:
    """``"cpu"``: NumPy beside PyTorch's CPU; ``"cuda"``: CuPy beside PyTorch's GPU."""

    kind: str = "cpu"

    @property
    def is_gpu(self) -> bool:
        """Whether calls return before their work is done."""
        return self.kind != "cpu"

    @property
    def missing(self) -> str:
        """Why nothing can be measured here, in one line; empty where it can."""
        return refused(self.kind)

    @property
    def has_torch(self) -> bool:
        """Whether PyTorch is installed, and computes here."""
        return installed("torch") and (not self.is_gpu or _torch().cuda.is_available())

    @property
    def lacks_torch(self) -> str:
        """Why PyTorch does not compute here, in one line; empty where it does."""
        if self.has_torch:
            return ""
        why = refused("torch:cuda" if self.is_gpu else "torch")
        return why or "PyTorch does not see the device"

    @property
    def lacks_jax(self) -> str:
        """Why JAX does not compute here, in one line; empty where it does.

        It may not take all memory at once.
        """
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        return refused(f"jax:{self.kind}")

    @property
    def count(self) -> int:
        """How many GPUs there are."""
        if not self.is_gpu:
            return 0
        return int(importlib.import_module("cupy").cuda.runtime.getDeviceCount())

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that are measured here."""
        return tuple(name for name in DTYPES[self.kind] if dc.device(self.kind).has_dtype(name))

    def ours(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Any:
        """A host array in NumPy or CuPy, its memory in the same order."""
        return dc.device(self.kind).asarray(host, dtype)

    def theirs(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Any:
        """A host array as a PyTorch tensor."""
        torch = _torch()
        tensor = torch.from_numpy(np.array(host)).to(self.kind)
        return tensor if dtype is None else tensor.to(getattr(torch, dtype))

    def synchronize(self) -> None:
        """Wait until the device has done all that both sides told it."""
        if self.is_gpu:
            importlib.import_module("cupy").cuda.Device().synchronize()
            if self.has_torch:
                _torch().cuda.synchronize()

    def release(self) -> None:
        """Give memory that is kept for later back, so that the other side finds some."""
        if self.is_gpu:
            importlib.import_module("cupy").get_default_memory_pool().free_all_blocks()
            if self.has_torch:
                _torch().cuda.empty_cache()

    def make_room(self) -> None:
        """Release where more than half of the memory is in use: another's turn is next."""
        if self.is_gpu:
            free, total = importlib.import_module("cupy").cuda.runtime.memGetInfo()
            if free < total / 2:
                self.release()

    def answers(self) -> None:
        """Compute something, which raises where an earlier call has broken the device."""
        if self.is_gpu:
            self.synchronize()
            xp = dc.device(self.kind).xp
            if int(xp.sum(xp.arange(4))) != 6:
                raise RuntimeError("0 + 1 + 2 + 3 is not 6 there any more")

    def prepare(self) -> None:
        """Let PyTorch choose its quickest convolution, in float32 without TF32."""
        if self.is_gpu and self.has_torch:
            backends = _torch().backends
            backends.cudnn.benchmark = True
            backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = False

    @property
    def name(self) -> str:
        """The GPU's name; empty on a CPU."""
        if not self.is_gpu:
            return ""
        name = importlib.import_module("cupy").cuda.runtime.getDeviceProperties(0)["name"]
        return str(name.decode() if isinstance(name, bytes) else name)

    def details(self) -> dict[str, Any]:
        """The GPU's memory and the versions of what drives it, as far as they are told."""
        if not self.is_gpu:
            return {}
        runtime = importlib.import_module("cupy").cuda.runtime
        found = {"driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}
        found["memory, GB"] = round(runtime.memGetInfo()[1] / 1e9, 1)
        if self.has_torch:
            torch = _torch()
            found["PyTorch's CUDA"] = torch.version.cuda
            found["PyTorch's cuDNN"] = torch.backends.cudnn.version()
        return found


def _torch() -> Any:
    return importlib.import_module("torch")
