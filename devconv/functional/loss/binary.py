"""Losses of yes or no: targets between 0 and 1, or -1 and 1."""

from __future__ import annotations

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, number
from devconv.functional.loss.reduction import check_factor, check_pair, reduced, summed_to
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.special import at_least, log1p_exp, logistic


@differentiable
def binary_cross_entropy(
    prediction: Array, target: Array, weight: Array | None = None, /, *, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Measure how unlikely a yes or no is: ``-weight (t log p + (1 - t) log(1 - p))``.

    Args:
        prediction: ``p``, probabilities of a yes, any shape.
        target: ``t``, the same shape; 1 is a yes, 0 a no, between them a probability.
        weight: a factor for each loss, of a shape that broadcasts to theirs, or ``None``.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss in nats; no logarithm counts as less than -100. The pullback gives
        ``(dprediction, dtarget, dweight)``; the first is
        ``dy · weight (p - t) / max(p (1 - p), 1e-12)``. Probabilities outside 0 to 1 are
        refused where looking costs nothing (NumPy, PyTorch on the CPU); on a device the loss
        is NaN for such a prediction. NaN goes on.

    Raises:
        ValueError: shapes that do not fit together, probabilities outside 0 to 1, another
            reduction.
        TypeError: integer or mixed dtypes.

    As ``torch.nn.functional.binary_cross_entropy``, which has no derivative in ``weight``,
    refuses NaN, and where ``p`` is 0 or 1 has an infinite one in ``target`` (here ±100, that
    of the loss as it is computed).

    >>> import numpy as np
    >>> p, t = np.asarray([0.5, 0.9]), np.asarray([1.0, 0.0])
    >>> binary_cross_entropy(p, t, reduction="none").round(6)
    array([0.693147, 2.302585])
    """
    check_pair(prediction, target, reduction)
    check_factor("weight", weight, prediction)
    _check_probabilities("prediction", prediction)
    _check_probabilities("target", target)
    p, t = _array.widen(prediction), _array.widen(target)
    w = 1.0 if weight is None else _array.widen(weight)
    yes, no = -_log(p), -_log(1.0 - p)
    losses = t * yes + (1.0 - t) * no
    loss, spread = reduced(w * losses, reduction)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dy = spread(dy)
        dprediction = dy * w * (p - t) / at_least(p * (1.0 - p), 1e-12)
        dtarget = dy * w * (yes - no)
        dweight = None if weight is None else summed_to(dy * losses, tuple(weight.shape))
        return dprediction, dtarget, dweight

    return loss, pullback


def _log(p: Array) -> Array:
    """``log p``, but at least -100; no library is asked for the logarithm of 0."""
    xp = _array.array_namespace(p)
    return at_least(xp.log(xp.where(p == 0, 1e-45, p)), -100.0)


def _check_probabilities(name: str, p: Array) -> None:
    if not _array.is_readable(p) or 0 in p.shape:
        return
    xp = _array.array_namespace(p)
    if bool(xp.any((p < 0) | (p > 1))):
        raise InvalidValue(
            f"{name} {tuple(p.shape)} holds values from {float(xp.min(p)):.3g} to "
            f"{float(xp.max(p)):.3g}, expected probabilities from 0 to 1; for logits there is "
            "binary_cross_entropy_with_logits"
        )


@differentiable
def binary_cross_entropy_with_logits(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    /,
    *,
    reduction: str = "mean",
) -> tuple[Array, Pullback]:
    """Measure how unlikely a yes or no is, from logits.

    ``-weight (pos_weight · t log(sigmoid(x)) + (1 - t) log(1 - sigmoid(x)))``

    Args:
        logits: ``x`` in nats, any shape.
        target: ``t``, the same shape; 1 is a yes, 0 a no, between them a probability.
        weight: a factor for each loss, of a shape that broadcasts to theirs, or ``None``.
        pos_weight: a factor for each yes, likewise; with ``(C,)``, one per entry of the last
            axis. Above 1 it favours recall, below 1 precision.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss in nats, with all its digits for logits of any size. The pullback gives
        ``(dlogits, dtarget, dweight, dpos_weight)``, without weights
        ``dlogits = dy (sigmoid(x) - t)``.

    Raises:
        ValueError: shapes that do not fit together, another reduction.
        TypeError: integer or mixed dtypes.

    As ``torch.nn.functional.binary_cross_entropy_with_logits``, which has no derivative in
    ``weight`` and ``pos_weight``.

    >>> import numpy as np
    >>> x, t = np.asarray([0.0, 1000.0]), np.asarray([1.0, 0.0])
    >>> binary_cross_entropy_with_logits(x, t, reduction="none").round(6)
    array([6.93147e-01, 1.00000e+03])
    """
    check_pair(logits, target, reduction)
    check_factor("weight", weight, logits)
    check_factor("pos_weight", pos_weight, logits)
    x, t = _array.widen(logits), _array.widen(target)
    w = 1.0 if weight is None else _array.widen(weight)
    gain = 1.0 if pos_weight is None else _array.widen(pos_weight)
    yes, no = log1p_exp(-x), log1p_exp(x)
    losses = gain * t * yes + (1.0 - t) * no
    loss, spread = reduced(w * losses, reduction)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dy = spread(dy)
        dlogits = dy * w * ((1.0 - t) * logistic(x) - gain * t * logistic(-x))
        dtarget = dy * w * (gain * yes - no)
        dweight = None if weight is None else summed_to(dy * losses, tuple(weight.shape))
        dgain = None if pos_weight is None else summed_to(dy * w * t * yes, tuple(pos_weight.shape))
        return dlogits, dtarget, dweight, dgain

    return loss, pullback


@differentiable(integers=("target",))
def soft_margin_loss(
    prediction: Array, target: Array, /, *, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Measure how far a score is on the wrong side of 0: ``log(1 + exp(-target · prediction))``.

    Args:
        prediction: scores, any shape.
        target: 1 or -1, the same shape; integers or the dtype of the prediction.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss, finite for scores of any size. The pullback gives
        ``(-dy · target · sigmoid(-target · prediction), None)``.

    Raises:
        ValueError: different shapes, another reduction.
        TypeError: integer scores.

    As ``torch.nn.functional.soft_margin_loss``.

    >>> import numpy as np
    >>> soft_margin_loss(np.asarray([0.0, 100.0]), np.asarray([1, -1]), reduction="none").round(6)
    array([  0.693147, 100.      ])
    """
    check_pair(prediction, target, reduction)
    x = _array.widen(prediction)
    t = _array.cast(target, x.dtype)
    loss, spread = reduced(log1p_exp(-t * x), reduction)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        return -spread(dy) * t * logistic(-t * x), None

    return loss, pullback


@differentiable(integers=("target",))
def hinge_embedding_loss(
    prediction: Array, target: Array, /, *, margin: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Pull what is alike together, push the rest apart, up to a margin.

    ``prediction`` where the target is 1, ``max(0, margin - prediction)`` where it is -1.

    Args:
        prediction: distances, any shape.
        target: 1 (alike) or -1 (not), the same shape; integers or the dtype of the prediction.
        margin: the distance from which on there is no more push.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss. The pullback gives ``(dprediction, None)``: ``dy`` where the target is 1,
        ``-dy`` up to the margin (there too, as in PyTorch) where it is -1.

    Raises:
        ValueError: different shapes, another reduction.
        TypeError: integer distances.

    As ``torch.nn.functional.hinge_embedding_loss``, which like this adds both terms for any
    other target.

    >>> import numpy as np
    >>> hinge_embedding_loss(np.asarray([0.3, 0.3]), np.asarray([1, -1]), reduction="none")
    array([0.3, 0.7])
    """
    check_pair(prediction, target, reduction)
    margin = number("margin", margin)
    xp, x = _array.array_namespace(prediction), _array.widen(prediction)
    near = margin - x
    alike, unlike = xp.astype(target != -1, x.dtype), xp.astype(target != 1, x.dtype)
    losses = xp.where(target != -1, x, 0.0) + xp.where(target != 1, at_least(near, 0.0), 0.0)
    loss, spread = reduced(losses, reduction)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        return spread(dy) * (alike - unlike * xp.astype(near >= 0, x.dtype)), None

    return loss, pullback
