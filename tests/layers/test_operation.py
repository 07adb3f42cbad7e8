"""A layer that is one operation, and the activation that may follow inside it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from devconv.layers.activation import BY_NAME
from devconv.layers.operation import rank_of
from tests.backends import Backend
from tests.toys import assert_equal, images, line, place


def pair(kind: str, activation: Any, follower: dc.Layer) -> tuple[dc.Layer, dc.Layer]:
    """A layer with ``activation=``, and the same layer followed by one."""
    if kind == "conv":
        return dc.Conv2d(2, 4, 3, padding=1, activation=activation), dc.Sequential(
            {"it": dc.Conv2d(2, 4, 3, padding=1), "then": follower}
        )
    return dc.Dense(3, 4, activation=activation), dc.Sequential(
        {"it": dc.Dense(3, 4), "then": follower}
    )


def assert_same(backend: Backend, one: dc.Layer, two: dc.Layer, x: np.ndarray) -> None:
    one.to(place(backend), dtype="float64").build(seed=1)
    two.to(place(backend), dtype="float64").load_state_dict(
        {f"it.{n}": a for n, a in one.state_dict().items()}
    )
    y, back = one.vjp(backend.asarray(x))
    z, follower_back = two.vjp(backend.asarray(x))
    dx, grads = back(y)
    dz, follower_grads = follower_back(z)
    assert_equal(
        {"y": y, "x": dx, **{f"it.{n}": g for n, g in sorted(grads.items())}},
        {"y": z, "x": dz, **dict(sorted(follower_grads.items()))},
    )
    inferred = one(backend.asarray(x))
    np.testing.assert_array_equal(backend.to_numpy(inferred), backend.to_numpy(y))


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_activation_shortcut_is_the_layer_that_follows(backend: Backend, kind: str) -> None:
    x = images() if kind == "conv" else line(dtype="float64")[0]
    assert_same(backend, *pair(kind, "relu", dc.ReLU()), x)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_named_activation(name: str) -> None:
    numpy = Backend("numpy", np, "cpu")
    assert_same(numpy, *pair("dense", name, BY_NAME[name]()), line(dtype="float64")[0])
    assert_same(numpy, *pair("dense", BY_NAME[name](), BY_NAME[name]()), line(dtype="float64")[0])


def test_the_shortcut_has_no_index_of_its_own() -> None:
    model = dc.Sequential(dc.Conv2d(2, 4, 3, activation="relu"), dc.Flatten(), dc.Dense(None, 3))
    assert list(model.children) == ["0", "1", "2"]
    assert list(model.build((2, 5, 5)).parameters) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert dict(model[0].children) == {}
    assert "activation='relu'" in repr(model)


def test_a_layer_of_one_s_own(backend: Backend) -> None:
    """Name the operation and its arrays, declare their shapes: the rest is inherited."""

    class Scaled(dc.OperationLayer):
        operation = F.dense
        arrays = ("weight",)

        def declare(self, shape: Any) -> Any:
            return {"weight": dc.Parameter((2, 3), dc.initializers.Constant(0.5))}

        def infer(self, trace: Any, shape: Any) -> Any:
            return (*shape[:-1], 2)

    layer = Scaled().to(place(backend), dtype="float64").build()
    x = line(dtype="float64")[0]
    y, pullback = layer.vjp(backend.asarray(x))
    np.testing.assert_allclose(backend.to_numpy(y), 0.5 * np.stack([x.sum(axis=1)] * 2, axis=1))
    dx, grads = pullback(y)
    assert list(grads) == ["weight"]
    assert tuple(dx.shape) == x.shape


def test_without_arrays_the_shape_stays() -> None:
    class Absolute(dc.OperationLayer):
        operation = F.relu

    assert Absolute().output_shape((3, 4)) == (3, 4)
    assert dict(Absolute().options()) == {}
    assert dict(Absolute().build().parameters) == {}


# --- a layer of an operation by itself ---


@F.differentiable
def every_other(x: Any, /, *, times: float = 2.0) -> Any:
    """Every other number, ``times`` over: another shape, as only the operation knows."""

    def pullback(dy: Any) -> Any:
        dx = np.zeros(x.shape, dtype=x.dtype)
        dx[..., ::2] = dy * times
        return (dx,)

    return x[..., ::2] * times, pullback


def test_lambda_is_the_operation(backend: Backend) -> None:
    x = images()
    layer = dc.Lambda(F.softmax, axis=1)
    y, pullback = layer.vjp(backend.asarray(x))
    wanted, back = F.softmax.vjp(x, axis=1)
    np.testing.assert_allclose(backend.to_numpy(y), wanted, rtol=1e-12)
    dx, grads = pullback(y)
    np.testing.assert_allclose(backend.to_numpy(dx), back(wanted)[0], rtol=1e-10, atol=1e-14)
    assert grads == {}
    assert repr(layer) == "Lambda(softmax, axis=1)"
    model = dc.Sequential(dc.Flatten(), dc.Dense(None, 3), layer).build(x.shape[1:])
    assert model.output_shape(x.shape[1:]) == (3,)


def halved(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // 2)


def test_a_pickle_of_lambda() -> None:
    layer = dc.Lambda(every_other, output_shape=halved, times=3.0)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert again.operation.origin is every_other
        assert again.output_shape((3, 4)) == (3, 2)
        np.testing.assert_array_equal(again(images()), layer(images()))


def test_a_copy_of_a_model_has_arrays_of_its_own(backend: Backend) -> None:
    """One goes on learning, the other stays as it is."""
    model = dc.Sequential(
        dc.Conv2d(2, 3, 3, activation="relu"), dc.BatchNorm2d(3), dc.Flatten(), dc.Dense(None, 2)
    ).build(images().shape[1:])
    model.to(place(backend), dtype="float64")
    x = backend.asarray(images())
    before = {name: backend.to_numpy(a) for name, a in model.state_dict().items()}
    with backend.here():  # where CuPy puts what was pickled
        pickled = pickle.loads(pickle.dumps(model))
    for again in (copy.deepcopy(model), pickled):
        assert again.device == model.device
        assert_equal(again.state_dict(), before)
        y, pullback = again.vjp(x)
        dc.optim.SGD(again, lr=0.1).step(pullback(y)[1])
        assert_equal(model.state_dict(), before)
        assert all(
            not np.array_equal(backend.to_numpy(a), before[name])
            for name, a in again.state_dict().items()
        )
    if backend.name in ("numpy", "torch"):  # whose arrays can be written into
        again = copy.deepcopy(model)
        for array in again.state_dict().values():
            array[...] = 0.0
        assert_equal(model.state_dict(), before)


def test_lambda_finds_the_shape_by_a_trial_or_is_told() -> None:
    assert dc.Lambda(F.flatten, start=2).output_shape((3, 4, 5)) == (3, 20)
    assert dc.Lambda(F.layer_norm, normalized_shape=5).output_shape((3, 5)) == (3, 5)
    assert dc.Lambda(every_other).output_shape((3, 4)) == (3, 2)
    asked = []

    def shape_of(shape: tuple[int, ...]) -> tuple[int, ...]:
        asked.append(shape)
        return (*shape[:-1], shape[-1] // 2)

    layer = dc.Lambda(every_other, output_shape=shape_of, times=3.0)
    assert layer.output_shape((3, 4)) == (3, 2)
    assert layer(np.ones((2, 3, 4))).shape == (2, 3, 2)
    assert set(asked) == {(3, 4)}
    assert repr(layer) == "Lambda(every_other, times=3.0)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: dc.Lambda(lambda x: x),
            InvalidType,
            r"Lambda: operation must be an operation, got <function .*differentiable$",
        ),
        (
            lambda: dc.Lambda(F.conv),
            InvalidType,
            "Lambda: conv needs x and weight; write an Operat",
        ),
        (
            lambda: dc.Lambda(F.softmax, dim=1),
            InvalidType,
            "Lambda: softmax has no option 'dim'; it takes axis",
        ),
        (
            lambda: dc.Lambda(F.max_pool, kernel_size=2, return_indices=True).output_shape((3, 4)),
            InvalidValue,
            r"Lambda: max_pool gives a tuple for x \(1, 3, 4\); a layer gives one array",
        ),
        (
            lambda: dc.Lambda(F.flatten, start=0).output_shape((3, 4)),
            InvalidValue,
            r"Lambda: flatten gives shape \(12,\) for x \(1, 3, 4\)",
        ),
        (
            lambda: dc.Lambda(F.max_pool, kernel_size=9).output_shape((3, 4)),
            InvalidValue,
            "^Lambda: the output would be empty",
        ),
    ],
)
def test_what_lambda_does_not_take(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_rank_that_options_speak_of() -> None:
    assert rank_of(3, "same", (1, 2)) == 2
    assert rank_of(3, None) == 1
