"""Initializers: variances and fans, orthogonality, names, and the same numbers for a seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from devconv import initializers
from devconv._check import InvalidType, InvalidValue
from devconv.initializers import (
    BY_NAME,
    Constant,
    Normal,
    Orthogonal,
    VarianceScaling,
    fans,
    generator,
    initializer,
)

SHAPES = [(300, 200), (64, 32, 5, 5), (200, 300)]
VARIANCES: dict[str, Any] = {
    "he_normal": lambda n_in, n_out: 2.0 / n_in,
    "he_uniform": lambda n_in, n_out: 2.0 / n_in,
    "glorot_normal": lambda n_in, n_out: 2.0 / (n_in + n_out),
    "glorot_uniform": lambda n_in, n_out: 2.0 / (n_in + n_out),
    "lecun_normal": lambda n_in, n_out: 1.0 / n_in,
    "lecun_uniform": lambda n_in, n_out: 1.0 / n_in,
}


def draw(how: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return how(generator(seed, "weight"), shape, fans(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", VARIANCES)
def test_variance_is_what_the_fans_ask_for(name: str, shape: tuple[int, ...]) -> None:
    """``(out, in, *kernel)``: in · kernel numbers feed one output."""
    window = math.prod(shape[2:])
    variance = VARIANCES[name](shape[1] * window, shape[0] * window)
    drawn = draw(BY_NAME[name], shape)
    count = math.prod(shape)  # the sampling error of a variance: sqrt(2 / count) at most
    assert drawn.shape == shape
    assert drawn.dtype == np.float64
    assert drawn.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))
    assert abs(drawn.mean()) < 5 * math.sqrt(variance / count)
    edge, fourth = math.sqrt(3 * variance), np.mean(drawn**4) / variance**2
    if name.endswith("uniform"):
        assert np.abs(drawn).max() <= edge
        assert fourth == pytest.approx(9 / 5, rel=0.1)
    else:
        assert np.abs(drawn).max() > edge
        assert fourth == pytest.approx(3.0, rel=0.1)


def test_modes_of_variance_scaling() -> None:
    shape = (100, 400)
    for mode, fan in (("fan_in", 400), ("fan_out", 100), ("fan_avg", 250)):
        drawn = draw(VarianceScaling(3.0, mode, "normal"), shape)
        assert drawn.var() == pytest.approx(3.0 / fan, rel=0.05)


@pytest.mark.parametrize("shape", [(300, 200), (20, 60, 5, 5)], ids=str)
def test_normal_has_its_deviation_whatever_the_fans(shape: tuple[int, ...]) -> None:
    drawn = draw(Normal(0.01), shape)
    assert drawn.std() == pytest.approx(0.01, rel=0.02)
    assert np.mean(drawn**4) / 0.01**4 == pytest.approx(3.0, rel=0.1)
    assert not draw(Normal(0), (3,)).any()


def test_no_fan_is_no_division_by_zero() -> None:
    assert draw(BY_NAME["he_normal"], (0,)).shape == (0,)
    assert VarianceScaling(1.0, "fan_in", "normal")(generator(0, "b"), (3,), (0, 0)).shape == (3,)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((16, 3, 5, 5), (75, 400)), ((4, 3), (3, 4)), ((7,), (7, 7)), ((), (1, 1)), ((2, 0), (0, 2))],
)
def test_fans(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert fans(shape) == expected


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3), (4, 2, 3, 3), (40, 2, 3)], ids=str)
def test_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = draw(Orthogonal(), shape).reshape(shape[0], -1)
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(min(rows, columns)), atol=1e-12)
    np.testing.assert_allclose(draw(Orthogonal(2.5), shape), 2.5 * draw(Orthogonal(), shape))


def test_orthogonal_is_spread_evenly() -> None:
    """No entry leans to one side, as the bare factor's would."""
    corners = [draw(Orthogonal(), (3, 3), seed)[0, 0] for seed in range(200)]
    assert abs(np.mean(corners)) < 5 / math.sqrt(3 * 200)


def test_orthogonal_needs_a_matrix() -> None:
    with pytest.raises(InvalidValue, match=r"needs at least 2 dimensions, got shape \(5,\);"):
        draw(Orthogonal(), (5,))


def test_constants() -> None:
    np.testing.assert_array_equal(draw(Constant(-2), (2, 3)), np.full((2, 3), -2.0))
    assert draw(BY_NAME["zeros"], (2,)).tolist() == [0.0, 0.0]
    assert draw(BY_NAME["ones"], (2,)).tolist() == [1.0, 1.0]
    assert draw(Constant(1), ()).dtype == np.float64


@pytest.mark.parametrize("name", BY_NAME)
def test_the_same_numbers_for_a_seed(name: str) -> None:
    first, again, other = (draw(BY_NAME[name], (6, 5), seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (name in ("zeros", "ones"))


def test_generators_are_keyed_by_seed_and_path() -> None:
    streams = [
        generator(seed, path).random(4).tolist()
        for seed, path in ((0, "0.weight"), (1, "0.weight"), (0, "1.weight"), (0, ""), (10, ".w"))
    ]
    assert len({tuple(s) for s in streams}) == len(streams)
    assert generator(0, "0.weight").random(4).tolist() == streams[0]
    wanted = [0.12713521639912373, 0.050455354718086154, 0.9923024666781968]
    np.testing.assert_allclose(generator(0, "0.weight").random(3), wanted, rtol=1e-14)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, InvalidValue, "seed must be at least 0, got -1"),
        (1.0, InvalidType, r"seed must be an int, got 1\.0"),
        (True, InvalidType, "seed must be an int, got True"),
    ],
)
def test_seeds_are_checked(seed: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        generator(seed, "weight")


def test_numpy_s_integers_are_seeds() -> None:
    assert generator(np.int64(3), "a").random() == generator(3, "a").random()


@pytest.mark.parametrize("name", BY_NAME)
def test_by_name(name: str) -> None:
    assert initializer("weight_init", name) is BY_NAME[name]
    assert getattr(initializers, name) is BY_NAME[name]


def test_by_function() -> None:
    own = lambda rng, shape, fans: rng.random(shape)  # noqa: E731
    assert initializer("weight_init", own) is own
    with pytest.raises(InvalidValue, match=r"weight_init must be one of 'zeros', .*, got 'k"):
        initializer("weight_init", "kaiming")
    with pytest.raises(InvalidType, match=r"bias_init must be the name .* \(rng, shape, fans\)"):
        initializer("bias_init", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Normal(-0.1), InvalidValue, "deviation must be at least 0.0, got -0.1"),
        (lambda: Normal("wide"), InvalidType, "deviation must be a number, got 'wide'"),
        (lambda: VarianceScaling(0.0, "fan_in", "normal"), InvalidValue, "scale must be greater"),
        (lambda: VarianceScaling("2", "fan_in", "normal"), InvalidType, "scale must be a number"),
        (lambda: VarianceScaling(1.0, "in", "normal"), InvalidValue, "mode must be one of 'fan_in"),
        (lambda: VarianceScaling(1.0, "fan_in", "gauss"), InvalidValue, "distribution must be one"),
    ],
)
def test_options_are_checked(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()
