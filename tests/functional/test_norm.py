"""Normalisation: what is refused, float32 far from zero, half precision, memory order."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from devconv import _array
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from devconv.functional.norm import batch_norm_and_statistics
from devconv.testing import check_vjp
from tests import backends

X = np.ones((2, 4, 3, 5))
C4, C3 = np.ones(4), np.ones(3)
KINDS = {
    "batch_norm": {"training": True},
    "layer_norm": {"normalized_shape": (3, 5)},
    "group_norm": {"num_groups": 2},
    "instance_norm": {},
}
EACH = pytest.mark.parametrize(("name", "options"), KINDS.items(), ids=KINDS)
PER_CHANNEL = pytest.mark.parametrize(
    ("name", "options"), [k for k in KINDS.items() if k[0] != "layer_norm"], ids=lambda v: str(v)
)


def channels_last(x: np.ndarray) -> np.ndarray:
    """The same numbers in the memory order of a convolution's result."""
    return np.moveaxis(np.array(np.moveaxis(x, 1, -1), order="C"), -1, 1)


def exact(x: np.ndarray, axes: tuple[int, ...], eps: float = 1e-5) -> np.ndarray:
    x = x.astype("float64")
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


# --- what is refused ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.batch_norm(C4, training=True), "x must have shape (N, C, *spatial), got (4,)"),
        (
            lambda: F.batch_norm(np.ones((2, 0, 3)), training=True),
            "x (2, 0, 3) has no channels or no pixels; only the batch may be empty",
        ),
        (
            lambda: F.batch_norm(np.ones((2, 4, 0)), training=True),
            "x (2, 4, 0) has no channels or no pixels",
        ),
        (
            lambda: F.batch_norm(X, C3, training=True),
            "weight has shape (3,), expected (4,): one per channel of x (2, 4, 3, 5)",
        ),
        (lambda: F.batch_norm(X, None, np.ones((4, 1)), training=True), "bias has shape (4, 1)"),
        (lambda: F.batch_norm(X, running_mean=C3, running_var=C4), "running_mean has shape (3,)"),
        (lambda: F.batch_norm(X, running_mean=C4, running_var=C3), "running_var has shape (3,)"),
        (
            lambda: F.batch_norm(X, running_mean=C4, running_var=C3, training=True),
            "running_var has shape (3,)",
        ),
        (
            lambda: F.batch_norm(X),
            "not training needs running_mean and running_var, got None; "
            "give both, or say training=True",
        ),
        (
            lambda: F.batch_norm(X, running_mean=C4),
            "running_mean and running_var go together: give both or neither",
        ),
        (lambda: F.batch_norm(X, running_var=C4, training=True), "go together"),
        (
            lambda: F.batch_norm(np.ones((0, 4, 3)), training=True),
            "x (0, 4, 3) has 0 values per channel, training needs at least 2; "
            "give a larger batch, or say training=False",
        ),
        (lambda: F.batch_norm(np.ones((1, 4)), training=True), "x (1, 4) has 1 values per channel"),
        (lambda: F.batch_norm(np.ones((1, 4, 1)), training=True), "has 1 values per channel"),
        (lambda: F.batch_norm(X, training=True, eps=0.0), "eps must be greater than 0.0, got 0.0"),
        (lambda: F.batch_norm(X, training=True, eps=-1.0), "eps must be greater than 0.0"),
        (
            lambda: F.batch_norm(X, running_mean=C4, running_var=C4, eps=-1e-5),
            "eps must be at least 0.0, got -1e-05",
        ),
        (lambda: F.layer_norm(X, normalized_shape=5, eps=-1.0), "eps must be at least 0.0"),
        (
            lambda: F.layer_norm(X, normalized_shape=(5, 3)),
            "x (2, 4, 3, 5) must end with normalized_shape (5, 3); "
            "give normalized_shape=(3, 5) or x (..., 5, 3)",
        ),
        (lambda: F.layer_norm(C4, normalized_shape=(1, 4)), "x (4,) must end with"),
        (lambda: F.layer_norm(np.ones(()), normalized_shape=1), "x () must end with"),
        (lambda: F.layer_norm(X, normalized_shape=()), "must name at least one dimension, got ()"),
        (lambda: F.layer_norm(X, normalized_shape=0), "normalized_shape must be at least 1, got 0"),
        (
            lambda: F.layer_norm(X, C4, normalized_shape=5),
            "weight has shape (4,), expected normalized_shape (5,)",
        ),
        (lambda: F.layer_norm(X, None, C4, normalized_shape=5), "bias has shape (4,)"),
        (lambda: F.rms_norm(X, C4, normalized_shape=5), "weight has shape (4,)"),
        (lambda: F.rms_norm(X, normalized_shape=4), "x (2, 4, 3, 5) must end with"),
        (lambda: F.rms_norm(X, normalized_shape=5, eps=-1.0), "eps must be at least 0.0"),
        (
            lambda: F.group_norm(X, num_groups=3),
            "num_groups=3 must divide the 4 channels of x (2, 4, 3, 5)",
        ),
        (lambda: F.group_norm(X, num_groups=0), "num_groups must be at least 1, got 0"),
        (lambda: F.group_norm(C4, num_groups=2), "x must have shape (N, C, *spatial), got (4,)"),
        (
            lambda: F.group_norm(np.ones((1, 4)), num_groups=4),
            "x (1, 4) has one value per group, which is its own mean; use fewer groups",
        ),
        (lambda: F.group_norm(X, C3, num_groups=2), "weight has shape (3,), expected (4,)"),
        (lambda: F.group_norm(X, num_groups=2, eps=-1.0), "eps must be at least 0.0"),
        (
            lambda: F.instance_norm(np.ones((2, 4, 1, 1))),
            "x (2, 4, 1, 1) has one pixel per channel, which is its own mean; "
            "instance_norm needs more than one",
        ),
        (lambda: F.instance_norm(np.ones((2, 4))), "x (2, 4) has one pixel per channel"),
        (lambda: F.instance_norm(X, C4, C3), "bias has shape (3,), expected (4,)"),
        (lambda: F.instance_norm(X, eps=-1.0), "eps must be at least 0.0, got -1.0"),
    ],
)
def test_values_and_shapes_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=f"^[a-z]+_norm: .*{re.escape(message)}"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.batch_norm(X.astype("int64"), training=True), "x (2, 4, 3, 5) has dtype int64"),
        (lambda: F.batch_norm(X, C4.astype("float32"), training=True), "weight is float32"),
        (
            lambda: F.batch_norm(X, running_mean=C4.astype("float32"), running_var=C4),
            "running_mean is float32",
        ),
        (lambda: F.batch_norm(X, running_mean=[0.0] * 4, running_var=C4), "running_mean must be"),
        (lambda: F.batch_norm(X, training=True, eps="small"), "eps must be a number, got 'small'"),
        (lambda: F.layer_norm(X, normalized_shape=5.0), "normalized_shape must be an int, got 5.0"),
        (lambda: F.layer_norm(X, normalized_shape="5"), "normalized_shape must be an int, got '5'"),
        (lambda: F.group_norm(X, num_groups=2.0), "num_groups must be an int, got 2.0"),
    ],
)
def test_kinds_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(InvalidType, match=f"^[a-z]+_norm: .*{re.escape(message)}"):
        call()


