"""Losses: every reduction, every kind of target, and how the options meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Arrays, Case
from tests.cases.draw import normal, probabilities, smooth

REDUCTIONS = ("mean", "sum", "none")


def reduce(losses: np.ndarray, reduction: str) -> Any:
    return {"mean": np.mean, "sum": np.sum, "none": lambda v: v}[reduction](losses)


def mse_loss(prediction: np.ndarray, target: np.ndarray, *, reduction: str = "mean") -> Any:
    return reduce((prediction - target) ** 2, reduction)


def cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    class_weight: np.ndarray | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    if logits.ndim == 1:  # one example: a batch of one, and its loss alone
        whole = cross_entropy(
            logits[None],
            target[None],
            class_weight=class_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
        return whole[0] if reduction == "none" else whole
    classes = logits.shape[1]
    w = np.ones(classes) if class_weight is None else class_weight
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    by_index = target.dtype.kind in "iu"
    places = logits.shape[:1] + logits.shape[2:]
    losses, weights = np.zeros(places), np.zeros(places)
    for place in np.ndindex(*places):
        log_p = np.log(p[(place[0], slice(None), *place[1:])])
        if by_index:
            label = int(target[place])
            if label == ignore_index:
                continue
            q = np.eye(classes)[label]
            weights[place] = w[label]
        else:
            q = target[(place[0], slice(None), *place[1:])]
            weights[place] = 1.0
        q = (1.0 - label_smoothing) * q + label_smoothing / classes
        losses[place] = -(q * w * log_p).sum()
    if reduction == "mean":
        return losses.sum() / weights.sum()
    return reduce(losses, reduction)


def l1_loss(prediction: np.ndarray, target: np.ndarray, *, reduction: str = "mean") -> Any:
    return reduce(np.abs(prediction - target), reduction)


def smooth_l1_loss(
    prediction: np.ndarray, target: np.ndarray, *, beta: float = 1.0, reduction: str = "mean"
) -> Any:
    d = np.abs(prediction - target)
    curve = 0.5 * d**2 / beta if beta else d
    return reduce(np.where(d < beta, curve, d - 0.5 * beta), reduction)


def huber_loss(
    prediction: np.ndarray, target: np.ndarray, *, delta: float = 1.0, reduction: str = "mean"
) -> Any:
    d = np.abs(prediction - target)
    return reduce(np.where(d <= delta, 0.5 * d**2, delta * (d - 0.5 * delta)), reduction)


def binary_cross_entropy(
    p: np.ndarray, t: np.ndarray, weight: np.ndarray | None = None, *, reduction: str = "mean"
) -> Any:
    losses = -(t * np.log(p) + (1.0 - t) * np.log(1.0 - p))
    return reduce(losses if weight is None else weight * losses, reduction)


def binary_cross_entropy_with_logits(
    x: np.ndarray,
    t: np.ndarray,
    weight: np.ndarray | None = None,
    pos_weight: np.ndarray | None = None,
    *,
    reduction: str = "mean",
) -> Any:
    p = 1.0 / (1.0 + np.exp(-x))
    gain = 1.0 if pos_weight is None else pos_weight
    losses = -(gain * t * np.log(p) + (1.0 - t) * np.log(1.0 - p))
    return reduce(losses if weight is None else weight * losses, reduction)


def soft_margin_loss(x: np.ndarray, t: np.ndarray, *, reduction: str = "mean") -> Any:
    return reduce(np.log(1.0 + np.exp(-t * x)), reduction)


def hinge_embedding_loss(
    x: np.ndarray, t: np.ndarray, *, margin: float = 1.0, reduction: str = "mean"
) -> Any:
    return reduce(np.where(t == 1, x, np.maximum(0.0, margin - x)), reduction)


def nll_loss(
    log_p: np.ndarray,
    target: np.ndarray,
    *,
    class_weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    scores = log_p[None] if log_p.ndim == 1 else log_p
    labels = target[None] if log_p.ndim == 1 else target
    w = np.ones(scores.shape[1]) if class_weight is None else class_weight
    losses, weights = np.zeros(labels.shape), np.zeros(labels.shape)
    for place in np.ndindex(*labels.shape):
        label = labels[place]
        if label != ignore_index:
            weights[place] = w[label]
            losses[place] = -w[label] * scores[(place[0], label, *place[1:])]
    if reduction == "mean":
        return losses.sum() / weights.sum()
    return reduce(losses[0] if log_p.ndim == 1 else losses, reduction)


def kl_div(
    log_q: np.ndarray, target: np.ndarray, *, log_target: bool = False, reduction: str = "mean"
) -> Any:
    p = np.exp(target) if log_target else target
    losses = p * (np.log(p) - log_q)
    if reduction == "batchmean":
        return losses.sum() / (len(losses) if losses.ndim else 1)
    return reduce(losses, reduction)


def poisson_nll_loss(
    x: np.ndarray,
    t: np.ndarray,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Any:
    losses = np.exp(x) - t * x if log_input else x - t * np.log(x + eps)
    if full:
        losses = losses + np.where(t > 1, t * np.log(t) - t + 0.5 * np.log(2.0 * np.pi * t), 0.0)
    return reduce(losses, reduction)


def gaussian_nll_loss(
    x: np.ndarray,
    t: np.ndarray,
    var: np.ndarray,
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    v = np.maximum(var if var.ndim == x.ndim else var[..., None], eps)
    losses = 0.5 * (np.log(v) + (x - t) ** 2 / v)
    return reduce(losses + 0.5 * np.log(2.0 * np.pi) if full else losses, reduction)


def _torch(name: str, **options: Any) -> Callable[..., Any]:
    def run(*tensors: Any) -> Any:
        import torch
        import torch.nn.functional as T

        renamed = dict(options)
        if "class_weight" in renamed:
            renamed["weight"] = torch.asarray(renamed.pop("class_weight"))
        tensors = [t.long() if t.dtype == torch.int32 else t for t in tensors]
        return getattr(T, name)(*tensors, **renamed)

    return run


def _case(
    id: str,
    op: Any,
    reference: Any,
    arrays: Callable[[Any], Arrays],
    batched: bool = True,
    torch: Callable[..., Any] | None = None,
    **options: Any,
) -> Case:
    return Case(
        id=id,
        op=op,
        arrays=arrays,
        reference=reference,
        torch=torch or _torch(op.__name__, **options),
        options=options,
        batched=batched,
    )


def labelled(logits: tuple[int, ...], ignored: int | None = None, dtype: Any = np.int64) -> Any:
    """Logits and class indices; the first example's label is ``ignored`` if that is given."""

    def draw(rng: np.random.Generator) -> Arrays:
        shape = logits[:1] + logits[2:] if len(logits) > 1 else ()
        classes = logits[1] if len(logits) > 1 else logits[0]
        labels = np.asarray(rng.integers(0, classes, shape), dtype=dtype)
        if ignored is not None:
            labels[0] = ignored
        return rng.standard_normal(logits), labels

    return draw


