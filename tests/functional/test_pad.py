"""Padding beyond the table: adjointness, what each mode refuses, half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from tests.functional.adjoint import assert_adjoint

X = np.ones((2, 3, 4, 5))
MODES = ("constant", "reflect", "replicate", "circular")


@st.composite
def surrounds(draw: Any) -> tuple[Any, Any, str]:
    """``(size, padding, mode)`` within what the mode allows."""
    mode = draw(st.sampled_from(MODES))
    size = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    most = [{"reflect": n - 1, "circular": n}.get(mode, 7) for n in size]
    return size, [(draw(st.integers(0, m)), draw(st.integers(0, m))) for m in most], mode


@settings(derandomize=True, deadline=None, max_examples=60)
@given(surrounds())
def test_the_pullback_is_the_adjoint(surround: Any) -> None:
    size, padding, mode = surround
    assert_adjoint(F.pad, 2, 3, *size, padding=padding, mode=mode)


def test_reflection_gives_back_what_it_showed() -> None:
    """Each pixel gets the share of every place it is shown at, not its own place's alone."""
    x = np.asarray([[[1.0, 2.0, 3.0, 4.0]]])
    y, pullback = F.pad.vjp(x, padding=[(2, 1)], mode="reflect")
    np.testing.assert_array_equal(y, [[[3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0]]])
    np.testing.assert_array_equal(pullback(np.ones_like(y))[0], [[[1.0, 2.0, 3.0, 1.0]]])


def test_the_edge_s_share_is_added_up_wide() -> None:
    """On the way to its sum the share is beyond float16."""
    y, pullback = F.pad.vjp(np.ones((1, 1, 1), dtype="float16"), padding=[(2, 0)], mode="replicate")
    dy = np.asarray([[[40000.0, 40000.0, -40000.0]]], dtype=y.dtype)
    np.testing.assert_array_equal(pullback(dy)[0], [[[40000.0]]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"padding": -1}, InvalidValue, "padding must be at least 0, got -1"),
        ({"padding": [(0, -1), 0]}, InvalidValue, r"padding\[0\] must be at least 0, got -1"),
        ({"padding": (1, 1, 1, 1)}, InvalidValue, r"padding needs one entry .*\(1, 1, 1, 1\)"),
        ({"padding": [(1, 1, 1), 0]}, InvalidValue, r"padding\[0\] must be an int or a \(before"),
        ({"padding": 1.0}, InvalidType, "padding must be an int, got 1.0"),
        ({"padding": True}, InvalidType, "padding must be an int, got True"),
        ({"padding": "same"}, InvalidType, "padding must be an int, got 'same'"),
        ({"padding": 1, "mode": "edge"}, InvalidValue, "mode must be one of 'constant'"),
        ({"padding": 1, "mode": None}, InvalidValue, "mode must be one of .*, got None"),
        (
            {"padding": [(0, 4), 0], "mode": "reflect"},
            InvalidValue,
            r"padding \(0, 4\) is more than 'reflect' allows in dimension 0 of x "
            r"\(2, 3, 4, 5\): at most 3 of 4 pixels",
        ),
        (
            {"padding": [0, (6, 1)], "mode": "circular"},
            InvalidValue,
            r"padding \(6, 1\) is more than 'circular' allows in dimension 1 .*: at most 5 of 5",
        ),
        (
            {"padding": 1, "mode": "replicate", "value": 2.0},
            InvalidValue,
            "value=2.0 is for mode \"constant\"; leave it out for 'replicate'",
        ),
        ({"padding": 1, "value": "0"}, InvalidType, "value must be a number, got '0'"),
        ({"padding": 1, "value": True}, InvalidType, "value must be a number, got True"),
        ({"padding": 1, "value": float("nan")}, InvalidValue, "value must be a number, got nan"),
    ],
)
def test_options_out_of_range(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^pad: {message}"):
        F.pad(X, **options)


@pytest.mark.parametrize("shape", [(3, 4), (4,), ()])
def test_only_images_have_a_surround(shape: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^pad: x must have shape \(N, C, \*spatial\), got"):
        F.pad(np.ones(shape), padding=1)


def test_the_constant_may_be_infinite() -> None:
    y = F.pad(np.zeros((1, 1, 1)), padding=1, value=float("-inf"))
    np.testing.assert_array_equal(y, [[[-np.inf, 0.0, -np.inf]]])
