"""One case of the table from which the operations' tests are derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from devconv.functional import Operation

Arrays = tuple["np.ndarray | None", ...]


@dataclass(frozen=True)
class Case:
    """An operation with its options, arrays to try it on, and two oracles.

    ``arrays(rng)`` draws the positional arguments on the host, in float64 (labels: int64;
    ``None`` for an argument left out). ``reference(*arrays, **options)`` is the plain
    definition in float64 NumPy, loops and all. ``torch(*tensors)`` is PyTorch's own
    operation with the same options filled in, or ``None`` where PyTorch has none.
    """

    id: str
    op: Operation[Any]
    arrays: Callable[[np.random.Generator], Arrays]
    reference: Callable[..., Any]
    torch: Callable[..., Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    batched: bool = True
    """Whether the first dimension of the first argument may be empty."""
    smooth: bool = True
    """Whether a difference quotient exists almost everywhere (so that check_vjp applies)."""
    half: bool = True
    """Whether half precision is worth a look (not for what only moves numbers)."""

    def draw(self, seed: int = 0) -> Arrays:
        """The case's arrays for a seed."""
        return self.arrays(np.random.default_rng(seed))

    def __str__(self) -> str:
        return f"{self.op.__name__}-{self.id}"
