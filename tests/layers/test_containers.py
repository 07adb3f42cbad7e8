"""Layers in a row: names, nesting, slices, and the way back through all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend
from tests.toys import assert_close, assert_equal, cnn, images, place, unchanged


def test_layers_are_numbered_or_named() -> None:
    assert list(dc.Sequential(dc.ReLU(), dc.Flatten()).children) == ["0", "1"]
    named = dc.Sequential({"squash": dc.Tanh(), "out": dc.Dense(2, 1)})
    assert list(named.children) == ["squash", "out"]
    assert list(named.build().parameters) == ["out.weight", "out.bias"]


def test_children_are_read_only() -> None:
    with pytest.raises(TypeError):
        cnn().children["0"] = dc.ReLU()  # type: ignore[index]


def test_indexing_gives_the_layers_themselves() -> None:
    layers = [dc.Dense(3, 2), dc.ReLU(), dc.Dense(2, 1)]
    model = dc.Sequential(*layers)
    assert len(model) == 3
    assert list(model) == layers
    assert model[0] is layers[0]
    assert model[-1] is layers[2]
    assert model["1"] is layers[1]
    with pytest.raises(IndexError):
        model[3]
    with pytest.raises(KeyError):
        model["3"]


def test_slices_share_their_layers_and_keep_their_names() -> None:
    model = cnn()
    body, head = model[:-1], model[-1:]
    model.build(seed=1)
    assert list(head.parameters) == ["7.weight", "7.bias"]
    assert head.parameters["7.weight"] is model.parameters["7.weight"]
    x = images(dtype="float32")
    np.testing.assert_array_equal(head(body(x)), model(x))
    dc.optim.SGD(head, lr=1.0).step({"7.bias": np.ones(3, dtype="float32")})
    assert model.parameters["7.bias"] is head.parameters["7.bias"]
    assert len(model[::-1]) == len(model)
    assert len(model[20:]) == 0


def test_nesting_makes_dotted_names() -> None:
    flat = cnn().build(seed=2).to(dtype="float64")
    layers = list(cnn())
    nested = dc.Sequential(
        dc.Sequential(*layers[:3]), dc.Sequential({"mid": dc.Sequential(*layers[3:6])}), *layers[6:]
    ).to(dtype="float64")
    names = {"0": "0.0", "3": "1.mid.0", "7": "3"}
    assert [n.rpartition(".")[0] for n in nested.parameters][::2] == list(names.values())
    nested.load_state_dict(
        {f"{names[n[0]]}{n[1:]}": x for n, x in flat.state_dict().items()},
    )
    x, dy = images(), np.ones((4, 3))
    y, pullback = flat.vjp(x)
    z, nested_pullback = nested.vjp(x)
    np.testing.assert_array_equal(y, z)
    dx, grads = pullback(dy)
    dz, nested_grads = nested_pullback(dy)
    renamed = {f"{names[n[0]]}{n[1:]}": g for n, g in grads.items()}
    assert sorted(nested_grads) == sorted(renamed)
    assert_equal({"x": dz, **nested_grads}, {"x": dx, **{n: renamed[n] for n in nested_grads}})


def test_nothing_in_a_row_is_the_identity(backend: Backend) -> None:
    x = backend.asarray(images())
    y, pullback = dc.Sequential().vjp(x)
    assert y is x
    assert pullback(x) == (x, {})
    assert dc.Sequential().output_shape((2, 3)) == (2, 3)
    assert repr(dc.Sequential()) == "Sequential()"


def test_the_way_back_is_that_of_the_operations(backend: Backend) -> None:
    """``relu`` after ``conv``: through the activation first, then to the kernel."""
    model = dc.Sequential(dc.Conv2d(2, 4, 3, padding=1), dc.ReLU()).build(seed=1)
    model.to(place(backend), dtype="float64")
    x, dz = backend.asarray(images()), backend.asarray(np.ones((4, 4, 8, 8)))
    z, pullback = model.vjp(x)
    weight, bias = model.parameters["0.weight"], model.parameters["0.bias"]
    y, conv_back = F.conv.vjp(x, weight, bias, padding=1)
    wanted, relu_back = F.relu.vjp(y)
    dx, dweight, dbias = conv_back(relu_back(dz)[0])
    got, grads = pullback(dz)
    assert_close(
        {"z": z, "x": got, **grads},
        {"z": wanted, "x": dx, "0.weight": dweight, "0.bias": dbias},
        1e-15,
    )


def test_inference_lets_intermediate_results_go() -> None:
    """While the last layer runs, what the first made is no longer held."""
    import weakref

    made: list[Any] = []
    alive: list[bool] = []

    class Watch(dc.Layer):
        def infer(self, trace: Any, shape: Any) -> Any:
            return shape

        def apply_vjp(self, scope: Any, x: Any) -> Any:
            alive.extend(ref() is not None for ref in made[:-1])
            y = x + 1.0
            made.append(weakref.ref(y))
            return y, lambda dy: (dy, {})

    model = dc.Sequential(Watch(), Watch(), Watch())
    model(np.zeros((2, 3), dtype="float32"))
    assert alive == [False]  # when the third begins, the first's result is gone


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ((dc.ReLU(), 3), InvalidType, r"Sequential: layer 1 must be a layer, got 3$"),
        (
            (dc.ReLU,),
            InvalidType,
            r"Sequential: layer 0 must be a layer, got the class ReLU; make one with parentheses, ",
        ),
        (
            (dc.ReLU(), F.relu),
            InvalidType,
            r"layer 1 must be a layer, got the operation relu; make a layer: dc\.ReLU\(\.\.\.\) or",
        ),
        (([dc.ReLU()],), InvalidType, r"layer 0 must be a layer, got a list; hand the layers in o"),
        (({"a": None},), InvalidType, r"layer a must be a layer, got None"),
        (({"a.b": dc.ReLU()},), InvalidValue, r"a layer's name must be a word without dots, got "),
        (({"": dc.ReLU()},), InvalidValue, r"a layer's name must be a word without dots, got ''"),
        (({1: dc.ReLU()},), InvalidValue, r"a layer's name must be a word without dots, got 1"),
    ],
)
def test_what_cannot_stand_in_a_row(layers: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dc.Sequential(*layers)


def test_errors_in_a_slice_keep_the_name_of_the_layer() -> None:
    model = cnn()
    with unchanged(model), pytest.raises(InvalidValue, match=r"^7 \(Dense\): expected 16 input"):
        model[6:](np.zeros((1, 4, 3, 3), dtype="float32"))


# --- side by side ---


class Halved(dc.Activation):
    """An activation that is none: another shape comes out."""

    operation = F.glu

    def options(self) -> Any:
        return {"axis": 1}

    def infer(self, trace: Any, shape: Any) -> Any:
        return (shape[0], shape[1] // 2, *shape[2:])


def side_by_side() -> dict[str, tuple[dc.Layer, tuple[int, ...]]]:
    """Containers of each kind, and their output's shape for images (2, 8, 8)."""
    shared = dc.Conv2d(2, 2, 3, padding=1)
    return {
        "residual": (dc.Residual(dc.Conv2d(2, 2, 3, padding=1)), (2, 8, 8)),
        "projected": (
            dc.Residual(
                {"conv1": dc.Conv2d(2, 4, 3, 2, 1), "relu": dc.ReLU(), "conv2": dc.Conv2d(4, 4, 1)},
                {"downsample": dc.Conv2d(2, 4, 1, 2)},
                activation="relu",
            ),
            (4, 4, 4),
        ),
        "activated": (dc.Residual(dc.Tanh(), activation=dc.GELU()), (2, 8, 8)),
        "parallel": (
            dc.Parallel(dc.Conv2d(2, 3, 1), {"it": dc.Conv2d(2, 3, 3, padding=1)}["it"]),
            (3, 8, 8),
        ),
        "one branch": (dc.Parallel({"only": dc.Conv2d(2, 3, 1)}), (3, 8, 8)),
        "concatenate": (
            dc.Concatenate(dc.Conv2d(2, 3, 1), dc.Identity(), dc.MaxPool2d(3, 1, 1)),
            (7, 8, 8),
        ),
        "along the last axis": (
            dc.Concatenate({"a": dc.AvgPool2d((1, 2)), "b": dc.Identity()}, axis=-1),
            (2, 8, 12),
        ),
        "shared in a row": (dc.Sequential(shared, dc.Tanh(), shared), (2, 8, 8)),
        "shared beside": (dc.Parallel(shared, dc.Sequential(shared, dc.ReLU()), shared), (2, 8, 8)),
        "shared inside": (dc.Residual(dc.Concatenate(shared, shared), shared), None),
    }


