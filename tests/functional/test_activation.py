"""Activations where the table of cases does not look: at kinks, far out, at NaN, in errors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from tests import backends
from tests.backends import Backend

KINKS = [-3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 6.0]
FAR = [-1e4, -700.0, -40.0, *KINKS, 20.0, 40.0, 700.0, 1e4]

# Each with PyTorch's name and, where it has any, one set of options other than the default.
EACH = [
    ("relu", "relu", {}),
    ("relu6", "relu6", {}),
    ("leaky_relu", "leaky_relu", {}),
    ("leaky_relu", "leaky_relu", {"negative_slope": 0.3}),
    ("elu", "elu", {"alpha": 1.5}),
    ("celu", "celu", {"alpha": 2.0}),
    ("selu", "selu", {}),
    ("sigmoid", "sigmoid", {}),
    ("hard_sigmoid", "hardsigmoid", {}),
    ("log_sigmoid", "logsigmoid", {}),
    ("softplus", "softplus", {}),
    ("softplus", "softplus", {"beta": 2.0, "threshold": 1.0}),
    ("tanh", "tanh", {}),
    ("hard_tanh", "hardtanh", {}),
    ("hard_tanh", "hardtanh", {"min_val": -3.0, "max_val": 0.5}),
    ("softsign", "softsign", {}),
    ("gelu", "gelu", {}),
    ("gelu", "gelu", {"approximate": "tanh"}),
    ("silu", "silu", {}),
    ("mish", "mish", {}),
    ("hard_swish", "hardswish", {}),
]
SMOOTH_AT_0 = ["elu", "celu", "sigmoid", "log_sigmoid", "softplus", "tanh", "softsign"]
SMOOTH_AT_0 += ["gelu", "silu", "mish", "hard_sigmoid", "hard_swish", "hard_tanh"]
NAN_BELOW = {"gelu", "silu", "mish", "hard_swish", "softsign"}  # minus infinity times 0

each = pytest.mark.parametrize(
    ("name", "theirs", "options"), EACH, ids=[f"{a}-{'-'.join(o)}" for a, _, o in EACH]
)


def pytorch(name: str, x: Any, options: Any, dtype: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch's values at ``x`` and its derivatives."""
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(x, dtype=dtype or torch.float64, requires_grad=True)
    function: Callable[..., Any] = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    y = function(leaf, **options)
    y.sum().backward()
    return y.detach().double().numpy(), leaf.grad.double().numpy()


def ours(
    name: str, backend: Backend, x: Any, options: Any, dtype: str = "float64"
) -> tuple[np.ndarray, np.ndarray]:
    y, pullback = getattr(F, name).vjp(backend.asarray(np.asarray(x), dtype), **options)
    (dx,) = pullback(backend.asarray(np.ones(np.shape(x)), dtype))
    return backend.to_numpy(y), backend.to_numpy(dx)


@each
def test_kinks_and_far_out(name: str, theirs: str, options: Any, backend: Backend) -> None:
    values, slopes = pytorch(theirs, FAR, options)
    y, dx = ours(name, backend, FAR, options)
    np.testing.assert_allclose(y, values, rtol=1e-12, atol=1e-15)
    # PyTorch's hardsigmoid has a derivative of 1/6 in float32 only
    np.testing.assert_allclose(dx, slopes, rtol=1e-7 if "hard" in name else 1e-11, atol=1e-15)


@each
def test_infinity_and_nan(name: str, theirs: str, options: Any) -> None:
    x = [-math.inf, math.inf, math.nan]
    values, slopes = pytorch(theirs, x, options)
    y, dx = ours(name, backends.get("torch"), x, options)
    np.testing.assert_array_equal(y, values)
    if name != "softsign":  # a derivative of 0 is right, PyTorch's is NaN
        np.testing.assert_array_equal(dx[:2], slopes[:2])
    if name not in NAN_BELOW:
        y, dx = ours(name, backends.get("numpy"), x, options)  # without a warning
        np.testing.assert_array_equal(y, values)
        np.testing.assert_array_equal(dx[:2], slopes[:2])


