"""Dropout: what is refused, what happens at the ends, and how often numbers fall."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from devconv import random
from devconv._check import InvalidType, InvalidValue
from tests import backends
from tests.backends import Backend

KEY = random.key(0)
X = np.random.default_rng(0).standard_normal((2, 4, 3, 5))
BOTH = pytest.mark.parametrize("op", [F.dropout, F.dropout_channels], ids=lambda op: op.__name__)


# --- what is refused ---


@BOTH
@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("training", [True, False])
def test_probabilities_out_of_range(op: Any, p: float, training: bool) -> None:
    with pytest.raises(InvalidValue, match=f"^{op.__name__}: p must be"):
        op(X, p=p, key=KEY, training=training)


@BOTH
def test_a_probability_that_is_none(op: Any) -> None:
    with pytest.raises(InvalidType, match="p must be a number, got 'half'"):
        op(X, p="half", key=KEY, training=True)


@BOTH
def test_training_without_a_key(op: Any) -> None:
    message = "training needs a key to draw from, got key=None; give one, such as key=dc.random.key"
    with pytest.raises(InvalidType, match=f"^{op.__name__}: {re.escape(message)}"):
        op(X, p=0.5, training=True)


@BOTH
@pytest.mark.parametrize(
    ("key", "message"),
    [
        (7, "key must be a key made by devconv.random.key(seed), got int"),
        (np.zeros(2), "int32 of shape (2,), got float64 of shape (2,)"),
        (np.zeros(3, dtype="int32"), "got int32 of shape (3,)"),
    ],
)
def test_keys_that_are_none(op: Any, key: Any, message: str) -> None:
    with pytest.raises(InvalidType, match=re.escape(message)):
        op(X, p=0.5, key=key, training=True)


@BOTH
def test_keys_elsewhere(op: Any) -> None:
    strict = backends.get("array_api_strict")
    there = random.key(0, like=strict.asarray([0.0]))
    with pytest.raises(InvalidType, match="x is a NumPy array on cpu and key a array-api-strict"):
        op(X, p=0.5, key=there, training=True)
    x = strict.xp.ones((2, 3))
    with pytest.raises(InvalidValue, match=r"x is on array_api_strict and key on .*device1"):
        op(x, p=0.5, key=there, training=True)


def test_channels_need_an_axis() -> None:
    with pytest.raises(InvalidValue, match=r"^dropout_channels: x must have shape \(N, C"):
        F.dropout_channels(np.ones(3), p=0.5, key=KEY, training=True)


@BOTH
def test_integers(op: Any) -> None:
    with pytest.raises(InvalidType, match="has dtype int64, expected a real floating dtype"):
        op(X.astype("int64"), p=0.5, key=KEY, training=True)


# --- the ends ---


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"p": 0.5, "training": False},
        {"p": 1.0, "training": False, "key": KEY},
        {"p": 0.0, "training": True},
        {"p": 0, "training": True, "key": KEY},
    ],
)
def test_nothing_falls(op: Any, options: dict[str, Any]) -> None:
    y, pullback = op.vjp(X, **options)
    assert y is X
    np.testing.assert_array_equal(pullback(X)[0], X)


@BOTH
@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch"])
def test_everything_falls(op: Any, name: str) -> None:
    backend = backends.get(name)
    x = backend.asarray(X)
    y, pullback = op.vjp(x, p=1.0, key=KEY, training=True)
    assert not backend.to_numpy(y).any()
    assert not backend.to_numpy(pullback(x)[0]).any()


@BOTH
def test_nan_goes_on_even_where_it_falls(op: Any) -> None:
    x = np.full((2, 4), np.nan)
    assert np.isnan(op(x, p=0.5, key=KEY, training=True)).all()


# --- what falls ---


@BOTH
def test_the_same_falls_everywhere(op: Any, backend: Backend) -> None:
    x = backend.asarray(X)
    wanted = op(X, p=0.4, key=KEY, training=True)
    for key in (KEY, random.key(0, like=x)):
        y, pullback = op.vjp(x, p=0.4, key=key, training=True)
        np.testing.assert_allclose(backend.to_numpy(y), wanted, rtol=1e-15)
        fallen = backend.to_numpy(pullback(x)[0]) == 0.0
        assert (fallen == (wanted == 0.0)).all()


@BOTH
def test_another_key_drops_others(op: Any) -> None:
    x = np.ones((8, 8))
    first = op(x, p=0.5, key=KEY, training=True)
    assert (first != op(x, p=0.5, key=random.fold_in(KEY, 1), training=True)).any()


@BOTH
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_numbers_fall_with_probability_p_and_the_mean_stays(op: Any, p: float) -> None:
    """Within 4.5 deviations, with a fixed key."""
    count = 2**16
    y = op(np.ones((256, 256)), p=p, key=KEY, training=True)
    assert abs((y == 0.0).mean() - p) < 4.5 * np.sqrt(p * (1 - p) / count)
    assert abs(y.mean() - 1.0) < 4.5 * np.sqrt(p / (1 - p) / count)
    np.testing.assert_allclose(y[y != 0.0], 1 / (1 - p), rtol=1e-15)


def test_channels_fall_whole() -> None:
    y = F.dropout_channels(np.ones((16, 8, 3, 5)), p=0.5, key=KEY, training=True)
    assert (y == y[:, :, :1, :1]).all()
    assert 0.0 < (y == 0.0).mean() < 1.0


def test_pixels_do_not_fall_together() -> None:
    y = F.dropout(np.ones((2, 8, 8, 8)), p=0.5, key=KEY, training=True) == 0.0
    for axis in range(y.ndim):
        assert 0.2 < (np.diff(y, axis=axis) != 0).mean() < 0.8


@BOTH
def test_the_scale_of_halves_is_not_rounded_first(op: Any) -> None:
    """1 / 0.9 has no float16 near enough: the product is rounded, once."""
    x = np.arange(1.0, 2049.0).reshape(1024, 2).astype("float16")
    y = op(x, p=0.1, key=KEY, training=True)
    wanted = (x.astype("float64") / 0.9).astype("float16")
    np.testing.assert_array_equal(y[y != 0.0], wanted[y != 0.0])


@BOTH
@pytest.mark.parametrize("order", ["channels-first", "channels-last"])
def test_results_have_the_memory_order_of_x(op: Any, order: str) -> None:
    x = X if order == "channels-first" else np.moveaxis(np.ones((2, 3, 5, 4)), -1, 1)
    y, pullback = op.vjp(x, p=0.5, key=KEY, training=True)
    assert y.strides == pullback(x)[0].strides == x.strides


def test_under_jit_the_key_may_be_an_argument_or_a_constant() -> None:
    backend = backends.get("jax")
    import jax

    @jax.jit
    def both(x: Any, key: Any) -> Any:
        argument = F.dropout(x, p=0.5, key=random.fold_in(key, 1), training=True)
        constant = F.dropout(x, p=0.5, key=random.fold_in(KEY, 1), training=True)
        return argument, constant

    wanted = F.dropout(X, p=0.5, key=random.fold_in(KEY, 1), training=True)
    for y in both(backend.asarray(X), random.key(0, like=backend.asarray([0.0]))):
        np.testing.assert_array_equal(np.asarray(y), wanted)