def distributed(logits: tuple[int, ...]) -> Any:
    """Logits and a distribution over the classes."""

    def draw(rng: np.random.Generator) -> Arrays:
        axis = min(len(logits) - 1, 1)
        return rng.standard_normal(logits), probabilities(rng, logits, axis)

    return draw


def apart(shape: tuple[int, ...]) -> Any:
    """A prediction and a target that are nowhere the same."""

    def draw(rng: np.random.Generator) -> Arrays:
        prediction = np.asarray(rng.standard_normal(shape))
        return prediction, prediction + smooth(shape)(rng)[0]

    return draw


def uniform(*ranges: tuple[Any, float, float]) -> Any:
    """Arrays of a shape each, between two numbers; a shape of ``None`` leaves one out."""

    def draw(rng: np.random.Generator) -> Arrays:
        return tuple(
            None if shape is None else np.asarray(rng.uniform(low, high, shape))
            for shape, low, high in ranges
        )

    return draw


def signed(shape: tuple[int, ...], kinks: tuple[float, ...] = ()) -> Any:
    """Scores, and a sign for each, an integer."""

    def draw(rng: np.random.Generator) -> Arrays:
        signs = 2 * rng.integers(0, 2, shape) - 1
        return smooth(shape, kinks=kinks)(rng)[0], np.asarray(signs, dtype=np.int64)

    return draw


def _yes(weight: Any = None, pos_weight: Any = None) -> list[tuple[Any, float, float]]:
    weights = [] if weight is None and pos_weight is None else [(weight, 0.2, 2.0)]
    return weights + ([] if pos_weight is None else [(pos_weight, 0.2, 2.0)])


def _weighted(name: str, reduction: str) -> Callable[..., Any]:
    """PyTorch's formula out of its own pieces: its losses have no derivative in the weights."""

    def run(x: Any, t: Any, weight: Any = None, pos_weight: Any = None) -> Any:
        import torch
        import torch.nn.functional as T

        if name == "binary_cross_entropy":
            yes, no = torch.log(x), torch.log(1.0 - x)
        else:
            yes, no = T.logsigmoid(x), T.logsigmoid(-x)
        losses = -((1.0 if pos_weight is None else pos_weight) * t * yes + (1.0 - t) * no)
        losses = losses if weight is None else losses * weight
        return {"mean": torch.mean, "sum": torch.sum, "none": lambda v: v}[reduction](losses)

    return run


