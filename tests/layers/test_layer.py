"""What every layer promises: build, call, learn, move, save, and change nothing on failure."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from tests import backends
from tests.backends import Backend
from tests.toys import (
    CLASSES,
    Centre,
    assert_close,
    assert_equal,
    bindings,
    cnn,
    gradients,
    host,
    images,
    labels,
    line,
    place,
    torch_cnn,
    unchanged,
)


def small(features: int | None = 3) -> dc.Sequential:
    return dc.Sequential(dc.Dense(features, 4), dc.Tanh(), Centre(), dc.Dense(4, 1))


def on(backend: Backend, *hosts: np.ndarray) -> list[Any]:
    return [backend.asarray(x) for x in hosts]


# --- inferring and learning ---


def test_calling_keeps_nothing(backend: Backend) -> None:
    model = small().build((3,)).to(place(backend))
    (x,) = on(backend, line()[0])
    with unchanged(model):
        y = model(x)
    assert tuple(y.shape) == (16, 1)
    assert dc.device_of(y) == place(backend)


def test_learning_renews_buffers_and_no_parameter(backend: Backend) -> None:
    model = small().build((3,)).to(place(backend))
    parameters, buffers = model.parameters, model.buffers
    (x,) = on(backend, line()[0])
    model.vjp(x)
    assert all(model.parameters[name] is array for name, array in parameters.items())
    assert list(buffers) == ["2.mean"]
    before, after = (backend.to_numpy(b["2.mean"]) for b in (buffers, model.buffers))
    assert not np.array_equal(before, after)
    assert model.buffers["2.mean"].dtype == buffers["2.mean"].dtype


def test_gradients_of_the_inference_pass_renew_nothing(backend: Backend) -> None:
    model = small().build((3,)).to(place(backend))
    (x,) = on(backend, line()[0])
    with unchanged(model):
        y, _ = model.vjp(x, training=False)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(model(x)))


def test_a_layer_is_told_whether_it_learns() -> None:
    class Mode(dc.Layer):
        def infer(self, trace: Any, shape: Any) -> Any:
            return shape

        def apply_vjp(self, scope: Any, x: Any) -> Any:
            return (-x if scope.training else x), lambda dy: (dy, {})

    model, x = dc.Sequential(Mode()), np.ones(3)
    assert model(x)[0] == model.vjp(x, training=False)[0][0] == 1.0
    assert model.vjp(x)[0][0] == -1.0
    pure = dc.pure(model)
    assert pure({}, {}, x)[0] == pure.vjp({}, {}, x, training=False)[0][0][0] == 1.0
    assert pure.vjp({}, {}, x)[0][0][0] == -1.0


def test_pullback_gives_dx_and_a_gradient_for_each_parameter(backend: Backend) -> None:
    model = small().build((3,)).to(place(backend))
    (x, dy) = on(backend, *line())
    dx, grads = model.vjp(x)[1](dy)
    assert tuple(dx.shape) == tuple(x.shape)
    assert sorted(grads) == sorted(model.parameters)
    for name, array in model.parameters.items():
        assert tuple(grads[name].shape) == tuple(array.shape)
        assert grads[name].dtype == array.dtype


def test_pullback_is_pure_also_after_a_step(backend: Backend) -> None:
    model = cnn().build().to(place(backend), dtype="float64")
    x, dy = on(backend, images(), np.ones((4, CLASSES)))
    _, pullback = model.vjp(x)
    dx, grads = pullback(dy)
    first = {"x": dx, **grads}
    copies = {name: backend.to_numpy(array) for name, array in first.items()}
    dc.optim.SGD(model, lr=0.5).step(grads)
    dx, grads = pullback(dy)
    assert_equal({"x": dx, **grads}, copies)
    assert_equal(first, copies)


def test_pullback_refuses_a_dy_of_another_shape() -> None:
    model = cnn().build()
    _, pullback = model.vjp(images(dtype="float32"))
    with pytest.raises(InvalidValue, match=r"dy has shape \(4, 2\), expected that of y, \(4, 3\)"):
        pullback(np.ones((4, 2), dtype="float32"))


def test_a_layer_kind_says_what_it_has_to_define() -> None:
    class Empty(dc.Layer):
        pass

    with pytest.raises(NotImplementedError, match="Empty does not define infer"):
        Empty().output_shape((3,))
    with pytest.raises(NotImplementedError, match="Empty does not define apply_vjp"):
        Empty().apply(None, None)  # type: ignore[arg-type]


# --- building ---


def test_the_numbers_of_a_seed_are_these() -> None:
    """Draws are part of the contract: a changed generator would change every experiment."""
    weight = dc.Sequential(dc.Dense(2, 2)).build(seed=0).parameters["0.weight"]
    wanted = [[-0.04497819, 1.2022918], [-1.0145391, -1.8551016]]
    np.testing.assert_allclose(weight, wanted, rtol=1e-6)


def test_same_numbers_for_a_seed_on_every_device(backend: Backend) -> None:
    wanted = cnn().build(seed=3).state_dict()
    assert_equal(cnn().build(seed=3).to(place(backend)).state_dict(), wanted)
    assert_equal(cnn().to(place(backend)).build(seed=3).state_dict(), wanted)
    moved = cnn().to(place(backend)).build(seed=3)
    assert moved.device == place(backend)


def test_numbers_depend_on_seed_and_path_alone() -> None:
    def conv() -> dc.Conv2d:
        return dc.Conv2d(2, 3, 3)

    one = dc.Sequential({"a": conv(), "b": dc.Dense(4, 4), "c": conv()}).build(seed=1).parameters
    other = dc.Sequential({"c": conv(), "z": dc.Dense(7, 1), "a": conv()}).build(seed=1).parameters
    for name in ("a.weight", "c.weight"):
        np.testing.assert_array_equal(one[name], other[name])
    assert not np.array_equal(one["a.weight"], one["c.weight"])
    again = dc.Sequential({"a": conv()}).build(seed=2).parameters
    assert not np.array_equal(one["a.weight"], again["a.weight"])


def test_no_shape_is_needed_when_no_size_is_none() -> None:
    model = cnn()
    assert not model.is_built
    assert model.build() is model
    assert model.is_built


def test_parameters_and_state_dict_build_where_they_can() -> None:
    for look in (lambda m: m.parameters, lambda m: m.buffers, lambda m: m.state_dict()):
        model = cnn()
        look(model)
        assert_equal(model.state_dict(), cnn().build().state_dict())


@pytest.mark.parametrize(
    "look",
    [lambda m: m.parameters, lambda m: m.buffers, lambda m: m.state_dict(), lambda m: m.build()],
)
def test_an_open_size_is_asked_for(look: Any) -> None:
    model = dc.Sequential(dc.Dense(3, 2), dc.Sequential(dc.ReLU(), dc.Dense(None, 1)))
    with (
        unchanged(model),
        pytest.raises(InvalidValue, match=r"1\.1 \(Dense\): in_features is None and no shape is"),
    ):
        look(model)


def test_open_sizes_by_build_and_by_the_first_batch(backend: Backend) -> None:
    def model() -> dc.Sequential:
        return dc.Sequential(dc.Conv2d(None, 4, 3), dc.Flatten(), dc.Dense(None, 2))

    built = model().build((2, 8, 8)).to(place(backend))
    called = model().to(place(backend))
    (x,) = on(backend, images(dtype="float32"))
    np.testing.assert_array_equal(backend.to_numpy(called(x)), backend.to_numpy(built(x)))
    assert_equal(called.state_dict(), built.state_dict())
    assert (called[0].in_channels, called[2].in_features) == (2, 144)  # type: ignore[attr-defined]


def test_build_again_opens_sizes_anew() -> None:
    model = dc.Sequential(dc.Conv2d(None, 4, 3), dc.Flatten(), dc.Dense(None, 2))
    model.build((2, 8, 8))
    model(images(dtype="float32"))
    model.build((3, 5, 5), seed=4)
    assert repr(model[0]) == "Conv2d(3, 4, 3)  # 112"
    with pytest.raises(InvalidValue, match=r"0 \(Conv2d\): expected 3 input channels"):
        model(images(dtype="float32"))


def test_build_again_draws_anew_and_keeps_device_and_dtype(backend: Backend) -> None:
    model = cnn().to(place(backend), dtype="float64").build(seed=1)
    first = model.parameters
    model.build(seed=2)
    assert (model.device, model.dtype) == (place(backend), "float64")
    assert not np.array_equal(
        backend.to_numpy(first["0.weight"]), backend.to_numpy(model.parameters["0.weight"])
    )


def test_float32_numbers_are_the_float64_ones_rounded() -> None:
    wide = cnn().to(dtype="float64").build().parameters
    narrow = cnn().build().parameters
    for name, array in wide.items():
        np.testing.assert_array_equal(array.astype("float32"), narrow[name])


@pytest.mark.parametrize(
    ("shape", "seed", "error", "message"),
    [
        (5, 0, InvalidType, r"Dense: shape must be ints, without the batch, got 5"),
        ("3", 0, InvalidType, r"shape must be ints, without the batch, got '3'"),
        ((2.0,), 0, InvalidType, r"shape must be an int, got 2\.0"),
        ((-2,), 0, InvalidValue, r"shape must be at least 0, got -2"),
        ((4,), 0, InvalidValue, r"Dense: expected 3 input features .* got x \(N, 4\)"),
        ((3,), -1, InvalidValue, r"seed must be at least 0, got -1"),
        ((3,), 1.5, InvalidType, r"seed must be an int, got 1\.5"),
    ],
)
def test_build_refuses(shape: Any, seed: Any, error: type, message: str) -> None:
    model = dc.Dense(3, 2)
    with unchanged(model), pytest.raises(error, match=message):
        model.build(shape, seed=seed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rng, shape, fans: np.ones(3), r"0 \(Dense\): the initializer of weight made float"),
        (lambda rng, shape, fans: np.ones(shape, dtype="int64"), r"made int64 \(2, 3\), expected"),
        (lambda rng, shape, fans: 1.0, r"made float \(\), expected floating numbers of shape"),
    ],
)
def test_build_refuses_what_an_initializer_makes_wrongly(make: Any, message: str) -> None:
    model = dc.Sequential(dc.Dense(3, 2, weight_init=make))
    with unchanged(model), pytest.raises(InvalidValue, match=message):
        model.build()


# --- a failure leaves nothing half-done ---


def broken() -> dc.Sequential:
    """The first layers would be built; the last does not fit what reaches it."""
    return dc.Sequential(dc.Conv2d(None, 4, 3), dc.Flatten(), dc.Dense(None, 2), dc.Dense(5, 1))


def test_failed_build_leaves_nothing() -> None:
    model = broken()
    with unchanged(model), pytest.raises(InvalidValue, match=r"3 \(Dense\): expected 5 input"):
        model.build((2, 8, 8))
    assert not any(layer.is_built for layer in (model[0], model[2], model[3]))


def test_failed_build_of_a_built_model_keeps_it() -> None:
    model = dc.Sequential(dc.Conv2d(None, 4, 3), dc.Flatten(), dc.Dense(None, 2)).build((2, 8, 8))
    with unchanged(model), pytest.raises(InvalidValue, match="the output would be empty"):
        model.build((2, 2, 2))
    with unchanged(model), pytest.raises(InvalidValue, match="no shape is known"):
        model.build()


def test_failed_first_call_leaves_nothing(backend: Backend) -> None:
    model = broken().to(place(backend))
    (x,) = on(backend, images(dtype="float32"))
    for face in (model, model.vjp):
        with unchanged(model), pytest.raises(InvalidValue, match=r"3 \(Dense\): expected 5 input"):
            face(x)


def test_failure_inside_the_first_call_leaves_nothing() -> None:
    class Fail(dc.Layer):
        def infer(self, trace: Any, shape: Any) -> Any:
            return shape

        def apply_vjp(self, scope: Any, x: Any) -> Any:
            raise RuntimeError("out of memory")

    model = dc.Sequential(Centre(), dc.Dense(None, 2), Fail())
    for face in (model, model.vjp):
        with unchanged(model), pytest.raises(RuntimeError, match="out of memory"):
            face(line()[0])
    model.build((3,))
    with unchanged(model), pytest.raises(RuntimeError, match="out of memory"):
        model.vjp(line()[0])  # the running mean was not renewed either


def test_failed_loss_keeps_buffers_and_builds_nothing() -> None:
    model = dc.Sequential(Centre(), dc.Dense(None, 2))
    step = dc.value_and_grad(model, F.cross_entropy)
    for _ in range(2):
        with unchanged(model), pytest.raises(InvalidValue, match="labels from 7 to 7"):
            step(line()[0], np.full(16, 7))
        model.build((3,))


def test_failed_move_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn().build()
    moved = []
    genuine = dc.Layer._commit

    def commit(self: Any, *args: Any) -> None:
        if moved:
            raise MemoryError("device is full")
        moved.append(self)
        genuine(self, *args)

    monkeypatch.setattr(dc.Layer, "_commit", commit)
    with unchanged(model), pytest.raises(MemoryError):
        model.to(dtype="float64")
    assert moved


def test_other_threads_may_infer_while_a_call_fails() -> None:
    model = cnn().build()
    good, bad = images(dtype="float32"), images(dtype="float32")[:, :1]
    wanted, problems = model(good), []

    def infer() -> None:
        try:
            for _ in range(300):
                np.testing.assert_array_equal(model(good), wanted)
        except BaseException as problem:
            problems.append(problem)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # let them meet at every line
    threads = [threading.Thread(target=infer) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with pytest.raises(InvalidValue):
                model(bad)
            with pytest.raises(InvalidValue):
                model.load_state_dict({})
    finally:
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert problems == []


# --- names: parameters, buffers, state dicts ---


def test_parameters_and_buffers_are_read_only() -> None:
    model = small().build((3,))
    for mapping in (model.parameters, model.buffers):
        assert isinstance(mapping, Mapping)
        assert not hasattr(mapping, "__setitem__")
        with pytest.raises(TypeError):
            mapping["0.weight"] = np.ones(1)  # type: ignore[index]


def test_state_dict_holds_parameters_and_buffers() -> None:
    model = small().build((3,))
    assert list(model.state_dict()) == [
        "0.weight",
        "0.bias",
        "2.scale",
        "2.mean",
        "3.weight",
        "3.bias",
    ]
    assert set(model.state_dict()) == set(model.parameters) | set(model.buffers)
    state = model.state_dict()
    state.clear()  # the caller's own mapping
    assert len(model.state_dict()) == 6


def test_without_arrays_there_is_nothing() -> None:
    model = dc.Sequential(dc.ReLU(), dc.Flatten())
    assert (dict(model.parameters), dict(model.buffers), model.state_dict()) == ({}, {}, {})
    assert model.load_state_dict({}) is model
    assert model.parameter_count == 0


def test_parameter_count() -> None:
    assert dc.Dense(None, 2).parameter_count is None
    shared = dc.Dense(3, 3)
    assert dc.Sequential(shared, dc.ReLU(), shared).build().parameter_count == 12
    assert small().build((3,)).parameter_count == 16 + 4 + 5  # the running mean learns nothing


def test_shared_layer_has_one_name_for_learning_and_all_for_saving() -> None:
    shared = dc.Dense(3, 3)
    model = dc.Sequential(shared, dc.Tanh(), shared).build()
    assert list(model.parameters) == ["0.weight", "0.bias"]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert model.state_dict()["0.weight"] is model.state_dict()["2.weight"]


def test_gradients_of_a_shared_layer_add_up(backend: Backend) -> None:
    shared = dc.Dense(3, 3)
    model = dc.Sequential(shared, dc.Tanh(), shared).build().to(place(backend), "float64")
    apart = dc.Sequential(dc.Dense(3, 3), dc.Tanh(), dc.Dense(3, 3)).to(place(backend), "float64")
    apart.load_state_dict(model.state_dict())
    x, target = on(backend, line(dtype="float64")[0], np.ones((16, 3)))
    one, grads = gradients(model, x, target)
    other, parts = gradients(apart, x, target)
    assert float(one) == float(other)
    wanted = {
        f"0.{kind}": backend.to_numpy(parts[f"0.{kind}"]) + backend.to_numpy(parts[f"2.{kind}"])
        for kind in ("weight", "bias")
    }
    assert_close(grads, wanted, 1e-14)


def test_buffers_of_a_shared_layer_are_renewed_in_turn() -> None:
    shared = Centre(3)
    model = dc.Sequential(shared, shared).build()
    x = line()[0]
    model.vjp(x)
    first = 0.5 * x[0]
    np.testing.assert_array_equal(model.buffers["0.mean"], 0.5 * first + 0.5 * x[0])


def test_shared_layer_must_fit_everywhere() -> None:
    shared = dc.Dense(None, 3)
    model = dc.Sequential(shared, dc.ReLU(), shared)
    with (
        unchanged(model),
        pytest.raises(InvalidValue, match=r"the layer is shared, but gets \(N, 5\) and \(N, 3\)"),
    ):
        model.build((5,))
    conv = dc.Conv2d(4, 4, 3)  # the same arrays whatever the size of the image
    assert dc.Sequential(conv, conv).output_shape((4, 9, 9)) == (4, 5, 5)


def test_shared_layer_loads_by_any_of_its_names() -> None:
    def model() -> dc.Sequential:
        shared = dc.Dense(3, 3)
        return dc.Sequential(shared, dc.Tanh(), shared)

    state = model().build(seed=1).state_dict()
    last = {name: x for name, x in state.items() if name.startswith("2")}
    for given in (state, last):
        assert_equal(model().load_state_dict(given).state_dict(), state)
    with pytest.raises(InvalidValue, match=r"state\['2\.bias'\] has shape \(4,\)"):
        model().load_state_dict({**state, "2.bias": np.ones(4, dtype="float32")})


def test_two_values_for_one_array_are_refused(backend: Backend) -> None:
    shared = dc.Dense(3, 3)
    model = dc.Sequential(shared, dc.Tanh(), shared).build().to(place(backend))
    state = model.state_dict()
    with backend.here():
        same = {**state, "2.bias": state["2.bias"] + 0.0}
        other = {**state, "2.bias": state["2.bias"] + 1.0}
        nan = {name: 0.0 * x + float("nan") for name, x in state.items()}
    assert_equal(model.load_state_dict(same).state_dict(), state)
    message = r"^state\['0\.bias'\] and state\['2\.bias'\] differ, but are one array of a layer"
    with unchanged(model), pytest.raises(InvalidValue, match=message):
        model.load_state_dict(other)
    model.load_state_dict(nan)


# --- loading ---


def test_load_takes_arrays_of_any_library(backend: Backend) -> None:
    wanted = small().build((3,), seed=5).state_dict()
    theirs = {name: backend.asarray(x) for name, x in wanted.items()}
    assert_equal(small().load_state_dict(theirs).state_dict(), wanted)
    here = small().to(place(backend)).load_state_dict(wanted)
    assert here.device == place(backend)
    assert_equal(here.state_dict(), wanted)
    assert_equal(here.load_state_dict(here.state_dict()).state_dict(), wanted)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_load_copies(name: str) -> None:
    """Whoever writes into the arrays later does not change the model."""
    backend = backends.get(name)
    model = dc.Dense(2, 1, bias=False).to(place(backend))
    weight = backend.asarray([[1.0, 2.0]], "float32")
    model.load_state_dict({"weight": weight})
    weight[...] = 7.0
    np.testing.assert_array_equal(backend.to_numpy(model.parameters["weight"]), [[1.0, 2.0]])


def test_loaded_arrays_leave_autograd_behind() -> None:
    backend = backends.get("torch")
    torch = pytest.importorskip("torch")
    source = torch.nn.Linear(2, 1)
    model = dc.Dense(2, 1).to("torch").load_state_dict(dict(source.named_parameters()))
    assert not any(x.requires_grad for x in model.parameters.values())
    with torch.no_grad():
        source.weight.zero_()
    assert np.any(backend.to_numpy(model.parameters["weight"]))


def test_load_builds_open_sizes_from_the_arrays() -> None:
    def model() -> dc.Sequential:
        return dc.Sequential(
            dc.Conv2d(None, 4, 3, groups=2), dc.Flatten(), Centre(), dc.Dense(None, 2)
        )

    source = model().build((2, 5, 5), seed=9)
    loaded = model().load_state_dict(source.state_dict())
    assert repr(loaded) == repr(source)
    assert_equal(loaded.state_dict(), source.state_dict())
    x = np.ones((1, 2, 5, 5), dtype="float32")
    np.testing.assert_array_equal(loaded(x), source(x))


def change(name: str, value: Any) -> Any:
    return lambda state: {**state, name: value}


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda s: [], InvalidType, r"state must map names to arrays, got list"),
        (change("0.bias", [1.0]), InvalidType, r"state\['0\.bias'\] must be an array, got list"),
        (
            lambda s: {n: x for n, x in s.items() if n != "3.weight"},
            InvalidValue,
            r"state does not fit this model: missing 3\.weight; load it into the model",
        ),
        (lambda s: {}, InvalidValue, r"missing 0\.weight, 0\.bias, 2\.scale, 2\.mean, 3\.weight "),
        (
            change("9.weight", np.ones(1, dtype="float32")),
            InvalidValue,
            r"state does not fit this model: unknown 9\.weight",
        ),
        (
            change("3.weight", np.ones((4, 1), dtype="float32")),
            InvalidValue,
            r"state\['3\.weight'\] has shape \(4, 1\), the model's is \(1, 4\)",
        ),
        (
            change("3.weight", np.ones((1, 4))),
            InvalidType,
            r"state\['3\.weight'\] is float64, the model float32; pass dtype='float32' to cast it",
        ),
        (
            change("2.mean", np.ones(4, dtype="int64")),
            InvalidType,
            r"state\['2\.mean'\] is int64, the model float32",
        ),
    ],
)
def test_load_refuses_before_anything_changes(
    edit: Any, error: type, message: str, built: bool
) -> None:
    model = small()
    model[2].channels = 4  # type: ignore[attr-defined]
    if built:
        model.build()
    state = small().build((3,), seed=1).state_dict()
    with unchanged(model), pytest.raises(error, match=message):
        model.load_state_dict(edit(state))


def test_load_casts_only_when_told(backend: Backend) -> None:
    state = small().to(dtype="float64").build((3,)).state_dict()
    model = small().to(place(backend))
    with unchanged(model), pytest.raises(InvalidType, match="pass dtype='float32' to cast it"):
        model.load_state_dict(state)
    model.load_state_dict(state, dtype="float32")
    assert model.dtype == "float32"
    assert_equal(model.state_dict(), {n: x.astype("float32") for n, x in state.items()})
    model.load_state_dict(state, dtype=np.float64)
    assert model.dtype == "float64"
    assert_equal(model.state_dict(), state)
    integers = {name: np.ones(x.shape, dtype="int64") for name, x in state.items()}
    with unchanged(model), pytest.raises(InvalidType, match="is int64, the model float32"):
        model.load_state_dict(integers, dtype="float32")


def test_load_passes_over_num_batches_tracked() -> None:
    state = small().build((3,)).state_dict()
    more = {**state, "2.num_batches_tracked": np.asarray(3)}
    assert_equal(small().load_state_dict(more).state_dict(), state)


def test_names_and_shapes_are_those_of_pytorch(backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    source = torch_cnn()
    state = source.state_dict()
    model = cnn().to(place(backend), dtype="float64").load_state_dict(state)
    assert list(model.state_dict()) == list(state)
    assert {n: tuple(x.shape) for n, x in model.parameters.items()} == {
        n: tuple(x.shape) for n, x in state.items()
    }
    x = torch.tensor(images(), requires_grad=True)
    logits = source(x)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels()))
    loss.backward()
    mine, pullback = model.vjp(backend.asarray(images()))
    value, back = F.cross_entropy.vjp(mine, backend.asarray(labels()))
    dx, grads = pullback(back(backend.asarray(np.ones(())))[0])
    assert_close({"y": mine, "loss": value}, {"y": logits.detach(), "loss": loss.detach()}, 1e-13)
    theirs = {name: parameter.grad for name, parameter in source.named_parameters()}
    assert_close({"x": dx, **grads}, {"x": x.grad, **theirs}, 1e-13)


def test_a_pytorch_model_takes_what_was_learned_here() -> None:
    torch = pytest.importorskip("torch")
    model = cnn().build(seed=2).to("torch", dtype="float64")
    theirs = torch_cnn()
    theirs.load_state_dict(model.state_dict())
    x = torch.tensor(images())
    np.testing.assert_allclose(theirs(x).detach(), model(x), atol=1e-14)


# --- moving ---


def test_to_moves_everything_and_returns_the_model(backend: Backend) -> None:
    model = small().build((3,), seed=1)
    before = model.state_dict()
    assert model.to(place(backend)) is model
    assert model.device == place(backend)
    assert all(dc.device_of(x) == place(backend) for x in model.state_dict().values())
    assert_equal(host(backend, model.state_dict()), before)
    assert_equal(model.to("cpu").state_dict(), before)


def test_to_gives_a_dtype(backend: Backend) -> None:
    model = small().build((3,))
    before = model.state_dict()
    model.to(place(backend), dtype="float64")
    assert model.dtype == "float64"
    wanted = {name: x.astype("float64") for name, x in before.items()}
    assert_equal(host(backend, model.state_dict()), wanted)
    model.to(dtype="float32")
    assert model.device == place(backend)
    assert_equal(host(backend, model.state_dict()), before)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(backend: Backend, dtype: str) -> None:
    if not backend.has(dtype):
        with pytest.raises(InvalidType, match=f"has no {dtype}"):
            small().to(place(backend), dtype=dtype)
        return
    model = small().build((3,)).to(place(backend), dtype=dtype)
    x, target = (backend.asarray(a, dtype) for a in line())
    loss, grads = gradients(model, x, target)
    assert str(loss.dtype).endswith("float32")
    for name, parameter in model.parameters.items():
        assert grads[name].dtype == parameter.dtype == x.dtype


def test_a_dtype_that_is_no_such_thing() -> None:
    model = cnn().build()
    for dtype in ("int32", np.int64, "complex64", "float8"):
        with unchanged(model), pytest.raises(InvalidType, match="dtype must be float16, bfloat16"):
            model.to(dtype=dtype)


def test_a_device_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn().build()
    for spec in ("cuda:99", "tpu"):
        with unchanged(model), pytest.raises(InvalidValue, match=spec):
            model.to(spec, dtype="float64")


@pytest.mark.parametrize("dtype", [np.float32, np.dtype("float16"), "float64", "bfloat16"])
def test_a_dtype_is_no_device(dtype: Any) -> None:
    model, name = cnn().build(), str(np.dtype(dtype)) if dtype != "bfloat16" else dtype
    message = rf'^{name} is a dtype and no device; say model\.to\(dtype="{name}"\)$'
    with unchanged(model), pytest.raises(InvalidType, match=message):
        model.to(dtype)
    for other in ([1], 3, float):
        with pytest.raises(InvalidType, match="device must be a string such as"):
            model.to(other)


def test_auto_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVCONV_DEVICE", "array_api_strict:device1")
    backends.get("array_api_strict")
    assert cnn().build().to("auto").device.spec == "array_api_strict:device1"


def test_before_it_is_built_a_model_remembers_where_it_goes(backend: Backend) -> None:
    model = dc.Dense(None, 2).to(place(backend), dtype="float64")
    assert (model.device, model.dtype) == (place(backend), "float64")
    assert dc.Dense(3, 1).device == dc.device("cpu")
    y = model(backend.asarray(line(dtype="float64")[0]))
    assert dc.device_of(y) == place(backend)


WITHOUT_X64 = """
import numpy as np
import devconv as dc
model = dc.Sequential(dc.Dense(3, 2), dc.Dense(2, 1)).build()
before = model.state_dict()
try:
    model.to("jax", dtype="float64")
