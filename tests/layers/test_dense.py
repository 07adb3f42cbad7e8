"""The dense layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend
from tests.toys import assert_close, place


@pytest.mark.parametrize(("shape", "bias"), [((2, 4, 3), True), ((3,), False)], ids=str)
def test_as_pytorch(backend: Backend, shape: tuple[int, ...], bias: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.Linear(3, 2, bias=bias).double()
    mine = dc.Dense(3, 2, bias).to(place(backend), dtype="float64")
    mine.load_state_dict(theirs.state_dict())
    assert list(mine.state_dict()) == list(theirs.state_dict())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = theirs(x)
    dy = torch.randn(y.shape, dtype=torch.float64)
    y.backward(dy)
    z, pullback = mine.vjp(backend.asarray(x.detach().numpy()))
    dx, grads = pullback(backend.asarray(dy.numpy()))
    wanted = {"y": y.detach(), "x": x.grad}
    wanted |= {name: p.grad for name, p in theirs.named_parameters()}
    assert_close({"y": z, "x": dx, **grads}, wanted, 1e-14)


@pytest.mark.parametrize("features", [None, 3])
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (3,)], ids=str)
def test_first_call_with_any_number_of_dimensions(features: Any, shape: tuple[int, ...]) -> None:
    layer = dc.Dense(features, 2)
    assert layer(np.ones(shape, dtype="float32")).shape == (*shape[:-1], 2)
    assert layer.in_features == 3


def test_open_features() -> None:
    layer = dc.Dense(None, 2)
    assert layer.output_shape((4, 7)) == (4, 2)
    assert layer.build((4, 7)).parameters["weight"].shape == (2, 7)
    assert repr(dc.Dense(None, 2, bias=False)) == "Dense(None, 2, bias=False)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 2), InvalidValue, "Dense: in_features must be at least 1, got 0"),
        (("3", 2), InvalidType, "Dense: in_features must be an int, got '3'"),
        ((3, 0), InvalidValue, "Dense: out_features must be at least 1, got 0"),
        ((3, None), InvalidType, "Dense: out_features must be an int, got None"),
    ],
)
def test_arguments_are_checked_when_it_is_made(arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dc.Dense(*arguments)


def test_named_arguments_are_checked_when_it_is_made() -> None:
    with pytest.raises(InvalidValue, match="Dense: weight_init must be one of"):
        dc.Dense(3, 2, weight_init="he")
    with pytest.raises(InvalidType, match="Dense: bias_init must be the name"):
        dc.Dense(3, 2, bias_init=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="Dense: activation must be one of"):
        dc.Dense(3, 2, activation="softmx")


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (dc.Dense(3, 2), (5, 4), r"^Dense: expected 3 input features \(weight \(2, 3\)\), got x "),
        (dc.Dense(None, 2), (5, 0), r"^Dense: expected at least one feature, got x \(5, 0\)$"),
        (dc.Dense(None, 2), (), r"^Dense: expected at least one feature, got x \(\)$"),
    ],
)
def test_inputs_that_do_not_fit(layer: dc.Dense, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layer(np.ones(shape, dtype="float32"))
    assert not layer.is_built
