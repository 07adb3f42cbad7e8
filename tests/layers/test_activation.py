"""Activations as layers and by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from devconv.layers.activation import BY_NAME, activation_layer
from tests.backends import Backend
from tests.toys import assert_close, place

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


def test_all_activations_that_need_nothing_have_names() -> None:
    """The names are those of the operations; what halves an axis or learns has none."""
    kinds = {
        kind
        for name in dc.layers.__all__
        if isinstance(kind := getattr(dc, name), type) and issubclass(kind, dc.Activation)
    }
    assert set(BY_NAME.values()) == kinds - {dc.Activation}
    assert {"relu6", "hard_swish", "log_softmax", "silu"} < set(BY_NAME)
    for layer in (dc.GLU(), dc.PReLU()):
        with pytest.raises(
            InvalidType, match=r"activation must be a name .* put any other layer aft"
        ):
            dc.Dense(2, 2, activation=layer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dc.ELU("1"), InvalidType, "ELU: alpha must be a number, got '1'"),
        (lambda: dc.CELU(0.0), InvalidValue, "CELU: alpha must not be 0"),
        (lambda: dc.GELU("erf"), InvalidValue, "GELU: approximate must be one of 'none', 'tanh'"),
        (lambda: dc.Hardtanh(2.0, 1.0), InvalidValue, r"Hardtanh: min_val=2\.0 is above max_val=1"),
        (
            lambda: dc.Hardtanh(1, 1),
            InvalidValue,
            r"^Hardtanh: max_val must be greater than min_val, got 1\.0 for both; a layer of one",
        ),
        (lambda: dc.Softplus(1.0, "20"), InvalidType, "Softplus: threshold must be a number, got"),
        (lambda: dc.Softplus(0.0), InvalidValue, "Softplus: beta must not be 0"),
        (lambda: dc.LeakyReLU(None), InvalidType, "LeakyReLU: negative_slope must be a number"),
        (lambda: dc.Softmax(1.0), InvalidType, r"Softmax: axis must be an int, got 1\.0"),
        (lambda: dc.GLU("1"), InvalidType, "GLU: axis must be an int, got '1'"),
        (lambda: dc.PReLU(0), InvalidValue, "PReLU: num_parameters must be at least 1, got 0"),
        (lambda: dc.PReLU(1, "0"), InvalidType, "PReLU: init must be a number, got '0'"),
    ],
)
def test_options_are_checked_when_it_is_made(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (dc.Softmax(3), (4, 5), r"Softmax: axis 3 is out of range for x with shape \(N, 4, 5\)"),
        (dc.LogSoftmax(-3), (4,), r"LogSoftmax: axis -3 is out of range"),
        (dc.GLU(), (4, 5), r"GLU: axis 2 of x \(N, 4, 5\) has 5 entries, expected an even number"),
        (dc.GLU(3), (4, 4), "GLU: axis 3 is out of range"),
        (dc.GLU(-2), (4,), r"GLU: axis -2 of x \(N, 4\) is the batch; halve another"),
        (dc.PReLU(3), (4, 5), r"PReLU: weight has shape \(3,\), expected \(\), \(1,\) or \(4,\)"),
        (dc.Dense(4, 3, activation=dc.Softmax(2)), (4,), r"Dense: axis 2 is out of range"),
        (dc.Conv1d(4, 3, 1, activation=dc.Softmax(3)), (4, 5), "Conv1d: axis 3 is out of range"),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit(layer: dc.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layer.output_shape(shape)


def test_slopes_are_parameters(backend: Backend) -> None:
    layer = dc.PReLU(3, 0.5).build().to(place(backend))
    np.testing.assert_array_equal(backend.to_numpy(layer.parameters["weight"]), [0.5, 0.5, 0.5])
    x = backend.asarray(-np.ones((2, 3, 4)), "float32")
    y, pullback = layer.vjp(x)
    np.testing.assert_array_equal(backend.to_numpy(y), -0.5 * np.ones((2, 3, 4)))
    np.testing.assert_array_equal(backend.to_numpy(pullback(x)[1]["weight"]), [8.0, 8.0, 8.0])