except TypeError as error:
    print(error)
assert model.device.spec == "cpu" and model.dtype == "float32"
assert all(model.state_dict()[name] is x for name, x in before.items())
model.to(dtype="float64")
try:
    model.to("jax")
except TypeError as error:
    print(error)
assert model.device.spec == "cpu" and model.dtype == "float64"
model.to("jax", dtype="float32")
y = model(dc.to_device(np.ones((4, 3), dtype="float32"), "jax"))
assert str(y.dtype) == "float32"
classes = dc.Sequential(dc.Dense(3, 2)).build().to("jax")
trainer = dc.Trainer(classes, dc.functional.cross_entropy, dc.optim.SGD(classes, lr=0.1))
trainer.fit([(np.ones((4, 3), dtype="float32"), np.asarray([0, 1, 1, 1]))], epochs=1)
import jax
assert not jax.config.jax_enable_x64  # the library leaves the switch alone
"""


def test_float64_on_jax_without_x64_is_refused() -> None:
    """In a process of its own: the tests have x64 on. Labels of 64 bits do arrive."""
    backends.get("jax")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "DEVCONV"))}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_X64],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert 'has no float64; call jax.config.update("jax_enable_x64", True), or use' in first


# --- shapes and messages ---


def test_output_shape_is_what_comes_out() -> None:
    model = cnn()
    assert model.output_shape((2, 8, 8)) == (CLASSES,)
    assert not model.is_built
    assert model[:4].output_shape((2, 8, 8)) == (4, 4, 4)
    for shape in ((2, 8, 8), [2, 8, 8]):
        assert model[0].output_shape(shape) == (4, 8, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 8), r"^0 \(Conv2d\): expected 2 input channels \(weight \(4, 2, 3, 3\)\), got x "),
        (
            (2, 8),
            r"^0 \(Conv2d\): expected x with 4 dimensions \(N, C, H, W\), got x \(N, 2, 8\); the "
            r"shape of one example is \(C, H, W\)$",
        ),
        (
            (4, 2, 8, 8),
            r"^0 \(Conv2d\): expected x with 4 dimensions .*, got x \(N, 4, 2, 8, 8\); leave the "
            r"batch out, the shape of one example is \(C, H, W\)$",
        ),
        ((2,), r"^0 \(Conv2d\): expected x with 4 dimensions \(N, C, H, W\), got x \(N, 2\)$"),
        ((2, 0, 8), r"^0 \(Conv2d\): expected x \(N, C, \*spatial\) with pixels, got x \(N, 2, 0"),
        ((2, 1, 1), r"^2 \(MaxPool2d\): "),
        (
            (2, 12, 12),
            r"^7 \(Dense\): expected 16 input features \(weight \(3, 16\)\), got x \(N, ",
        ),
    ],
)
def test_shape_errors_name_the_layer(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        cnn().output_shape(shape)
    model = cnn()
    with unchanged(model), pytest.raises(InvalidValue, match=message):
        model.build(shape)


def test_errors_give_path_kind_and_both_shapes(backend: Backend) -> None:
    model = dc.Sequential(dc.Sequential(dc.ReLU(), dc.Conv2d(16, 32, 3))).to(place(backend))
    x = backend.asarray(np.zeros((8, 3, 28, 28), dtype="float32"))
    fault = "expected 16 input channels (weight (32, 16, 3, 3)), got x (8, 3, 28, 28)"
    for _ in range(2):
        for face in (model, model.vjp):
            with unchanged(model), pytest.raises(InvalidValue) as caught:
                face(x)
            assert str(caught.value) == f"0.1 (Conv2d): {fault}"
        with pytest.raises(InvalidValue) as caught:
            model[0](x)
        assert str(caught.value) == f"1 (Conv2d): {fault}"
        with pytest.raises(InvalidValue) as caught:
            model[0][1](x)  # type: ignore[index]
        assert str(caught.value) == f"Conv2d: {fault}"
        model.build()


@pytest.mark.parametrize("built", [True, False])
def test_what_is_not_an_array_of_the_model_s_kind(built: bool) -> None:
    model = cnn().build() if built else cnn()
    x = images(dtype="float32")
    for given, error, message in (
        (x.tolist(), InvalidType, r"^Sequential: x must be an array, got list; make one of"),
        (None, InvalidType, r"^Sequential: x must be an array, got NoneType"),
        (
            x.astype("int64"),
            InvalidType,
            r"^Sequential: x \(4, 2, 8, 8\) has dtype int64, expected float32; convert it first: "
            r'x\.astype\("float32"\)$',
        ),
        (
            x.astype("float64"),
            InvalidType,
            r"^Sequential: x is float64 and 0\.weight is float32, expected one dtype; convert: "
            r'x\.astype\("float32"\) or model\.to\(dtype="float64"\)$',
        ),
        (
            x[0],
            InvalidValue,
            r"^0 \(Conv2d\): expected x with 4 dimensions .* got x \(2, 8, 8\); x\[None, \.\.\.\] "
            r"adds a batch that is missing, x\[:, None, \.\.\.\] a channel$",
        ),
        (
            x.transpose(0, 2, 3, 1),
            InvalidValue,
            r"^0 \(Conv2d\): expected 2 input channels .*, got x \(4, 8, 8, 2\); its channels seem "
            r"to stand last, xp\.permute_dims\(x, \(0, 3, 1, 2\)\) puts them first$",
        ),
    ):
        for face in (model, model.vjp):
            with unchanged(model), pytest.raises(error, match=message):
                face(given)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("torch", r"x\.to\(dtype=torch\.float32\)"),
        ("array_api_strict", r"xp\.astype\(x, xp\.float32\)"),
        ("jax", r'x\.astype\("float32"\)'),
    ],
)
def test_the_cast_that_mends_a_dtype_is_the_library_s_own(name: str, fix: str) -> None:
    backend = backends.get(name)
    model, x = cnn().build().to(place(backend)), images()
    with pytest.raises(InvalidType, match=rf"convert: {fix} or model\.to\(dtype=\"float64\"\)$"):
        model(backend.asarray(x))
    with pytest.raises(InvalidType, match=rf"has dtype int64, expected float32; .*: {fix}$"):
        model(backend.asarray(x.astype("int64")))


def test_arrays_of_two_libraries(backend: Backend) -> None:
    """The message names which argument is where and the move that mends it."""
    model = cnn().build()
    x = backend.asarray(images(dtype="float32"))
    if backend.name == "numpy":
        model = cnn().to("array_api_strict") if backends.get("array_api_strict") else model
    spec = place(backend).spec
    with pytest.raises(InvalidType, match=r"^Sequential: x is a .* array on ") as caught:
        model(x)
    here = model.device.spec
    assert f"array on {spec} and 0.weight a " in str(caught.value)
    assert str(caught.value).endswith(f'x = dc.to_device(x, "{here}") or model.to("{spec}")')


def test_two_devices_of_one_library() -> None:
    backend = backends.get("array_api_strict")
    model = cnn().build().to("array_api_strict")
    x = backend.asarray(images(dtype="float32"))
    with pytest.raises(
        InvalidValue, match=r"x is on array_api_strict:device1 and 0\.weight on array_api_strict;"
    ):
        model(x)


class Faulty(dc.Layer):
    """A layer of somebody's own, which raises plain errors."""

    def __init__(self, *, shape: bool = False) -> None:
        self.shape = shape

    def infer(self, trace: Any, shape: Any) -> Any:
        if self.shape:
            raise TypeError("no such shape")
        return shape

    def apply_vjp(self, scope: Any, x: Any) -> Any:
        raise ValueError("no such numbers")


