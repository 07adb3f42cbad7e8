"""Transposed convolution layers: the adjoint of convolution layers, with PyTorch's arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend
from tests.toys import assert_close, place

# What PyTorch's modules give is compared in test_catalogue.py.


def test_on_every_backend(backend: Backend) -> None:
    """Uneven padding too, which PyTorch's layers do not have."""
    layer = dc.ConvTranspose2d(
        4, 6, 3, 2, ((1, 0), 1), (1, 0), 2, dilation=(1, 2), activation="tanh"
    )
    layer.build(seed=1).to(dtype="float64")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 4, 5))
    y, pullback = layer.vjp(x)
    assert y.shape == (2, *layer.output_shape((4, 4, 5)))
    dx, grads = pullback(y)
    layer.to(place(backend))
    z, again = layer.vjp(backend.asarray(x))
    dz, others = again(z)
    assert_close({"y": z, "x": dz, **others}, {"y": y, "x": dx, **grads}, 1e-12)


def test_it_is_the_adjoint_of_a_convolution() -> None:
    """<y, A x> = <Aᵀ y, x> with the same weight and the same options."""
    rng = np.random.default_rng(1)
    options: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2, "bias": False}
    there = dc.Conv2d(4, 6, 3, **options).build(seed=2).to(dtype="float64")
    back = dc.ConvTranspose2d(6, 4, 3, output_padding=(0, 1), **options).to(dtype="float64")
    back.load_state_dict(there.state_dict())
    x, y = rng.standard_normal((2, 4, 7, 8)), rng.standard_normal((2, 6, 4, 4))
    assert back(y).shape == x.shape
    np.testing.assert_allclose(np.sum(y * there(x)), np.sum(back(y) * x), rtol=1e-12)


def test_open_channels() -> None:
    layer = dc.ConvTranspose1d(None, 4, 3, groups=2)
    assert layer.output_shape((6, 10)) == (4, 12)
    assert repr(layer) == "ConvTranspose1d(None, 4, 3, groups=2)"
    layer.build((6, 10))
    assert repr(layer) == "ConvTranspose1d(6, 4, 3, groups=2)  # 40"
    assert layer.parameters["weight"].shape == (6, 2, 3)
    fresh = dc.ConvTranspose1d(None, 4, 3, groups=2).load_state_dict(layer.state_dict())
    assert fresh.in_channels == 6
    with pytest.raises(InvalidValue, match="ConvTranspose1d: groups=2 must divide in_channels=5"):
        dc.ConvTranspose1d(None, 4, 3, groups=2).build((5, 10))


def test_fans_count_what_meets_in_a_pixel() -> None:
    seen = []

    def note(rng: Any, shape: Any, fans: Any) -> Any:
        seen.append(fans)
        return np.zeros(shape)

    dc.ConvTranspose2d(6, 4, 4, 2, groups=2, weight_init=note, bias_init=note).build()
    dc.ConvTranspose1d(6, 4, 3, 5, bias=False, weight_init=note).build()
    assert seen == [(3 * 4, 2 * 16), (3 * 4, 2 * 16), (6, 12)]


def test_the_signal_keeps_its_variance() -> None:
    layer = dc.ConvTranspose2d(64, 64, 4, stride=2, bias=False).build(seed=0)
    x = np.random.default_rng(0).standard_normal((2, 64, 16, 16)).astype("float32")
    inside = layer(x)[:, :, 4:-4, 4:-4]
    np.testing.assert_allclose(inside.var(), 2.0, rtol=0.1)  # He: halved by a ReLU


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 4, 3), InvalidValue, "ConvTranspose2d: in_channels must be at least 1, got 0"),
        ((2, 4, "3"), InvalidType, "kernel_size must be an int, got '3'"),
        ((2, 4, 3, 0), InvalidValue, "stride must be at least 1, got 0"),
        ((2, 4, 3, 1, "same"), InvalidType, "padding must be an int, got 'same'"),
        ((2, 4, 3, 1, -1), InvalidValue, "padding must be at least 0, got -1"),
        ((2, 4, 3, 2, 0, 2), InvalidValue, r"output_padding \(2, 2\) must be smaller than the st"),
        ((2, 4, 3, 1, 0, -1), InvalidValue, "output_padding must be at least 0, got -1"),
        ((2, 4, 3, 1, 0, 0, 0), InvalidValue, "groups must be at least 1, got 0"),
        ((3, 4, 3, 1, 0, 0, 2), InvalidValue, "groups=2 must divide in_channels=3"),
        ((4, 3, 3, 1, 0, 0, 2), InvalidValue, "groups=2 must divide out_channels=3"),
        ((2, 4, 3, 1, 0, 0, 1, True, 0), InvalidValue, "dilation must be at least 1, got 0"),
    ],
)
def test_arguments_are_checked_when_it_is_made(arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dc.ConvTranspose2d(*arguments)


def test_inputs_that_do_not_fit() -> None:
    layer = dc.ConvTranspose2d(4, 6, 3, padding=3)
    with pytest.raises(
        InvalidValue,
        match=r"expected 4 input channels \(weight \(4, 6, 3, 3\)\), got x \(N, 3, 5, 5\)",
    ):
        layer.output_shape((3, 5, 5))
    with pytest.raises(InvalidValue, match=r"expected x with 4 dimensions \(N, C, H, W\)"):
        layer.output_shape((4, 5))
    with pytest.raises(
        InvalidValue, match=r"the output would be empty: x \(N, 4, 4, 4\) and kernel \(3, 3\)"
    ):
        layer.output_shape((4, 4, 4))
