"""Adaptive pooling beyond the table: adjointness, ties, NaN and infinities, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devconv import functional as F
from tests.functional.adjoint import assert_adjoint

X = np.ones((2, 3, 4, 5))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9) | st.none()), min_size=1, max_size=3)
)
def test_the_average_s_pullback_is_its_adjoint(sizes: list[tuple[int, int | None]]) -> None:
    assert_adjoint(
        F.adaptive_avg_pool, 2, 3, *(n for n, _ in sizes), output_size=[m for _, m in sizes]
    )


def test_the_first_of_equal_maxima_gets_the_gradient(backend: Any) -> None:
    x = backend.asarray([[[[0.0, 2.0, 2.0], [2.0, 1.0, 2.0]]]], "float64")
    y, pullback = F.adaptive_max_pool.vjp(x, output_size=(1, 2))
    np.testing.assert_array_equal(backend.to_numpy(y), [[[[2.0, 2.0]]]])
    (dx,) = pullback(backend.asarray([[[[1.0, 10.0]]]], "float64"))
    np.testing.assert_array_equal(backend.to_numpy(dx), [[[[0.0, 11.0, 0.0], [0.0, 0.0, 0.0]]]])


def test_nan_wins_and_the_first_one_gets_the_gradient(backend: Any) -> None:
    x = backend.asarray([[[[9.0, 1.0], [np.nan, 5.0], [np.nan, np.nan]]]], "float64")
    y, pullback = F.adaptive_max_pool.vjp(x, output_size=1)
    assert np.isnan(backend.to_numpy(y)).all()
    (dx,) = pullback(backend.asarray([[[[2.0]]]], "float64"))
    expected = [[[[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]]]
    np.testing.assert_array_equal(backend.to_numpy(dx), expected)


def test_an_infinity_or_a_nan_shows_in_its_own_windows_alone() -> None:
    x = np.asarray([[[1.0, np.inf, 2.0, 4.0, np.nan, 6.0, 7.0]]])
    y = F.adaptive_avg_pool(x, output_size=4)  # windows 0:2, 1:4, 3:6, 5:7
    np.testing.assert_array_equal(y, [[[np.inf, np.inf, np.nan, 6.5]]])


def test_half_precision_adds_in_float32() -> None:
    x = np.full((1, 1, 2), 60000.0, dtype="float16")
    y = F.adaptive_avg_pool(x, output_size=1)
    assert y.dtype == np.float16
    assert y[0, 0, 0] == x[0, 0, 0]  # the sum is beyond float16


def test_integers_have_exact_means() -> None:
    y = F.adaptive_avg_pool(np.arange(1.0, 15.0).reshape(1, 1, 14), output_size=2)
    np.testing.assert_array_equal(y, [[[4.0, 11.0]]])


@pytest.mark.parametrize("op", [F.adaptive_avg_pool, F.adaptive_max_pool])
@pytest.mark.parametrize(
    ("output_size", "kind", "message"),
    [
        (0, ValueError, "output_size must be at least 1, got 0"),
        ((2, 0), ValueError, r"output_size\[1\] must be at least 1, got 0"),
        ((2, 2, 2), ValueError, "output_size needs one entry for each of 2 spatial dimensions"),
        (None, TypeError, "output_size must be an int, got None"),
        ("22", TypeError, "output_size"),
        (2.0, TypeError, "output_size must be an int, got 2.0"),
    ],
)
def test_refused(op: Any, output_size: Any, kind: type, message: str) -> None:
    with pytest.raises(kind, match=f"{op.__name__}: {message}"):
        op(X, output_size=output_size)