def test_plain_errors_of_a_layer_say_where() -> None:
    """Type and message stay what they are; a note tells the place."""
    x = line()[0]
    for model, place_ in (
        (Faulty(), "in Faulty"),
        (dc.Sequential(dc.ReLU(), dc.Sequential({"own": Faulty()})), "in 1.own (Faulty)"),
    ):
        pure = dc.pure(model)
        for run in (
            lambda: model(x),  # noqa: B023
            lambda: model.vjp(x),  # noqa: B023
            lambda: pure({}, {}, x),  # noqa: B023
            lambda: pure.vjp({}, {}, x),  # noqa: B023
        ):
            with pytest.raises(ValueError, match=r"^no such numbers\n") as caught:
                run()
            assert type(caught.value) is ValueError
            assert caught.value.__notes__ == [place_]
    for model in (Faulty(shape=True), dc.Sequential(Faulty(shape=True))):
        with pytest.raises(TypeError, match=r"^no such shape\n") as caught:
            model.output_shape((3,))
        assert caught.value.__notes__ == [
            "in Faulty" if isinstance(model, Faulty) else "in 0 (Faulty)"
        ]


def test_a_layer_alone_is_named_like_one_inside() -> None:
    layer, x = dc.BatchNorm1d(3).build(), np.ones((1, 3), dtype="float32")
    pure, fault = dc.pure(layer), r"x \(1, 3\) has 1 values per channel"
    for run, where in (
        (lambda: layer.vjp(x), "BatchNorm1d"),
        (lambda: pure.vjp(layer.parameters, layer.buffers, x), "BatchNorm1d"),
        (lambda: dc.Sequential(layer).vjp(x), r"0 \(BatchNorm1d\)"),
        (lambda: F.batch_norm(x, training=True), "batch_norm"),
    ):
        with pytest.raises(InvalidValue, match=f"^{where}: {fault}"):
            run()
    with pytest.raises(InvalidType, match=r"^cross_entropy: "):  # the loss is none of the layer's
        dc.value_and_grad(layer, F.cross_entropy)(np.ones((2, 3), dtype="float32"), np.ones(2))


