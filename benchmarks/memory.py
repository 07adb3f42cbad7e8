"""Peak memory of one convolution, forward and with both gradients, each in its own process."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks import child, switches
from benchmarks.convolution import makers
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.report import OURS, Row, markdown
from benchmarks.shapes import restored

MB = 1e6


def measure(options: Options) -> list[Row]:
    """One row for each contestant, least memory first."""
    shape = options.large
    rows = []
    for name in makers(shape, Place(), "float32"):
        row = child.call(
            peak, contestant=name, shape=dataclasses.asdict(shape), threads=options.threads
        )
        rows.append({"case": str(shape), "contestant": name, **row})
        print(f"{name}: {row['peak'] / MB:.0f} MB", flush=True)
    return sorted(rows, key=lambda row: float(row["peak"]))


def peak(contestant: str, shape: dict[str, Any], threads: int) -> dict[str, float]:
    """Bytes above what was in use when the inputs were there, and those of the results.

    A call with one image comes before: what a first call loads, compiles and starts is not
    what a convolution needs.
    """
    switches.limit(threads)
    large = restored(shape)
    makers(large.batch(1), Place(), "float32")[contestant]().both()
    racer = makers(large, Place(), "float32")[contestant]()
    forget_peak()
    before = resident()
    results = racer.both()
    return {
        "peak": highest() - before,
        "results": float(sum(4 * math.prod(each.shape) for each in results)),
    }


def forget_peak() -> None:
    """Let the kernel forget the highest use so far, where it can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the peak of the whole process is told then, never too little


def resident() -> float:
    """Bytes of memory in use; the highest use so far where that is not told."""
    return _status("VmRSS") or highest()


def highest() -> float:
    """The highest use so far, in bytes."""
    told = _status("VmHWM")
    if told:
        return told
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)


def _status(field: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(field)), 0.0)


def table(rows: list[Row]) -> str:
    """Megabytes, and how many times those of the library."""
    ours = next(row["peak"] for row in rows if row["contestant"] == OURS)
    body = markdown(
        ["", "peak, MB", "results themselves, MB", "peak / devconv's"],
        [
            [
                row["contestant"],
                f"{row['peak'] / MB:.0f}",
                f"{row['results'] / MB:.0f}",
                f"{row['peak'] / ours:.2f}",
            ]
            for row in rows
        ],
    )
    return (
        f"Convolution {rows[0]['case']}, float32, forward and both gradients: the highest memory "
        f"in use above that with the inputs in place, each in a process of its own.\n\n{body}"
    )
