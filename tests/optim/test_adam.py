"""Adam and AdamW against the formula and ``torch.optim``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend
from tests.toys import assert_close, place

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"betas": (0.8, 0.95), "eps": 1e-3}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"betas": (0.0, 0.9)}),
    ("AdamW", {}),
    ("AdamW", {"weight_decay": 0.2, "betas": (0.7, 0.99)}),
    ("AdamW", {"weight_decay": 0.0}),
]


def model_of(backend: Backend, start: np.ndarray) -> dc.Layer:
    model = dc.Dense(3, 4, bias=False).to(place(backend), dtype="float64")
    return model.load_state_dict({"weight": start})


def draws(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A start and gradients of very different sizes."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-6, 2, (4, 3))
    return rng.standard_normal((4, 3)), rng.standard_normal((count, 4, 3)) * sizes


@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_as_pytorch(backend: Backend, kind: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    start, grads = draws(60)
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = getattr(torch.optim, kind)([theirs], lr=0.05, **options)
    model = model_of(backend, start)
    optimizer = getattr(dc.optim, kind)(model, lr=0.05, **options)
    for step, grad in enumerate(grads):
        if step == 30:
            optimizer.lr = reference.param_groups[0]["lr"] = 0.01
        theirs.grad = torch.tensor(grad)
        reference.step()
        optimizer.step({"weight": backend.asarray(grad)})
        assert_close(model.parameters, {"weight": theirs.detach()}, 1e-12)


@pytest.mark.parametrize("decoupled", [False, True])
def test_the_formula_written_out(backend: Backend, decoupled: bool) -> None:
    x, grads = draws(3)
    model = model_of(backend, x)
    kind = dc.optim.AdamW if decoupled else dc.optim.Adam
    optimizer = kind(model, lr=0.1, betas=(0.6, 0.7), eps=1e-4, weight_decay=0.5)
    m = v = np.zeros_like(x)
    for t, grad in enumerate(grads, start=1):
        g = grad if decoupled else grad + 0.5 * x
        x = (1.0 - 0.1 * 0.5) * x if decoupled else x
        m, v = 0.6 * m + 0.4 * g, 0.7 * v + 0.3 * g * g
        x = x - 0.1 * (m / (1 - 0.6**t)) / (np.sqrt(v / (1 - 0.7**t)) + 1e-4)
        optimizer.step({"weight": backend.asarray(grad)})
    assert_close(model.parameters, {"weight": x}, 1e-13)
    assert_close(optimizer.state_dict(), {"first.weight": m, "second.weight": v}, 1e-13)


def test_the_first_step_has_the_size_of_lr(backend: Backend) -> None:
    """Whatever the size of the gradient: the corrected moments are ``g`` and ``g²``."""
    start, grads = draws(1)
    model = model_of(backend, start)
    dc.optim.Adam(model, lr=0.01, eps=0.0).step({"weight": backend.asarray(grads[0])})
    wanted = start - 0.01 * np.sign(grads[0])
    assert_close(model.parameters, {"weight": wanted}, 1e-13)


def test_defaults_are_those_of_pytorch() -> None:
    model = dc.Dense(2, 1)
    adam, adamw = dc.optim.Adam(model), dc.optim.AdamW(model)
    assert (adam.lr, adam.betas, adam.eps, adam.weight_decay) == (1e-3, (0.9, 0.999), 1e-8, 0.0)
    assert (adamw.lr, adamw.betas, adamw.eps, adamw.weight_decay) == (
        *(1e-3, (0.9, 0.999), 1e-8),
        0.01,
    )


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"betas": (0.9,)}, InvalidValue, r"betas must be two numbers, got \(0\.9,\)"),
        ({"betas": (-0.1, 0.9)}, InvalidValue, r"betas\[0\] must be at least 0\.0, got -0\.1"),
        ({"betas": (0.9, "0")}, InvalidType, r"betas\[1\] must be a number, got '0'"),
        ({"betas": (0.9, 1.0)}, InvalidValue, r"betas must be below 1, got \(0\.9, 1\.0\)"),
        ({"betas": 0.9}, InvalidValue, r"betas must be two numbers, got 0\.9"),
        ({"eps": -1e-8}, InvalidValue, r"eps must be at least 0\.0, got -1e-08"),
    ],
)
def test_options_are_checked(kind: str, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{kind}: {message}"):
        getattr(dc.optim, kind)(dc.Dense(2, 1), **options)
