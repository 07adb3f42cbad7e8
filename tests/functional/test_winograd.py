"""Winograd's convolution: the identity itself, exactly, and how far float32 is from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _fast
from devconv import functional as F
from devconv._winograd import POINTS, TAPS, matrices
from tests import backends
from tests.backends import Backend

BOUNDS = {"exact": 4e-6, "fast": 2e-5}
"""Largest error over the output's standard deviation, twice what docs/accuracy.md has here."""

LAYOUTS = {
    "1d": ((2, 4, 13), (6, 4, 3), [(1, 2)]),
    "2d": ((3, 8, 11, 6), (5, 8, 3, 3), [(0, 1), (2, 0)]),
    "3d": ((2, 4, 5, 7, 4), (4, 4, 3, 3, 3), [(1, 0), (0, 0), (2, 1)]),
}


@pytest.mark.parametrize("tile", POINTS)
def test_the_identity_for_every_kernel_and_block(tile: int) -> None:
    """``y_i = Σ_k d_{i+k} k_k``: coefficient by coefficient, a tensor of three indices."""
    a, b, g = (np.asarray(matrix) for matrix in matrices(tile))
    assert a.shape == (tile + 2, tile)
    assert b.shape == (tile + 2, tile + 2)
    assert g.shape == (tile + 2, TAPS)
    found = np.einsum("pi,pk,pj->ikj", a, g, b)
    wanted = np.zeros((tile, TAPS, tile + 2))
    for i, k in np.ndindex(tile, TAPS):
        wanted[i, k, i + k] = 1.0
    np.testing.assert_allclose(found, wanted, atol=5e-16 if tile == 2 else 5e-15)


def definition(x: np.ndarray, weight: np.ndarray, padding: Any) -> np.ndarray:
    """One tap at a time, in float64."""
    x, weight = np.pad(x.astype("f8"), [(0, 0), (0, 0), *padding]), weight.astype("f8")
    out = tuple(n - 2 for n in x.shape[2:])
    y = np.zeros((x.shape[0], weight.shape[0], *out))
    for k in np.ndindex(*weight.shape[2:]):
        inside = tuple(slice(a, a + n) for a, n in zip(k, out, strict=True))
        y += np.einsum("nc...,oc->no...", x[(..., *inside)], weight[(..., *k)])
    return y


def cotangents(x: np.ndarray, weight: np.ndarray, dy: np.ndarray, padding: Any) -> Any:
    """Both, in float64, by the transpose of the definition."""
    padded = np.pad(x.astype("f8"), [(0, 0), (0, 0), *padding])
    dx, dweight = np.zeros_like(padded), np.zeros(weight.shape)
    for k in np.ndindex(*weight.shape[2:]):
        inside = tuple(slice(a, a + n) for a, n in zip(k, dy.shape[2:], strict=True))
        dx[(..., *inside)] += np.einsum("no...,oc->nc...", dy, weight[(..., *k)])
        axes = (0, *range(2, dy.ndim))
        dweight[(..., *k)] = np.tensordot(dy, padded[(..., *inside)], (axes, axes))
    crop = tuple(slice(b, b + n) for n, (b, _) in zip(x.shape[2:], padding, strict=True))
    return dx[(..., *crop)], dweight


def drawn(x: tuple[int, ...], weight: tuple[int, ...], padding: Any) -> Any:
    rng = np.random.default_rng(0)
    host = [rng.standard_normal(shape).astype("float32") for shape in (x, weight)]
    dy = rng.standard_normal(definition(*host, padding).shape).astype("float32")
    return *host, dy


def assert_near(found: Any, wanted: Any, level: str) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= BOUNDS[level] * other.std()


