"""Dropout layers: where they draw from, and that they draw as they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import random
from devconv._check import InvalidType, InvalidValue
from tests import backends
from tests.backends import Backend
from tests.toys import place, unchanged

ONES = np.ones((4, 6, 5, 5), dtype="float32")


def drop(layer: dc.Layer, x: Any = ONES, **how: Any) -> np.ndarray:
    return dc.to_numpy(layer.vjp(x, **how)[0])


@pytest.mark.parametrize("layer", [dc.Dropout(0.3), dc.Dropout2d(0.3)], ids=repr)
def test_the_same_key_drops_the_same_numbers_everywhere(backend: Backend, layer: dc.Layer) -> None:
    wanted = drop(layer, key=random.key(7))
    model = dc.Sequential(layer).to(place(backend))
    for key in (random.key(7), random.key(7, like=backend.asarray(ONES))):
        y, pullback = layer.vjp(backend.asarray(ONES), key=key)
        np.testing.assert_array_equal(backend.to_numpy(y), wanted)
        dx, grads = pullback(backend.asarray(ONES))
        np.testing.assert_array_equal(backend.to_numpy(dx), wanted)
        assert grads == {}
    assert not np.array_equal(drop(model, backend.asarray(ONES), key=random.key(8)), wanted)


def test_inference_leaves_everything(backend: Backend) -> None:
    x = backend.asarray(ONES)
    for layer in (dc.Dropout(0.9), dc.Dropout2d(1.0)):
        assert layer(x) is x
        y, pullback = layer.vjp(x, training=False)
        assert y is x
        assert pullback(x)[0] is x


def test_layers_of_one_model_drop_independently() -> None:
    """Each draws from its own path, and anew at each use."""
    shared = dc.Dropout(0.5)
    model = dc.Parallel(
        dc.Dropout(0.5), dc.Sequential(dc.Identity(), dc.Dropout(0.5)), shared, shared
    )
    sums = []
    for name, branch in model.children.items():
        only = dc.Parallel({name: branch})
        sums.append(drop(only, key=random.key(3)))
    assert not any(np.array_equal(sums[i], sums[j]) for i in range(3) for j in range(i))
    total = drop(model, key=random.key(3))
    again = total - sums[0] - sums[1] - sums[2]  # the shared layer's second use
    assert set(np.unique(again)) == {0.0, 2.0}
    assert not np.array_equal(again, sums[2])


def test_the_path_alone_decides() -> None:
    """What stands beside a dropout changes nothing in what it drops."""
    x = np.ones((2, 40), dtype="float32")
    small = dc.Sequential({"a": dc.Dropout(0.5)})
    large = dc.Sequential({"b": dc.Dropout(0.0), "c": dc.Identity(), "a": dc.Dropout(0.5)})
    np.testing.assert_array_equal(
        drop(small, x, key=random.key(1)), drop(large, x, key=random.key(1))
    )


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_share_and_the_mean(p: float) -> None:
    """Within four deviations of what a coin would give."""
    x = np.ones((100, 1000), dtype="float32")
    y = drop(dc.Dropout(p).build(seed=11), x)
    kept = y != 0
    assert abs(kept.mean() - (1 - p)) < 4 * np.sqrt(p * (1 - p) / x.size)
    np.testing.assert_allclose(y[kept], 1 / (1 - p), rtol=1e-6)


def test_whole_channels() -> None:
    y = drop(dc.Dropout2d(0.5).build(seed=2))
    flat = y.reshape(24, 25)
    assert np.all(flat == flat[:, :1])
    assert set(np.unique(flat[:, 0])) == {0.0, 2.0}


def test_without_a_key_each_pass_draws_anew() -> None:
    model = dc.Sequential(dc.Dropout(0.5)).build(seed=3)
    first, second = drop(model), drop(model)
    assert not np.array_equal(first, second)
    assert model.generator_state == {"seed": 3, "draws": 2}
    model.build(seed=3)
    np.testing.assert_array_equal(drop(model), first)
    np.testing.assert_array_equal(drop(model), second)
    assert not np.array_equal(drop(model.build(seed=4)), first)


def test_the_generator_s_state_continues_a_run() -> None:
    model = dc.Sequential(dc.Dropout(0.5)).build(seed=3)
    drop(model)
    state = model.generator_state
    wanted = drop(model)
    other = dc.Sequential(dc.Dropout(0.5)).build(seed=9)
    other.generator_state = state
    np.testing.assert_array_equal(drop(other), wanted)
    assert other.generator_state == model.generator_state


def test_only_a_pass_that_draws_moves_the_generator() -> None:
    model = dc.Sequential(dc.Dense(3, 2), dc.Dropout(0.5)).build(seed=0)
    x = np.ones((2, 3), dtype="float32")
    with unchanged(model):
        model(x)
        model.vjp(x, training=False)
        model.vjp(x, key=random.key(0))
        dc.pure(model).vjp(model.parameters, model.buffers, x, key=random.key(0))
        with pytest.raises(InvalidValue, match="target"):  # after the drop
            dc.value_and_grad(model, dc.MSELoss())(x, x)
        dc.Sequential(dc.Dropout(0.0)).vjp(x)
    dc.value_and_grad(model, dc.MSELoss())(x, x[:, :2])
    assert model.generator_state["draws"] == 1


def test_a_pure_layer_needs_a_key() -> None:
    pure = dc.pure(dc.Sequential(dc.ReLU(), dc.Dropout(0.5)))
    with pytest.raises(
        InvalidType, match=r"^1 \(Dropout\): training needs a key to draw from, got key=None; give"
    ):
        pure.vjp({}, {}, ONES)
    (y, _), _ = pure.vjp({}, {}, ONES, training=False)
    np.testing.assert_array_equal(y, ONES)
    with pytest.raises(InvalidType, match=r"1 \(Dropout\): key must be a key made by devconv.rand"):
        pure.vjp({}, {}, ONES, key=7)


def test_under_jit() -> None:
    jnp = backends.get("jax").xp
    jax = pytest.importorskip("jax")
    model = dc.Sequential(dc.Dropout(0.5), dc.Dropout2d(0.5))
    pure, x = dc.pure(model), jnp.asarray(ONES)

    def step(key: Any, x: Any) -> Any:
        (y, _), pullback = pure.vjp({}, {}, x, key=key)
        return y, pullback(y)[0]

    key = random.key(5, like=x)
    for compiled, eager in zip(jax.jit(step)(key, x), step(key, x), strict=True):
        np.testing.assert_array_equal(compiled, eager)
    np.testing.assert_array_equal(jax.jit(step)(key, x)[0], drop(model, key=random.key(5)))


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_probability_out_of_range(p: float) -> None:
    with pytest.raises(InvalidValue, match=f"^Dropout: p must be from 0 to 1, got {p}"):
        dc.Dropout(p)


def test_arguments_are_checked_when_it_is_made() -> None:
    with pytest.raises(InvalidType, match="Dropout2d: p must be a number, got"):
        dc.Dropout2d("0.5")  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [dc.Dropout1d(), dc.Dropout2d(), dc.Dropout3d()], ids=repr)
def test_inputs_that_do_not_fit(layer: dc.Layer) -> None:
    with pytest.raises(InvalidValue, match=r"Dropout\dd: expected x with \d dimensions"):
        layer.output_shape((3,))
