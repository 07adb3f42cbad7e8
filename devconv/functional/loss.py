"""Losses: how wrong a prediction is, as one number, and which way is better.

A loss is a 0-d array of its own library and device (float32 for half-precision
predictions); its pullback takes one. ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, choice, integer, number
from devconv.functional.activation import log_probabilities
from devconv.functional.operation import Pullback, differentiable

REDUCTIONS = ("mean", "sum", "none")


@differentiable
def mse_loss(
    prediction: Array, target: Array, /, *, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Measure the squared difference: ``(prediction - target)²``.

    Args:
        prediction: any shape.
        target: the same shape.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss. Both arguments have a derivative, ``±2 (prediction - target)``.

    Raises:
        ValueError: different shapes, another reduction.
        TypeError: integer or mixed dtypes.

    As ``torch.nn.functional.mse_loss``, which broadcasts with a warning where this refuses.

    >>> import numpy as np
    >>> y = np.asarray([1.6, 2.9, 1.5, 1.2])
    >>> loss, pullback = mse_loss.vjp(y, np.asarray([1.0, 2.0, 2.0, 1.0]))
    >>> round(float(loss), 6)
    0.365
    >>> pullback(np.ones(()))[0]
    array([ 0.3 ,  0.45, -0.25,  0.1 ])
    """
    same_shape(prediction, target)
    difference = _array.widen(prediction) - _array.widen(target)
    loss, spread = reduced(difference * difference, reduction)

    def pullback(dy: Array) -> tuple[Array, ...]:
        flow = 2.0 * difference * spread(dy)
        return flow, -flow

    return loss, pullback


def same_shape(prediction: Array, target: Array) -> None:
    """Refuse a target of another shape."""
    if tuple(prediction.shape) != tuple(target.shape):
        raise InvalidValue(
            f"target has shape {tuple(target.shape)}, expected that of the prediction, "
            f"{tuple(prediction.shape)}; reshape one of them"
        )


def reduced(losses: Array, reduction: str) -> tuple[Array, Callable[[Array], Array]]:
    """The losses reduced, and how the reduced loss's ``dy`` spreads over them.

    The mean of nothing is NaN, the sum of nothing 0.
    """
    xp = _array.array_namespace(losses)
    if choice("reduction", reduction, REDUCTIONS) == "none":
        return losses, lambda dy: dy
    if reduction == "sum":
        return xp.sum(losses), lambda dy: xp.broadcast_to(dy, losses.shape)
    count = float(math.prod(losses.shape))
    if count == 0:
        nothing = xp.full((), float("nan"), dtype=losses.dtype, device=_array.device(losses))
        return nothing, lambda dy: xp.broadcast_to(dy, losses.shape)
    return xp.sum(losses) / count, lambda dy: xp.broadcast_to(dy / count, losses.shape)


@differentiable(integers=("target",), constants=("class_weight",))
def cross_entropy(
    logits: Array,
    target: Array,
    /,
    *,
    class_weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Pullback]:
    """Measure how unlikely the right classes are: ``-sum over c of q[c] · log_softmax(logits)[c]``.

    ``q`` is the target's distribution: all on the labelled class, or the probabilities
    given; with smoothing ``s``, ``(1 - s) q + s / C``. Each term is weighted by its class.

    Args:
        logits: ``(N, C, ...)`` in nats, or ``(C,)`` for one example; classes on axis 1.
        target: class indices ``(N, ...)``, integers, without a derivative; or probabilities
            with the shape of the logits.
        class_weight: ``(C,)``, a factor for each class.
        ignore_index: the label of examples that do not count (indices only).
        label_smoothing: from 0 to 1.
        reduction: ``"mean"`` (over the examples that count, weighted by class), ``"sum"``
            or ``"none"``.

    Returns:
        The loss in nats, float32 for half-precision logits. A label that is out of range is
        refused where looking costs nothing (NumPy, PyTorch on the CPU); on a device the loss
        is NaN instead. The pullback gives ``(dlogits, dtarget)``.

    Raises:
        ValueError: shapes that do not fit together, labels or options out of range.
        TypeError: class indices given as floats.

    As ``torch.nn.functional.cross_entropy``.

    >>> import numpy as np
    >>> loss, pullback = cross_entropy.vjp(np.zeros((2, 4)), np.asarray([0, 3]))
    >>> round(float(loss), 6)  # log(4)
    1.386294
    >>> pullback(np.ones(()))[0]
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """
    xp, axis = _array.array_namespace(logits), min(logits.ndim - 1, 1)
    smoothing = number("label_smoothing", label_smoothing, least=0.0)
    if smoothing > 1.0:
        raise InvalidValue(f"label_smoothing must be at most 1, got {label_smoothing!r}")
    choice("reduction", reduction, REDUCTIONS)
    ignore_index = integer("ignore_index", ignore_index, least=-(2**63))
    is_index = _array.is_integer(target)
    classes = check_classes(logits, target, class_weight, is_index=is_index)
    if is_index:
        check_labels(target, classes, ignore_index)

    log_p = log_probabilities(logits, axis)
    weight = 1.0 if class_weight is None else _along(_array.widen(class_weight), logits.ndim, axis)
    if is_index:
        hot, counted = one_hot(target, classes, axis, ignore_index, log_p)
    else:
        hot, counted = _array.widen(target), 1.0
    q = ((1.0 - smoothing) * hot + smoothing / classes * counted) * weight
    losses = -xp.sum(_times(q, log_p), axis=axis)
    if is_index and reduction == "mean":
        loss, spread = weighted_mean(losses, xp.sum(hot * weight))
    else:  # the mean over probabilities is over examples, whatever the class weights
        loss, spread = reduced(losses, reduction)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        flow = xp.expand_dims(spread(dy), axis=axis)
        dlogits = flow * (xp.exp(log_p) * xp.sum(q, axis=axis, keepdims=True) - q)
        return dlogits, None if is_index else -flow * log_p * weight * (1.0 - smoothing)

    return loss, pullback


