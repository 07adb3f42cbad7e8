"""Unpooling beyond the table: the way back from max pooling, indices that meet or miss."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from devconv.testing import check_vjp
from tests import backends

X, INDICES = np.ones((1, 2, 2)), np.asarray([[[0, 3], [1, 2]]])


def test_max_pool_of_it_gives_the_values_back(backend: Any) -> None:
    x = backend.asarray(np.random.default_rng(0).permutation(96).reshape(2, 2, 4, 6) + 1.0)
    y, indices = F.max_pool(x, kernel_size=2, return_indices=True)
    image = F.max_unpool(y, indices, kernel_size=2)
    assert image.shape == x.shape
    again = F.max_pool(image, kernel_size=2)
    np.testing.assert_array_equal(backend.to_numpy(again), backend.to_numpy(y))
    there = backend.to_numpy(image) != 0
    np.testing.assert_array_equal(backend.to_numpy(image)[there], backend.to_numpy(x)[there])


def test_of_equal_indices_the_last_stays_and_gets_the_gradient(backend: Any) -> None:
    x = backend.asarray([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]], "float64")
    indices = backend.asarray([[[2, 0, 2], [5, 5, 5]]])
    y, pullback = F.max_unpool.vjp(x, indices, kernel_size=2)
    expected = [[[2.0, 0.0, 3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 6.0]]]
    np.testing.assert_array_equal(backend.to_numpy(y), expected)
    dx, none = pullback(backend.asarray(np.arange(1.0, 13.0).reshape(1, 2, 6)))
    assert none is None
    expected = [[[0.0, 1.0, 3.0], [0.0, 0.0, 12.0]]]
    np.testing.assert_array_equal(backend.to_numpy(dx), expected)


def test_indices_of_overlapping_windows() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 6))
    y, indices = F.max_pool(x, kernel_size=3, stride=2, padding=1, return_indices=True)
    options = {"kernel_size": 3, "stride": 2, "padding": 1, "output_size": (7, 6)}
    check_vjp(F.max_unpool, y, indices, **options)
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.max_unpool2d(
        torch.from_numpy(y.copy()), torch.from_numpy(indices.copy()), 3, 2, 1, (7, 6)
    )
    np.testing.assert_array_equal(F.max_unpool(y, indices, **options), theirs.numpy())


@pytest.mark.parametrize("bad", [4, -1, 1000, -1000])
def test_an_index_out_of_range_is_never_followed(bad: int) -> None:
    """Its channel is NaN where the host does not look; the others are what they were."""
    strict, jax = backends.get("array_api_strict"), backends.get("jax")
    for backend in (strict, jax):
        x = backend.asarray(np.ones((1, 3, 2)), "float64")
        indices = backend.asarray([[[0, 3], [bad, 2], [1, 2]]])
        y, pullback = F.max_unpool.vjp(x, indices, kernel_size=2)
        expected = [[[1.0, 0.0, 0.0, 1.0], [np.nan] * 4, [0.0, 1.0, 1.0, 0.0]]]
        np.testing.assert_array_equal(backend.to_numpy(y), expected)
        (dx, _) = pullback(backend.asarray(np.arange(1.0, 13.0).reshape(1, 3, 4)))
        expected = [[[1.0, 4.0], [0.0, 7.0], [10.0, 11.0]]]
        np.testing.assert_array_equal(backend.to_numpy(dx), expected)


def test_no_gradient_where_every_index_is_out_of_range() -> None:
    backend = backends.get("array_api_strict")
    x, indices = backend.asarray(np.ones((1, 1, 2))), backend.asarray([[[-1, 4]]])
    y, pullback = F.max_unpool.vjp(x, indices, kernel_size=2)
    assert np.isnan(backend.to_numpy(y)).all()
    (dx, _) = pullback(backend.asarray(np.ones((1, 1, 4))))
    np.testing.assert_array_equal(backend.to_numpy(dx), [[[0.0, 0.0]]])


@pytest.mark.parametrize("name", ["numpy", "torch", "cpu of array_api_strict"])
@pytest.mark.parametrize("bad", [4, -1])
def test_an_index_out_of_range_is_refused_where_reading_is_free(name: str, bad: int) -> None:
    if name in ("numpy", "torch"):
        backend = backends.get(name)
    else:
        xp = backends.get("array_api_strict").xp
        backend = backends.Backend("array_api_strict", xp, xp.Device("CPU_DEVICE"))
    indices = backend.asarray([[[0, 3], [bad, 2]]])
    with pytest.raises(ValueError, match=r"max_unpool: indices must be from 0 to 3, places in an"):
        F.max_unpool(backend.asarray(X), indices, kernel_size=2)


def test_jax_without_64_bits() -> None:
    jax = pytest.importorskip("jax")
    x = np.arange(8.0, dtype="float32").reshape(1, 2, 4)
    indices = np.asarray([[[6, 1, 1, 3], [0, 2, 4, 6]]], dtype="int32")
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        run = jax.jit(lambda x, i: F.max_unpool(x, i, kernel_size=2))
        y = run(jax.numpy.asarray(x), jax.numpy.asarray(indices))
    assert y.dtype == "float32"
    np.testing.assert_array_equal(y, F.max_unpool(x, indices, kernel_size=2))


@pytest.mark.parametrize(
    ("indices", "options", "kind", "message"),
    [
        (INDICES[..., :1], {}, ValueError, r"indices have shape \(1, 2, 1\), expected that of x"),
        (INDICES * 1.0, {}, TypeError, r"indices \(1, 2, 2\) must be integers, got float64"),
        (INDICES, {"kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
        (INDICES, {"stride": 0}, ValueError, "stride must be at least 1"),
        (INDICES, {"padding": -1}, ValueError, "padding must be at least 0"),
        (INDICES, {"output_size": (6, 6)}, ValueError, "output_size needs one entry for each of 1"),
        (
            INDICES,
            {"output_size": (6,)},
            ValueError,
            r"output_size \(6,\) must be less than the stride \(2,\) away from \(4,\)",
        ),
        (INDICES, {"output_size": (1, 2, 2)}, ValueError, r"output_size \(2,\) must be less than"),
        (
            INDICES,
            {"kernel_size": 1, "padding": 1},
            ValueError,
            r"the output would be empty: x \(1, 2, 2\) with kernel \(1,\), stride \(1,\) and "
            r"padding \(\(1, 1\),\) makes \(0,\) pixels; use less padding",
        ),
    ],
)
def test_refused(indices: Any, options: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=f"max_unpool: {message}"):
        F.max_unpool(X, indices, **{"kernel_size": 2, **options})
