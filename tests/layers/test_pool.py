"""Pooling layers: PyTorch's arguments, shapes and results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend
from tests.toys import assert_close

CASES: list[tuple[str, dict[str, Any]]] = [
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("MaxPool2d", {"kernel_size": 2}),
    ("MaxPool2d", {"kernel_size": (2, 3), "stride": 1, "padding": (1, 1), "dilation": (2, 1)}),
    ("MaxPool3d", {"kernel_size": 2, "stride": (1, 2, 2)}),
    ("AvgPool1d", {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("AvgPool2d", {"kernel_size": 2, "divisor_override": 3}),
    ("AvgPool3d", {"kernel_size": (2, 1, 2)}),
]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_as_pytorch(kind: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    theirs, mine = getattr(torch.nn, kind)(**options), getattr(dc, kind)(**options)
    x = torch.randn((2, 3, *(7, 6, 5)[: mine.rank]), dtype=torch.float64, requires_grad=True)
    y = theirs(x)
    assert mine.output_shape(tuple(x.shape[1:])) == tuple(y.shape[1:])
    dy = torch.randn(y.shape, dtype=torch.float64)
    y.backward(dy)
    z, pullback = mine.vjp(x.detach().numpy())
    dx, grads = pullback(dy.numpy())
    assert grads == {}
    assert_close({"y": z, "x": dx}, {"y": y.detach(), "x": x.grad}, 1e-14)


@pytest.mark.parametrize(
    "layer",
    [dc.MaxPool2d(2), dc.AvgPool2d(2), dc.GlobalAvgPool(), dc.GlobalMaxPool()],
    ids=lambda layer: type(layer).__name__,
)
def test_on_every_backend(backend: Backend, layer: dc.Layer) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    y, pullback = layer.vjp(backend.asarray(x))
    assert tuple(y.shape[1:]) == layer.output_shape((3, 4, 4))
    z, wanted = layer.vjp(x)
    dy = np.random.default_rng(1).standard_normal(z.shape)
    assert_close({"y": y}, {"y": z}, 1e-14)
    assert_close({"x": pullback(backend.asarray(dy))[0]}, {"x": wanted(dy)[0]}, 1e-14)


def test_global_pools_take_any_rank() -> None:
    for shape in ((3, 5), (3, 5, 4), (3, 2, 2, 2)):
        assert dc.GlobalAvgPool().output_shape(shape) == (3,)
        assert dc.GlobalMaxPool()(np.ones((2, *shape))).shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dc.MaxPool2d(0), InvalidValue, "MaxPool2d: kernel_size must be at least 1, got 0"),
        (lambda: dc.MaxPool2d(2, 0), InvalidValue, "MaxPool2d: stride must be at least 1, got 0"),
        (
            lambda: dc.MaxPool2d((2, 2, 2)),
            InvalidValue,
            "kernel_size needs one entry for each of 2",
        ),
        (lambda: dc.MaxPool2d(2, padding=2), InvalidValue, "MaxPool2d: padding"),
        (lambda: dc.MaxPool1d("2"), InvalidType, "MaxPool1d: kernel_size must be an int, got '2'"),
        (lambda: dc.AvgPool2d(2, padding=-1), InvalidValue, "padding must be at least 0, got -1"),
        (lambda: dc.AvgPool3d(2, padding=2), InvalidValue, "AvgPool3d: padding"),
        (lambda: dc.MaxPool2d(2, dilation=0), InvalidValue, "dilation must be at least 1, got 0"),
    ],
)
def test_arguments_are_checked_when_it_is_made(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (dc.MaxPool2d(2), (3, 8), r"MaxPool2d: expected x with 4 dimensions \(N, C, H, W\), got x"),
        (
            dc.MaxPool1d(2),
            (3, 8, 8),
            r"expected x with 3 dimensions \(N, C, W\), got x \(N, 3, 8, ",
        ),
        (dc.AvgPool2d(5), (3, 4, 4), r"AvgPool2d: the output would be empty"),
        (dc.GlobalAvgPool(), (3,), r"GlobalAvgPool: expected x \(N, C, \*spatial\) with pixels"),
        (dc.GlobalMaxPool(), (3, 0), r"GlobalMaxPool: expected x \(N, C, \*spatial\) with pixels"),
    ],
)
def test_inputs_that_do_not_fit(layer: dc.Layer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layer.output_shape(shape)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dc.LPPool2d(0.5, 2), InvalidValue, r"LPPool2d: norm_type must be at least 1\.0"),
        (lambda: dc.LPPool1d(float("inf"), 2), InvalidValue, "norm_type must be finite, got inf"),
        (lambda: dc.LPPool1d("2", 2), InvalidType, "norm_type must be a number, got '2'"),
        (lambda: dc.LPPool1d(2, 0), InvalidValue, "kernel_size must be at least 1, got 0"),
        (
            lambda: dc.AdaptiveAvgPool2d((1, 2, 3)),
            InvalidValue,
            "AdaptiveAvgPool2d: output_size needs one entry for each of 2 spatial dimensions",
        ),
        (lambda: dc.AdaptiveMaxPool1d(0), InvalidValue, "output_size must be at least 1, got 0"),
        (lambda: dc.AdaptiveMaxPool3d(None), InvalidType, "output_size must be an int, got None"),
        (
            lambda: dc.AvgPool2d(2, divisor_override=0),
            InvalidValue,
            "divisor_override must not be 0",
        ),
    ],
)
def test_options_are_checked_when_it_is_made(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_adaptive_pools_take_images_of_any_size() -> None:
    layer = dc.AdaptiveAvgPool2d((None, 3))
    for size in ((5, 7), (2, 2)):
        assert layer.output_shape((4, *size)) == (4, size[0], 3)
        assert layer(np.ones((2, 4, *size))).shape == (2, 4, size[0], 3)
    with pytest.raises(InvalidValue, match=r"AdaptiveAvgPool2d: expected x with 4 dimensions"):
        layer.output_shape((4, 5))
    with pytest.raises(InvalidValue, match=r"LPPool1d: the output would be empty"):
        dc.LPPool1d(2, 5).output_shape((4, 4))
