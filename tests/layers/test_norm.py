"""Normalisation layers: running statistics, half precision, and what does not fit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests import backends
from tests.backends import Backend
from tests.toys import assert_close, assert_equal, place, unchanged

BATCH_NORMS = [dc.BatchNorm1d, dc.BatchNorm2d, dc.BatchNorm3d]
INSTANCE_NORMS = [dc.InstanceNorm1d, dc.InstanceNorm2d, dc.InstanceNorm3d]


def images(count: int = 4, seed: int = 0) -> np.ndarray:
    """A batch whose channels differ in mean and deviation."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 3, 4, 5))
    return (
        x * np.asarray([0.5, 2.0, 10.0])[:, None, None]
        + np.asarray([1.0, 0.0, -30.0])[:, None, None]
    )


def after(batches: list[np.ndarray], momentum: float = 0.1) -> dict[str, np.ndarray]:
    """The running statistics after some batches, by the definition."""
    mean, var = np.zeros(3), np.ones(3)
    for x in batches:
        channels = np.moveaxis(x, 1, 0).reshape(3, -1)
        mean = (1 - momentum) * mean + momentum * channels.mean(axis=1)
        var = (1 - momentum) * var + momentum * channels.var(axis=1, ddof=1)
    return {"running_mean": mean, "running_var": var}


@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0])
def test_learning_moves_the_running_statistics(backend: Backend, momentum: float) -> None:
    layer = dc.BatchNorm2d(3, momentum=momentum).to(place(backend), dtype="float64").build()
    batches = [images(seed=seed) for seed in range(3)]
    for x in batches:
        layer.vjp(backend.asarray(x))
    assert_close(layer.buffers, after(batches, momentum), 1e-13)


def test_nothing_else_moves_them() -> None:
    model = dc.Sequential(dc.BatchNorm2d(3), dc.Flatten(), dc.Dense(60, 2)).build()
    model.vjp(images().astype("float32"))
    x = images(seed=1).astype("float32")
    with unchanged(model):
        model(x)
        model.vjp(x, training=False)
        dc.value_and_grad(model, dc.MSELoss())(x, model(x), training=False)
        dc.pure(model).vjp(model.parameters, model.buffers, x)
        with pytest.raises(InvalidValue, match=r"0 \(BatchNorm2d\): expected num_features=3"):
            model.vjp(x[:, :2])
        with pytest.raises(InvalidValue, match="target"):  # the loss fails, after the layer
            dc.value_and_grad(model, dc.MSELoss())(x, x)


def test_inference_uses_them() -> None:
    layer = dc.BatchNorm2d(3, eps=1e-3).to(dtype="float64").build()
    running = {"running_mean": np.asarray([1.0, 2.0, 3.0]), "running_var": np.asarray([4.0, 1, 9])}
    layer.load_state_dict({**layer.state_dict(), **running})
    mean, var = (running[name][:, None, None] for name in ("running_mean", "running_var"))
    wanted = (images() - mean) / np.sqrt(var + 1e-3)
    np.testing.assert_allclose(layer(images()), wanted, rtol=1e-12)


def test_the_pure_core_hands_them_out() -> None:
    layer = dc.BatchNorm2d(3).to(dtype="float64").build()
    pure, before = dc.pure(layer), dict(layer.buffers)
    (_, new), _ = pure.vjp(layer.parameters, layer.buffers, images())
    assert_close(new, after([images()]), 1e-13)
    assert_equal(layer.buffers, before)
    (_, same), _ = pure.vjp(layer.parameters, layer.buffers, images(), training=False)
    assert all(same[name] is before[name] for name in before)


def test_a_step_under_jit() -> None:
    jnp = backends.get("jax").xp
    jax = pytest.importorskip("jax")
    layer = dc.BatchNorm2d(3).to("jax", dtype="float64").build()
    pure, x = dc.pure(layer), jnp.asarray(images())

    def step(parameters: Any, buffers: Any, x: Any) -> Any:
        (y, new), pullback = pure.vjp(parameters, buffers, x)
        dx, grads = pullback(jnp.cos(y))
        return {"y": y, "x": dx, **new, **grads}

    arrays = dict(layer.parameters), dict(layer.buffers), x
    compiled = jax.jit(step)(*arrays)
    assert_close(compiled, step(*arrays), 1e-13)
    assert_close({name: compiled[name] for name in layer.buffers}, after([images()]), 1e-13)


def test_a_shared_layer_moves_them_twice() -> None:
    norm = dc.BatchNorm2d(3)
    model = dc.Sequential(norm, norm).to(dtype="float64").build()
    x = images()
    model.vjp(x)
    y = dc.functional.batch_norm(x, training=True)
    assert_close(norm.buffers, after([x, y]), 1e-13)


