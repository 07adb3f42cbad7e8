"""The forward pass of whole networks."""

from __future__ import annotations

from benchmarks import steps
from benchmarks.networks_table import network_rows, network_table
from benchmarks.options import Options
from benchmarks.report import Row


def measure(options: Options) -> list[Row]:
    """One row for each dtype and network: seconds of a pass."""
    return network_rows(options, "inference", steps.inference)


def table(rows: list[Row]) -> str:
    """Milliseconds of the library, ratios of the others."""
    return network_table(rows, "inference", "the forward pass alone")
