"""Activations as layers and by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidValue
from devconv.layers.activation import BY_NAME, activation_layer
from tests.backends import Backend
from tests.toys import assert_close

CASES: list[tuple[dc.Activation, str, dict[str, Any]]] = [
    (dc.ReLU(), "ReLU", {}),
    (dc.LeakyReLU(), "LeakyReLU", {}),
    (dc.LeakyReLU(0.3), "LeakyReLU", {"negative_slope": 0.3}),
    (dc.Sigmoid(), "Sigmoid", {}),
    (dc.Tanh(), "Tanh", {}),
    (dc.GELU(), "GELU", {}),
    (dc.GELU("tanh"), "GELU", {"approximate": "tanh"}),
    (dc.Softmax(), "Softmax", {"dim": -1}),
    (dc.LogSoftmax(axis=1), "LogSoftmax", {"dim": 1}),
]


@pytest.mark.parametrize(("layer", "kind", "options"), CASES, ids=lambda c: str(c))
def test_as_pytorch(layer: dc.Activation, kind: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn((4, 3, 5), dtype=torch.float64, requires_grad=True)
    y = getattr(torch.nn, kind)(**options)(x)
    dy = torch.randn(y.shape, dtype=torch.float64)
    y.backward(dy)
    z, pullback = layer.vjp(x.detach().numpy())
    assert_close({"y": z, "x": pullback(dy.numpy())[0]}, {"y": y.detach(), "x": x.grad}, 1e-13)
    assert layer.output_shape((3, 5)) == (3, 5)


@pytest.mark.parametrize("layer", [case[0] for case in CASES], ids=repr)
def test_on_every_backend(backend: Backend, layer: dc.Activation) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5))
    y, pullback = layer.vjp(backend.asarray(x))
    z, wanted = layer.vjp(x)
    found = {"y": y, "x": pullback(backend.asarray(x))[0]}
    assert_close(found, {"y": z, "x": wanted(x)[0]}, 1e-13)


@pytest.mark.parametrize("name", BY_NAME)
def test_by_name(name: str) -> None:
    layer = activation_layer(name)
    assert type(layer) is BY_NAME[name]
    x = np.random.default_rng(0).standard_normal((4, 3, 5))
    np.testing.assert_array_equal(layer(x), getattr(dc.functional, name)(x))


def test_by_layer_or_not_at_all() -> None:
    layer = dc.GELU("tanh")
    assert activation_layer(layer) is layer
    assert activation_layer(None) is None
    with pytest.raises(InvalidValue, match=r"activation must be one of .*'gelu'.*, got 'geluu'"):
        activation_layer("geluu")


def test_options_show() -> None:
    assert repr(dc.LeakyReLU()) == "LeakyReLU()"
    assert repr(dc.LeakyReLU(0.2)) == "LeakyReLU(negative_slope=0.2)"
    assert repr(dc.Softmax(axis=1)) == "Softmax(axis=1)"
