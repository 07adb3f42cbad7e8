"""Unfold and fold beyond the table: each is the other's adjoint; what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from devconv import functional as F
from tests.functional.adjoint import assert_adjoint
from tests.functional.test_conv_transpose import layouts

X, COLS = np.ones((2, 3, 4, 4)), np.ones((2, 12, 9))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(layouts())
def test_fold_is_the_adjoint_of_unfold(layout: Any) -> None:
    size, kernel, options = layout
    options = {k: v for k, v in options.items() if k != "groups"}
    assert_adjoint(F.unfold, 2, 3, *size, kernel_size=kernel, **options)
    x = np.random.default_rng(1).standard_normal((2, 3, *size))
    cols, pullback = F.unfold.vjp(x, kernel_size=kernel, **options)
    folded = F.fold(cols, output_size=size, kernel_size=kernel, **options)
    np.testing.assert_array_equal(folded, pullback(cols)[0])
    assert_adjoint(F.fold, *cols.shape, output_size=size, kernel_size=kernel, **options)


def test_half_precision_adds_in_float32() -> None:
    cols = np.ones((1, 5, 5), dtype="float16")
    cols[:, 0, :] = 2048.0
    y = F.fold(cols, output_size=(9,), kernel_size=5)
    assert y.dtype == np.float16
    assert y[0, 0, 4] == 2052.0  # one by one it would stay at 2048


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": 2.0}, TypeError, "kernel_size must be an int, got 2.0"),
        ({"kernel_size": 2, "padding": "same"}, TypeError, "padding must be an int, got 'same'"),
        ({"kernel_size": 2, "stride": (1,)}, ValueError, "stride needs one entry for each of 2"),
        ({"kernel_size": 5}, ValueError, r"the output would be empty: kernel \(5, 5\)"),
    ],
)
def test_unfold_refuses(options: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=f"unfold: {message}"):
        F.unfold(X, **options)


@pytest.mark.parametrize(
    ("cols", "options", "kind", "message"),
    [
        (COLS[0], {}, ValueError, r"cols must have shape \(N, C \* taps, L\), got \(12, 9\)"),
        (COLS, {"output_size": 4}, TypeError, "output_size must be a sequence .*, got 4"),
        (COLS, {"output_size": ()}, ValueError, "output_size must name at least one"),
        (COLS, {"output_size": (4, 0)}, ValueError, r"output_size\[1\] must be at least 1"),
        (COLS, {"kernel_size": (2, 1, 1)}, ValueError, "kernel_size needs one entry for each of 2"),
        (
            COLS,
            {"kernel_size": 3},
            ValueError,
            r"cols \(2, 12, 9\) has 12 rows, expected a multiple of the 9 pixels of kernel "
            r"\(3, 3\)",
        ),
        (COLS[:, :0], {}, ValueError, r"cols \(2, 0, 9\) has 0 rows"),
        (
            COLS,
            {"output_size": (4, 5)},
            ValueError,
            r"cols \(2, 12, 9\) has 9 columns, expected 12: one for each of the \(3, 4\) windows "
            r"over output_size \(4, 5\)",
        ),
        (COLS, {"output_size": (1, 4)}, ValueError, "the output would be empty"),
    ],
)
def test_fold_refuses(cols: Any, options: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=f"fold: {message}"):
        F.fold(cols, **{"output_size": (4, 4), "kernel_size": 2, **options})
