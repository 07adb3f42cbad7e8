"""The error function against the standard library's, and the others far out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from devconv.functional.special import at_least, at_most, erf, log1p_exp, logistic
from tests.backends import Backend

pytestmark = pytest.mark.usefixtures("on_its_device")

EDGES = [0.0, -0.0, 0.46875, -0.46875, 4.0, 6.0, 5.9999999, 1e-300, -1e-300, 1e-8, 30.0, 1e300]


def points() -> np.ndarray:
    fine = np.linspace(-7.0, 7.0, 20001)
    near = 0.46875 + np.linspace(-1e-12, 1e-12, 11)
    return np.concatenate([fine, near, -near, EDGES])


def exact(x: np.ndarray) -> np.ndarray:
    return np.asarray([math.erf(v) for v in x])


def test_erf_is_good_to_the_last_digits(backend: Backend) -> None:
    x = points()
    y = backend.to_numpy(erf(backend.asarray(x)))
    assert np.max(np.abs(y - exact(x))) <= 1e-15


def test_erf_of_small_numbers_keeps_its_digits(backend: Backend) -> None:
    x = np.asarray([1e-300, 1e-20, 1e-10, 1e-5, 1e-3, 0.1])
    y = backend.to_numpy(erf(backend.asarray(x)))
    assert np.max(np.abs(y / exact(x) - 1.0)) <= 1e-15


def test_erf_in_float32(backend: Backend) -> None:
    x = points()[:20001].astype("float32")
    y = erf(backend.asarray(x))
    assert y.dtype == backend.asarray(x).dtype
    assert np.max(np.abs(backend.to_numpy(y) - exact(x.astype("float64")))) <= 2e-7


def test_erf_at_the_ends(backend: Backend) -> None:
    x = backend.asarray(np.asarray([math.inf, -math.inf, math.nan]))
    y = backend.to_numpy(erf(x))
    assert y[0] == 1.0
    assert y[1] == -1.0
    assert math.isnan(y[2])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)])
def test_erf_takes_any_shape(backend: Backend, shape: Any) -> None:
    assert tuple(erf(backend.asarray(np.full(shape, 0.5))).shape) == shape


FAR = np.asarray([-1e300, -1e4, -700.0, -100.0, -1e-3, -0.0, 0.0, 1e-3, 30.0, 1e4, 1e300])


def test_logistic_keeps_its_digits_on_either_side(backend: Backend) -> None:
    y = backend.to_numpy(logistic(backend.asarray(FAR)))
    small = np.exp(-np.abs(FAR))
    np.testing.assert_allclose(y, np.where(FAR < 0, small, 1.0) / (1.0 + small), rtol=1e-14)
    ends = backend.to_numpy(logistic(backend.asarray(np.asarray([-math.inf, math.inf, math.nan]))))
    np.testing.assert_array_equal(ends, [0.0, 1.0, math.nan])


def test_log1p_exp_keeps_its_digits_on_either_side(backend: Backend) -> None:
    y = backend.to_numpy(log1p_exp(backend.asarray(FAR)))
    np.testing.assert_allclose(y, np.logaddexp(0.0, FAR), rtol=1e-14)
    ends = backend.to_numpy(log1p_exp(backend.asarray(np.asarray([-math.inf, math.inf, math.nan]))))
    np.testing.assert_array_equal(ends, [0.0, math.inf, math.nan])


def test_limits_keep_nan_and_memory_order(backend: Backend) -> None:
    x = backend.asarray(np.asarray([-2.0, 0.5, 3.0, math.nan]))
    np.testing.assert_array_equal(backend.to_numpy(at_least(x, 0.0)), [0.0, 0.5, 3.0, math.nan])
    np.testing.assert_array_equal(backend.to_numpy(at_most(x, 1.0)), [-2.0, 0.5, 1.0, math.nan])
    view = np.ones((2, 3, 4)).transpose(0, 2, 1)
    assert at_least(view, 0.0).strides == at_most(view, 0.0).strides == view.strides
    assert erf(view).strides == logistic(view).strides == log1p_exp(view).strides == view.strides
