"""Peak memory of a training step of ResNet-18, each contestant in a process of its own.

Both libraries keep what they have freed, so there are three figures for each, told alike: the
most bytes of arrays at one time, the bytes that their pools took from the device for it, and
what the driver says has gone since before the network was made. A step comes before, for what
first calls load and try out; then the pools give back what is free.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks import child, switches
from benchmarks.gpu.contestants import wanted
from benchmarks.gpu.networks import entrants, networks
from benchmarks.gpu.tables import absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.memory import forget_peak, highest, resident
from benchmarks.place import Place
from benchmarks.report import OURS, Row, markdown

MINUTES = 4.0  # about 14 processes
NETWORK = "ResNet-18"
DTYPES = ("float32", "float16")
STEPS = 3
FIGURES = {"arrays": "most of arrays", "pool": "taken by the pool", "driver": "gone, by the driver"}
MB = 1e6


def jobs(told: Told) -> Jobs:
    """A row for each dtype and contestant, those that the targets need first."""
    found = {}
    for dtype in (dtype for dtype in told.kinds() if dtype in DTYPES[: 1 if told.small else 2]):
        makers, left_out = entrants("training", networks(told.small)[NETWORK], dtype, told)
        makers, asked = wanted(makers, told.without)
        for label in sorted(makers, key=lambda label: not label.startswith((OURS, "PyTorch"))):
            found[f"{dtype}, {label}"] = partial(row, label, dtype, {**left_out, **asked}, told)
    return found


def row(label: str, dtype: str, left_out: Mapping[str, str], told: Told) -> Row:
    """One contestant, in another process."""
    found = child.call(
        peak,
        limit=told.remaining(),
        label=label,
        dtype=dtype,
        kind=told.place.kind,
        small=told.small,
        threads=told.threads,
    )
    return {"contestant": label, "dtype": dtype, "left out": dict(left_out), **found}


def peak(label: str, dtype: str, kind: str, small: bool, threads: int) -> dict[str, float]:
    """The three figures of one contestant, in this process."""
    switches.limit(threads)
    told = Told(place=Place(kind), small=small)
    told.place.prepare()
    network = networks(small)[NETWORK]
    makers, _ = entrants("training", network, dtype, told)
    told.place.release()  # what CuPy was tried with
    with watch(told.place, label.startswith("PyTorch")) as read:
        racer = makers[label]()
        racer.call()
        told.place.synchronize()
        gc.collect()
        read()  # forget the highest so far
        for _ in range(STEPS):
            racer.call()
        told.place.synchronize()
        return read()


@contextmanager
def watch(place: Place, theirs: bool) -> Iterator[Any]:
    """What reads the three figures since its last call, and then begins anew."""
    if not place.is_gpu:
        yield _of_process()
    elif theirs:
        yield _of_torch(importlib.import_module("torch"))
    else:
        cupy = importlib.import_module("cupy")
        arrays = counter(cupy.cuda.MemoryHook)
        with arrays:
            yield _of_cupy(cupy, arrays)


def _of_process() -> Any:
    """On the CPU there is one figure, of all the process has; it stands for the three."""
    before = resident()

    def read() -> dict[str, float]:
        most = highest() - before
        forget_peak()
        return dict.fromkeys(FIGURES, max(most, 1.0))

    return read


def _of_torch(torch: Any) -> Any:
    cuda = torch.cuda
    before = cuda.mem_get_info()[0]

    def read() -> dict[str, float]:
        found = {
            "arrays": float(cuda.max_memory_allocated()),
            "pool": float(cuda.max_memory_reserved()),
            "driver": float(before - cuda.mem_get_info()[0]),
        }
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()
        return found

    return read


def _of_cupy(cupy: Any, arrays: Any) -> Any:
    pool, runtime = cupy.get_default_memory_pool(), cupy.cuda.runtime
    before = runtime.memGetInfo()[0]

    def read() -> dict[str, float]:
        found = {
            "arrays": float(arrays.most),
            "pool": float(pool.total_bytes()),  # which only grows until it is told to free
            "driver": float(before - runtime.memGetInfo()[0]),
        }
        pool.free_all_blocks()
        arrays.most = arrays.now
        return found

    return read


def counter(base: Any) -> Any:
    """A hook of CuPy's pool that counts the bytes of arrays alive, and the most so far."""

    class Counter(base):  # type: ignore[misc]
        name = "peak"

        def __init__(self) -> None:
            self.alive: dict[int, int] = {}
            self.now = self.most = self.total = 0

        def malloc_postprocess(self, **told: Any) -> None:
            if told["mem_ptr"]:
                self.alive[told["pmem_id"]] = told["mem_size"]
                self.now += told["mem_size"]
                self.total += told["mem_size"]
                self.most = max(self.most, self.now)

        def free_postprocess(self, **told: Any) -> None:
            self.now -= self.alive.pop(told["pmem_id"], 0)

    return Counter()


def table(rows: Mapping[str, Row]) -> str:
    """Megabytes of each contestant."""
    lines = [
        [row["contestant"], row["dtype"], *(f"{row[figure] / MB:.0f}" for figure in FIGURES)]
        for row in complete(rows).values()
    ]
    body = ""
    if lines:
        body = markdown(["", "dtype", *(f"{said}, MB" for said in FIGURES.values())], lines)
    about = (
        f"A training step of {NETWORK} as in the table of training, parameters, moments and batch "
        "included; each contestant in a process of its own."
    )
    return joined(about, body, absent(rows))
