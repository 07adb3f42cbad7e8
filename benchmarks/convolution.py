"""One convolution, forward and with both gradients, by the library and its peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.agreement import TOLERANCE, TRADED, agree
from benchmarks.options import Options
from benchmarks.ours import Contestant, devconv
from benchmarks.peers import peers
from benchmarks.place import Place
from benchmarks.report import NOTE, OURS, Row, ratio_table
from benchmarks.shapes import NAMED, Shape
from benchmarks.switches import variants

KINDS = ("forward", "with gradients")


def makers(shape: Shape, place: Place, dtype: str) -> dict[str, Callable[[], Contestant]]:
    """What makes each who can do this, the library first."""
    ours = {
        name: partial(devconv, shape, place, dtype, switch)
        for name, switch in variants(place.is_gpu).items()
    }
    return {**ours, **peers(shape, place, dtype)}


def contestants(shape: Shape, place: Place, dtype: str) -> dict[str, Contestant]:
    """All who can do this, each with arrays of its own."""
    return {name: make() for name, make in makers(shape, place, dtype).items()}


def measure(options: Options) -> list[Row]:
    """One row for each dtype and shape: seconds of each contestant."""
    rows = []
    for dtype in options.kinds():
        for name, shape in options.shapes.items():
            rows.append(row(name, shape, dtype, options))
            options.place.release()
            for kind in KINDS:
                ours = 1000 * rows[-1][kind][OURS]
                print(f"{name} {dtype} {kind}: devconv {ours:.2f} ms", flush=True)
    return rows


def row(name: str, shape: Shape, dtype: str, options: Options) -> Row:
    """One shape: how far the contestants are apart, and their seconds."""
    racers = contestants(shape, options.place, dtype)

    def tolerance(contestant: str) -> float:
        allowed = [far for word, far in TRADED.items() if word in contestant]
        if options.place.is_gpu and allowed:
            allowed.append(TRADED["TF32"])  # which "fast" allows there
        return max([TOLERANCE[dtype], *allowed])

    apart = agree(name, {label: racer.both for label, racer in racers.items()}, tolerance)
    measured: Row = {"case": name, "shape": str(shape), "dtype": dtype, "differences": apart}
    disturbed = 0
    for kind in KINDS:
        calls = {
            label: racer.forward if kind == "forward" else racer.both
            for label, racer in racers.items()
        }
        timed = options.time(calls)
        measured[kind] = timed.seconds
        disturbed += timed.disturbed
    return {**measured, "disturbed": disturbed}


def table(rows: list[Row]) -> str:
    """Two tables for each dtype: forward, and with both gradients."""
    parts = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        of_dtype = [row for row in rows if row["dtype"] == dtype]
        for kind in KINDS:
            body = ratio_table(
                of_dtype,
                kind,
                {"case": lambda row: row["case"], "N, C, size, O, kernel": lambda r: r["shape"]},
                {
                    "geometric mean": lambda row: row["case"] in NAMED,
                    "": lambda row: row["case"] not in NAMED,
                },
            )
            parts.append(f"Convolution, {dtype}, {kind}:\n\n{body}")
    return "\n\n".join([NOTE, *parts])