@each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(name: str, theirs: str, options: Any, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.asarray([-300.0, -8.0, *KINKS, 0.125, -2.5, 8.0, 300.0])  # exact in both dtypes
    epsilon = float(torch.finfo(getattr(torch, dtype)).eps)
    y, dx = ours(name, backends.get("torch"), x, options, dtype)
    values, slopes = pytorch(theirs, x, options)
    np.testing.assert_allclose(y, values, rtol=epsilon, atol=1e-6)
    np.testing.assert_allclose(dx, slopes, rtol=epsilon, atol=1e-6)
    values, _ = pytorch(theirs, x, options, getattr(torch, dtype))
    np.testing.assert_allclose(y, values, rtol=epsilon, atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH_AT_0)
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_autograd_through_the_forward_pass_at_0(name: str, library: str) -> None:
    backend, op = backends.get(library), getattr(F, name)
    x = backend.asarray(np.zeros(2))
    (dx,) = op.vjp(x)[1](backend.asarray(np.ones(2)))
    if library == "torch":
        leaf = x.clone().requires_grad_()
        op(leaf).sum().backward()
        theirs = backend.to_numpy(leaf.grad)
    else:
        import jax

        theirs = np.asarray(jax.grad(lambda v: op(v).sum())(x))
    np.testing.assert_allclose(backend.to_numpy(dx), theirs, rtol=1e-14)


@each
def test_memory_order_is_kept(name: str, theirs: str, options: Any) -> None:
    x = np.moveaxis(np.linspace(-4.0, 4.0, 120).reshape(2, 5, 4, 3), -1, 1)
    y, pullback = getattr(F, name).vjp(x, **options)
    (dx,) = pullback(np.ones_like(y))
    assert x.strides == y.strides == dx.strides


def test_tails_keep_their_digits() -> None:
    x = np.asarray([-700.0, -100.0, -40.0])
    np.testing.assert_allclose(F.sigmoid(x), np.exp(x), rtol=1e-14)
    np.testing.assert_allclose(F.softplus(x), np.exp(x), rtol=1e-14)
    np.testing.assert_allclose(F.log_sigmoid(-x), -np.exp(x), rtol=1e-14)
    np.testing.assert_allclose(F.silu(x), x * np.exp(x), rtol=1e-14)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize(("dtype", "huge"), [("float64", 1e300), ("float32", 1e38)])
def test_gelu_does_not_overflow(approximate: str, dtype: str, huge: float) -> None:
    x = np.asarray([-huge, huge], dtype=dtype)
    y, pullback = F.gelu.vjp(x, approximate=approximate)
    np.testing.assert_array_equal(y, [-0.0, x[1]])
    np.testing.assert_array_equal(pullback(np.ones_like(x))[0], [0.0, 1.0])


def test_relu_s_derivative_at_nan_is_1() -> None:
    _, pullback = F.relu.vjp(np.asarray([np.nan, 0.0]))
    np.testing.assert_array_equal(pullback(np.full(2, 3.0))[0], [3.0 * 1.0, 0.0])


# --- prelu ---


def test_prelu_at_0_infinity_and_nan() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan], dtype=torch.float64)
    weight = torch.tensor([0.5], dtype=torch.float64)
    y, pullback = F.prelu.vjp(x, weight)
    dx, dweight = pullback(torch.ones_like(y))
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    wanted = torch.nn.functional.prelu(*leaves)
    wanted.sum().backward()
    for result, expected in [(y, wanted), (dx, leaves[0].grad), (dweight, leaves[1].grad)]:
        np.testing.assert_array_equal(result.numpy(), expected.detach().numpy())


def test_prelu_without_channels() -> None:
    y, pullback = F.prelu.vjp(np.zeros((2, 0)), np.zeros(0))
    assert y.shape == (2, 0)
    assert [d.shape for d in pullback(y)] == [(2, 0), (0,)]


def test_prelu_sums_half_precision_in_float32(backend: Backend) -> None:
    if not backend.has("float16"):
        pytest.skip(f"{backend.name} has no float16")
    x = backend.asarray(np.full((4096, 1), -1.0), "float16")
    _, pullback = F.prelu.vjp(x, backend.asarray(np.zeros(1), "float16"))
    _, dweight = pullback(backend.asarray(np.full((4096, 1), 1.0), "float16"))
    assert float(backend.to_numpy(dweight)[0]) == -4096.0  # stops at -2048 in float16


# --- axes ---


@pytest.mark.parametrize("op", [F.softmax, F.log_softmax, F.glu])
def test_an_empty_axis_is_an_empty_result(op: Any, backend: Backend) -> None:
    x = backend.asarray(np.zeros((2, 0)))
    y, pullback = op.vjp(x, axis=-1)
    assert tuple(y.shape) == (2, 0)
    assert tuple(pullback(x)[0].shape) == (2, 0)


def test_softmax_of_one_number() -> None:
    assert float(F.softmax(np.asarray(5.0))) == 1.0
    assert float(F.log_softmax(np.asarray(5.0), axis=0)) == 0.0
    assert np.isnan(F.softmax(np.asarray(np.nan)))


# --- errors ---

