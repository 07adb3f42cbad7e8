"""Windows as columns, as layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend

# What PyTorch's modules give is compared in test_catalogue.py.


def test_one_is_the_way_back_of_the_other(backend: Backend) -> None:
    """In any rank, with uneven padding."""
    options: dict[str, Any] = {"dilation": 2, "padding": ((1, 0), 1), "stride": (1, 2)}
    unfold, fold = dc.Unfold((2, 3), **options), dc.Fold((5, 6), (2, 3), **options)
    x = backend.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 6)))
    cols, back = unfold.vjp(x)
    assert tuple(cols.shape[1:]) == unfold.output_shape((3, 5, 6))
    image, there = fold.vjp(cols)
    assert tuple(image.shape[1:]) == fold.output_shape(tuple(cols.shape[1:])) == (3, 5, 6)
    np.testing.assert_array_equal(backend.to_numpy(back(cols)[0]), backend.to_numpy(image))
    np.testing.assert_array_equal(backend.to_numpy(there(x)[0]), backend.to_numpy(cols))
    assert dc.Fold((4,), 2).output_shape((6, 3)) == (3, 4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dc.Unfold(0), InvalidValue, "Unfold: kernel_size must be at least 1, got 0"),
        (lambda: dc.Unfold("3"), InvalidType, "kernel_size must be an int, got '3'"),
        (lambda: dc.Unfold(3, 0), InvalidValue, "dilation must be at least 1, got 0"),
        (lambda: dc.Unfold(3, 1, "same"), InvalidType, "padding must be an int, got 'same'"),
        (lambda: dc.Unfold((3, 3), 1, 0, (1, 1, 1)), InvalidValue, "stride needs one entry for ea"),
        (lambda: dc.Fold(4, 3), InvalidType, "Fold: output_size must be a sequence with one int"),
        (lambda: dc.Fold((), 3), InvalidValue, "output_size must name at least one spatial dim"),
        (lambda: dc.Fold((4, 0), 3), InvalidValue, r"output_size\[1\] must be at least 1, got 0"),
        (lambda: dc.Fold((4, 4), 5), InvalidValue, r"the output would be empty: kernel \(5, 5\)"),
        (lambda: dc.Fold((4, 4), 3, stride=0), InvalidValue, "stride must be at least 1, got 0"),
    ],
)
def test_arguments_are_checked_when_it_is_made(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (dc.Unfold(3), (3, 2, 4), r"Unfold: the output would be empty: kernel \(3, 3\)"),
        (dc.Unfold((3, 3)), (3, 4), "kernel_size needs one entry for each of 1 spatial"),
        (dc.Unfold(3), (3,), r"expected x \(N, C, \*spatial\) with pixels, got x \(N, 3\)"),
        (dc.Fold((4, 4), 3), (9,), r"Fold: cols must have shape \(N, C \* taps, L\), got \(N, 9\)"),
        (
            dc.Fold((4, 4), 3),
            (10, 4),
            r"cols \(N, 10, 4\) has 10 rows, expected a multiple of the 9",
        ),
        (dc.Fold((4, 4), 3), (9, 5), r"cols \(N, 9, 5\) has 5 columns, expected 4"),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit(layer: dc.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layer.output_shape(shape)
