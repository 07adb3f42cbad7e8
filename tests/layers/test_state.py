"""Writing a layer down, and matching names; what loading promises is in test_layer.py."""

from __future__ import annotations

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidValue
from devconv.layers.state import arguments, join
from tests.toys import Centre, cnn


def test_dotted_names() -> None:
    assert join("", "weight") == "weight"
    assert join("0.1", "weight") == "0.1.weight"


def test_arguments_equal_to_a_default_are_left_out() -> None:
    assert arguments(dc.Conv2d(3, 8, 3)) == "3, 8, 3"
    assert arguments(dc.Conv2d(3, 8, (3, 1), padding="same", bias=False)) == (
        "3, 8, (3, 1), padding='same', bias=False"
    )
    assert arguments(dc.Dense(None, 8, weight_init="glorot_normal")) == (
        "None, 8, weight_init='glorot_normal'"
    )
    assert arguments(Centre()) == ""


def test_a_single_layer_is_one_line() -> None:
    assert repr(dc.Dense(3, 2)) == "Dense(3, 2)  # 8"
    assert repr(dc.Dense(None, 2)) == "Dense(None, 2)"
    assert repr(dc.Dense(3, 2).build()) == "Dense(3, 2)  # 8"
    assert repr(dc.MaxPool2d(2).build()) == "MaxPool2d(2)"


def test_a_model_is_a_table_of_what_learns() -> None:
    model = dc.Sequential(
        dc.Sequential({"conv": dc.Conv2d(1, 100, 5, activation="relu"), "pool": dc.MaxPool2d(2)}),
        dc.Flatten(),
        dc.Dense(None, 10),
    )
    assert repr(model) == "\n".join(
        [
            "Sequential(",
            "  0: Sequential(                                # 2,600",
            "    conv: Conv2d(1, 100, 5, activation='relu')  # 2,600",
            "    pool: MaxPool2d(2)",
            "  )",
            "  1: Flatten()",
            "  2: Dense(None, 10)",
            ")",
        ]
    )
    model.build((1, 28, 28))
    assert repr(model) == "\n".join(
        [
            "Sequential(                                     # 146,610",
            "  0: Sequential(                                # 2,600",
            "    conv: Conv2d(1, 100, 5, activation='relu')  # 2,600",
            "    pool: MaxPool2d(2)",
            "  )",
            "  1: Flatten()",
            "  2: Dense(14400, 10)                           # 144,010",
            ")",
        ]
    )


def test_long_lists_of_names_are_cut() -> None:
    state = {f"{i}.weight": np.ones(1) for i in range(20, 33)}
    with pytest.raises(InvalidValue) as caught:
        cnn().load_state_dict(state)
    assert str(caught.value) == (
        "state does not fit this model: missing 0.weight, 0.bias, 3.weight, 3.bias, 7.weight and "
        "1 more; unknown 20.weight, 21.weight, 22.weight, 23.weight, 24.weight and 8 more; load "
        "it into the model it was saved from"
    )


def test_how_arrays_begin_is_left_to_the_layer_s_own_text() -> None:
    model = dc.Sequential(dc.Dense(3, 2, activation="relu", weight_init="ones", bias_init="ones"))
    assert "0: Dense(3, 2, activation='relu')  # 8" in repr(model)
    assert repr(model[0]) == (
        "Dense(3, 2, activation='relu', weight_init='ones', bias_init='ones')  # 8"
    )
    lines = repr(dc.models.resnet18()).splitlines()
    assert len(lines) == 84
    assert max(map(len, lines)) <= 80


def test_open_sizes_do_not_hide_that_the_state_is_another_model_s() -> None:
    state = {"conv.weight": np.ones(1)}
    for model, missing in (
        (dc.Sequential(dc.ReLU(), dc.Dense(None, 2)), "all of 1"),
        (dc.Dense(None, 2), "all of Dense"),
    ):
        with pytest.raises(InvalidValue) as caught:
            model.load_state_dict(state)
        assert str(caught.value) == (
            f"state does not fit this model: missing {missing}; unknown conv.weight; load it into "
            "the model it was saved from"
        )


def test_an_open_size_without_arrays_for_it_is_asked_for() -> None:
    with pytest.raises(InvalidValue, match=r"1 \(Dense\): in_features is None and no shape is"):
        dc.Sequential(dc.ReLU(), dc.Dense(None, 2)).load_state_dict({})
