"""Moving numbers: what is refused, and that memory order makes no difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend
from tests.functional.adjoint import assert_adjoint


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (3, InvalidValue, r"start=3 is out of range for x with shape \(2, 3\)"),
        (-1, InvalidValue, "start must be at least 0, got -1"),
        (1.0, InvalidType, "start must be an int, got 1.0"),
        (True, InvalidType, "start must be an int, got True"),
    ],
)
def test_flatten_starts_inside(start: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^flatten: {message}"):
        F.flatten(np.ones((2, 3)), start=start)


def test_flatten_of_a_number_needs_a_start_of_0() -> None:
    assert F.flatten(np.asarray(3.0), start=0).shape == (1,)
    with pytest.raises(InvalidValue, match=r"start=1 is out of range for x with shape \(\)"):
        F.flatten(np.asarray(3.0))


def test_flatten_goes_by_the_shape_not_by_the_memory(backend: Backend) -> None:
    """What comes out of a convolution is channels-last in memory."""
    host = np.arange(24.0).reshape(1, 2, 3, 4)
    last = backend.asarray(np.ascontiguousarray(host.transpose(0, 2, 3, 1)))
    x = backend.xp.permute_dims(last, (0, 3, 1, 2))
    np.testing.assert_array_equal(backend.to_numpy(F.flatten(x)), host.reshape(1, 24))


# --- pixels and channels ---


@pytest.mark.parametrize("factor", [1, 2, (2, 3), (1, 4)])
def test_pixel_shuffle_and_unshuffle_undo_each_other(factor: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 24, 3, 2))
    y, pullback = F.pixel_shuffle.vjp(x, factor=factor)
    np.testing.assert_array_equal(F.pixel_unshuffle(y, factor=factor), x)
    np.testing.assert_array_equal(pullback(y)[0], x)
    assert_adjoint(F.pixel_shuffle, *x.shape, factor=factor)
    assert_adjoint(F.pixel_unshuffle, *y.shape, factor=factor)


@pytest.mark.parametrize("op", [F.pixel_shuffle, F.pixel_unshuffle], ids=lambda op: op.__name__)
@pytest.mark.parametrize(
    ("shape", "factor", "error", "message"),
    [
        ((2, 4, 4, 4), 0, InvalidValue, "factor must be at least 1, got 0"),
        ((2, 4, 4, 4), (2, -1), InvalidValue, r"factor\[1\] must be at least 1, got -1"),
        ((2, 4, 4, 4), (2, 2, 2), InvalidValue, "factor needs one entry for each of 2 spatial"),
        ((2, 4, 4, 4), 2.0, InvalidType, "factor must be an int, got 2.0"),
        ((2, 4, 4, 4), True, InvalidType, "factor must be an int, got True"),
        ((4, 4), 2, InvalidValue, r"x must have shape \(N, C, \*spatial\), got \(4, 4\)"),
    ],
)
def test_factors_out_of_range(op: Any, shape: Any, factor: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{op.__name__}: {message}"):
        op(np.ones(shape), factor=factor)


def test_patches_must_fit() -> None:
    message = (
        r"^pixel_shuffle: x \(2, 6, 4, 4\) has 6 channels, expected a multiple of the 4 pixels of "
        r"factor \(2, 2\)$"
    )
    with pytest.raises(InvalidValue, match=message):
        F.pixel_shuffle(np.ones((2, 6, 4, 4)), factor=2)
    message = (
        r"^pixel_unshuffle: x \(2, 1, 4, 5\) has a size that is no multiple of factor \(2, 2\)$"
    )
    with pytest.raises(InvalidValue, match=message):
        F.pixel_unshuffle(np.ones((2, 1, 4, 5)), factor=2)
