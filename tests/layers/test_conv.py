"""Convolution layers: PyTorch's arguments, names, shapes and results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from tests.backends import Backend
from tests.toys import assert_close, images, place

KINDS = [dc.Conv1d, dc.Conv2d, dc.Conv3d]
CASES: list[tuple[int, dict[str, Any]]] = [
    (1, {"kernel_size": 3}),
    (1, {"kernel_size": (2,), "stride": 2, "padding": 1, "groups": 2}),
    (2, {"kernel_size": 3, "padding": "same", "dilation": 2, "bias": False}),
    (2, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    (2, {"kernel_size": 1, "groups": 4, "padding": "valid"}),
    (3, {"kernel_size": (1, 2, 3), "padding": (0, 1, 1), "groups": 2}),
]


def vjp(layer: Any, x: Any, dy: Any) -> dict[str, Any]:
    y, pullback = layer.vjp(x)
    dx, grads = pullback(dy)
    return {"y": y, "x": dx, **grads}


@pytest.mark.parametrize(("rank", "options"), CASES, ids=str)
def test_as_pytorch(rank: int, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = getattr(torch.nn, f"Conv{rank}d")(4, 8, **options).double()
    mine = KINDS[rank - 1](4, 8, **options).to(dtype="float64")
    mine.load_state_dict(theirs.state_dict())
    assert list(mine.state_dict()) == list(theirs.state_dict())
    x = torch.randn((2, 4, *(7, 6, 5)[:rank]), dtype=torch.float64, requires_grad=True)
    y = theirs(x)
    assert mine.output_shape(tuple(x.shape[1:])) == tuple(y.shape[1:])
    dy = torch.randn(y.shape, dtype=torch.float64)
    y.backward(dy)
    wanted = {"y": y.detach(), "x": x.grad}
    wanted |= {name: p.grad for name, p in theirs.named_parameters()}
    assert_close(vjp(mine, x.detach().numpy(), dy.numpy()), wanted, 1e-13)


def test_on_every_backend(backend: Backend) -> None:
    layer = dc.Conv2d(2, 4, 3, padding=1, weight_init="orthogonal").build().to(dtype="float64")
    x, dy = images(), np.ones((4, 4, 8, 8))
    wanted = vjp(layer, x, dy)
    layer.to(place(backend))
    assert_close(vjp(layer, backend.asarray(x), backend.asarray(dy)), wanted, 1e-13)


def test_open_channels() -> None:
    layer = dc.Conv1d(None, 4, 3, groups=2)
    assert layer.output_shape((6, 10)) == (4, 8)
    assert repr(layer) == "Conv1d(None, 4, 3, groups=2)"
    layer.build((6, 10))
    assert repr(layer) == "Conv1d(6, 4, 3, groups=2)  # 40"
    assert layer.parameters["weight"].shape == (4, 3, 3)
    with pytest.raises(InvalidValue, match=r"Conv1d: groups=2 must divide in_channels=5"):
        dc.Conv1d(None, 4, 3, groups=2).build((5, 10))


def test_bias_begins_with_the_fans_of_its_weight() -> None:
    fans_seen = []

    def note(rng: Any, shape: Any, fans: Any) -> Any:
        fans_seen.append((shape, fans))
        return np.zeros(shape)

    dc.Conv2d(6, 4, 3, groups=2, weight_init=note, bias_init=note).build()
    dc.Dense(5, 4, weight_init=note, bias_init=note).build()
    assert fans_seen == [
        ((4, 3, 3, 3), (27, 36)),
        ((4,), (27, 36)),
        ((4, 5), (5, 4)),
        ((4,), (5, 4)),
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 4, 3), InvalidValue, "Conv2d: in_channels must be at least 1, got 0"),
        ((2.0, 4, 3), InvalidType, r"Conv2d: in_channels must be an int, got 2\.0"),
        ((2, 0, 3), InvalidValue, "out_channels must be at least 1, got 0"),
        ((2, None, 3), InvalidType, "out_channels must be an int, got None"),
        ((2, 4, 0), InvalidValue, "kernel_size must be at least 1, got 0"),
        ((2, 4, "3"), InvalidType, "kernel_size must be an int, got '3'"),
        ((2, 4, (3, 3, 3)), InvalidValue, "kernel_size needs one entry for each of 2 spatial"),
        ((2, 4, 3, 0), InvalidValue, "stride must be at least 1, got 0"),
        ((2, 4, 3, -1), InvalidValue, "stride must be at least 1, got -1"),
        ((2, 4, 3, 1, -1), InvalidValue, "padding must be at least 0, got -1"),
        ((2, 4, 3, 1, "full"), InvalidValue, "Conv2d: padding"),
        ((2, 4, 3, 2, "same"), InvalidValue, "Conv2d: padding"),
        ((2, 4, 3, 1, 0, 0), InvalidValue, "dilation must be at least 1, got 0"),
        ((2, 4, 3, 1, 0, 1, 0), InvalidValue, "groups must be at least 1, got 0"),
        ((3, 4, 3, 1, 0, 1, 2), InvalidValue, "groups=2 must divide in_channels=3"),
        ((4, 3, 3, 1, 0, 1, 2), InvalidValue, "groups=2 must divide out_channels=3"),
    ],
)
def test_arguments_are_checked_when_it_is_made(arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        dc.Conv2d(*arguments)


def test_named_arguments_are_checked_when_it_is_made() -> None:
    with pytest.raises(InvalidValue, match="Conv2d: weight_init must be one of 'zeros', 'ones', "):
        dc.Conv2d(2, 4, 3, weight_init="he")
    with pytest.raises(InvalidType, match="bias_init must be the name of an initializer or a fun"):
        dc.Conv2d(2, 4, 3, bias_init=0.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"Conv2d: activation must be one of .*'relu'"):
        dc.Conv2d(2, 4, 3, activation="rely")
    with pytest.raises(InvalidType, match=r"activation must be a name or an activation layer such"):
        dc.Conv2d(2, 4, 3, activation=dc.Flatten())  # type: ignore[arg-type]


def test_an_image_smaller_than_the_kernel() -> None:
    with pytest.raises(InvalidValue, match=r"Conv2d: the output would be empty: kernel \(5, 5\)"):
        dc.Conv2d(2, 4, 5).output_shape((2, 4, 9))


def test_an_empty_batch(backend: Backend) -> None:
    layer = dc.Conv2d(2, 4, 3).build().to(place(backend))
    y, pullback = layer.vjp(backend.asarray(np.zeros((0, 2, 5, 5), dtype="float32")))
    assert tuple(y.shape) == (0, 4, 3, 3)
    dx, grads = pullback(y)
    assert tuple(dx.shape) == (0, 2, 5, 5)
    assert not np.any(backend.to_numpy(grads["weight"]))


MODES = ["reflect", "replicate", "circular"]


@pytest.mark.parametrize("mode", MODES)
def test_padding_modes_on_every_backend(backend: Backend, mode: str) -> None:
    """Uneven padding too, which PyTorch's layers do not have."""
    layer = dc.Conv2d(2, 4, 3, 2, ((2, 1), (0, 3)), padding_mode=mode, activation="tanh")
    layer.build(seed=1).to(dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 6))
    padded = dc.functional.pad(x, padding=((2, 1), (0, 3)), mode=mode)
    plain = dc.Conv2d(2, 4, 3, 2, activation="tanh").to(dtype="float64")
    wanted = plain.load_state_dict(layer.state_dict())(padded)
    layer.to(place(backend))
    y, pullback = layer.vjp(backend.asarray(x))
    np.testing.assert_allclose(backend.to_numpy(y), wanted, rtol=1e-12)
    assert layer.output_shape((2, 5, 6)) == wanted.shape[1:]
    dx, grads = pullback(y)
    assert tuple(dx.shape) == x.shape
    assert list(grads) == ["weight", "bias"]


def test_padding_that_a_mode_does_not_allow() -> None:
    with pytest.raises(InvalidValue, match="Conv2d: padding_mode must be one of 'zeros', 'reflec"):
        dc.Conv2d(2, 4, 3, padding_mode="constant")
    with pytest.raises(
        InvalidValue,
        match=r"Conv2d: padding \(2, 2\) is more than 'reflect' allows in dimension 1 of x "
        r"\(N, 2, 5, 2\): at most 1 of 2 pixels",
    ):
        dc.Conv2d(2, 4, 3, padding=2, padding_mode="reflect").output_shape((2, 5, 2))
    with pytest.raises(InvalidValue, match=r"more than 'circular' allows .* at most 2 of 2 pixels"):
        dc.Conv1d(2, 4, 7, padding="same", padding_mode="circular").output_shape((2, 2))
    assert dc.Conv1d(2, 4, 7, padding="same").output_shape((2, 2)) == (4, 2)


def test_groups_that_do_not_divide_open_channels() -> None:
    with pytest.raises(InvalidValue, match="Conv1d: groups=2 must divide in_channels=5"):
        dc.Conv1d(None, 4, 3, groups=2).output_shape((5, 9))
