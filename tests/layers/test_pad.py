"""Padding layers: PyTorch's names, and its order of paddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend

# What PyTorch's modules give is compared in test_catalogue.py.


def test_the_last_dimension_comes_first(backend: Backend) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    layer = dc.ReflectionPad2d((1, 2, 3, 0))
    y, pullback = layer.vjp(backend.asarray(x))
    wanted, back = F.pad.vjp(x, padding=((3, 0), (1, 2)), mode="reflect")
    np.testing.assert_array_equal(backend.to_numpy(y), wanted)
    np.testing.assert_array_equal(backend.to_numpy(pullback(y)[0]), back(wanted)[0])
    assert layer.output_shape((3, 4, 5)) == (3, 7, 8)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: dc.ZeroPad2d((1, 2)),
            InvalidValue,
            r"ZeroPad2d: padding must be an int or 4 ints, .* last dimension first, got \(1, 2\)",
        ),
        (lambda: dc.ZeroPad1d(-1), InvalidValue, "ZeroPad1d: padding must be at least 0, got -1"),
        (lambda: dc.CircularPad1d((0, -1)), InvalidValue, r"padding\[1\] must be at least 0"),
        (lambda: dc.ReplicationPad3d(1.5), InvalidType, r"padding must be an int, got 1\.5"),
        (lambda: dc.ReflectionPad2d("same"), InvalidType, "padding must be an int, got 'same'"),
        (lambda: dc.ZeroPad2d(((1, 2), (3, 4))), InvalidValue, "padding must be an int or 4 ints"),
        (lambda: dc.ConstantPad1d(1, "0"), InvalidType, "ConstantPad1d: value must be a number"),
    ],
)
def test_arguments_are_checked_when_it_is_made(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            dc.ReflectionPad2d((4, 0, 0, 0)),
            (3, 9, 4),
            r"ReflectionPad2d: padding \(4, 0\) is more than 'reflect' allows in dimension 1 of x "
            r"\(N, 3, 9, 4\): at most 3 of 4 pixels",
        ),
        (dc.CircularPad1d((0, 5)), (3, 4), r"more than 'circular' allows .* at most 4 of 4 pixels"),
        (dc.ZeroPad3d(1), (3, 4, 4), r"expected x with 5 dimensions \(N, C, D, H, W\)"),
        (dc.ReplicationPad1d(1), (3, 0), r"expected x \(N, C, \*spatial\) with pixels"),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit(layer: dc.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layer.output_shape(shape)
