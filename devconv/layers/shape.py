"""Layers that only move numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from devconv import _check, functional
from devconv._check import InvalidValue, located, show
from devconv.layers.layer import InputShape, Trace
from devconv.layers.operation import OperationLayer


@dataclass(repr=False, eq=False)
class Flatten(OperationLayer):
    """Join all dimensions from ``start`` on; see :func:`devconv.functional.flatten`.

    Args:
        start: the first dimension to join, the batch being dimension 0; at least 1.

    >>> Flatten().output_shape((16, 7, 7))
    (784,)
    """

    operation = functional.flatten

    start: int = 1

    def __post_init__(self) -> None:
        with located("Flatten"):
            self.start = _check.integer("start", self.start, least=1)

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.flatten`."""
        return {"start": self.start}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, a, b, ...)`` becomes ``(N, a·b·...)``."""
        if self.start > len(shape):
            raise InvalidValue(f"start={self.start} is out of range for x {show(shape)}")
        return (*shape[: self.start], math.prod(n or 0 for n in shape[self.start :]))
