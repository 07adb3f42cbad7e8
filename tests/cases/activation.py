"""Activations: on either side of each kink, at every parameter, along every axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Arrays, Case
from tests.cases.draw import normal, smooth

X = (3, 4, 5)


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.0)


def leaky_relu(x: np.ndarray, *, negative_slope: float = 0.01) -> np.ndarray:
    return np.where(x > 0, x, negative_slope * x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def tanh(x: np.ndarray) -> np.ndarray:
    return (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))


def gelu(x: np.ndarray, *, approximate: str = "none") -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return x * np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2.0)), otypes=[float])(x)


def relu6(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0.0, 6.0)


def hard_tanh(x: np.ndarray, *, min_val: float = -1.0, max_val: float = 1.0) -> np.ndarray:
    return np.clip(x, min_val, max_val)


def prelu(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    y = x.copy()
    for place in np.ndindex(*x.shape):
        slope = weight.reshape(-1)[place[1] if weight.size > 1 else 0]
        y[place] = x[place] if x[place] > 0 else slope * x[place]
    return y


def elu(x: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, alpha * (np.exp(x) - 1.0))


def celu(x: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    return np.maximum(x, 0.0) + np.minimum(alpha * (np.exp(x / alpha) - 1.0), 0.0)


def selu(x: np.ndarray) -> np.ndarray:
    return 1.0507009873554805 * elu(x, alpha=1.6732632423543772)


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x / 6.0 + 0.5, 0.0, 1.0)


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.log(sigmoid(x))


def softplus(x: np.ndarray, *, beta: float = 1.0, threshold: float = 20.0) -> np.ndarray:
    return np.where(beta * x > threshold, x, np.log(1.0 + np.exp(beta * x)) / beta)


def softsign(x: np.ndarray) -> np.ndarray:
    return x / (1.0 + np.abs(x))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.log(1.0 + np.exp(x)))


def hard_swish(x: np.ndarray) -> np.ndarray:
    return x * hard_sigmoid(x)


def glu(x: np.ndarray, *, axis: int = -1) -> np.ndarray:
    a, b = np.split(x, 2, axis=axis)
    return a * sigmoid(b)


def softmax(x: np.ndarray, *, axis: int = -1) -> np.ndarray:
    powers = np.exp(x)
    return powers / powers.sum(axis=axis if x.ndim else None, keepdims=True)


def log_softmax(x: np.ndarray, *, axis: int = -1) -> np.ndarray:
    return np.log(softmax(x, axis=axis))


def _torch(name: str, **options: Any) -> Callable[..., Any]:
    def run(*tensors: Any) -> Any:
        import torch.nn.functional as T

        return getattr(T, name)(*tensors, **options)

    return run


def _case(
    id: str,
    op: Any,
    reference: Callable[..., Any],
    shape: tuple[int, ...] = X,
    kinks: tuple[float, ...] = (),
    *,
    torch: Callable[..., Any] | None = None,
    **options: Any,
) -> Case:
    """One array, away from the function's kinks; ``torch`` where its options differ."""
    return Case(
        id=id,
        op=op,
        arrays=smooth(shape, kinks=kinks),
        reference=reference,
        torch=torch or _torch(op.__name__, **options),
        options=options,
        batched=bool(shape),
    )


def _along(id: str, op: Any, reference: Callable[..., Any], shape: Any, axis: int) -> Case:
    """A distribution along an axis; the first one, the batch, may not be empty there."""
    return Case(
        id=id,
        op=op,
        arrays=normal(shape),
        reference=reference,
        torch=_torch(op.__name__, dim=axis),
        options={"axis": axis},
        batched=bool(shape) and axis % len(shape) != 0,
    )


def _prelu(id: str, x: tuple[int, ...], weight: tuple[int, ...]) -> Case:
    def draw(rng: np.random.Generator) -> Arrays:
        return (*smooth(x)(rng), np.asarray(rng.standard_normal(weight)))

    return Case(id, F.prelu, draw, prelu, torch=_torch("prelu"), batched=bool(x))


def _ramp(x: Any) -> Any:
    """PyTorch's own hardsigmoid has a derivative of 1/6 in float32 only."""
    import torch.nn.functional as T

    return T.relu6(x + 3.0) / 6.0