@pytest.mark.parametrize("training", [1, "yes", None], ids=repr)
def test_training_is_true_or_false(training: Any) -> None:
    model, (x, target) = small().build((3,)), line()
    pure, arrays = dc.pure(model), (model.parameters, model.buffers)
    for run in (
        lambda: model.vjp(x, training=training),
        lambda: pure.vjp(*arrays, x, training=training),
        lambda: dc.value_and_grad(model, F.mse_loss)(x, target, training=training),
        lambda: dc.value_and_grad(pure, F.mse_loss)(*arrays, x, target, training=training),
    ):
        with pytest.raises(InvalidType, match=r"^Sequential: training must be True or False, got "):
            run()


# --- copies ---


def test_deepcopy_is_a_model_of_its_own(backend: Backend) -> None:
    model = small().build((3,)).to(place(backend))
    x, target = on(backend, *line())
    twin = copy.deepcopy(model)
    assert_equal(twin.state_dict(), model.state_dict())
    before = bindings(model)
    optimizer = dc.optim.SGD(twin, lr=0.1)
    optimizer.step(gradients(twin, x, target)[1])
    for (_, then), (_, now) in zip(before, bindings(model), strict=True):
        assert all(then[name] is now[name] for name in then)


def test_pickle_keeps_the_numbers() -> None:
    model = cnn().build(seed=3)
    again = pickle.loads(pickle.dumps(model))
    assert repr(again) == repr(model)
    assert_equal(again.state_dict(), model.state_dict())
