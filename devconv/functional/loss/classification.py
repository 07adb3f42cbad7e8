"""Losses over classes: how unlikely the right one is among those along axis 1."""

from __future__ import annotations

import math

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, choice, integer, number
from devconv.functional.activation.softmaxes import log_probabilities
from devconv.functional.loss.reduction import REDUCTIONS, reduced, weighted_mean
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.special import at_least, scaled


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
    classes = check_classes("logits", logits, target, class_weight)
    if is_index:
        check_labels(target, classes, ignore_index)
    elif ignore_index >= 0:
        raise InvalidValue(
            f"ignore_index={ignore_index} needs class indices; target "
            f"{tuple(target.shape)} holds probabilities"
        )
    elif tuple(target.shape) != tuple(logits.shape):
        raise InvalidValue(
            f"target has shape {tuple(target.shape)}, expected probabilities with the logits' "
            f"shape {tuple(logits.shape)}, or class indices, which are integers"
        )

    log_p = log_probabilities(logits, axis)
    weight, even = _class_factor(class_weight, logits.ndim, axis), class_weight is None
    if is_index:
        hit, counts = labelled(target, classes, axis, ignore_index, log_p)
        log_p = xp.where(xp.expand_dims(counts == 0, axis=axis), 0.0, log_p)  # whatever it was
        own = counts if even else counts * xp.sum(xp.where(hit, weight, 0.0), axis=axis)
        q = xp.astype(hit, log_p.dtype)
    else:
        hit, counts, q = None, 1.0, _array.widen(target)
    if smoothing:
        q = (1.0 - smoothing) * q + smoothing / classes
    q = scaled(weight, q)
    only = hit is not None and even and not smoothing
    terms = xp.where(hit, log_p, 0.0) if only else _times(q, log_p)
    losses = -scaled(counts, xp.sum(terms, axis=axis))
    if is_index and reduction == "mean":
        loss, spread = weighted_mean(losses, own)
    else:  # the mean over probabilities is over examples, whatever the class weights
        loss, spread = reduced(losses, reduction)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        flow = xp.expand_dims(scaled(counts, spread(dy)), axis=axis)
        whole = 1.0 if is_index and even else xp.sum(q, axis=axis, keepdims=True)
        dlogits = flow * (scaled(whole, xp.exp(log_p)) - q)
        return dlogits, None if is_index else -flow * scaled(weight, log_p) * (1.0 - smoothing)

    return loss, pullback


@differentiable(integers=("target",), constants=("class_weight",))
def nll_loss(
    log_probabilities: Array,
    target: Array,
    /,
    *,
    class_weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Array, Pullback]:
    """Measure how unlikely the right classes are: ``-weight[t] · log_probabilities[t]``.

    Args:
        log_probabilities: ``(N, C, ...)`` in nats, or ``(C,)`` for one example, as they come
            out of :func:`log_softmax` along axis 1.
        target: ``t``, class indices ``(N, ...)``, integers, without a derivative.
        class_weight: ``(C,)``, a factor for each class.
        ignore_index: the label of examples that do not count.
        reduction: ``"mean"`` (over the examples that count, weighted by class), ``"sum"``
            or ``"none"``.

    Returns:
        The loss in nats, float32 for half precision. A label that is out of range is refused
        where looking costs nothing (NumPy, PyTorch on the CPU); on a device the loss is NaN
        instead. The pullback gives ``(dlog_probabilities, None)``.

    Raises:
        ValueError: shapes that do not fit together, labels or options out of range.
        TypeError: class indices given as floats.

    As ``torch.nn.functional.nll_loss``.

    >>> import numpy as np
    >>> log_p = np.log(np.asarray([[0.25, 0.75], [0.5, 0.5]]))
    >>> loss, pullback = nll_loss.vjp(log_p, np.asarray([0, 1]))
    >>> round(float(loss), 6)  # log(8) / 2
    1.039721
    >>> pullback(np.ones(()))[0]
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """
    choice("reduction", reduction, REDUCTIONS)
    ignore_index = integer("ignore_index", ignore_index, least=-(2**63))
    classes = check_classes("log_probabilities", log_probabilities, target, class_weight)
    if not _array.is_integer(target):
        raise InvalidType(
            f"target holds {_array.dtype_name(target.dtype)}, but class indices are integers; "
            "cross_entropy takes probabilities"
        )
    check_labels(target, classes, ignore_index)

    xp, axis = _array.array_namespace(log_probabilities), min(log_probabilities.ndim - 1, 1)
    log_p = _array.widen(log_probabilities)
    hit, counts = labelled(target, classes, axis, ignore_index, log_p)
    score = xp.sum(xp.where(hit, log_p, 0.0), axis=axis)  # only the labelled class is read
    if class_weight is not None:
        weight = _class_factor(class_weight, log_p.ndim, axis)
        counts = counts * xp.sum(xp.where(hit, weight, 0.0), axis=axis)
    losses = -(counts * score if class_weight is None else _times(counts, score))
    if reduction == "mean":
        loss, spread = weighted_mean(losses, counts)
    else:
        loss, spread = reduced(losses, reduction)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        flow = xp.expand_dims(spread(dy) * counts, axis=axis)
        return xp.where(hit, -flow, 0.0 * flow), None  # NaN everywhere for a label out of range

    return loss, pullback


