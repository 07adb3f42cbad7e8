"""A layer as a pure function, and the gradient of a loss."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from devconv.models.convnext import CNBlock
from tests import backends
from tests.backends import Backend
from tests.toys import (
    Centre,
    assert_close,
    assert_equal,
    cnn,
    images,
    labels,
    line,
    place,
    unchanged,
)


def model_of(backend: Backend) -> dc.Sequential:
    model = dc.Sequential(dc.Dense(3, 4), dc.Tanh(), Centre(), dc.Dense(4, 1)).build((3,), seed=1)
    return model.to(place(backend), dtype="float64")


def batch_of(backend: Backend) -> list[Any]:
    return [backend.asarray(x) for x in line(dtype="float64")]


def test_pure_is_the_same_mathematics(backend: Backend) -> None:
    model = model_of(backend)
    pure, (x, dy) = dc.pure(model), batch_of(backend)
    parameters, buffers = model.parameters, model.buffers
    with unchanged(model):
        assert_equal({"y": pure(parameters, buffers, x)}, {"y": model(x)})
        (y, new_buffers), pullback = pure.vjp(parameters, buffers, x)
        dx, grads = pullback(dy)
        (still, same), _ = pure.vjp(parameters, buffers, x, training=False)
    assert all(same[name] is array for name, array in buffers.items())
    assert_equal({"y": still}, {"y": model(x)})
    z, stateful = model.vjp(x)
    dz, wanted = stateful(dy)
    assert_equal({"y": y, "x": dx, **grads}, {"y": z, "x": dz, **wanted})
    assert_equal(new_buffers, model.buffers)


def test_pure_takes_other_arrays_than_the_layer_s(backend: Backend) -> None:
    model, x = model_of(backend), batch_of(backend)[0]
    other = model_of(backend).build((3,), seed=7)
    y = dc.pure(model)(dict(other.parameters), dict(other.buffers), x)
    assert_equal({"y": y}, {"y": other(x)})


def test_pure_does_not_follow_the_layer() -> None:
    model = dc.Dense(2, 1).build()
    pure, before, x = dc.pure(model), model.parameters, np.ones((1, 2), dtype="float32")
    y = pure(before, {}, x)
    dc.optim.SGD(model, lr=1.0).step({name: np.ones_like(a) for name, a in before.items()})
    np.testing.assert_array_equal(pure(before, {}, x), y)
    assert repr(pure) == "pure(Dense)"


def test_value_and_grad_stateful_and_pure(backend: Backend) -> None:
    model, (x, target) = model_of(backend), batch_of(backend)
    parameters, buffers = model.parameters, model.buffers
    (value, new_buffers), wanted = dc.value_and_grad(dc.pure(model), F.mse_loss)(
        parameters, buffers, x, target
    )
    loss, grads = dc.value_and_grad(model, F.mse_loss)(x, target)
    assert_equal({"loss": loss, **grads}, {"loss": value, **wanted})
    assert_equal(new_buffers, model.buffers)
    (y, _), _ = dc.pure(model).vjp(parameters, buffers, x)
    assert float(F.mse_loss(y, target)) == float(loss)


def test_gradients_are_those_of_a_central_difference(backend: Backend) -> None:
    model, (x, target) = model_of(backend), batch_of(backend)
    evaluate = dc.value_and_grad(model, F.mse_loss)
    _, grads = evaluate(x, target, training=False)
    rng = np.random.default_rng(0)
    moves = {name: rng.standard_normal(tuple(p.shape)) for name, p in model.parameters.items()}
    base = {name: backend.to_numpy(array) for name, array in model.state_dict().items()}

    def along(t: float) -> float:
        moved = {name: array + t * moves.get(name, 0.0) for name, array in base.items()}
        model.load_state_dict(moved)
        return float(evaluate(x, target, training=False)[0])

    numeric = (along(1e-6) - along(-1e-6)) / 2e-6
    exact = sum(float(np.sum(moves[name] * backend.to_numpy(g))) for name, g in grads.items())
    assert numeric == pytest.approx(exact, rel=1e-7)


def test_options_go_to_the_loss(backend: Backend) -> None:
    model = dc.Dense(3, 4).build().to(place(backend), dtype="float64")
    x, target = batch_of(backend)[0], backend.asarray(np.arange(16) % 4)
    options = {"label_smoothing": 0.1, "reduction": "sum"}
    loss, _ = dc.value_and_grad(model, F.cross_entropy, **options)(x, target)
    assert float(loss) == float(F.cross_entropy(model(x), target, **options))


def test_no_gradient_of_the_inference_pass_renews_a_buffer() -> None:
    model = dc.Sequential(Centre(3), dc.Dense(3, 1)).build()
    with unchanged(model):
        dc.value_and_grad(model, F.mse_loss)(*line(), training=False)
    dc.value_and_grad(model, F.mse_loss)(*line())
    assert np.any(model.buffers["0.mean"])


# --- jax.jit ---


def test_a_whole_training_step_under_jit() -> None:
    backend, jax = backends.get("jax"), pytest.importorskip("jax")
    model = dc.Sequential(dc.Conv2d(2, 3, 3), dc.Flatten(), Centre(), dc.Dense(None, 3))
    model.build((2, 4, 4)).to(dtype="float64")
    optimizer = dc.optim.Adam(model, lr=0.05, weight_decay=0.01)
    host_x, host_target = images()[:, :, :4, :4], labels()
    x, target = backend.asarray(host_x), backend.asarray(host_target)
    evaluate = dc.value_and_grad(dc.pure(model), F.cross_entropy)

    @jax.jit
    def step(parameters: Any, buffers: Any, state: Any, count: Any) -> Any:
        (loss, buffers), grads = evaluate(parameters, buffers, x, target)
        parameters, state = optimizer.update(parameters, grads, state, count)
        return parameters, buffers, state, loss

    parameters = {name: backend.asarray(a) for name, a in model.parameters.items()}
    buffers = {name: backend.asarray(a) for name, a in model.buffers.items()}
    state: Any = {kind: {n: 0.0 * a for n, a in parameters.items()} for kind in optimizer.moments}
    eager = dc.value_and_grad(model, F.cross_entropy)
    for count in range(1, 5):
        parameters, buffers, state, loss = step(parameters, buffers, state, count)
        wanted, grads = eager(host_x, host_target)
        optimizer.step(grads)
        assert abs(float(loss) - float(wanted)) < 1e-12
    assert_close(parameters, model.parameters, 1e-12)
    assert_close(buffers, model.buffers, 1e-12)
    for kind in ("first", "second"):
        assert_close(state[kind], optimizer.state[kind], 1e-12)


def test_jax_s_own_gradient_of_a_pure_layer() -> None:
    backend, jax = backends.get("jax"), pytest.importorskip("jax")
    model, (x, target) = model_of(backend), batch_of(backend)
    pure = dc.pure(model)

    def loss(parameters: Any) -> Any:
        return F.mse_loss(pure(parameters, model.buffers, x), target)

    _, grads = dc.value_and_grad(pure, F.mse_loss)(
        model.parameters, model.buffers, x, target, training=False
    )
    assert_close(jax.jit(jax.grad(loss))(dict(model.parameters)), grads, 1e-13)


def test_a_traced_call_of_the_stateful_face_keeps_no_tracer() -> None:
    backend, jax = backends.get("jax"), pytest.importorskip("jax")
    model, (x, _) = model_of(backend), batch_of(backend)
    with unchanged(model):
        y = jax.jit(lambda x: model(x))(x)
    assert_close({"y": y}, {"y": model(x)}, 1e-14)


# --- misuse ---


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (
            lambda p, b: (None, b),
            InvalidType,
            r"^Dense: parameters must map names to arrays, got N",
        ),
        (lambda p, b: (p, [1]), InvalidType, r"^Dense: buffers must map names to arrays, got list"),
        (
            lambda p, b: ({"weight": p["weight"]}, b),
            InvalidValue,
            r"^Dense: parameters do not fit this layer: missing \['bias'\], unknown \[\]; pass lay",
        ),
        (
            lambda p, b: ({**p, "0.bias": p["bias"]}, b),
            InvalidValue,
            r"parameters do not fit this layer: missing \[\], unknown \['0\.bias'\]",
        ),
        (
            lambda p, b: (p, {"mean": p["bias"]}),
            InvalidValue,
            r"buffers do not fit this layer: missing \[\], unknown \['mean'\]; pass layer\.buffers",
        ),
        (
            lambda p, b: ({**p, "bias": np.ones(3, dtype="float32")}, b),
            InvalidValue,
            r"^Dense: parameters\['bias'\] has shape \(3,\), expected \(1,\)$",
        ),
        (
            lambda p, b: ({**p, "bias": 1.0}, b),
            InvalidType,
            r"^Dense: parameters\['bias'\] must be an array, got float$",
        ),
    ],
)
def test_pure_refuses_other_names_and_shapes(edit: Any, error: type, message: str) -> None:
    model, x = dc.Dense(3, 1).build(), line()[0]
    pure = dc.pure(model)
    for face in (pure, pure.vjp):
        with pytest.raises(error, match=message):
            face(*edit(dict(model.parameters), dict(model.buffers)), x)


def test_pure_refuses_inputs_that_do_not_fit() -> None:
    model = cnn().build()
    pure, x = dc.pure(model), images(dtype="float32")
    with pytest.raises(InvalidValue, match=r"^0 \(Conv2d\): expected 2 input channels"):
        pure(model.parameters, {}, x[:, :1])
    with pytest.raises(InvalidType, match=r"^Sequential: x must be an array, got list"):
        pure(model.parameters, {}, x.tolist())
    with pytest.raises(InvalidType, match=r"float64"):
        pure(model.parameters, {}, x.astype("float64"))
    strict = backends.get("array_api_strict")
    with pytest.raises(InvalidType, match=r"x is a array-api-strict array on .* and 0\.weight a N"):
        pure(model.parameters, {}, strict.asarray(x))


def test_pure_of_what_has_no_known_sizes() -> None:
    with pytest.raises(InvalidValue, match="in_features is None and no shape is known"):
        dc.pure(dc.Dense(None, 1))
    with pytest.raises(InvalidType, match="pure: layer must be a layer, got 3"):
        dc.pure(3)  # type: ignore[arg-type]


def test_value_and_grad_refuses_what_is_no_operation() -> None:
    with pytest.raises(InvalidType, match="loss must be an operation such as"):
        dc.value_and_grad(dc.Dense(3, 1), lambda y, t: y)  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match=r"model must be a layer or dc\.pure\(layer\), got 'x'"):
        dc.value_and_grad("x", F.mse_loss)  # type: ignore[arg-type]


def test_value_and_grad_refuses_a_loss_that_is_not_one_number() -> None:
    model = dc.Sequential(Centre(3), dc.Dense(3, 1)).build()
    message = r'the loss has shape \(16, 1\), expected one number; use reduction="mean" or "sum"'
    with unchanged(model), pytest.raises(InvalidValue, match=message):
        dc.value_and_grad(model, F.mse_loss, reduction="none")(*line())
    with pytest.raises(InvalidValue, match=message):
        dc.value_and_grad(dc.pure(model), F.mse_loss, reduction="none")(
            model.parameters, model.buffers, *line()
        )


def test_the_layer_s_own_mappings_go_through_jit_as_they_are() -> None:
    jax = pytest.importorskip("jax")
    model = dc.Sequential(dc.Conv2d(1, 2, 3), dc.BatchNorm2d(2)).build().to("jax")
    pure = dc.pure(model)
    x = model.device.asarray(np.random.default_rng(0).standard_normal((2, 1, 5, 5)), "float32")
    y = jax.jit(pure)(model.parameters, model.buffers, x)
    np.testing.assert_allclose(y, model(x), rtol=1e-5, atol=1e-6)
    doubled = jax.tree.map(lambda a: 2 * a, model.parameters)
    assert list(doubled) == list(model.parameters)
    np.testing.assert_array_equal(doubled["0.weight"], 2 * model.parameters["0.weight"])


def test_a_layer_is_not_traced_by_accident() -> None:
    jax = pytest.importorskip("jax")
    model = dc.Dense(2, 1).build().to("jax")
    x = model.device.asarray(np.ones((3, 2)), "float32")
    with pytest.raises(InvalidType, match=r"^Dense: x is traced by jax.jit.*trace dc.pure"):
        jax.jit(lambda x: model.vjp(x)[0])(x)
    np.testing.assert_allclose(jax.jit(model)(x), model(x), rtol=1e-6)


def test_pytorchs_own_graph_does_not_enter_the_layer() -> None:
    torch = pytest.importorskip("torch")
    model = dc.Sequential(dc.Dense(3, 2), dc.BatchNorm1d(2)).build().to("torch")
    optimizer = dc.optim.SGD(model, momentum=0.9)
    x = torch.ones(4, 3, requires_grad=True)
    _, grads = dc.value_and_grad(model, F.mse_loss)(x, torch.zeros(4, 2))
    optimizer.step(grads)
    kept = [*model.state_dict().values(), *optimizer.state_dict().values()]
    assert not any(each.requires_grad for each in kept)


# --- what nobody asks for ---


def test_the_cotangent_of_the_batch_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layers' own gradients need none; those of every later layer do."""
    asked = []
    direct = importlib.import_module("devconv.functional.direct")
    original = direct.input_cotangent

    def counted(dy: Any, weight: Any, *rest: Any) -> Any:
        asked.append(tuple(weight.shape))
        return original(dy, weight, *rest)

    monkeypatch.setattr(direct, "input_cotangent", counted)
    model = dc.Sequential(
        dc.ZeroPad2d(1),
        dc.Sequential(dc.Conv2d(1, 2, 3, activation="relu"), dc.Conv2d(2, 3, 3)),
        dc.Flatten(),
        dc.Dense(None, 2),
    ).build((1, 5, 5), seed=0)
    x = np.random.default_rng(0).standard_normal((4, 1, 5, 5)).astype("float32")
    target = np.asarray([0, 1, 1, 0])
    loss, grads = dc.value_and_grad(model, F.cross_entropy)(x, target)
    assert asked == [(3, 2, 3, 3)]
    y, pullback = model.vjp(x)
    value, loss_back = F.cross_entropy.vjp(y, target)
    dx, every = pullback(loss_back(np.ones_like(value))[0])
    assert len(asked) == 3
    assert dx.shape == x.shape
    assert loss == value
    assert grads.keys() == every.keys()
    for name, grad in every.items():
        np.testing.assert_array_equal(grads[name], grad)