FITTING = [name for name, (_, shape) in side_by_side().items() if shape]


@pytest.mark.parametrize("name", FITTING)
def test_gradients_are_those_of_pytorch_s_autograd(name: str) -> None:
    torch = pytest.importorskip("torch")
    layer, shape = side_by_side()[name]
    layer.to("torch", dtype="float64").build(seed=1)
    x = torch.asarray(images()).requires_grad_(True)
    leaves = {n: p.clone().requires_grad_(True) for n, p in layer.parameters.items()}
    y = dc.pure(layer)(leaves, {}, x)
    assert layer.output_shape((2, 8, 8)) == tuple(y.shape[1:]) == shape
    dy = torch.cos(y.detach())
    y.backward(dy)
    z, pullback = layer.vjp(x.detach())
    dx, grads = pullback(dy)
    assert list(grads) == list(layer.parameters)
    wanted = {"y": y.detach(), "x": x.grad, **{n: p.grad for n, p in leaves.items()}}
    assert_close({"y": z, "x": dx, **grads}, wanted, 1e-12)
    np.testing.assert_array_equal(layer(x.detach()), z)


@pytest.mark.parametrize("name", FITTING)
def test_side_by_side_on_every_backend(backend: Backend, name: str) -> None:
    layer, _ = side_by_side()[name]
    layer.to(dtype="float64").build(seed=1)
    y, pullback = layer.vjp(images())
    dx, grads = pullback(y)
    layer.to(place(backend))
    z, again = layer.vjp(backend.asarray(images()))
    dz, others = again(z)
    assert_close({"y": z, "x": dz, **others}, {"y": y, "x": dx, **grads}, 1e-12)


