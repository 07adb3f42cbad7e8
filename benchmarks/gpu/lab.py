"""What the facts are found out with: arrays, a clock, and a count of bytes."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import devconv as dc
from benchmarks.gpu.clock import one
from benchmarks.gpu.memory import counter
from benchmarks.gpu.told import Told


class NoMeaning(Exception):
    """A fact about CuPy that NumPy cannot play."""


class NotHere(Exception):
    """What a fact needs is not installed, or does not compute here."""


class Lab:
    """A device, and its library as CuPy's users know it; on the CPU NumPy rehearses."""

    def __init__(self, told: Told) -> None:
        self.place, self.small = told.place, told.small
        self.xp = dc.device(told.place.kind).xp
        self.plain = importlib.import_module("cupy" if told.place.is_gpu else "numpy")

    @property
    def cupy(self) -> Any:
        """CuPy itself.

        Raises:
            NoMeaning: on the CPU.
        """
        if not self.place.is_gpu:
            raise NoMeaning
        return self.plain

    @property
    def torch(self) -> Any:
        """PyTorch.

        Raises:
            NotHere: where it does not compute on the device.
        """
        if lacks := self.place.lacks_torch:
            raise NotHere(lacks)
        return importlib.import_module("torch")

    def size(self, n: int) -> int:
        """A size, small in a rehearsal."""
        return max(4, n // 64) if self.small else n

    def normal(self, *shape: int, dtype: str = "float32") -> Any:
        """Normal numbers."""
        host = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        return self.place.ours(host, dtype)

    def host(self, x: Any) -> Any:
        """The same on the host, in float64."""
        return dc.to_numpy(x).astype("float64")

    def seconds(self, call: Callable[[], object], calls: int = 20) -> float:
        """The median over five turns of a call's time, the device waited for after each turn."""
        call()
        return statistics.median(one(call, calls, self.place) for _ in range(5))

    def handed_over(self, call: Callable[[], object], calls: int = 500) -> float:
        """Seconds of the host for a call whose result nobody waits for."""
        call()
        found = []
        for _ in range(5):
            self.place.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            found.append((time.perf_counter() - start) / calls)
            self.place.synchronize()
        return statistics.median(found)

    def bytes(self, call: Callable[[], Any]) -> int:
        """Bytes taken from the pool by a call, its result among them."""
        with counter(self.cupy.cuda.MemoryHook) as arrays:
            result = call()
            total = int(arrays.total)
            del result
        return total

    def waits(self, call: Callable[[], object]) -> tuple[float, float]:
        """Seconds of a call behind work in the queue, and seconds of that work."""
        a = self.normal(self.size(4096), self.size(4096))

        def work() -> None:
            for _ in range(20):
                a @ a

        call()
        behind = one(work, 1, self.place)
        behind = one(work, 1, self.place)
        work()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        self.place.synchronize()
        return seconds, behind

    def bits(self, call: Callable[[], Any], times: int = 20) -> int:
        """How many different results the same call gives."""
        return len({dc.to_numpy(call()).tobytes() for _ in range(times)})
