"""What the tables of training and inference share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.agreement import agree
from benchmarks.networks import NETWORKS, Network
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.report import NOTE, OURS, Row, ratio_table

TOLERANCE = {"float64": 1e-9, "float32": 2e-2, "float16": 0.1, "bfloat16": 0.3}
"""In float64 it is the same network; in float32 one ReLU that rounding turns moves a gradient."""

LONGER = 5
"""A network's steps follow each other for a while, so that a turn is not its first step alone."""

Racers = Callable[[Network, Place, str, int | None], Mapping[str, Callable[[], Sequence[Any]]]]


def network_rows(options: Options, kind: str, racers: Racers) -> list[Row]:
    """Check that the networks agree, then time them."""
    rows = []
    names = options.networks or tuple(NETWORKS)
    for name in names:
        _check(name, racers(NETWORKS[name], options.place, "float64", options.images), "float64")
    for dtype in options.kinds():
        for name in names:
            network = NETWORKS[name]
            calls = racers(network, options.place, dtype, options.images)
            apart = _check(name, calls, dtype)
            timed = options.time(calls, LONGER)
            images = options.images or network.images
            rows.append(
                {
                    "case": name,
                    "batch": " × ".join(map(str, (images, *network.image))),
                    "dtype": dtype,
                    "differences": apart,
                    kind: timed.seconds,
                    "disturbed": timed.disturbed,
                }
            )
            options.place.release()
            print(f"{name} {dtype} {kind}: devconv {1000 * timed.seconds[OURS]:.2f} ms", flush=True)
    return rows


def _check(name: str, calls: Mapping[str, Callable[[], Any]], dtype: str) -> dict[str, float]:
    return agree(f"{name} in {dtype}", calls, lambda _: TOLERANCE[dtype])


def network_table(rows: list[Row], kind: str, what: str) -> str:
    """Milliseconds of the library, ratios of the others, for each dtype."""
    parts = [NOTE]
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        body = ratio_table(
            [row for row in rows if row["dtype"] == dtype],
            kind,
            {"network": lambda row: row["case"], "batch": lambda row: row["batch"]},
            {"geometric mean": lambda row: True},
        )
        parts.append(f"{kind.capitalize()}, {dtype}, {what}:\n\n{body}")
    return "\n\n".join(parts)
