"""Local response normalisation: what is refused, and memory order."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from devconv._check import InvalidType, InvalidValue

X = np.ones((2, 4, 5))


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (np.ones((2, 4)), {"size": 2}, InvalidValue, "x must have shape (N, C, *spatial)"),
        (X, {"size": 0}, InvalidValue, "size must be at least 1, got 0"),
        (X, {"size": 2.0}, InvalidType, "size must be an int, got 2.0"),
        (X, {"size": 2, "alpha": -1.0}, InvalidValue, "alpha must be at least 0.0, got -1.0"),
        (X, {"size": 2, "beta": "1"}, InvalidType, "beta must be a number, got '1'"),
        (X, {"size": 2, "k": 0}, InvalidValue, "k must be greater than 0.0, got 0"),
        (X.astype("int64"), {"size": 2}, InvalidType, "x (2, 4, 5) has dtype int64"),
    ],
)
def test_what_is_refused(x: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^local_response_norm: {re.escape(message)}"):
        F.local_response_norm(x, **options)


def test_an_even_neighbourhood_looks_further_down() -> None:
    x = np.asarray([[[1.0], [2.0], [4.0]]])
    y = F.local_response_norm(x, size=2, alpha=2.0, beta=1.0)
    np.testing.assert_allclose(y, [[[1 / 2], [2 / 6], [4 / 21]]])


def test_results_have_the_memory_order_of_x() -> None:
    x = np.moveaxis(np.ones((2, 3, 5, 4)), -1, 1)
    y, pullback = F.local_response_norm.vjp(x, size=3)
    assert y.strides == pullback(x)[0].strides == x.strides
