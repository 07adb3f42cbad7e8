"""Likelihoods: how unlikely the target is under the distribution that is predicted."""

from __future__ import annotations

import math

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, Shape, flag, number
from devconv.functional.loss.reduction import REDUCTIONS, check_pair, reduced, summed_to
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.special import at_least


@differentiable
def kl_div(
    log_prediction: Array,
    target: Array,
    /,
    *,
    log_target: bool = False,
    reduction: str = "mean",
) -> tuple[Array, Pullback]:
    """Measure how far one distribution is from another: ``target (log(target) - log_prediction)``.

    Args:
        log_prediction: log-probabilities in nats, any shape.
        target: probabilities, the same shape.
        log_target: whether the target, too, is given as log-probabilities.
        reduction: ``"batchmean"`` for the divergence itself, the sum over the length of the
            first dimension; ``"mean"`` over all entries, ``"sum"``, or ``"none"``.

    Returns:
        The loss in nats; a target of 0 adds nothing. The pullback gives
        ``(-dy · target, dy (log(target) + 1 - log_prediction))``, the latter without the
        first two terms where the target is 0.

    Raises:
        ValueError: different shapes, another reduction.
        TypeError: integer or mixed dtypes.

    Source: S. Kullback and R. Leibler, "On information and sufficiency", 1951; as
    ``torch.nn.functional.kl_div``, whose derivative in a target of 0 is NaN.

    >>> import numpy as np
    >>> p, q = np.asarray([[0.5, 0.5]]), np.asarray([[0.25, 0.75]])
    >>> round(float(kl_div(np.log(q), p, reduction="batchmean")), 6)
    0.143841
    """
    check_pair(log_prediction, target, reduction, (*REDUCTIONS, "batchmean"))
    log_target = flag("log_target", log_target)
    xp = _array.array_namespace(target)
    log_q, given = _array.widen(log_prediction), _array.widen(target)
    if log_target:
        p, log_p = xp.exp(given), given
    else:
        p, log_p = given, xp.log(xp.where(given == 0, 1.0, given))
    loss, spread = reduced(p * log_p - p * log_q, reduction)

    def pullback(dy: Array) -> tuple[Array, ...]:
        dy = spread(dy)
        if log_target:
            return -dy * p, dy * p * (log_p + 1.0 - log_q)
        return -dy * p, dy * (log_p + xp.astype(p != 0, p.dtype) - log_q)

    return loss, pullback


