"""What each quicker route buys: the library with and without it, on its own arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import devconv as dc
from benchmarks.agreement import TOLERANCE, agree
from benchmarks.options import Options
from benchmarks.place import installed
from benchmarks.report import NOTE, OURS, Row, ratio_table
from benchmarks.shapes import Shape, arrays, channels_last
from benchmarks.switches import as_it_is, has_numba, numpy_alone, written_once
from devconv import functional as F

LIBRARIES = ("numpy", "torch", "jax")
CHOSEN = ("A", "B", "F", "H", "L", "S", "depthwise")
KIND = "with gradients"


def calls(shape: Shape, library: str) -> dict[str, Callable[[], Any]]:
    """Forward with both gradients, on the arrays of one library, until the result is there."""
    device = dc.device(library)
    x, weight, dy = (device.asarray(channels_last(a)) for a in arrays(shape))

    def both(x: Any, weight: Any, dy: Any) -> Any:
        y, pullback = F.conv.vjp(x, weight, **shape.options)
        return y, *pullback(dy)

    def with_routes(switch: Callable[[], Any]) -> Callable[[], Any]:
        if library == "jax":
            jax = importlib.import_module("jax")
            with switch():  # a function of its own: jit would find the other's trace again
                compiled = jax.jit(lambda *given: both(*given)).lower(x, weight, dy).compile()
            return lambda: jax.block_until_ready(compiled(x, weight, dy))

        def run() -> Any:
            with switch():
                return both(x, weight, dy)

        return run

    racers = {OURS: with_routes(as_it_is)}
    if library == "numpy" and has_numba():
        racers["NumPy alone"] = with_routes(numpy_alone)
    return {**racers, "written once": with_routes(written_once)}


def measure(options: Options) -> list[Row]:
    """One row for each library and shape: seconds with the routes, and without."""
    rows = []
    for library in (name for name in LIBRARIES if installed(name)):
        for name in (name for name in CHOSEN if name in options.shapes):
            shape = options.shapes[name]
            racers = calls(shape, library)
            agree(f"{library} {name}", racers, lambda _: TOLERANCE["float32"])
            timed = options.time(racers)
            gain = timed.seconds["written once"] / timed.seconds[OURS]
            print(f"{library} {name}: gain {gain:.2f}", flush=True)
            rows.append(
                {
                    "library": library,
                    "case": name,
                    "shape": str(shape),
                    KIND: timed.seconds,
                    "disturbed": timed.disturbed,
                }
            )
    return rows


def table(rows: list[Row]) -> str:
    """What the routes buy, above 1 where they are quicker."""
    body = ratio_table(
        rows,
        KIND,
        {
            "arrays": lambda row: row["library"],
            "case": lambda row: row["case"],
            "N, C, size, O, kernel": lambda row: row["shape"],
        },
    )
    return f"{NOTE}\n\nConvolution, forward and both gradients:\n\n{body}"