def test_a_model_of_half_precision_keeps_wide_statistics() -> None:
    torch = backends.get("torch").xp
    x = images(64)
    wanted = after([x] * 300)
    for dtype in ("float16", "bfloat16"):
        layer = dc.BatchNorm2d(3).to("torch", dtype=dtype).build()
        kinds = {name: dc._array.dtype_name(a.dtype) for name, a in layer.state_dict().items()}
        assert kinds == {
            "weight": dtype,
            "bias": dtype,
            "running_mean": "float32",
            "running_var": "float32",
        }
        half = torch.asarray(x).to(getattr(torch, dtype))
        for _ in range(300):
            y, pullback = layer.vjp(half)
        assert y.dtype == half.dtype
        dx, grads = pullback(y)
        assert {dx.dtype, *(g.dtype for g in grads.values())} == {half.dtype}
        assert_close(layer.buffers, wanted, 2e-2)  # what the inputs have lost
        assert layer(half).dtype == half.dtype


def test_a_half_state_and_a_wide_one_are_both_taken() -> None:
    layer = dc.BatchNorm2d(3).to(dtype="float16").build()
    wide = {**layer.state_dict(), "running_var": np.asarray([1e-7, 1.0, 1e6], dtype="float32")}
    layer.load_state_dict(wide)
    assert_equal(layer.state_dict(), wide)
    layer.load_state_dict({**wide, "running_var": np.ones(3, dtype="float16")})
    assert layer.buffers["running_var"].dtype == "float32"
    with pytest.raises(InvalidType, match=r"state\['running_var'\] is float64, the model float16"):
        layer.load_state_dict({**wide, "running_var": np.ones(3)})
    layer.load_state_dict({**wide, "running_var": np.full(3, 1e-7)}, dtype="float16")
    np.testing.assert_array_equal(layer.buffers["running_var"], np.full(3, 1e-7, dtype="float32"))


OPEN: list[tuple[Any, tuple[int, ...], str]] = [
    (dc.BatchNorm1d(None), (3,), "BatchNorm1d(3)"),
    (dc.BatchNorm2d(None), (3, 4, 5), "BatchNorm2d(3)"),
    (dc.BatchNorm3d(None, affine=False), (3, 4, 5, 2), "BatchNorm3d(3, affine=False)"),
    (dc.GroupNorm(3, None), (6, 4), "GroupNorm(3, 6)"),
    (dc.InstanceNorm2d(None, affine=True), (3, 4, 5), "InstanceNorm2d(3, affine=True)"),
]


@pytest.mark.parametrize(("layer", "shape", "text"), OPEN, ids=lambda value: str(value))
def test_an_open_size_is_worked_out(layer: Any, shape: tuple[int, ...], text: str) -> None:
    fresh = copy.deepcopy(layer)
    assert layer.output_shape(shape) == shape
    layer.build(shape)
    assert repr(layer).partition("  #")[0] == text
    state = layer.state_dict()
    assert {array.shape for array in state.values()} == {shape[:1]}
    assert_equal(fresh.load_state_dict(state).state_dict(), state)


def test_an_open_size_that_is_not_known() -> None:
    with pytest.raises(InvalidValue, match="BatchNorm2d: num_features is None and no shape is kn"):
        dc.BatchNorm2d(None).build()
    with pytest.raises(InvalidValue, match="GroupNorm: num_channels is None and no shape is known"):
        dc.GroupNorm(2, None).build()
    assert dict(dc.InstanceNorm2d(None).build().parameters) == {}


def test_weights_begin_as_ones_and_biases_as_zeros() -> None:
    model = dc.Sequential(
        dc.BatchNorm2d(3), dc.GroupNorm(1, 3), dc.LayerNorm((4, 5)), dc.RMSNorm(5)
    )
    for name, array in model.build(seed=5).state_dict().items():
        one = name.endswith(("weight", "running_var"))
        np.testing.assert_array_equal(array, np.full(array.shape, float(one), dtype="float32"))