def weighted_mean(losses: Array, total: Array) -> tuple[Array, Callable[[Array], Array]]:
    """The sum of the losses over the ``total`` of their weights; NaN where that is 0."""
    xp = _array.array_namespace(losses)
    nan = xp.full((), float("nan"), dtype=losses.dtype, device=_array.device(losses))
    total = xp.where(total == 0, nan, total)
    return xp.sum(losses) / total, lambda dy: xp.broadcast_to(dy / total, losses.shape)


def _times(q: Array, log_p: Array) -> Array:
    """``q · log p`` with 0 where ``q`` is 0, also where ``log p`` is minus infinity."""
    xp = _array.array_namespace(q)
    return xp.where(q == 0, xp.zeros_like(log_p), q * log_p)


def _along(vector: Array, rank: int, axis: int) -> Array:
    shape = tuple(vector.shape[0] if d == axis else 1 for d in range(rank))
    return _array.array_namespace(vector).reshape(vector, shape)


def one_hot(
    target: Array, classes: int, axis: int, ignore_index: int, like: Array
) -> tuple[Array, Array]:
    """Labels as distributions along ``axis``, and which examples count (1.0 or 0.0).

    An ignored label is all zeros; one that is out of range is all NaN. ``counts`` has size 1
    along ``axis``.
    """
    xp = _array.array_namespace(like)
    dtype, device = like.dtype, _array.device(like)
    target = xp.expand_dims(target, axis=axis)
    places = _along(xp.arange(classes, dtype=target.dtype, device=device), like.ndim, axis)
    ignored = _equals(target, ignore_index)
    inside = (target >= 0) & (target < classes)
    one = xp.ones((), dtype=dtype, device=device)
    valid = xp.where(inside | ignored, one, one * float("nan"))
    counts = xp.astype(~ignored, dtype)
    return xp.astype(places == target, dtype) * counts * valid, counts


def _equals(target: Array, value: int) -> Array:
    """Where ``target`` is ``value``, which need not fit its integer dtype."""
    info = _array.array_namespace(target).iinfo(target.dtype)
    if int(info.min) <= value <= int(info.max):
        return target == value
    return target != target


def check_classes(
    logits: Array, target: Array, class_weight: Array | None, *, is_index: bool
) -> int:
    """The number of classes, after checking target and weight against the logits."""
    shape, given = tuple(logits.shape), tuple(target.shape)
    if not shape:
        raise InvalidValue("logits must have shape (N, C, ...) or (C,), got a 0-d array")
    axis = min(len(shape) - 1, 1)
    expected = shape[:axis] + shape[axis + 1 :]
    if not is_index and given != shape:
        if given == expected:
            raise InvalidType(
                f"target {given} holds {_array.dtype_name(target.dtype)}, but class indices are "
                f"integers: convert it, xp.astype(target, xp.int64); probabilities need the "
                f"logits' shape {shape}"
            )
        raise InvalidValue(
            f"target has shape {given}, expected probabilities with the logits' shape {shape} "
            f"or class indices with shape {expected}"
        )
    if is_index and given != expected:
        raise InvalidValue(
            f"target has shape {given}, expected class indices with shape {expected} for "
            f"logits {shape} (classes on axis {axis})"
        )
    classes = shape[axis]
    if classes == 0:
        raise InvalidValue(f"logits {shape} have no classes on axis {axis}")
    if class_weight is not None and tuple(class_weight.shape) != (classes,):
        raise InvalidValue(
            f"class_weight has shape {tuple(class_weight.shape)}, expected ({classes},): one "
            f"per class of logits {shape}"
        )
    return classes


def check_labels(target: Array, classes: int, ignore_index: int) -> None:
    """Refuse labels out of range, where looking at them costs nothing."""
    if not _array.is_readable(target) or 0 in target.shape:
        return
    xp = _array.array_namespace(target)
    wrong = ((target < 0) | (target >= classes)) & ~_equals(target, ignore_index)
    if bool(xp.any(wrong)):
        low, high = int(xp.min(target)), int(xp.max(target))
        raise InvalidValue(
            f"target {tuple(target.shape)} holds labels from {low} to {high}, expected "
            f"0 to {classes - 1} (or ignore_index={ignore_index}) for {classes} classes"
        )