def test_a_batch_behind_layers_without_parameters_is_not_gone_back_to() -> None:
    model = dc.Sequential(dc.Flatten(), dc.Dense(4, 2), dc.ReLU()).build(seed=0)
    x, target = np.ones((3, 2, 2), dtype="float32"), np.ones((3, 2), dtype="float32")
    grads = dc.value_and_grad(model, F.mse_loss)(x, target)[1]
    y, pullback = model.vjp(x)
    every = pullback(F.mse_loss.vjp(y, target)[1](np.ones((), dtype="float32"))[0])[1]
    for name, grad in every.items():
        np.testing.assert_array_equal(grads[name], grad)


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_a_padded_first_layer_has_the_same_gradients(mode: str) -> None:
    model = dc.Conv2d(1, 2, 3, padding=1, padding_mode=mode).build(seed=0)
    x = np.random.default_rng(0).standard_normal((2, 1, 5, 5)).astype("float32")
    target = np.zeros((2, 2, 5, 5), dtype="float32")
    grads = dc.value_and_grad(model, F.mse_loss)(x, target)[1]
    y, pullback = model.vjp(x)
    every = pullback(F.mse_loss.vjp(y, target)[1](np.ones((), dtype="float32"))[0])[1]
    for name, grad in every.items():
        np.testing.assert_array_equal(grads[name], grad)