@differentiable
def poisson_nll_loss(
    prediction: Array,
    target: Array,
    /,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> tuple[Array, Pullback]:
    """Measure how unlikely a count is under a Poisson distribution of the predicted rate.

    ``exp(prediction) - target · prediction``, or, when the prediction is the rate itself,
    ``prediction - target · log(prediction + eps)``.

    Args:
        prediction: the logarithm of the expected count, or the count, any shape.
        target: counts, the same shape.
        log_input: whether the prediction is the logarithm.
        full: whether to add ``log(target!)``, by Stirling's formula
            ``t log(t) - t + log(2 pi t) / 2``, where the target is above 1.
        eps: keeps a rate of 0 away from the logarithm (without ``log_input``).
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss in nats. Both arguments have a derivative.

    Raises:
        ValueError: different shapes, a negative ``eps``, another reduction.
        TypeError: integer or mixed dtypes.

    As ``torch.nn.functional.poisson_nll_loss``, whose derivative in a target of 0 is NaN
    with ``full``.

    >>> import numpy as np
    >>> poisson_nll_loss(np.zeros(2), np.asarray([0.0, 3.0]), full=True, reduction="none").round(6)
    array([1.      , 2.764082])
    """
    check_pair(prediction, target, reduction)
    eps = number("eps", eps, least=0.0)
    log_input, full = flag("log_input", log_input), flag("full", full)
    xp = _array.array_namespace(prediction)
    x, t = _array.widen(prediction), _array.widen(target)
    rate, log_rate = (xp.exp(x), x) if log_input else (x, xp.log(x + eps))
    losses = rate - t * log_rate
    above = xp.astype(t > 1, t.dtype)
    count = xp.where(t > 1, t, 1.0)
    if full:
        stirling = count * xp.log(count) - count + 0.5 * xp.log(2.0 * math.pi * count)
        losses = losses + above * stirling
    loss, spread = reduced(losses, reduction)

    def pullback(dy: Array) -> tuple[Array, ...]:
        dy = spread(dy)
        dprediction = dy * (rate - t if log_input else 1.0 - t / (x + eps))
        dfactorial = above * (xp.log(count) + 0.5 / count) if full else 0.0
        return dprediction, dy * (dfactorial - log_rate)

    return loss, pullback


@differentiable
def gaussian_nll_loss(
    prediction: Array,
    target: Array,
    var: Array,
    /,
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> tuple[Array, Pullback]:
    """Measure how unlikely a number is under the normal distribution that is predicted.

    ``(log(v) + (prediction - target)² / v) / 2`` with ``v = max(var, eps)``

    Args:
        prediction: the mean, any shape.
        target: the same shape.
        var: the variance: the shape of the prediction, that shape without its last
            dimension, or with one of its dimensions 1.
        full: whether to add the constant ``log(2 pi) / 2``.
        eps: the least variance; its limit does not stop the derivative.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss in nats. All three arguments have a derivative; that in ``var`` is
        ``(1 - (prediction - target)² / v) / (2 v)``, also where ``var`` is below ``eps``. A
        negative variance is refused where looking costs nothing (NumPy, PyTorch on the CPU);
        on a device the loss is NaN instead.

    Raises:
        ValueError: shapes that do not fit together, a negative variance or ``eps``, another
            reduction.
        TypeError: integer or mixed dtypes.

    Source: D. Nix and A. Weigend, "Estimating the mean and variance of the target
    probability distribution", ICNN 1994; as ``torch.nn.functional.gaussian_nll_loss``.

    >>> import numpy as np
    >>> one = np.ones(1)
    >>> loss, pullback = gaussian_nll_loss.vjp(np.asarray([3.0]), one, np.asarray([2.0]))
    >>> round(float(loss), 6), pullback(np.ones(()))
    (1.346574, (array([1.]), array([-1.]), array([-0.25])))
    """
    check_pair(prediction, target, reduction)
    eps = number("eps", eps, least=0.0)
    shape = _check_variance(var, tuple(prediction.shape))
    xp = _array.array_namespace(prediction)
    d = _array.widen(prediction) - _array.widen(target)
    v = xp.reshape(_array.widen(var), shape)
    v = at_least(xp.where(v < 0, math.nan, v), eps)
    constant = 0.5 * math.log(2.0 * math.pi) if flag("full", full) else 0.0
    loss, spread = reduced(0.5 * (xp.log(v) + d * d / v) + constant, reduction)

    def pullback(dy: Array) -> tuple[Array, ...]:
        dy = spread(dy)
        dmean = dy * d / v
        dvar = summed_to(0.5 * dy * (1.0 - d * d / v) / v, shape)
        return dmean, -dmean, xp.reshape(dvar, var.shape)

    return loss, pullback


def _check_variance(var: Array, full: Shape) -> Shape:
    """The shape in which the variance broadcasts to the prediction's."""
    given = tuple(var.shape)
    shape = (*given, 1) if given == full[:-1] and full else given
    other = [n for n, m in zip(shape, full, strict=False) if n != m]
    if len(shape) != len(full) or other not in ([], [1]):
        raise InvalidValue(
            f"var has shape {given}, expected that of the prediction, {full}, or {full[:-1]}, or "
            "that with one dimension of size 1"
        )
    xp = _array.array_namespace(var)
    if _array.is_readable(var) and 0 not in given and bool(xp.any(var < 0)):
        raise InvalidValue(
            f"var {given} holds values down to {float(xp.min(var)):.3g}, expected variances of "
            "at least 0"
        )
    return shape