CASES = [
    _case("3d", F.relu, relu, kinks=(0.0,)),
    _case("0d", F.relu, relu, (), kinks=(0.0,)),
    _case("3d", F.leaky_relu, leaky_relu, kinks=(0.0,)),
    _case("slope", F.leaky_relu, leaky_relu, kinks=(0.0,), negative_slope=0.3),
    _case("slope-negative", F.leaky_relu, leaky_relu, kinks=(0.0,), negative_slope=-0.5),
    _case("slope-zero", F.leaky_relu, leaky_relu, kinks=(0.0,), negative_slope=0.0),
    _case("0d", F.leaky_relu, leaky_relu, (), kinks=(0.0,)),
    _case("3d", F.sigmoid, sigmoid),
    _case("0d", F.sigmoid, sigmoid, ()),
    _case("3d", F.tanh, tanh),
    _case("0d", F.tanh, tanh, ()),
    _case("3d", F.gelu, gelu),
    _case("none", F.gelu, gelu, approximate="none"),
    _case("tanh", F.gelu, gelu, approximate="tanh"),
    _case("0d", F.gelu, gelu, ()),
    _case("3d", F.relu6, relu6, kinks=(0.0, 6.0)),
    _case("0d", F.relu6, relu6, (), kinks=(0.0, 6.0)),
    _prelu("0d", (), ()),
    _prelu("0d-one", (), (1,)),
    _prelu("1d-one", (5,), (1,)),
    _prelu("3d-number", X, ()),
    _prelu("3d-one", X, (1,)),
    _prelu("3d-channels", X, (4,)),
    _prelu("2d-channels", (3, 4), (4,)),
    _prelu("one-channel", (3, 1, 5), (1,)),
    _case("3d", F.elu, elu),
    _case("alpha", F.elu, elu, kinks=(0.0,), alpha=0.5),
    _case("alpha-negative", F.elu, elu, kinks=(0.0,), alpha=-1.5),
    _case("0d", F.elu, elu, ()),
    _case("3d", F.celu, celu),
    _case("alpha", F.celu, celu, alpha=2.0),  # PyTorch rounds 1 / alpha to float32
    _case("0d", F.celu, celu, ()),
    _case("3d", F.selu, selu, kinks=(0.0,)),
    _case("0d", F.selu, selu, (), kinks=(0.0,)),
    _case("3d", F.hard_sigmoid, hard_sigmoid, kinks=(-3.0, 3.0), torch=_ramp),
    _case("0d", F.hard_sigmoid, hard_sigmoid, (), torch=_ramp),
    _case("3d", F.log_sigmoid, log_sigmoid, torch=_torch("logsigmoid")),
    _case("0d", F.log_sigmoid, log_sigmoid, (), torch=_torch("logsigmoid")),
    _case("3d", F.softplus, softplus),
    _case("beta", F.softplus, softplus, beta=3.0),
    _case("beta-negative", F.softplus, softplus, beta=-0.5),
    _case("threshold", F.softplus, softplus, kinks=(1.0,), threshold=1.0),
    _case("beta-threshold", F.softplus, softplus, kinks=(0.5,), beta=2.0, threshold=1.0),
    _case("0d", F.softplus, softplus, ()),
    _case("3d", F.hard_tanh, hard_tanh, kinks=(-1.0, 1.0), torch=_torch("hardtanh")),
    _case(
        "range",
        F.hard_tanh,
        hard_tanh,
        kinks=(-0.5, 2.0),
        torch=_torch("hardtanh", min_val=-0.5, max_val=2.0),
        min_val=-0.5,
        max_val=2.0,
    ),
    _case("0d", F.hard_tanh, hard_tanh, (), kinks=(-1.0, 1.0), torch=_torch("hardtanh")),
    _case("3d", F.softsign, softsign),
    _case("0d", F.softsign, softsign, ()),
    _case("3d", F.silu, silu),
    _case("0d", F.silu, silu, ()),
    _case("3d", F.mish, mish),
    _case("0d", F.mish, mish, ()),
    _case("3d", F.hard_swish, hard_swish, kinks=(-3.0, 3.0), torch=_torch("hardswish")),
    _case("0d", F.hard_swish, hard_swish, (), kinks=(-3.0, 3.0), torch=_torch("hardswish")),
    _along("last", F.glu, glu, (3, 5, 4), -1),
    _along("middle", F.glu, glu, X, 1),
    _along("first", F.glu, glu, (4, 5), 0),
    _along("1d", F.glu, glu, (4,), 0),
    _along("last", F.softmax, softmax, X, -1),
    _along("middle", F.softmax, softmax, X, 1),
    _along("first", F.softmax, softmax, X, 0),
    _along("1d", F.softmax, softmax, (5,), 0),
    _along("0d", F.softmax, softmax, (), 0),
    _along("last", F.log_softmax, log_softmax, X, -1),
    _along("middle", F.log_softmax, log_softmax, X, 1),
    _along("first", F.log_softmax, log_softmax, X, -3),
    _along("1d", F.log_softmax, log_softmax, (5,), 0),
    _along("0d", F.log_softmax, log_softmax, (), -1),
]
