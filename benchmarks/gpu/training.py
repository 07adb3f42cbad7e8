"""A training step: forward, loss, gradients, SGD with momentum."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.gpu import steps
from benchmarks.gpu.told import Jobs, Told
from benchmarks.report import Row

MINUTES = 3.0


def jobs(told: Told) -> Jobs:
    """A row for each network and dtype."""
    return steps.jobs("training", told)


def table(rows: Mapping[str, Row]) -> str:
    """A table for each dtype."""
    about = (
        "A step with SGD and momentum. Half precision is mixed precision on both sides: float32 "
        "parameters and passes in half precision, `Trainer(precision=...)` beside `autocast`, in "
        "float16 with loss scaling beside `GradScaler` (which waits for the device at each step). "
        "In tf32 products are rounded to TF32 here, and convolutions too there."
    )
    return steps.table(rows, about)
