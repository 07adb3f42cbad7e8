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


def test_identity_hands_everything_on(backend: Backend) -> None:
    x = backend.asarray(np.ones((2, 3)))
    layer = dc.Identity()
    assert layer(x) is x
    y, pullback = layer.vjp(x)
    assert y is x
    assert pullback(x) == (x, {})
    assert repr(layer) == "Identity()"


def test_shuffling_in_any_rank(backend: Backend) -> None:
    """One patch size per dimension, and back again."""
    x = np.random.default_rng(0).standard_normal((2, 12, 3, 4))
    layer, inverse = dc.PixelShuffle((2, 3)), dc.PixelUnshuffle((2, 3))
    assert layer.output_shape((12, 3, 4)) == (2, 6, 12)
    assert inverse.output_shape((2, 6, 12)) == (12, 3, 4)
    y, pullback = layer.vjp(backend.asarray(x))
    assert tuple(y.shape) == (2, 2, 6, 12)
    np.testing.assert_array_equal(backend.to_numpy(inverse(y)), x)
    np.testing.assert_array_equal(backend.to_numpy(pullback(y)[0]), x)
    assert dc.PixelShuffle(2).output_shape((4, 5)) == (2, 10)


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (0, InvalidValue, "PixelShuffle: factor must be at least 1, got 0"),
        ((2, "2"), InvalidType, r"factor\[1\] must be an int, got '2'"),
    ],
)
def test_factors_are_checked_when_it_is_made(factor: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dc.PixelShuffle(factor)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (dc.PixelShuffle(2), (6, 3, 3), r"PixelShuffle: x \(N, 6, 3, 3\) has 6 channels, expected"),
        (
            dc.PixelShuffle((2, 2)),
            (4, 3),
            "factor needs one entry for each of 1 spatial dimensions",
        ),
        (
            dc.PixelUnshuffle(2),
            (6, 3, 4),
            r"PixelUnshuffle: x \(N, 6, 3, 4\) has a size that is no",
        ),
        (dc.PixelUnshuffle(2), (6,), r"expected x \(N, C, \*spatial\) with pixels, got x \(N, 6\)"),
    ],
    ids=str,
)
def test_images_that_do_not_fit(layer: dc.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layer.output_shape(shape)
