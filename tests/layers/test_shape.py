"""Layers that only move numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend


@pytest.mark.parametrize("start", [1, 2])
def test_flatten(backend: Backend, start: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    layer = dc.Flatten(start)
    y, pullback = layer.vjp(backend.asarray(x))
    wanted = x.reshape((2, 60) if start == 1 else (2, 3, 20))
    np.testing.assert_array_equal(backend.to_numpy(y), wanted)
    assert layer.output_shape((3, 4, 5)) == wanted.shape[1:]
    dx, grads = pullback(y)
    np.testing.assert_array_equal(backend.to_numpy(dx), x)
    assert grads == {}


def test_flatten_of_channels_last_memory_joins_in_order_of_the_axes(backend: Backend) -> None:
    """The result of a convolution lies in memory otherwise than its shape says."""
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3))
    permuted = backend.xp.permute_dims(backend.asarray(x), (0, 3, 1, 2))
    y = dc.Flatten()(permuted)
    np.testing.assert_array_equal(backend.to_numpy(y), x.transpose(0, 3, 1, 2).reshape(2, 60))


def test_flatten_of_an_empty_batch() -> None:
    assert dc.Flatten()(np.zeros((0, 3, 4))).shape == (0, 12)
    assert dc.Flatten()(np.zeros(5)).shape == (5, 1)
    assert dc.Flatten().output_shape(()) == (1,)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (0, InvalidValue, "Flatten: start must be at least 1, got 0"),
        (1.0, InvalidType, r"Flatten: start must be an int, got 1\.0"),
    ],
)
def test_arguments_are_checked_when_it_is_made(start: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dc.Flatten(start)


def test_a_start_beyond_the_shape() -> None:
    with pytest.raises(InvalidValue, match=r"^Flatten: start=4 is out of range for x \(N, 3\)$"):
        dc.Flatten(4).output_shape((3,))
