"""Distances: how far each number is from the one it should be."""

from __future__ import annotations

from devconv import _array
from devconv._array import Array
from devconv._check import number
from devconv.functional.loss.reduction import check_pair, reduced
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.special import at_least, at_most


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
    check_pair(prediction, target, reduction)
    difference = _array.widen(prediction) - _array.widen(target)
    loss, spread = reduced(difference * difference, reduction)

    def pullback(dy: Array) -> tuple[Array, ...]:
        flow = 2.0 * difference * spread(dy)
        return flow, -flow

    return loss, pullback


@differentiable
def l1_loss(
    prediction: Array, target: Array, /, *, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Measure the absolute difference: ``|prediction - target|``.

    Args:
        prediction: any shape.
        target: the same shape.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss. Both arguments have a derivative, ``±sign(prediction - target)``, 0 where
        they are equal.

    Raises:
        ValueError: different shapes, another reduction.
        TypeError: integer or mixed dtypes.

    As ``torch.nn.functional.l1_loss``, whose derivative at NaN is 0 where here it is NaN.

    >>> import numpy as np
    >>> loss, pullback = l1_loss.vjp(np.asarray([1.0, 2.0]), np.asarray([3.0, 2.0]))
    >>> float(loss), pullback(np.ones(()))
    (1.0, (array([-0.5,  0. ]), array([ 0.5, -0. ])))
    """
    check_pair(prediction, target, reduction)
    xp = _array.array_namespace(prediction)
    difference = _array.widen(prediction) - _array.widen(target)
    loss, spread = reduced(xp.abs(difference), reduction)

    def pullback(dy: Array) -> tuple[Array, ...]:
        flow = xp.sign(difference) * spread(dy)
        return flow, -flow

    return loss, pullback


@differentiable
def smooth_l1_loss(
    prediction: Array, target: Array, /, *, beta: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Measure the absolute difference, with a round tip: the Huber loss divided by ``beta``.

    ``d² / (2 beta)`` where ``|d| < beta``, else ``|d| - beta/2``, with
    ``d = prediction - target``.

    Args:
        prediction: any shape.
        target: the same shape.
        beta: up to which difference the loss is quadratic; 0 gives :func:`l1_loss`.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss. Both arguments have a derivative, ``±d / beta`` kept within -1 and 1.

    Raises:
        ValueError: different shapes, a negative ``beta``, another reduction.
        TypeError: integer or mixed dtypes.

    Source: R. Girshick, "Fast R-CNN", arXiv:1504.08083; as
    ``torch.nn.functional.smooth_l1_loss``.

    >>> import numpy as np
    >>> smooth_l1_loss(np.asarray([0.5, 3.0]), np.zeros(2), reduction="none")
    array([0.125, 2.5  ])
    """
    beta = number("beta", beta, least=0.0)
    if beta == 0.0:
        return l1_loss.vjp(prediction, target, reduction=reduction)
    return _huber(prediction, target, beta, beta, reduction)


@differentiable
def huber_loss(
    prediction: Array, target: Array, /, *, delta: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Pullback]:
    """Measure the squared difference where it is small, the absolute one where it is large.

    ``d² / 2`` where ``|d| < delta``, else ``delta (|d| - delta/2)``, with
    ``d = prediction - target``.

    Args:
        prediction: any shape.
        target: the same shape.
        delta: up to which difference the loss is quadratic; above 0.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"`` (one loss each).

    Returns:
        The loss. Both arguments have a derivative, ``±d`` kept within ``-delta`` and ``delta``.

    Raises:
        ValueError: different shapes, ``delta`` not above 0, another reduction.
        TypeError: integer or mixed dtypes.

    Source: P. Huber, "Robust estimation of a location parameter", 1964; as
    ``torch.nn.functional.huber_loss``.

    >>> import numpy as np
    >>> huber_loss(np.asarray([1.0, 3.0]), np.zeros(2), delta=2.0, reduction="none")
    array([0.5, 4. ])
    """
    return _huber(prediction, target, number("delta", delta, above=0.0), 1.0, reduction)


def _huber(
    prediction: Array, target: Array, bound: float, unit: float, reduction: str
) -> tuple[Array, Pullback]:
    """``m (|d| - m/2) / unit`` with ``m = min(|d|, bound)``, so that nothing is squared."""
    check_pair(prediction, target, reduction)
    size = _array.array_namespace(prediction).abs
    difference = _array.widen(prediction) - _array.widen(target)
    near = at_most(size(difference), bound)
    loss, spread = reduced(near * (size(difference) - 0.5 * near) / unit, reduction)

    def pullback(dy: Array) -> tuple[Array, ...]:
        flow = at_most(at_least(difference, -bound), bound) / unit * spread(dy)
        return flow, -flow

    return loss, pullback