@pytest.mark.parametrize("level", BOUNDS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_three_faces_are_the_definition(backend: Backend, name: str, level: str) -> None:
    padding = LAYOUTS[name][2]
    x, weight, dy = drawn(*LAYOUTS[name])
    there = [backend.asarray(a) for a in (x, weight, dy)]

    def run(x: Any, weight: Any, dy: Any) -> Any:
        with dc.precision(level):
            y, pullback = F.conv.vjp(x, weight, padding=padding, algorithm="winograd")
        return y, *pullback(dy)

    if backend.name == "jax":
        import jax

        run = jax.jit(run)
    found = [backend.to_numpy(a) for a in run(*there)]
    assert {a.dtype.name for a in found} == {"float32"}
    wanted = definition(x, weight, padding), *cotangents(x, weight, dy, padding)
    assert_near(found, wanted, level)


@pytest.mark.parametrize("level", BOUNDS)
@pytest.mark.parametrize("budget", [1, 2**14, 2**40])
def test_tiles_of_any_size_agree(level: str, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fast, "workspace", lambda x: budget)
    padding = [(1, 1), (0, 2)]
    x, weight, dy = drawn((3, 16, 14, 9), (8, 16, 3, 3), padding)
    with dc.precision(level):
        y, pullback = F.conv.vjp(x, weight, padding=padding, algorithm="winograd")
    wanted = definition(x, weight, padding), *cotangents(x, weight, dy, padding)
    assert_near((y, *pullback(dy)), wanted, level)


@pytest.mark.parametrize("groups", [2, 8])
def test_groups(groups: int) -> None:
    padding = [(1, 1), (5, 0)]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 7, 6)).astype("float32")
    weight = rng.standard_normal((16, 8 // groups, 3, 3)).astype("float32")
    y, pullback = F.conv.vjp(x, weight, padding=padding, groups=groups, algorithm="winograd")
    dy = rng.standard_normal(y.shape).astype("float32")
    parts = [
        (one, definition(*one[:2], padding), *cotangents(*one, padding))
        for one in zip(
            np.split(x, groups, axis=1),
            np.split(weight, groups),
            np.split(dy, groups, axis=1),
            strict=True,
        )
    ]
    wanted = [
        np.concatenate([p[i] for p in parts], axis=axis) for i, axis in ((1, 1), (2, 1), (3, 0))
    ]
    assert_near((y, *pullback(dy)), wanted, "exact")


@pytest.mark.parametrize("level", BOUNDS)
def test_its_transpose(level: str) -> None:
    x, weight, dy = drawn((2, 4, 8, 9), (6, 4, 3, 3), [(1, 1), (0, 2)])
    options = {"padding": [(1, 1), (0, 2)]}
    with dc.precision(level):
        y, pullback = F.conv_transpose.vjp(dy, weight, algorithm="winograd", **options)
    exact = [a.astype("float64") for a in (dy, weight, x)]
    wanted, back = F.conv_transpose.vjp(*exact[:2], algorithm="gemm", **options)
    assert_near((y, *pullback(x)), (wanted, *back(exact[2])), level)


def test_empty_batch(backend: Backend) -> None:
    x = backend.asarray(np.ones((0, 4, 6, 5), dtype="float32"))
    weight = backend.asarray(np.ones((6, 4, 3, 3), dtype="float32"))
    y, pullback = F.conv.vjp(x, weight, algorithm="winograd")
    assert tuple(y.shape) == (0, 6, 4, 3)
    dx, dweight = pullback(y)
    assert tuple(dx.shape) == (0, 4, 6, 5)
    assert not backend.to_numpy(dweight).any()
    assert tuple(dweight.shape) == (6, 4, 3, 3)


def test_the_device_is_never_waited_for(host_reads: Any) -> None:
    backend = backends.get("array_api_strict")
    x, weight, dy = (backend.asarray(a) for a in drawn(*LAYOUTS["2d"]))
    with host_reads.forbidden():
        _, pullback = F.conv.vjp(x, weight, padding=LAYOUTS["2d"][2], algorithm="winograd")
        pullback(dy)


def test_fewer_multiplications_than_the_definition() -> None:
    for tile, saved in ((2, 36 / 16), (4, 144 / 36)):
        assert math.isclose((tile * TAPS) ** 2 / len(matrices(tile)[0]) ** 2, saved)
