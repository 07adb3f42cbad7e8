"""Stochastic gradient descent against the formula and ``torch.optim.SGD``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend
from tests.toys import assert_close, place

VARIANTS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.05},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    {"weight_decay": 0.05},
]


def model_of(backend: Backend, start: np.ndarray) -> dc.Layer:
    model = dc.Dense(3, 4, bias=False).to(place(backend), dtype="float64")
    return model.load_state_dict({"weight": start})


def draws(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A start and gradients that do not depend on where it leads."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((4, 3)), rng.standard_normal((count, 4, 3))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_as_pytorch(backend: Backend, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    start, grads = draws(60)
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.SGD([theirs], lr=0.05, **options)
    model = model_of(backend, start)
    optimizer = dc.optim.SGD(model, lr=0.05, **options)
    for step, grad in enumerate(grads):
        if step == 30:
            optimizer.lr = reference.param_groups[0]["lr"] = 0.01
        theirs.grad = torch.tensor(grad)
        reference.step()
        optimizer.step({"weight": backend.asarray(grad)})
        assert_close(model.parameters, {"weight": theirs.detach()}, 1e-13)


def test_the_formula_written_out(backend: Backend) -> None:
    x, (g1, g2) = draws(2)
    model = model_of(backend, x)
    optimizer = dc.optim.SGD(model, lr=0.1, momentum=0.5, dampening=0.2, weight_decay=0.3)
    b = g1 + 0.3 * x  # the first step: no dampening
    x = x - 0.1 * b
    b = 0.5 * b + 0.8 * (g2 + 0.3 * x)
    x = x - 0.1 * b
    for grad in (g1, g2):
        optimizer.step({"weight": backend.asarray(grad)})
    assert_close(model.parameters, {"weight": x}, 1e-14)
    assert_close(optimizer.state_dict(), {"momentum.weight": b}, 1e-14)


def test_without_momentum_nothing_is_kept() -> None:
    model = dc.Dense(2, 1).build()
    optimizer = dc.optim.SGD(model, lr=0.1)
    optimizer.step({"bias": np.ones(1, dtype="float32")})
    assert optimizer.state_dict() == {}
    assert optimizer.lr == 0.1
    assert dc.optim.SGD(model).lr == 1e-3  # as in torch.optim


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"momentum": -0.1}, InvalidValue, r"SGD: momentum must be at least 0\.0, got -0\.1"),
        ({"momentum": True}, InvalidType, "SGD: momentum must be a number, got True"),
        ({"dampening": "0"}, InvalidType, "SGD: dampening must be a number, got '0'"),
        ({"nesterov": 1}, InvalidType, "SGD: nesterov must be True or False, got 1"),
        ({"nesterov": True}, InvalidValue, "nesterov needs momentum above 0 and no dampening, got"),
        (
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            InvalidValue,
            r"nesterov needs .*, got momentum=0\.9, dampening=0\.1",
        ),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dc.optim.SGD(dc.Dense(2, 1), lr=0.1, **options)


def test_the_first_momentum_has_memory_of_its_own() -> None:
    model = dc.Dense(1, 1, bias=False, weight_init="ones").build()
    optimizer, grad = dc.optim.SGD(model, lr=0.1, momentum=0.9), np.ones((1, 1), dtype="float32")
    optimizer.step({"weight": grad})
    grad[...] = 100.0
    assert float(optimizer.state["momentum"]["weight"][0, 0]) == 1.0
