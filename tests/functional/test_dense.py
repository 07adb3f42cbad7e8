"""What the dense product refuses, and its sums in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from devconv._check import InvalidValue

X, W = np.ones((3, 5)), np.ones((4, 5))


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        (
            (3, 6),
            (4, 5),
            None,
            r"x \(3, 6\) has 6 features, weight \(4, 5\) takes 5; give x shape \(..., 5\) or "
            r"weight shape \(4, 6\)",
        ),
        ((), (4, 5), None, r"x must have shape \(..., 5\), got a 0-d array"),
        ((3, 5), (5,), None, r"weight must have shape \(out_features, in_features\), got \(5,\)"),
        ((3, 5), (4, 5, 1), None, r"weight must have shape .*, got \(4, 5, 1\)"),
        (
            (3, 5),
            (4, 5),
            (5,),
            r"bias has shape \(5,\), expected \(4,\): one per output feature of weight \(4, 5\)",
        ),
        ((3, 5), (4, 5), (1, 4), r"bias has shape \(1, 4\), expected \(4,\)"),
        ((3, 5), (4, 5), (), r"bias has shape \(\), expected \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit(x: Any, weight: Any, bias: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=f"^dense: {message}"):
        F.dense(np.ones(x), np.ones(weight), None if bias is None else np.ones(bias))


def test_no_features_make_nothing_but_the_bias() -> None:
    np.testing.assert_array_equal(
        F.dense(np.ones((2, 0)), np.ones((3, 0)), np.asarray([1.0, 2.0, 3.0])),
        [[1.0, 2.0, 3.0]] * 2,
    )
    assert F.dense(X, np.ones((0, 5))).shape == (3, 0)


def test_sums_of_half_precision_are_wide() -> None:
    """2048 + 1 is 2048 in float16: a narrow sum of ones would stop there."""
    one = np.ones((4096, 1), dtype="float16")
    assert F.dense(one.T, one.T)[0, 0] == 4096.0
    _, pullback = F.dense.vjp(one, one[:1], one[0])
    _, dweight, dbias = pullback(one)
    assert dweight[0, 0] == 4096.0
    assert dbias[0] == 4096.0
