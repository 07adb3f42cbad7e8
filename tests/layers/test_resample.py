"""The resampling layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend

# What PyTorch's module gives is compared in test_catalogue.py.


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_any_rank(backend: Backend, mode: str) -> None:
    layer = dc.Upsample(scale_factor=1.5, mode=mode)
    for rank in (1, 2):
        x = np.random.default_rng(rank).standard_normal((2, 3, *(4, 6)[:rank]))
        y, pullback = layer.vjp(backend.asarray(x))
        wanted = F.upsample(x, scale_factor=1.5, mode=mode)
        np.testing.assert_allclose(backend.to_numpy(y), wanted, rtol=1e-12)
        assert layer.output_shape(x.shape[1:]) == wanted.shape[1:]
        assert tuple(pullback(y)[0].shape) == x.shape


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, InvalidValue, "Upsample: exactly one of size and scale_factor must be given, got nei"),
        ({"size": 2, "scale_factor": 2}, InvalidValue, "exactly one .* got both"),
        ({"size": 0}, InvalidValue, "size must be at least 1, got 0"),
        ({"size": (2, 2.5)}, InvalidType, r"size\[1\] must be an int, got 2\.5"),
        ({"scale_factor": 0}, InvalidValue, r"scale_factor must be greater than 0\.0, got 0"),
        ({"scale_factor": "2"}, InvalidType, "scale_factor must be a number, got '2'"),
        (
            {"size": 2, "mode": "bilinear"},
            InvalidValue,
            "mode must be one of 'nearest', 'linear', ",
        ),
        ({"size": 2, "align_corners": True}, InvalidValue, 'align_corners is for modes "linear"'),
    ],
)
def test_arguments_are_checked_when_it_is_made(options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dc.Upsample(**options)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(InvalidValue, match=r"Upsample: expected x \(N, C, \*spatial\) with pixels"):
        dc.Upsample(2).output_shape((3,))
    with pytest.raises(InvalidValue, match="size needs one entry for each of 1 spatial dimensions"):
        dc.Upsample((2, 2)).output_shape((3, 4))
    with pytest.raises(
        InvalidValue, match=r"the output would be empty: x \(N, 3, 4, 1\) with scal"
    ):
        dc.Upsample(scale_factor=0.5).output_shape((3, 4, 1))