def _binary(
    id: str,
    shape: tuple[int, ...],
    weight: Any = None,
    pos_weight: Any = None,
    *,
    logits: bool = True,
    batched: bool = True,
    reduction: str = "mean",
) -> Case:
    op = F.binary_cross_entropy_with_logits if logits else F.binary_cross_entropy
    reference = binary_cross_entropy_with_logits if logits else binary_cross_entropy
    low, high = (-3.0, 3.0) if logits else (0.05, 0.95)
    weighted = weight is not None or pos_weight is not None
    return _case(
        id,
        op,
        reference,
        uniform((shape, low, high), (shape, 0.05, 0.95), *_yes(weight, pos_weight)),
        batched=batched,
        torch=_weighted(op.__name__, reduction) if weighted else None,
        reduction=reduction,
    )


def _kl(id: str, shape: tuple[int, ...], *, log_target: bool = False, reduction: str) -> Case:
    target = (-2.0, -0.1) if log_target else (0.1, 1.0)

    def torch_mean(x: Any, t: Any) -> Any:  # PyTorch warns that its "mean" will change
        import torch.nn.functional as T

        return T.kl_div(x, t, reduction="none", log_target=log_target).mean()

    return _case(
        id,
        F.kl_div,
        kl_div,
        uniform((shape, -3.0, -0.1), (shape, *target)),
        batched=bool(shape),
        torch=torch_mean if reduction == "mean" else None,
        log_target=log_target,
        reduction=reduction,
    )


def _poisson(id: str, *, log_input: bool = True, **options: Any) -> Case:
    def draw(rng: np.random.Generator) -> Arrays:
        x = rng.uniform(-1.0, 1.5, (3, 4)) if log_input else rng.uniform(0.3, 3.0, (3, 4))
        counts = rng.uniform(0.2, 4.0, (3, 4))
        return x, np.where(np.abs(counts - 1.0) < 0.05, 1.1, counts)

    return _case(id, F.poisson_nll_loss, poisson_nll_loss, draw, log_input=log_input, **options)


def _gaussian(id: str, shape: Any, var: Any, **options: Any) -> Case:
    arrays = uniform((shape, -2.0, 2.0), (shape, -2.0, 2.0), (var, 0.5, 2.0))
    return _case(id, F.gaussian_nll_loss, gaussian_nll_loss, arrays, batched=bool(var), **options)


WEIGHT = np.asarray([0.5, 2.0, 1.0, 3.0])
_XENT = {"op": F.cross_entropy, "reference": cross_entropy}