def test_without_running_statistics_inference_uses_its_own_batch() -> None:
    layer = dc.BatchNorm2d(3, track_running_stats=False).to(dtype="float64").build()
    wanted = dc.functional.batch_norm(images(), training=True)
    np.testing.assert_allclose(layer(images()), wanted, rtol=1e-12, atol=1e-12)
    assert dict(layer.buffers) == {}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dc.BatchNorm2d(0), InvalidValue, "BatchNorm2d: num_features must be at least 1"),
        (lambda: dc.BatchNorm2d(2.0), InvalidType, r"num_features must be an int, got 2\.0"),
        (lambda: dc.BatchNorm1d(3, -1e-5), InvalidValue, r"BatchNorm1d: eps must be at least 0\.0"),
        (lambda: dc.BatchNorm1d(3, "a"), InvalidType, "eps must be a number, got 'a'"),
        (lambda: dc.BatchNorm2d(3, momentum=None), InvalidValue, "momentum=None, a cumulative av"),
        (lambda: dc.BatchNorm2d(3, momentum=-1), InvalidValue, r"momentum must be at least 0\.0"),
        (
            lambda: dc.InstanceNorm2d(3, track_running_stats=True),
            InvalidValue,
            "InstanceNorm2d: track_running_stats=True is not offered: .* BatchNorm keeps",
        ),
        (lambda: dc.GroupNorm(0, 4), InvalidValue, "GroupNorm: num_groups must be at least 1"),
        (lambda: dc.GroupNorm(3, 4), InvalidValue, "num_groups=3 must divide num_channels=4"),
        (lambda: dc.LayerNorm(()), InvalidValue, "LayerNorm: normalized_shape must name at least"),
        (lambda: dc.LayerNorm((2, 0)), InvalidValue, "normalized_shape must be at least 1, got 0"),
        (lambda: dc.LayerNorm(None), InvalidType, "normalized_shape must be an int, got None"),
        (lambda: dc.LayerNorm(2, -1.0), InvalidValue, r"eps must be at least 0\.0"),
        (lambda: dc.RMSNorm(2, -1.0), InvalidValue, r"RMSNorm: eps must be at least 0\.0"),
        (lambda: dc.LocalResponseNorm(0), InvalidValue, "LocalResponseNorm: size must be at least"),
        (lambda: dc.LocalResponseNorm(2, k=0), InvalidValue, "k must be greater than 0.0, got 0"),
        (
            lambda: dc.LocalResponseNorm(2, alpha="a"),
            InvalidType,
            "alpha must be a number, got 'a'",
        ),
    ],
)
def test_arguments_are_checked_when_it_is_made(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            dc.BatchNorm2d(3),
            (4, 5, 5),
            r"BatchNorm2d: expected num_features=3 channels, got x \(N, 4",
        ),
        (
            dc.BatchNorm2d(3),
            (3, 5),
            r"expected x with 4 dimensions \(N, C, H, W\), got x \(N, 3, 5\)",
        ),
        (dc.BatchNorm2d(3), (3, 0, 5), r"expected x \(N, C, \*spatial\) with pixels"),
        (
            dc.BatchNorm1d(3),
            (3, 5, 5),
            r"expected x with 2 or 3 dimensions, \(N, C\) or \(N, C, W\), got x \(N, 3, 5, 5\)",
        ),
        (dc.BatchNorm1d(None), (0,), r"x \(N, 0\) has no channels or no pixels"),
        (
            dc.GroupNorm(2, 4),
            (6, 5),
            r"GroupNorm: expected num_channels=4 channels, got x \(N, 6, 5\)",
        ),
        (
            dc.GroupNorm(4, None),
            (6, 5),
            r"num_groups=4 must divide the 6 channels of x \(N, 6, 5\)",
        ),
        (dc.InstanceNorm1d(3), (3, 1), r"x \(N, 3, 1\) has one pixel per channel"),
        (dc.InstanceNorm1d(3), (2, 4), "expected num_features=3 channels"),
        (dc.InstanceNorm3d(3), (3, 4, 4), "expected x with 5 dimensions"),
        (dc.LayerNorm((3, 4)), (4, 3), r"LayerNorm: x \(N, 4, 3\) must end with normalized_shape"),
        (dc.LayerNorm((3, 4)), (4,), r"must end with normalized_shape \(3, 4\)"),
        (dc.RMSNorm(3), (4,), r"RMSNorm: x \(N, 4\) must end with normalized_shape \(3,\)"),
        (
            dc.LocalResponseNorm(3),
            (4,),
            r"expected x \(N, C, \*spatial\) with pixels, got x \(N, 4\)",
        ),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit(layer: dc.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layer.output_shape(shape)
    with pytest.raises(InvalidValue, match=message.replace(r"x \(N", r"x \([N2]")):
        layer(np.zeros((2, *shape), dtype="float32"))


def test_a_batch_with_one_value_per_channel() -> None:
    layer = dc.BatchNorm1d(3).build()
    x = np.zeros((1, 3), dtype="float32")
    assert layer(x).shape == (1, 3)
    with (
        unchanged(layer),
        pytest.raises(InvalidValue, match=r"x \(1, 3\) has 1 values per channel, training needs"),
    ):
        layer.vjp(x)


@pytest.mark.parametrize(
    "layer",
    [
        dc.BatchNorm2d(3, bias=False),
        dc.GroupNorm(3, 3, bias=False),
        dc.InstanceNorm2d(3, affine=True, bias=False),
        dc.LayerNorm(5, bias=False),
    ],
    ids=repr,
)
def test_a_weight_without_a_bias(layer: dc.Layer) -> None:
    layer.to(dtype="float64").build()
    y, pullback = layer.vjp(images())
    assert list(layer.parameters) == list(pullback(y)[1]) == ["weight"]
    assert "bias=False" in repr(layer)