ONE = np.ones(1)
ERRORS = [
    (lambda: F.celu(ONE, alpha=0), ValueError, "celu: alpha must not be 0"),
    (lambda: F.elu(ONE, alpha="1"), TypeError, "elu: alpha must be a number, got '1'"),
    (lambda: F.elu(ONE, alpha=math.nan), ValueError, "elu: alpha must be"),
    (lambda: F.leaky_relu(ONE, negative_slope=None), TypeError, "negative_slope must be a number"),
    (lambda: F.softplus(ONE, beta=0.0), ValueError, "softplus: beta must not be 0"),
    (lambda: F.softplus(ONE, beta=True), TypeError, "softplus: beta must be a number"),
    (lambda: F.softplus(ONE, threshold="x"), TypeError, "softplus: threshold must be a number"),
    (
        lambda: F.hard_tanh(ONE, min_val=2.0, max_val=1.0),
        ValueError,
        "hard_tanh: min_val=2.0 is above max_val=1.0; exchange them",
    ),
    (lambda: F.gelu(ONE, approximate="fast"), ValueError, "gelu: approximate must be one of"),
    (
        lambda: F.prelu(np.ones((2, 3)), np.ones(2)),
        ValueError,
        "prelu: weight has shape (2,), expected (), (1,) or (3,): one slope per channel of x",
    ),
    (lambda: F.prelu(np.ones(3), np.ones(3)), ValueError, "expected (), (1,) or (1,)"),
    (lambda: F.prelu(np.ones(()), np.ones(3)), ValueError, "weight has shape (3,)"),
    (lambda: F.prelu(np.ones((2, 3)), np.ones((1, 1))), ValueError, "weight has shape (1, 1)"),
    (lambda: F.prelu(np.ones((2, 3)), np.ones(0)), ValueError, "weight has shape (0,)"),
    (
        lambda: F.prelu(ONE, np.ones(1, "float32")),
        TypeError,
        "weight is float32, expected one dtype",
    ),
    (lambda: F.glu(np.ones(())), ValueError, "glu: x is a 0-d array and has no axis to halve"),
    (
        lambda: F.glu(np.ones((2, 3))),
        ValueError,
        "glu: axis 1 of x (2, 3) has 3 entries, expected an even number to halve",
    ),
    (lambda: F.glu(np.ones((2, 4)), axis=2), ValueError, "glu: axis 2 is out of range for x"),
    (lambda: F.softmax(np.ones((2, 4)), axis=2), ValueError, "axis 2 is out of range for x with"),
    (lambda: F.softmax(np.ones((2, 4)), axis=-3), ValueError, "axis -3 is out of range for x"),
    (lambda: F.log_softmax(np.ones(()), axis=1), ValueError, "axis 1 is out of range for x with"),
    (lambda: F.softmax(ONE, axis=0.0), TypeError, "softmax: axis must be an int, got 0.0"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_errors(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        call()


@pytest.mark.parametrize("name", sorted({n for n, _, _ in EACH} | {"glu", "softmax"}))
def test_integers_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}: x .* has dtype int64, expected a real floating"):
        getattr(F, name)(np.arange(4))


def test_the_limits_of_hard_tanh_may_be_one_number() -> None:
    """As in ``torch.nn.functional.hardtanh``; the layer refuses it, as ``torch.nn.Hardtanh``."""
    torch = pytest.importorskip("torch")
    y, pullback = F.hard_tanh.vjp(np.asarray([0.0, 1.0, 2.0]), min_val=1.0, max_val=1.0)
    x = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    wanted = torch.nn.functional.hardtanh(x, 1.0, 1.0)
    np.testing.assert_array_equal(y, wanted.detach())
    wanted.sum().backward()
    np.testing.assert_array_equal(pullback(np.ones(3))[0], x.grad)


def test_gelu_has_the_digits_of_float32(backend: Backend) -> None:
    """Near 0, where the curve bends, where it is flat; as good as through erf in float64."""
    host = np.concatenate(
        [np.linspace(-14.0, 14.0, 4001), [-1e30, -60.0, -1e-30, 1e-30, 60.0, 1e30]]
    )
    x = backend.asarray(host, "float32")
    exact = backend.to_numpy(x).astype("float64")
    y, pullback = F.gelu.vjp(x)
    wanted, back = F.gelu.vjp(exact)
    size = np.maximum(1.0, np.abs(exact))
    assert np.max(np.abs(backend.to_numpy(y) - wanted) / size) < 2.5e-7
    one = np.ones_like(exact)
    (dx,), (slope,) = pullback(backend.asarray(one, "float32")), back(one)
    assert np.max(np.abs(backend.to_numpy(dx) - slope)) < 4e-7
    assert np.max(np.abs(backend.to_numpy(y)[host < -7.0])) < 2e-11  # where it is -9e-12
    assert np.all(backend.to_numpy(y)[host < -9.0] == 0.0)