CASES = [
    *(
        _case(r, F.mse_loss, mse_loss, normal((3, 4, 5), (3, 4, 5)), reduction=r)
        for r in REDUCTIONS
    ),
    _case("0d", F.mse_loss, mse_loss, normal((), ()), batched=False),
    *(_case(f"labels-{r}", **_XENT, arrays=labelled((5, 4)), reduction=r) for r in REDUCTIONS),
    _case("labels-int32", **_XENT, arrays=labelled((5, 4), dtype=np.int32)),
    _case("labels-one-example", **_XENT, arrays=labelled((4,)), batched=False),
    _case("labels-images", **_XENT, arrays=labelled((3, 4, 2, 3))),
    _case("labels-ignored", **_XENT, arrays=labelled((5, 4), ignored=-100)),
    *(
        _case(
            f"labels-everything-{r}",
            **_XENT,
            arrays=labelled((3, 4, 2, 3), ignored=2),
            class_weight=WEIGHT,
            ignore_index=2,
            label_smoothing=0.2,
            reduction=r,
        )
        for r in REDUCTIONS
    ),
    _case("labels-weighted", **_XENT, arrays=labelled((5, 4)), class_weight=WEIGHT),
    _case("labels-smoothed", **_XENT, arrays=labelled((5, 4)), label_smoothing=0.1),
    *(
        _case(f"probabilities-{r}", **_XENT, arrays=distributed((5, 4)), reduction=r)
        for r in REDUCTIONS
    ),
    _case("probabilities-one-example", **_XENT, arrays=distributed((4,)), batched=False),
    *(
        _case(
            f"probabilities-everything-{r}",
            **_XENT,
            arrays=distributed((3, 4, 2, 3)),
            class_weight=WEIGHT,
            label_smoothing=0.2,
            reduction=r,
        )
        for r in REDUCTIONS
    ),
    *(_case(r, F.l1_loss, l1_loss, apart((3, 4)), reduction=r) for r in REDUCTIONS),
    _case("0d", F.l1_loss, l1_loss, apart(()), batched=False),
    *(
        _case(r, F.smooth_l1_loss, smooth_l1_loss, apart((3, 4)), beta=1.5, reduction=r)
        for r in REDUCTIONS
    ),
    _case("default", F.smooth_l1_loss, smooth_l1_loss, apart((3, 4))),
    _case("beta-zero", F.smooth_l1_loss, smooth_l1_loss, apart((3, 4)), beta=0.0),
    _case("0d", F.smooth_l1_loss, smooth_l1_loss, apart(()), batched=False),
    *(
        _case(r, F.huber_loss, huber_loss, apart((3, 4)), delta=1.5, reduction=r)
        for r in REDUCTIONS
    ),
    _case("default", F.huber_loss, huber_loss, apart((3, 4))),
    _case("0d", F.huber_loss, huber_loss, apart(()), batched=False),
    *(_binary(r, (3, 4), logits=False, reduction=r) for r in REDUCTIONS),
    *(_binary(f"weighted-{r}", (3, 4), (3, 4), logits=False, reduction=r) for r in REDUCTIONS),
    _binary("weighted-columns", (3, 4), (4,), logits=False),
    _binary("weighted-rows", (3, 4), (3, 1), logits=False, batched=False),
    _binary("weighted-number", (3, 4), (), logits=False),
    _binary("0d", (), logits=False, batched=False),
    *(_binary(r, (3, 4), reduction=r) for r in REDUCTIONS),
    *(_binary(f"weighted-{r}", (3, 4), (3, 4), reduction=r) for r in REDUCTIONS),
    *(_binary(f"pos-weight-{r}", (3, 4), None, (4,), reduction=r) for r in REDUCTIONS),
    *(_binary(f"both-{r}", (3, 4, 2), (4, 1), (1, 1, 2), reduction=r) for r in REDUCTIONS),
    _binary("0d", (), (), (), batched=False),
    *(
        _case(r, F.soft_margin_loss, soft_margin_loss, signed((3, 4)), reduction=r)
        for r in REDUCTIONS
    ),
    _case("0d", F.soft_margin_loss, soft_margin_loss, signed(()), batched=False),
    *(
        _case(
            r,
            F.hinge_embedding_loss,
            hinge_embedding_loss,
            signed((3, 4), kinks=(0.5,)),
            margin=0.5,
            reduction=r,
        )
        for r in REDUCTIONS
    ),
    _case("0d", F.hinge_embedding_loss, hinge_embedding_loss, signed((), (1.0,)), batched=False),
    *(_case(r, F.nll_loss, nll_loss, labelled((5, 4)), reduction=r) for r in REDUCTIONS),
    _case("int32", F.nll_loss, nll_loss, labelled((5, 4), dtype=np.int32)),
    _case("one-example", F.nll_loss, nll_loss, labelled((4,)), batched=False),
    _case(
        "one-example-none", F.nll_loss, nll_loss, labelled((4,)), batched=False, reduction="none"
    ),
    *(
        _case(
            f"everything-{r}",
            F.nll_loss,
            nll_loss,
            labelled((3, 4, 2, 3), ignored=2),
            class_weight=WEIGHT,
            ignore_index=2,
            reduction=r,
        )
        for r in REDUCTIONS
    ),
    *(_kl(r, (3, 4), reduction=r) for r in (*REDUCTIONS, "batchmean")),
    *(_kl(f"log-{r}", (3, 4), log_target=True, reduction=r) for r in (*REDUCTIONS, "batchmean")),
    *(_kl(f"0d-{r}", (), reduction=r) for r in ("mean", "batchmean")),
    *(_poisson(r, reduction=r) for r in REDUCTIONS),
    *(_poisson(f"full-{r}", full=True, reduction=r) for r in REDUCTIONS),
    _poisson("rate", log_input=False),
    *(
        _poisson(f"rate-full-{r}", log_input=False, full=True, eps=0.1, reduction=r)
        for r in REDUCTIONS
    ),
    *(_gaussian(r, (3, 4), (3, 4), reduction=r) for r in REDUCTIONS),
    *(_gaussian(f"shared-{r}", (3, 4), (3,), full=True, reduction=r) for r in REDUCTIONS),
    _gaussian("last-of-one", (3, 4, 2), (3, 4, 1)),
    _gaussian("channel-of-one", (3, 4, 2), (3, 1, 2), reduction="sum"),
    _gaussian("batch-of-one", (3, 4, 2), (1, 4, 2), eps=1e-3, full=True),
    _gaussian("0d", (), ()),
    _gaussian("1d-number", (4,), ()),
]
