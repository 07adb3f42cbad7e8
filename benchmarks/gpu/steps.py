"""Rows of whole networks: what the parts ``training`` and ``inference`` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from benchmarks.gpu.networks import TF32, entrants, networks
from benchmarks.gpu.race import race
from benchmarks.gpu.tables import NOTE, absent, complete, joined, raced
from benchmarks.gpu.told import Jobs, Told
from benchmarks.networks import Network
from benchmarks.networks_table import TOLERANCE
from benchmarks.report import Row, markdown

FEW = 4
"""Images of the batch on which the networks are compared in float64."""
CLOSE = {**TOLERANCE, "float16": 0.5, "bfloat16": 0.7, TF32: 0.5}
"""In half precision and TF32 rounding turns many a ReLU: far beyond that is another network.

How exact half precision is, the parts ``convolution`` and ``kernels`` tell."""


def jobs(kind: str, told: Told) -> Jobs:
    """For each network a row in each dtype; before them a comparison in float64, not timed."""
    found = {}
    traded = (TF32,) if kind == "training" and "float32" in told.kinds() else ()
    for name, network in networks(told.small).items():
        few = replace(network, images=FEW)
        found[f"{name}, float64"] = partial(row, kind, name, few, "float64", told)
        for dtype in (*told.kinds(), *traded):
            found[f"{name}, {dtype}"] = partial(row, kind, name, network, dtype, told)
    return found


def row(kind: str, name: str, network: Network, dtype: str, told: Told) -> Row:
    """One network in one dtype; in float64 it is compared alone."""
    makers, left_out = entrants(kind, network, dtype, told)
    how = replace(told, rounds=0) if dtype == "float64" else told
    measured = race(makers, how, lambda _: CLOSE[dtype], left_out)
    batch = " × ".join(map(str, (network.images, *network.image)))
    return {"case": f"{name} ({batch})", "network": name, "dtype": dtype, **measured}


def table(rows: Mapping[str, Row], about: str) -> str:
    """Comparisons in float64, and a table for each dtype."""
    parts, finished = [], complete(rows)
    for dtype in dict.fromkeys(row["dtype"] for row in finished.values()):
        of_dtype = {name: row for name, row in finished.items() if row["dtype"] == dtype}
        if dtype == "float64":
            lines = [
                [row["case"], label, f"{far:.1e}" if isinstance(far, float) else str(far)]
                for row in of_dtype.values()
                for label, far in row["differences"].items()
            ]
            if lines:
                head = ["float64, not timed", "", "largest difference"]
                parts.append(markdown(head, lines))
        else:
            parts.append(f"{dtype}:\n\n{raced(of_dtype)}\n\n{_far(of_dtype)}")
    return joined(about, NOTE, *parts, absent(rows))


def _far(rows: Mapping[str, Row]) -> str:
    """How far contestants are from the first."""
    said = []
    for row in rows.values():
        each = (
            f"{label} {far:.0e}" if isinstance(far, float) else f"{label} {far}"
            for label, far in row["differences"].items()
        )
        said.append(f"{row['network']}: {', '.join(each)}")
    return f"Differences from devconv, over the largest entry: {'; '.join(said)}."
