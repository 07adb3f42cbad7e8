"""Normalisation: every kind, with and without weights, in any rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Case
from tests.cases.draw import Shape, normal

NC, X1, X2, X3 = (3, 4), (2, 4, 5), (2, 4, 3, 5), (2, 4, 2, 3, 2)
MEAN, VAR = np.array([0.5, -1.0, 0.0, 2.0]), np.array([0.25, 1.0, 4.0, 0.5])


def normalised(x: np.ndarray, eps: float) -> np.ndarray:
    mean = sum(x.reshape(-1)) / x.size
    var = sum((x.reshape(-1) - mean) ** 2) / x.size
    return (x - mean) / np.sqrt(var + eps)


def weighted(y: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None) -> np.ndarray:
    """``y (N, C, ...)`` with a weight and a bias for each channel."""
    for c in range(y.shape[1]):
        y[:, c] = y[:, c] * (1.0 if weight is None else weight[c])
        y[:, c] = y[:, c] + (0.0 if bias is None else bias[c])
    return y


def batch_norm(
    x: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> np.ndarray:
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        if training:
            y[:, c] = normalised(x[:, c], eps)
        else:
            assert running_mean is not None
            assert running_var is not None
            y[:, c] = (x[:, c] - running_mean[c]) / np.sqrt(running_var[c] + eps)
    return weighted(y, weight, bias)


def group_norm(
    x: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    num_groups: int,
    eps: float = 1e-5,
) -> np.ndarray:
    y, size = np.zeros(x.shape), x.shape[1] // num_groups
    for n in range(x.shape[0]):
        for g in range(num_groups):
            group = slice(g * size, (g + 1) * size)
            y[n, group] = normalised(x[n, group], eps)
    return weighted(y, weight, bias)


def instance_norm(
    x: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> np.ndarray:
    y = np.zeros(x.shape)
    for n, c in np.ndindex(*x.shape[:2]):
        y[n, c] = normalised(x[n, c], eps)
    return weighted(y, weight, bias)


def _examples(x: np.ndarray, normalized_shape: int | Shape) -> Any:
    count = 1 if isinstance(normalized_shape, int) else len(normalized_shape)
    return np.ndindex(*x.shape[: x.ndim - count])


def layer_norm(
    x: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    normalized_shape: int | Shape,
    eps: float = 1e-5,
) -> np.ndarray:
    y = np.zeros(x.shape)
    for place in _examples(x, normalized_shape):
        y[place] = normalised(x[place], eps)
        y[place] = y[place] * (1.0 if weight is None else weight)
        y[place] = y[place] + (0.0 if bias is None else bias)
    return y


def rms_norm(
    x: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    normalized_shape: int | Shape,
    eps: float | None = None,
) -> np.ndarray:
    y = np.zeros(x.shape)
    for place in _examples(x, normalized_shape):
        square = (x[place] ** 2).mean() + (np.finfo("float64").eps if eps is None else eps)
        y[place] = x[place] / np.sqrt(square) * (1.0 if weight is None else weight)
    return y


def _affine(name: str, shape: Shape, size: Shape, *, most: int = 2, **options: Any) -> list[Case]:
    """Cases with weight and bias, without, and (``most=4``) with one of the two."""
    label = f"{len(shape)}d" + "".join(
        f"-{k}" if v is True else f"-{k}{v}".replace(" ", "")
        for k, v in options.items()
        if not isinstance(v, np.ndarray)
    )
    training = {"running_mean": None, "running_var": None} if options.get("training") else {}
    choices: list[tuple[str, tuple[Shape | None, ...]]] = [
        ("", (shape, size) if name == "rms_norm" else (shape, size, size)),
        ("-plain", (shape,)),
        ("-weight", (shape, size)),
        ("-bias", (shape, None, size)),
    ]
    return [
        Case(
            id=label + suffix,
            op=getattr(F, name),
            arrays=normal(*shapes),
            reference=globals()[name],
            torch=_torch(name, **options, **training),
            options=options,
            batched=size != shape and not options.get("training", False),
        )
        for suffix, shapes in choices[:most]
    ]


def _torch(name: str, **options: Any) -> Callable[..., Any]:
    """PyTorch's own, which takes weight and bias by name."""

    def run(x: Any, weight: Any = None, bias: Any = None) -> Any:
        import torch

        filled = {
            k: torch.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()
        }
        if name != "rms_norm":
            filled["bias"] = bias
        if name == "group_norm" and weight is None and bias is not None:
            weight = torch.ones_like(bias)  # without, PyTorch's gradient fails
        return getattr(torch.nn.functional, name)(x, weight=weight, **filled)

    return run


RUNNING = {"running_mean": MEAN, "running_var": VAR}

CASES = [
    *(case for shape in (NC, X1, X3) for case in _affine("batch_norm", shape, (4,), training=True)),
    *_affine("batch_norm", X2, (4,), most=4, training=True),
    *_affine("batch_norm", X2, (4,), most=1, training=True, eps=0.5),
    *(case for shape in (NC, X1, X3) for case in _affine("batch_norm", shape, (4,), **RUNNING)),
    *_affine("batch_norm", X2, (4,), most=4, **RUNNING),
    *_affine("batch_norm", X2, (4,), most=1, eps=0.5, **RUNNING),
    *_affine("group_norm", (3, 8), (8,), num_groups=2),
    *(case for shape in (X1, X3) for case in _affine("group_norm", shape, (4,), num_groups=2)),
    *_affine("group_norm", X2, (4,), most=4, num_groups=2),
    *_affine("group_norm", X2, (4,), most=1, num_groups=1),
    *_affine("group_norm", X2, (4,), most=1, num_groups=4, eps=0.5),
    *(case for shape in (X1, X3) for case in _affine("instance_norm", shape, (4,))),
    *_affine("instance_norm", X2, (4,), most=4),
    *_affine("instance_norm", X2, (4,), most=1, eps=0.5),
    *_affine("layer_norm", NC, (4,), normalized_shape=(4,)),
    *_affine("layer_norm", X2, (3, 5), most=4, normalized_shape=(3, 5)),
    *_affine("layer_norm", X2, X2[1:], normalized_shape=X2[1:], eps=0.5),
    *_affine("layer_norm", X1, X1, most=4, normalized_shape=X1),
    *_affine("layer_norm", (5,), (5,), normalized_shape=(5,)),
    *_affine("rms_norm", NC, (4,), normalized_shape=(4,)),
    *_affine("rms_norm", X2, (3, 5), normalized_shape=(3, 5), eps=0.5),
    *_affine("rms_norm", X1, X1, normalized_shape=X1),
]