# --- statistics ---


def test_training_uses_the_batch_and_leaves_running_statistics_alone() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5))
    mean, var = np.full(3, 7.0), np.full(3, 9.0)
    y = F.batch_norm(x, running_mean=mean, running_var=var, training=True)
    np.testing.assert_array_equal(y, F.batch_norm(x, training=True))
    np.testing.assert_array_equal([mean, var], [np.full(3, 7.0), np.full(3, 9.0)])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_batch_norm_tells_its_statistics(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(dtype)
    weight, bias = np.arange(3).astype(dtype), np.ones(3, dtype=dtype)
    (y, mean, var), pullback = batch_norm_and_statistics.vjp(x, weight, bias, eps=0.1)
    alone, back = F.batch_norm.vjp(x, weight, bias, training=True, eps=0.1)
    np.testing.assert_array_equal(y, alone)
    for ours, theirs in zip(pullback(x), back(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert mean.dtype == var.dtype == ("float64" if dtype == "float64" else "float32")
    wide = x.astype("float64")
    np.testing.assert_allclose(mean, wide.mean((0, 2)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(var, wide.var((0, 2)), rtol=0, atol=1e-6)


def test_batch_norm_with_statistics_is_checked_alike() -> None:
    with pytest.raises(InvalidValue, match=r"weight has shape \(3,\), expected \(4,\)"):
        batch_norm_and_statistics(X, C3)
    with pytest.raises(InvalidValue, match=r"has 1 values per channel"):
        batch_norm_and_statistics(np.ones((1, 4)))


def test_running_statistics_are_constants() -> None:
    """Without training, ``dx`` is ``dy`` times a number per channel."""
    x, dy = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    _, pullback = F.batch_norm.vjp(
        x, running_mean=np.zeros(4), running_var=np.full(4, 3.0), eps=1.0
    )
    np.testing.assert_allclose(pullback(dy)[0], dy / 2, rtol=1e-15)


@pytest.mark.parametrize("lay", [np.ascontiguousarray, channels_last], ids=["C", "channels-last"])
@pytest.mark.parametrize("shape", [(32, 16), (64, 8, 28, 28), (1, 4, 224, 224)])
def test_float32_far_from_zero(shape: tuple[int, ...], lay: Any) -> None:
    """Mean 10⁴, deviation 1: E[x²] - E[x]² would have no digit left (10⁸ has 8)."""
    x = lay((np.random.default_rng(0).standard_normal(shape) + 1e4).astype("float32"))
    pixels = tuple(range(2, x.ndim))
    y = F.batch_norm(x, training=True)
    assert np.abs(y - exact(x, (0, *pixels))).max() < 1e-2
    if pixels:
        assert np.abs(F.instance_norm(x) - exact(x, pixels)).max() < 1e-2
    last = F.layer_norm(x, normalized_shape=shape[-1])
    assert np.abs(last - exact(x, (x.ndim - 1,))).max() < 1e-2


@EACH
def test_a_constant_becomes_zero_even_without_eps(name: str, options: dict[str, Any]) -> None:
    eps = {} if name == "batch_norm" else {"eps": 0.0}
    y, pullback = getattr(F, name).vjp(np.full((2, 4, 3, 5), 3.0), **options, **eps)
    assert not y.any()
    assert np.isfinite(pullback(np.ones_like(y))[0]).all()


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_eps_of_rms_norm_is_that_of_the_dtype_it_is_computed_in(name: str) -> None:
    backend = backends.get(name)
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        if not backend.has(dtype):
            continue
        eps = np.finfo("float64" if dtype == "float64" else "float32").eps
        x = backend.asarray(np.full((1, 4), eps**0.5), dtype)
        y = backend.to_numpy(F.rms_norm(x, normalized_shape=4)).astype("float64")
        np.testing.assert_allclose(y, 0.5**0.5, rtol=0.01)


def test_rms_norm_by_default_is_pytorchs() -> None:
    torch = backends.get("torch").xp
    x = torch.asarray(np.random.default_rng(0).standard_normal((3, 4)) * 1e-3)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        ours = F.rms_norm(x.to(dtype), normalized_shape=4)
        theirs = torch.nn.functional.rms_norm(x.to(dtype), (4,))
        assert abs(ours - theirs).max() <= 2 * torch.finfo(dtype).eps


# --- half precision ---


@EACH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_may_be_float32_beside_halves(
    name: str, options: dict[str, Any], dtype: str
) -> None:
    backend = backends.get("torch" if dtype == "bfloat16" else "numpy")
    host = np.random.default_rng(0).standard_normal((2, 4, 3, 5))
    size = (3, 5) if name == "layer_norm" else (4,)
    x, ones = backend.asarray(host, dtype), backend.asarray(np.ones(size), "float32")
    y, pullback = getattr(F, name).vjp(x, ones, ones * 0, **options)
    dx, dweight, dbias = pullback(y)
    assert [_array.dtype_name(v.dtype) for v in (y, dx, dweight, dbias)] == [
        dtype,
        dtype,
        "float32",
        "float32",
    ]


def test_running_statistics_may_be_float32_beside_halves() -> None:
    x = np.asarray([[3.0], [5.0]], dtype="float16")
    mean, var = np.asarray([1.0], dtype="float32"), np.asarray([4.0], dtype="float32")
    y = F.batch_norm(x, running_mean=mean, running_var=var, eps=0.0)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, [[1.0], [2.0]])


@EACH
def test_statistics_of_halves_are_wide(name: str, options: dict[str, Any]) -> None:
    """1000² is infinite in float16, and 2048 + 1 is 2048."""
    host = np.random.default_rng(0).standard_normal((8, 4, 20, 25)) * 100 + 1000
    x = host.astype("float16")
    if name == "layer_norm":
        options = {"normalized_shape": (20, 25)}
    y = getattr(F, name)(x, **options)
    wanted = getattr(F, name)(x.astype("float64"), **options)
    assert np.abs(y - wanted).max() < 2e-3


# --- memory ---


@PER_CHANNEL
@pytest.mark.parametrize("lay", [np.ascontiguousarray, channels_last], ids=["C", "channels-last"])
@pytest.mark.parametrize("channels", [4, 512])
def test_results_have_the_memory_order_of_x(
    name: str, options: dict[str, Any], lay: Any, channels: int
) -> None:
    x = lay(np.random.default_rng(0).standard_normal((2, channels, 3, 5)))
    weight = np.ones(channels)
    y, pullback = getattr(F, name).vjp(x, weight, weight, **options)
    assert y.strides == pullback(x)[0].strides == x.strides


def test_layer_norm_over_whole_images_keeps_the_memory_order() -> None:
    x, weight = channels_last(X), np.ones((4, 3, 5))
    y, pullback = F.layer_norm.vjp(x, weight, weight, normalized_shape=(4, 3, 5))
    assert y.strides == pullback(x)[0].strides == x.strides


@PER_CHANNEL
def test_many_channels(name: str, options: dict[str, Any]) -> None:
    """Sums take another order when the channels of a pixel are a long run."""
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 256, 2, 3)), *rng.standard_normal((2, 256))
    check_vjp(getattr(F, name), x, weight, bias, directions=1, **options)
    few = np.ascontiguousarray(x[:, :2])
    if name != "group_norm":
        y = getattr(F, name)(x, weight, bias, **options)
        part = getattr(F, name)(few, weight[:2], bias[:2], **options)
        np.testing.assert_allclose(y[:, :2], part, rtol=0, atol=1e-13)


# --- as PyTorch, where it has limits of its own ---


def test_a_batch_of_single_values_in_groups() -> None:
    """As in PyTorch: only a batch of one is refused, the others become the bias."""
    y = F.group_norm(np.asarray([[1.0, 2.0], [3.0, 4.0]]), None, np.ones(2), num_groups=2)
    np.testing.assert_array_equal(y, np.ones((2, 2)))


def test_normalized_shape_may_be_an_int_or_a_list() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3))
    np.testing.assert_array_equal(
        F.layer_norm(x, normalized_shape=3), F.layer_norm(x, normalized_shape=[3])
    )
