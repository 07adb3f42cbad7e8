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
            r"Sequential: layer 0 must be a layer, got <class .*ReLU'>; .*parentheses",
        ),
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
