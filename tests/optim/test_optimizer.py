"""What all optimizers share: a step that is whole or not at all, a pure update, a state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from devconv.functional import mse_loss
from tests import backends
from tests.backends import Backend
from tests.toys import assert_close, assert_equal, gradients, line, place, unchanged

KINDS = {
    "sgd": lambda model: dc.optim.SGD(model, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda model: dc.optim.Adam(model, lr=0.05),
    "adamw": lambda model: dc.optim.AdamW(model, lr=0.05),
}
HALVES = [(b, d) for b in backends.usable().values() for d in ("float16", "bfloat16") if b.has(d)]
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))


def model_of(backend: Backend, dtype: str = "float64") -> dc.Sequential:
    model = dc.Sequential(dc.Dense(3, 4), dc.Tanh(), dc.Dense(4, 1)).build(seed=1)
    return model.to(place(backend), dtype=dtype)


def batch_of(backend: Backend, dtype: str = "float64") -> list[Any]:
    return [backend.asarray(x, dtype) for x in line()]


def ones(model: dc.Layer) -> dict[str, Any]:
    return {name: 0.0 * array + 1.0 for name, array in model.parameters.items()}


def kept(optimizer: dc.optim.Optimizer) -> tuple[Any, ...]:
    return dict(optimizer.state_dict()), optimizer.steps, optimizer.lr


@kinds
def test_learns_a_line(backend: Backend, make: Any) -> None:
    model, batch = dc.Dense(3, 1).build().to(place(backend), dtype="float64"), batch_of(backend)
    optimizer = make(model)
    first, _ = gradients(model, *batch)
    for _ in range(40):
        loss, grads = gradients(model, *batch)
        optimizer.step(grads)
    assert float(loss) < 0.2 * float(first)
    assert optimizer.steps == 40


@kinds
def test_a_step_binds_new_arrays_and_writes_into_none(backend: Backend, make: Any) -> None:
    model, batch = model_of(backend), batch_of(backend)
    optimizer = make(model)
    before = model.parameters
    copies = {name: backend.to_numpy(array) for name, array in before.items()}
    _, grads = gradients(model, *batch)
    gradient_copies = {name: backend.to_numpy(array) for name, array in grads.items()}
    optimizer.step(grads)
    moments = optimizer.state_dict()
    moment_copies = {name: backend.to_numpy(array) for name, array in moments.items()}
    optimizer.step(grads)
    assert_equal(before, copies)
    assert_equal(grads, gradient_copies)
    assert_equal(moments, moment_copies)
    for name, array in model.parameters.items():
        assert array is not before[name]
        assert array.dtype == before[name].dtype
        assert dc.device_of(array) == place(backend)
        assert not np.array_equal(backend.to_numpy(array), copies[name])


@kinds
def test_the_step_is_the_update(backend: Backend, make: Any) -> None:
    model, batch = model_of(backend), batch_of(backend)
    optimizer = make(model)
    parameters, state = dict(model.parameters), {}
    for count in (1, 2):
        _, grads = gradients(model, *batch)
        with unchanged(model):
            parameters, state = optimizer.update(parameters, grads, state, count)
        optimizer.step(grads)
        assert_equal(parameters, model.parameters)
    assert_equal(
        {f"{kind}.{name}": x for kind, arrays in state.items() for name, x in arrays.items()},
        optimizer.state_dict(),
    )


@kinds
def test_the_count_of_steps_may_be_an_array(backend: Backend, make: Any) -> None:
    """As it is when a loop under ``jax.jit`` carries it along."""
    model, batch = model_of(backend), batch_of(backend)
    optimizer = make(model)
    _, grads = gradients(model, *batch)
    wanted, _ = optimizer.update(model.parameters, grads, {}, 3)
    for dtype in ("int32", "float64"):
        count = backend.asarray(np.asarray(3), dtype)
        found, _ = optimizer.update(model.parameters, grads, {}, count)
        assert all(found[name].dtype == wanted[name].dtype for name in wanted)
        assert_close(found, wanted, 1e-14)


@pytest.mark.parametrize(
    "make",
    [*KINDS.values(), lambda model: dc.optim.SGD(model, lr=0.05, momentum=0.9, dampening=0.5)],
    ids=[*KINDS, "dampened"],
)
def test_a_step_that_is_left_out(backend: Backend, make: Any) -> None:
    """Its gradients may be anything; it does not count, whether it is the first or a later one."""
    plain, other, batch = model_of(backend), model_of(backend), batch_of(backend)
    optimizers = make(plain), make(other)
    yes, no = (backend.asarray(np.asarray(value)) for value in (True, False))
    skipped = backend.asarray(np.asarray(0), "int32")
    for left_out in (True, False, False, True, True, False):
        if left_out:
            before = other.parameters
            with backend.here():
                nothing = {name: 0.0 * x + np.nan for name, x in before.items()}
            optimizers[1].step(nothing, when=no, skipped=skipped)
            assert_equal(other.parameters, before)
            with backend.here():
                skipped = skipped + 1
            continue
        _, grads = gradients(plain, *batch)
        optimizers[0].step(grads)
        optimizers[1].step(grads, when=yes, skipped=skipped)
        assert_close(other.parameters, plain.parameters, 1e-14)
    assert_close(optimizers[1].state_dict(), optimizers[0].state_dict(), 1e-14)
    assert (optimizers[0].steps, optimizers[1].steps) == (3, 6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_array_that_counts_loses_no_digits(backend: Backend, dtype: str) -> None:
    """``1 - 0.999`` in float32 would be wrong in the fifth digit."""
    optimizer = dc.optim.Adam(dc.Dense(2, 1), betas=(0.0, 0.999))
    for step in (1, 2, 1000, 100000):
        wanted = optimizer.counted(step)
        with backend.here():
            found = optimizer.counted(backend.asarray(np.asarray(step), dtype))
        for a, b in zip(found, wanted, strict=True):
            assert float(a) == pytest.approx(b, rel=1e-6 if dtype == "float32" else 1e-12)


@kinds
def test_update_under_jit(make: Any) -> None:
    backend, jax = backends.get("jax"), pytest.importorskip("jax")
    model, batch = model_of(backend), batch_of(backend)
    optimizer = make(model)
    _, grads = gradients(model, *batch)
    parameters, state = optimizer.update(model.parameters, grads, {}, 1)
    wanted, wanted_state = optimizer.update(parameters, grads, state, 2)
    found, found_state = jax.jit(optimizer.update)(parameters, grads, state, 2)
    assert_close(found, wanted, 1e-13)
    for kind in optimizer.moments:
        assert_close(found_state[kind], wanted_state[kind], 1e-13)


@kinds
def test_parameters_without_a_gradient_stay(backend: Backend, make: Any) -> None:
    model, batch = model_of(backend), batch_of(backend)
    optimizer = make(model)
    _, grads = gradients(model, *batch)
    before = model.parameters
    optimizer.step({"2.bias": grads["2.bias"]})
    for name, array in before.items():
        assert (model.parameters[name] is array) == (name != "2.bias")
    assert {name.partition(".")[2] for name in optimizer.state_dict()} == {"2.bias"}
    optimizer.step({})
    assert optimizer.steps == 2


def test_a_shared_layer_takes_one_step() -> None:
    shared = dc.Dense(3, 3, bias=False, weight_init="zeros")
    model = dc.Sequential(shared, dc.Tanh(), shared).build()
    dc.optim.SGD(model, lr=0.5).step({"0.weight": np.ones((3, 3), dtype="float32")})
    np.testing.assert_array_equal(model.state_dict()["2.weight"], np.full((3, 3), -0.5))


def test_lr_may_be_set_anew(backend: Backend) -> None:
    model = dc.Dense(2, 1, bias=False, weight_init="zeros").build().to(place(backend))
    optimizer = dc.optim.SGD(model, lr=1.0)
    for lr, wanted in ((1.0, -1.0), (0.5, -1.5), (0.0, -1.5)):
        optimizer.lr = lr
        with backend.here():
            grads = ones(model)
        optimizer.step(grads)
        np.testing.assert_array_equal(
            backend.to_numpy(model.parameters["weight"]), [[wanted, wanted]]
        )


@kinds
@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda g: [g], InvalidType, r"grads must map names to arrays, got list; a pullback retur"),
        (lambda g: ("dx", g), InvalidType, r"grads must map names to arrays, got tuple"),
        (
            lambda g: {**g, "9.weight": g["0.weight"]},
            InvalidValue,
            r"grads holds '9\.weight', but the model's parameters are \['0\.weight', '0\.bias', '2",
        ),
        (
            lambda g: {**g, "2.bias": 1.0},
            InvalidType,
            r"grads\['2\.bias'\] must be an array, got float$",
        ),
        (
            lambda g: {**g, "2.bias": g["0.bias"]},
            InvalidValue,
            r"grads\['2\.bias'\] has shape \(4,\), the parameter \(1,\)$",
        ),
        (
            lambda g: {**g, "2.bias": np.ones(1, dtype="float32")},
            InvalidType,
            r"grads\['2\.bias'\] is float32, the parameter float64$",
        ),
        (
            lambda g: {**g, "2.bias": backends.get("torch").asarray(np.ones(1))},
            InvalidType,
            r"2\.bias is a NumPy array on cpu and grads\['2\.bias'\] a PyTorch array on torch; "
            r"bring them together: model\.to\(\"torch\"\) or grads\['2\.bias'\] = dc\.to_dev",
        ),
    ],
)
def test_step_refuses_and_changes_nothing(edit: Any, error: type, message: str, make: Any) -> None:
    backend = backends.get("numpy")
    model, batch = model_of(backend), batch_of(backend)
    optimizer = make(model)
    _, grads = gradients(model, *batch)
    optimizer.step(grads)
    before = kept(optimizer)
    with unchanged(model), pytest.raises(error, match=f"^{type(optimizer).__name__}: {message}"):
        optimizer.step(edit(grads))
    with pytest.raises(error, match=f"^{type(optimizer).__name__}: {message}"):
        optimizer.update(model.parameters, edit(grads), optimizer.state, 2)
    after = kept(optimizer)
    assert after[1:] == before[1:]
    assert all(after[0][name] is array for name, array in before[0].items())


def test_gradients_on_another_device() -> None:
    backend = backends.get("array_api_strict")
    model = dc.Dense(2, 1).build().to("array_api_strict")
    grads = {"bias": backend.asarray(np.ones(1), "float32")}
    message = r"bias is on array_api_strict and grads\['bias'\] on array_api_strict:device1; bring"
    with unchanged(model), pytest.raises(InvalidValue, match=message):
        dc.optim.SGD(model).step(grads)


@kinds
def test_moments_follow_the_model(backend: Backend, make: Any) -> None:
    """``model.to`` between two steps: the run goes on where the model is now."""
    numpy = backends.get("numpy")
    stayed, moved = model_of(numpy), model_of(numpy)
    optimizers = make(stayed), make(moved)
    for _ in range(2):
        for model, optimizer in zip((stayed, moved), optimizers, strict=True):
            where = backend if model.device == place(backend) else numpy
            optimizer.step(gradients(model, *batch_of(where))[1])
        moved.to(place(backend))
    assert_close(moved.parameters, stayed.parameters, 1e-13)
    assert all(dc.device_of(x) == place(backend) for x in optimizers[1].state_dict().values())
    moved.to(dtype="float32")
    with backend.here():
        grads = ones(moved)
    optimizers[1].step(grads)
    assert moved.dtype == "float32"
    for array in (*moved.parameters.values(), *optimizers[1].state_dict().values()):
        assert str(array.dtype).endswith("float32")


@kinds
@pytest.mark.parametrize(("backend", "dtype"), HALVES, ids=str)
def test_half_precision_keeps_its_moments_in_float32(
    backend: Backend, dtype: str, make: Any
) -> None:
    """A gradient of 0 beside an ``eps`` that float16 does not have would be NaN."""
    model = model_of(backend, dtype)
    optimizer = make(model)
    names = list(model.parameters)
    for value in (0.0, 1e-4):
        with backend.here():
            grads = {n: backend.xp.full_like(x, value) for n, x in model.parameters.items()}
        optimizer.step(grads)
    for name in names:
        assert str(model.parameters[name].dtype).endswith(dtype)
        assert np.all(np.isfinite(backend.to_numpy(model.parameters[name])))
    assert all(str(x.dtype).endswith("float32") for x in optimizer.state_dict().values())


@kinds
def test_state_round_trip(backend: Backend, make: Any) -> None:
    """A run that is stopped and taken up goes on with the same bits."""
    whole, batch = model_of(backend), batch_of(backend)
    optimizer = make(whole)
    for _ in range(2):
        optimizer.step(gradients(whole, *batch)[1])
    resumed = model_of(backend).load_state_dict(whole.state_dict())
    other = make(resumed)
    other.load_state_dict(optimizer.state_dict(), steps=optimizer.steps)
    assert_equal(other.state_dict(), optimizer.state_dict())
    for model, each in ((whole, optimizer), (resumed, other)):
        for _ in range(2):
            each.step(gradients(model, *batch)[1])
    assert_equal(resumed.state_dict(), whole.state_dict())
    assert_equal(other.state_dict(), optimizer.state_dict())
    assert other.steps == optimizer.steps == 4


@kinds
def test_state_of_any_library(backend: Backend, make: Any) -> None:
    numpy = backends.get("numpy")
    model = model_of(backend)
    source = make(model)
    source.step(gradients(model, *batch_of(backend))[1])
    goal = make(model_of(numpy))
    goal.load_state_dict(source.state_dict(), steps=1)
    assert_equal(goal.state_dict(), source.state_dict())
    back = make(model_of(backend))
    back.load_state_dict(goal.state_dict(), steps=1)
    assert all(dc.device_of(x) == place(backend) for x in back.state_dict().values())


def test_loaded_state_is_a_copy() -> None:
    model = dc.Dense(2, 1, bias=False).build()
    optimizer = dc.optim.SGD(model, momentum=0.9)
    moment = np.ones((1, 2), dtype="float32")
    optimizer.load_state_dict({"momentum.weight": moment}, steps=1)
    moment[...] = 7.0
    np.testing.assert_array_equal(optimizer.state_dict()["momentum.weight"], [[1.0, 1.0]])


@pytest.mark.parametrize(
    ("state", "steps", "error", "message"),
    [
        ({"second.bias": np.ones(1)}, 1, InvalidValue, r"state holds 'second\.bias', which this"),
        ({"momentum.9": np.ones(1)}, 1, InvalidValue, r"state holds 'momentum\.9', which this mo"),
        ({"momentum": np.ones(1)}, 1, InvalidValue, r"state holds 'momentum', which this model an"),
        ({"momentum.bias": np.ones(2)}, 1, InvalidValue, r"state\['momentum\.bias'\] has shape"),
        ({"momentum.bias": [1.0]}, 1, InvalidType, r"state\['momentum\.bias'\] must be an array"),
        ({}, -1, InvalidValue, "steps must be at least 0, got -1"),
        ({}, 1.0, InvalidType, r"steps must be an int, got 1\.0"),
    ],
)
def test_load_state_refuses_and_changes_nothing(
    state: Any, steps: Any, error: type, message: str
) -> None:
    model = dc.Dense(2, 1).build()
    optimizer = dc.optim.SGD(model, momentum=0.9)
    optimizer.step(ones(model))
    before = kept(optimizer)
    with unchanged(model), pytest.raises(error, match=f"^SGD: {message}"):
        optimizer.load_state_dict(state, steps=steps)
    after = kept(optimizer)
    assert after[1:] == before[1:]
    assert all(after[0][name] is array for name, array in before[0].items())


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_options_are_checked(kind: str) -> None:
    make, model = getattr(dc.optim, kind), dc.Dense(2, 1)
    for options, error, message in (
        ({"lr": -1.0}, InvalidValue, r"lr must be at least 0\.0, got -1\.0"),
        ({"lr": "fast"}, InvalidType, "lr must be a number, got 'fast'"),
        ({"lr": float("nan")}, InvalidValue, "lr must be .*, got nan"),
        ({"weight_decay": -0.1}, InvalidValue, r"weight_decay must be at least 0\.0, got -0\.1"),
    ):
        with pytest.raises(error, match=f"^{kind}: {message}"):
            make(model, **options)
    with pytest.raises(
        InvalidType, match=f"^{kind}: model must be a layer, got a list; .*; an optimizer binds"
    ):
        make([np.ones(3)])


def test_the_text_shows_the_options_as_they_are() -> None:
    optimizer = dc.optim.SGD(dc.Dense(2, 1), lr=0.1, momentum=0.9, nesterov=np.True_)
    assert repr(optimizer) == (
        "SGD(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=True)"
    )
    optimizer.lr = 0.05
    assert (optimizer.lr, optimizer.initial_lr) == (0.05, 0.1)
    assert repr(optimizer).startswith("SGD(lr=0.05, momentum=0.9, ")
    assert repr(dc.optim.AdamW(dc.Dense(2, 1))) == (
        "AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)"
    )


def test_an_optimizer_may_come_before_the_shapes_are_known() -> None:
    model = dc.Dense(None, 1)
    optimizer = dc.optim.SGD(model, lr=0.1)
    x, target = line()
    loss, grads = dc.value_and_grad(model, mse_loss)(x, target)
    optimizer.step(grads)
    assert float(gradients(model, x, target)[0]) < float(loss)


def test_before_the_shapes_are_known_there_is_no_step() -> None:
    model = dc.Dense(None, 1)
    with unchanged(model), pytest.raises(InvalidValue, match="in_features is None and no shape"):
        dc.optim.SGD(model).step({})


@kinds
def test_a_model_that_was_built_anew_needs_a_new_optimizer(make: Any) -> None:
    model = dc.Dense(None, 1).build((3,))
    optimizer = make(model)
    optimizer.step(ones(model))
    model.build((5,))
    grads, before = ones(model), kept(optimizer)
    with unchanged(model), pytest.raises(InvalidValue, match=r"weight is not the parameter it was"):
        optimizer.step(grads)
    assert repr(kept(optimizer)) == repr(before)


def test_a_kind_of_optimizer_defines_its_rule() -> None:
    model = dc.Dense(2, 1).build()
    grads = ones(model)
    with unchanged(model), pytest.raises(NotImplementedError, match="Optimizer does not define ru"):
        dc.optim.Optimizer(model, 0.1).step(grads)
