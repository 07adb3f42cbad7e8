"""What is said of something that stands where a layer should."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType
from devconv.layers.hints import name_constructor, no_layer


@F.differentiable
def own(x: Any, /) -> Any:
    """An operation of one's own."""
    return x, lambda dy: (dy,)


class Module:
    """As PyTorch's modules look from outside."""

    def forward(self, x: Any) -> Any: ...

    def state_dict(self) -> Any: ...


def plain(x: Any) -> Any: ...


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (F.relu, "the operation relu; make a layer: dc.ReLU(...) or dc.Lambda(dc.functional.relu)"),
        (
            F.softmax.with_options(axis=1),
            "the operation softmax; make a layer: dc.Softmax(...) or dc.Lambda(dc.functional.soft",
        ),
        (
            F.conv,
            "the operation conv; make a layer: dc.Conv1d(...) or dc.Conv2d(...) or dc.Conv3d(...)",
        ),
        (own, "the operation own; make a layer: dc.Lambda(own)"),
        (
            dc.MSELoss(),
            "the operation mse_loss; a loss stands beside the model: dc.value_and_grad(model, lo",
        ),
        (
            F.max_unpool,
            "the operation max_unpool; write an OperationLayer that declares the arrays after the "
            "first",
        ),
        (dc.ReLU, "the class ReLU; make one with parentheses, ReLU(...)"),
        (Module, "the class Module"),
        (
            Module(),
            "Module, a module of another library; make the layer of that kind here, and give it "
            "the arrays: layer.load_state_dict(module.state_dict())",
        ),
        (
            plain,
            "the function plain; make an operation of it with dc.functional.differentiable, and of "
            "that a layer with dc.Lambda",
        ),
        (
            (dc.ReLU(),),
            "a tuple; hand the layers in one by one, dc.Sequential(*layers) for a row of them",
        ),
        (iter([dc.ReLU()]), "a list_iterator; hand the layers in one by one, "),
        ("relu", "'relu'"),
        (np.zeros((2, 1)), "array([[0.], [0.]])"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_it_is_and_the_fix(value: Any, words: str) -> None:
    assert no_layer(value).startswith(words)
    assert "\n" not in no_layer(value)


def test_it_is_said_wherever_a_layer_is_asked_for() -> None:
    model = dc.Dense(1, 1)
    for make, start in (
        (lambda: dc.Parallel(dc.ReLU), "Parallel: layer 0 must be a layer, got "),
        (lambda: dc.pure(dc.ReLU), "pure: layer must be a layer, got "),
        (lambda: dc.value_and_grad(dc.ReLU, F.mse_loss), "value_and_grad: model must be a layer o"),
        (lambda: dc.optim.SGD(dc.ReLU), "SGD: model must be a layer, got "),
        (
            lambda: dc.Trainer(dc.ReLU, F.mse_loss, dc.optim.SGD(model)),
            "Trainer: model must be a devconv Layer, got ",
        ),
        (lambda: dc.Dense(1, 1, activation=dc.ReLU), "Dense: activation must be a name or an acti"),
    ):
        with pytest.raises(InvalidType, match="got the class ReLU; make one") as caught:
            make()
        assert str(caught.value).startswith(start)


def test_an_operation_as_activation_is_called_by_its_name() -> None:
    with pytest.raises(InvalidType, match=r'got the operation gelu; say "gelu"$'):
        dc.Dense(1, 1, activation=F.gelu)  # type: ignore[arg-type]


def test_a_constructor_that_is_inherited_is_the_same_under_the_class_s_name() -> None:
    assert inspect.signature(dc.Conv1d) == inspect.signature(dc.Conv3d)
    assert dc.Conv1d.__init__.__qualname__ == "Conv1d.__init__"
    assert inspect.signature(dc.Conv1d).parameters["activation"].kind.name == "KEYWORD_ONLY"

    class Own(dc.Conv2d):
        def __init__(self) -> None:
            super().__init__(1, 2, 3, activation="relu")

    before = Own.__init__
    name_constructor(Own)
    assert Own.__init__ is before
    assert repr(Own().build()).startswith("Own(1, 2, 3, activation='relu')")
    name_constructor(object)