def _class_factor(class_weight: Array | None, rank: int, axis: int) -> Array | float:
    """Each class's weight, along ``axis``."""
    return 1.0 if class_weight is None else _along(_array.widen(class_weight), rank, axis)


def _times(q: Array, log_p: Array) -> Array:
    """``q · log p``, 0 where ``q`` is 0 and ``log p`` minus infinity."""
    xp = _array.array_namespace(q)
    least = float(xp.finfo(log_p.dtype).min)  # 0 times this is 0
    return q * xp.where(q == 0, at_least(log_p, least), log_p)


def _along(vector: Array, rank: int, axis: int) -> Array:
    shape = tuple(vector.shape[0] if d == axis else 1 for d in range(rank))
    return _array.array_namespace(vector).reshape(vector, shape)


def labelled(
    target: Array, classes: int, axis: int, ignore_index: int, like: Array
) -> tuple[Array, Array]:
    """Where along ``axis`` the labelled classes are, and how much each example counts.

    An ignored one counts 0.0, one whose label is out of range NaN: both are nowhere.
    """
    xp, target = _array.array_namespace(like), _counting(target)
    places = xp.arange(classes, dtype=target.dtype, device=_array.device(like))
    hit = _along(places, like.ndim, axis) == xp.expand_dims(target, axis=axis)
    ignored = _equals(target, ignore_index)
    if 0 <= ignore_index < classes:
        hit = hit & ~xp.expand_dims(ignored, axis=axis)
    found = _array.as_array(xp.any(hit, axis=axis))
    return hit, xp.where(found | ignored, xp.astype(found, like.dtype), math.nan)


def _counting(target: Array) -> Array:
    """Labels in integers that can hold any number of classes (uint8 ends at 255)."""
    return _array.cast(target, _array.index_dtype(target))


def _equals(target: Array, value: int) -> Array:
    """Where ``target`` is ``value``, which need not fit its integer dtype."""
    info = _array.array_namespace(target).iinfo(target.dtype)
    if int(info.min) <= value <= int(info.max):
        return target == value
    return target != target


def check_classes(name: str, scores: Array, target: Array, class_weight: Array | None) -> int:
    """The number of classes, after checking target and weight against the scores."""
    shape, given = tuple(scores.shape), tuple(target.shape)
    if not shape:
        raise InvalidValue(f"{name} must have shape (N, C, ...) or (C,), got a 0-d array")
    axis = min(len(shape) - 1, 1)
    expected = shape[:axis] + shape[axis + 1 :]
    if _array.is_integer(target):
        if given != expected:
            raise InvalidValue(
                f"target has shape {given}, expected class indices with shape {expected} for "
                f"{name} {shape} (classes on axis {axis})"
            )
    elif given == expected:
        raise InvalidType(
            f"target {given} holds {_array.dtype_name(target.dtype)}, but class indices are "
            f"integers: convert it, xp.astype(target, xp.int64)"
        )
    classes = shape[axis]
    if classes == 0:
        raise InvalidValue(f"{name} {shape} has no classes on axis {axis}")
    if class_weight is not None and tuple(class_weight.shape) != (classes,):
        raise InvalidValue(
            f"class_weight has shape {tuple(class_weight.shape)}, expected ({classes},): one "
            f"per class of {name} {shape}"
        )
    return classes


def check_labels(target: Array, classes: int, ignore_index: int) -> None:
    """Refuse labels out of range, where looking at them costs nothing."""
    if not _array.is_readable(target) or 0 in target.shape:
        return
    xp, target = _array.array_namespace(target), _counting(target)
    wrong = ((target < 0) | (target >= classes)) & ~_equals(target, ignore_index)
    if bool(xp.any(wrong)):
        low, high = int(xp.min(target)), int(xp.max(target))
        raise InvalidValue(
            f"target {tuple(target.shape)} holds labels from {low} to {high}, expected "
            f"0 to {classes - 1} (or ignore_index={ignore_index}) for {classes} classes"
        )
