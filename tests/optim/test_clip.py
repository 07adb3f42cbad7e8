"""Clipping gradients by their length, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests import backends
from tests.backends import Backend
from tests.toys import host

clip = dc.optim.clip_by_global_norm


def draws() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"a": rng.standard_normal((3, 4)), "b": 10.0 * rng.standard_normal(5), "c": np.ones(())}


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 7.0, 1e3])
def test_as_pytorch(backend: Backend, max_norm: float) -> None:
    torch = pytest.importorskip("torch")
    theirs = {name: torch.nn.Parameter(torch.tensor(g)) for name, g in draws().items()}
    for parameter in theirs.values():
        parameter.grad = parameter.detach().clone()
    wanted = torch.nn.utils.clip_grad_norm_(theirs.values(), max_norm)
    given = {name: backend.asarray(g) for name, g in draws().items()}
    clipped, norm = clip(given, max_norm)
    assert float(norm) == pytest.approx(float(wanted), rel=1e-14)
    for name, g in host(backend, clipped).items():
        np.testing.assert_allclose(g, theirs[name].grad.numpy(), rtol=1e-14)
        assert dc.device_of(clipped[name]) == dc.device_of(given[name])
        np.testing.assert_array_equal(backend.to_numpy(given[name]), draws()[name])


def test_nothing_waits(host_reads: Any) -> None:
    backend = backends.get("array_api_strict")
    given = {name: backend.asarray(g) for name, g in draws().items()}
    with host_reads.forbidden():
        clip(given, 1.0)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_half_precision_is_measured_in_float32(name: str) -> None:
    backend = backends.get(name)
    clipped, norm = clip({"a": backend.asarray(np.full(4, 300.0), "float16")}, 1.0)
    assert str(norm.dtype).endswith("float32")
    assert float(norm) == 600.0  # its square is no float16
    assert str(clipped["a"].dtype).endswith("float16")
    np.testing.assert_allclose(backend.to_numpy(clipped["a"]), 0.5, rtol=1e-3)


def test_what_is_not_finite_stays_so(backend: Backend) -> None:
    clipped, norm = clip({"a": backend.asarray(np.asarray([1.0, np.nan]))}, 1.0)
    assert np.isnan(float(norm))
    assert np.all(np.isnan(backend.to_numpy(clipped["a"])))


def test_under_jit() -> None:
    jax, backend = pytest.importorskip("jax"), backends.get("jax")
    given = {name: backend.asarray(g) for name, g in draws().items()}
    _, norm = jax.jit(lambda grads: clip(grads, 2.0))(given)
    assert float(norm) == pytest.approx(float(clip(given, 2.0)[1]), rel=1e-14)


@pytest.mark.parametrize(
    ("grads", "max_norm", "error", "message"),
    [
        ({}, 1.0, InvalidValue, "grads are empty; there is nothing to clip"),
        ([np.ones(1)], 1.0, InvalidType, r"grads must map names to arrays, got \[array.*; a pullb"),
        ({"a": 1.0}, 1.0, InvalidType, r"grads must map names to arrays, got \{'a': 1\.0\}"),
        (draws(), -1.0, InvalidValue, r"max_norm must be at least 0\.0, got -1\.0"),
        (draws(), "1", InvalidType, "max_norm must be a number, got '1'"),
    ],
)
def test_what_is_refused(grads: Any, max_norm: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^clip_by_global_norm: {message}"):
        clip(grads, max_norm)