def test_a_shared_layer_has_one_gradient_the_sum_of_its_uses() -> None:
    shared = dc.Dense(3, 3).build(seed=1).to(dtype="float64")
    x, dy = np.random.default_rng(0).standard_normal((2, 4, 3))
    alone, back = shared.vjp(x)
    _, once = back(dy)
    model = dc.Parallel(shared, shared)
    assert list(model.parameters) == ["0.weight", "0.bias"]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    y, pullback = model.vjp(x)
    np.testing.assert_allclose(y, 2 * alone)
    dx, twice = pullback(dy)
    assert_close(twice, {f"0.{name}": 2 * grad for name, grad in once.items()}, 1e-15)
    np.testing.assert_allclose(dx, 2 * back(dy)[0])
    assert model.parameter_count == shared.parameter_count == 12


def test_names_side_by_side() -> None:
    block, _ = side_by_side()["projected"]
    assert list(block.children) == ["conv1", "relu", "conv2", "downsample"]
    assert list(dc.Residual(dc.ReLU(), dc.Identity()).children) == ["body", "shortcut"]
    assert list(dc.Concatenate(dc.ReLU(), dc.Tanh()).children) == ["0", "1"]
    assert repr(dc.Residual(dc.ReLU(), activation="relu")) == (
        "Residual(activation='relu'\n  body: ReLU()\n)"
    )
    assert repr(dc.Concatenate(dc.ReLU(), axis=-1)) == "Concatenate(axis=-1\n  0: ReLU()\n)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dc.Parallel(), InvalidValue, "Parallel: expected at least one branch, got none"),
        (lambda: dc.Concatenate({}), InvalidValue, "Concatenate: expected at least one branch"),
        (lambda: dc.Residual(3), InvalidType, "Residual: layer body must be a layer, got 3"),
        (lambda: dc.Parallel(dc.ReLU), InvalidType, "Parallel: layer 0 must be a layer"),
        (
            lambda: dc.Residual({"a": dc.ReLU()}, {"a": dc.ReLU()}),
            InvalidValue,
            "Residual: body and shortcut both have a layer called 'a'",
        ),
        (
            lambda: dc.Residual(dc.ReLU(), activation="rely"),
            InvalidValue,
            "Residual: activation must be one of",
        ),
        (
            lambda: dc.Concatenate(dc.ReLU(), axis=0),
            InvalidValue,
            "axis must be an int other than 0",
        ),
        (lambda: dc.Concatenate(dc.ReLU(), axis=1.0), InvalidValue, "axis must be an int other th"),
    ],
)
def test_what_cannot_stand_side_by_side(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            dc.Residual(dc.Conv2d(2, 4, 3)),
            r"^Residual: the body gives \(N, 4, 6, 6\) and the shortcut \(N, 2, 8, 8\) for x "
            r"\(N, 2, 8, 8\); a shortcut= that projects x",
        ),
        (
            dc.Parallel(dc.Identity(), dc.MaxPool2d(2)),
            r"^Parallel: branch 0 gives \(N, 2, 8, 8\) and branch 1 \(N, 2, 4, 4\) for x",
        ),
        (
            dc.Concatenate({"a": dc.Identity(), "b": dc.MaxPool2d((1, 2))}),
            r"^Concatenate: branch a gives \(N, 2, 8, 8\) and branch b \(N, 2, 8, 4\) for x .*; "
            r"they may differ along axis 1 alone",
        ),
        (
            dc.Concatenate(dc.Flatten(), axis=2),
            r"^Concatenate: axis=2 is out of range for \(N, 128\)",
        ),
        (
            dc.Residual(dc.Tanh(), activation=Halved()),
            r"^Residual: the activation Halved gives \(N, 1, 8, 8\) for \(N, 2, 8, 8\), expected "
            r"the same shape; put such a layer after this one$",
        ),
        (
            dc.Residual(dc.Tanh(), activation=dc.Softmax(4)),
            r"^Residual: axis 4 is out of range for x with shape \(N, 2, 8, 8\)",
        ),
        (dc.Concatenate(dc.Flatten(), axis=-2), r"axis=-2 is out of range for \(N, 128\)"),
        (
            dc.Residual({"a": dc.Sequential(dc.ReLU(), dc.Dense(3, 8))}),
            r"^a\.1 \(Dense\): expected 3 input features",
        ),
        (side_by_side()["shared inside"][0], r"^Residual: the body gives \(N, 4, 8, 8\)"),
        (
            dc.Parallel(*[dc.Sequential(dc.MaxPool2d((1, k)), dc.Dense(None, 3)) for k in (1, 9)]),
            r"^1\.0 \(MaxPool2d\): the output would be empty",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, dc.Layer) else "",
)
def test_inputs_that_do_not_fit_side_by_side(layer: dc.Layer, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layer.output_shape((2, 8, 8))
