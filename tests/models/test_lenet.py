"""LeNet-5: its table, its count, and a net of PyTorch's own layers beside it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from devconv.models import lenet5
from tests.compiled import assert_one_graph
from tests.models import checks


def torch_lenet() -> Any:
    """The same of PyTorch's own layers."""
    nn = pytest.importorskip("torch").nn
    return nn.Sequential(
        OrderedDict(
            c1=nn.Conv2d(1, 6, 5, padding=2),
            t1=nn.Tanh(),
            s2=nn.AvgPool2d(2),
            c3=nn.Conv2d(6, 16, 5),
            t3=nn.Tanh(),
            s4=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            c5=nn.Linear(400, 120),
            t5=nn.Tanh(),
            f6=nn.Linear(120, 84),
            t6=nn.Tanh(),
            output=nn.Linear(84, 10),
        )
    )


def test_count_and_table() -> None:
    assert lenet5().build().parameter_count == checks.count(lenet5()) == 61_706
    checks.assert_table_holds(lenet5, (1, 32, 32))


def test_names_and_shapes() -> None:
    assert checks.shapes(lenet5()) == {
        "c1.weight": (6, 1, 5, 5),
        "c1.bias": (6,),
        "c3.weight": (16, 6, 5, 5),
        "c3.bias": (16,),
        "c5.weight": (120, 400),
        "c5.bias": (120,),
        "f6.weight": (84, 120),
        "f6.bias": (84,),
        "output.weight": (10, 84),
        "output.bias": (10,),
    }


def test_inputs_and_outputs() -> None:
    assert lenet5().output_shape((1, 32, 32)) == (10,)
    assert lenet5(7, 3, padding=2).output_shape((3, 28, 28)) == (7,)
    with pytest.raises(ValueError, match=r"c5 \(Dense\): expected 400 input features"):
        lenet5().output_shape((1, 28, 28))


def test_it_runs() -> None:
    x = np.zeros((2, 1, 32, 32), dtype="float32")
    assert lenet5()(x).shape == (2, 10)


def test_as_torch() -> None:
    checks.assert_like_torch(lenet5(padding=2), torch_lenet(), (2, 1, 28, 28), training=True)


def test_it_learns() -> None:
    checks.assert_learns(lenet5(checks.CLASSES), (1, 32, 32), lr=0.002)


def test_a_step_under_jit() -> None:
    checks.assert_jit_equals_eager(lenet5(checks.CLASSES), (1, 32, 32))


def test_no_float64_is_made() -> None:
    checks.assert_stays_float32(lenet5(checks.CLASSES), (1, 32, 32))


def test_torch_compile() -> None:
    checks.assert_compiles(lenet5(checks.CLASSES), (1, 32, 32))


def test_a_pickle() -> None:
    checks.assert_pickles(lenet5(checks.CLASSES), (1, 32, 32))


def test_a_step_under_torch_compile() -> None:
    checks.assert_step_compiles(lenet5(checks.CLASSES), (1, 32, 32))


def test_torch_compile_there_and_back() -> None:
    """With the arrays that the model holds, and the way back of the inference pass."""
    model = lenet5(checks.CLASSES)
    _, (x, _) = checks.on_torch(model, (1, 32, 32))

    def both(x: Any) -> Any:
        y, pullback = model.vjp(x, training=False)
        return y, pullback(y)

    assert_one_graph(both, x, tolerance=1e-6)
