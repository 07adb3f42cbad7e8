"""What a second thread buys: one convolution with both gradients, on one thread and on more."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks import child, peers, switches, timing
from benchmarks.options import Options
from benchmarks.ours import devconv
from benchmarks.place import Place, installed
from benchmarks.report import Row, geometric_mean, markdown
from benchmarks.shapes import restored


def measure(options: Options) -> list[Row]:
    """One row for each shape: seconds by contestant and number of threads.

    Each number of threads has processes of its own: some libraries settle it when they start.
    """
    rows = []
    for name, shape in options.shapes.items():
        row: Row = {"case": name, "shape": str(shape)}
        for threads in (1, options.threads):
            row[str(threads)] = child.call(
                seconds,
                shape=dataclasses.asdict(shape),
                threads=threads,
                rounds=options.rounds,
                turn=options.turn,
            )
        rows.append(row)
        gains = ", ".join(f"{who} {gain:.2f}" for who, gain in speedups(row).items())
        print(f"{name}: {gains}", flush=True)
    return rows


def seconds(shape: dict[str, Any], threads: int, rounds: int, turn: float) -> dict[str, float]:
    """Seconds of the library and of PyTorch with so many threads, in this process."""
    switches.limit(threads)
    timing.keep_memory()
    case = restored(shape)
    calls = {
        name: devconv(case, Place(), switch=switch).both
        for name, switch in switches.variants().items()
    }
    if installed("torch"):
        calls["PyTorch"] = peers.torch(case, Place()).both
    return timing.interleaved(calls, rounds=rounds, turn=turn).seconds


def speedups(row: Row) -> dict[str, float]:
    """How many times quicker each is with the larger number of threads."""
    few, *_, many = (row[key] for key in row if key.isdigit())
    return {name: few[name] / many[name] for name in few}


def table(rows: list[Row]) -> str:
    """The gain of each contestant."""
    most = [key for key in rows[0] if key.isdigit()][-1]
    gains = [speedups(row) for row in rows]
    names = list(gains[0])
    lines = [
        [row["case"], row["shape"], *(f"{gain[name]:.2f}" for name in names)]
        for row, gain in zip(rows, gains, strict=True)
    ]
    means = [f"{geometric_mean([gain[name] for gain in gains]):.2f}" for name in names]
    body = markdown(
        ["case", "N, C, size, O, kernel", *names], [*lines, ["**geometric mean**", "", *means]]
    )
    return (
        f"Convolution with both gradients, float32: seconds on 1 thread over seconds on {most}; "
        f"{most} would be perfect.\n\n{body}"
    )