@pytest.mark.parametrize("shortcut", [None, "projection"])
def test_a_residual_first_layer_learns(shortcut: str | None) -> None:
    project = dc.Conv2d(3, 3, 1) if shortcut else None
    body = dc.Sequential(dc.ReLU(), dc.Conv2d(3, 3, 3, padding=1))
    model = dc.Sequential(
        dc.Residual(body, project, activation="relu"), dc.Flatten(), dc.Dense(None, 2)
    ).build((3, 4, 4), seed=0)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype("float32")
    target = np.zeros((2, 2), dtype="float32")
    grads = dc.value_and_grad(model, F.mse_loss)(x, target)[1]
    y, pullback = model.vjp(x)
    every = pullback(F.mse_loss.vjp(y, target)[1](np.ones((), dtype="float32"))[0])[1]
    assert grads.keys() == every.keys()
    for name, grad in every.items():
        np.testing.assert_array_equal(grads[name], grad)


def test_layers_without_parameters_go_back_to_nothing() -> None:
    model = dc.Sequential(dc.ReLU(), dc.Flatten())
    x, target = np.ones((2, 3, 4), dtype="float32"), np.ones((2, 12), dtype="float32")
    loss, grads = dc.value_and_grad(model, F.mse_loss)(x, target)
    assert (float(loss), grads) == (0.0, {})


def test_a_container_of_one_s_own_has_its_dx_from_the_layers_inside() -> None:
    """ConvNeXt's block adds its input to what its layers give, and may be a whole model."""
    model = CNBlock(4).build((4, 6, 6), seed=0)
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype("float32")
    grads = dc.value_and_grad(model, F.mse_loss)(x, np.zeros_like(x))[1]
    y, pullback = model.vjp(x)
    every = pullback(F.mse_loss.vjp(y, np.zeros_like(x))[1](np.ones((), dtype="float32"))[0])[1]
    assert grads.keys() == every.keys()
