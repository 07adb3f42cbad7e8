"""Nothing is timed before the contestants agree on the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import devconv as dc

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
"""How far two results may be apart, over the largest entry, by the dtype of the arrays."""
TRADED = {"fast": 2e-4, "TF32": 2e-3}
"""The same for contestants with such a word in their names, which trade digits for speed."""


class Disagreement(SystemExit):
    """Two contestants do not compute the same: their times mean nothing."""


def difference(reference: Sequence[Any], other: Sequence[Any]) -> float:
    """The largest difference of two results over the largest entry; NaN where one has NaN."""
    worst = 0.0
    for a, b in zip(reference, other, strict=True):
        one, two = (np.asarray(dc.to_numpy(each), dtype=np.float64) for each in (a, b))
        if one.shape != two.shape:
            return float("inf")
        scale = float(np.abs(one).max(initial=0.0)) or 1.0
        worst = float(np.maximum(worst, np.abs(one - two).max(initial=0.0) / scale))
    return worst


def agree(
    case: str,
    results: Mapping[str, Callable[[], Sequence[Any]]],
    tolerance: Callable[[str], float],
) -> dict[str, float]:
    """How far each contestant is from the first; they must be close.

    Args:
        case: what is compared, for the message.
        results: calls by contestant, each giving arrays in the same order.
        tolerance: how far a contestant may be away.

    Raises:
        Disagreement: one is not close. Nothing is timed then.
    """
    (first, call), *others = results.items()
    reference = [dc.to_numpy(each) for each in call()]
    apart = {}
    for name, other in others:
        apart[name] = difference(reference, other())
        if not apart[name] <= tolerance(name):
            raise Disagreement(
                f"{case}: {name} differs from {first} by {apart[name]:.1e} of the largest entry, "
                f"more than {tolerance(name):.0e}; nothing is timed"
            )
    return apart
