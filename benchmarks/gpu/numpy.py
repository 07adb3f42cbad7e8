"""The same training step on the GPU and, on the same machine, by NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from benchmarks import machine, switches
from benchmarks.gpu.networks import entrants, networks
from benchmarks.gpu.race import race
from benchmarks.gpu.tables import absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.networks_table import TOLERANCE
from benchmarks.place import Place
from benchmarks.report import OURS, Row, markdown

MINUTES = 4.0  # Numba compiles first
NETWORK, DTYPE = "ResNet-18", "float32"
NUMPY = "NumPy"


def jobs(told: Told) -> Jobs:
    """One row."""
    return {f"{NETWORK}, {DTYPE}": partial(row, told)}


def row(told: Told) -> Row:
    """The library's contestants on the GPU, and the library on NumPy with all cores."""
    threads = machine.cores() if told.place.is_gpu else told.threads
    switches.limit(threads)
    network = networks(told.small)[NETWORK]
    makers, left_out = entrants("training", network, DTYPE, told)
    mine = {label: make for label, make in makers.items() if not label.startswith("PyTorch")}
    on_the_host, _ = entrants("training", network, DTYPE, Told(place=Place()))
    mine[NUMPY] = on_the_host[OURS]
    batch = " × ".join(map(str, (network.images, *network.image)))
    return {
        "case": f"{NETWORK} ({batch})",
        "dtype": DTYPE,
        "threads": threads,
        "compiled": switches.has_numba(),
        **race(mine, told, lambda _: TOLERANCE[DTYPE], left_out),
    }


def table(rows: Mapping[str, Row]) -> str:
    """Seconds of each, and NumPy's over them."""
    lines = []
    for row in complete(rows).values():
        host = row["seconds"].get(NUMPY)
        for label, seconds in row["seconds"].items():
            gain = f"{host / seconds:.1f}" if host else "–"
            lines.append([label, row["case"], f"{1000 * seconds:.1f}", gain])
    threads = max((row["threads"] for row in complete(rows).values()), default=0)
    numba = any(row["compiled"] for row in complete(rows).values())
    about = (
        f"A training step in {DTYPE} by devconv alone; NumPy with {threads} threads, "
        f"{'with' if numba else 'without'} Numba."
    )
    body = markdown(["", "network", "ms", "NumPy's time over it"], lines) if lines else ""
    return joined(about, body, absent(rows))
