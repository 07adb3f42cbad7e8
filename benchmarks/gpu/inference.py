"""The forward pass of whole networks."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.gpu import steps
from benchmarks.gpu.told import Jobs, Told
from benchmarks.report import Row

MINUTES = 3.0  # every kernel is compiled and every plan made anew


def jobs(told: Told) -> Jobs:
    """A row for each network and dtype."""
    return steps.jobs("inference", told)


def table(rows: Mapping[str, Row]) -> str:
    """A table for each dtype."""
    return steps.table(rows, "The forward pass alone, parameters in the precision of the passes.")
