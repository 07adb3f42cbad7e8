"""Losses by PyTorch's names: operations with their options filled in.

A loss takes two arrays, so it is no layer. ``CrossEntropyLoss(label_smoothing=0.1)`` is the
operation ``cross_entropy`` with that option, to be used wherever a loss is: ``loss(prediction,
target)``, ``loss.vjp(prediction, target)``, in :func:`devconv.value_and_grad` and in
:class:`devconv.Trainer`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from devconv import _array, functional
from devconv._array import Array
from devconv._check import flag, located
from devconv.functional.operation import Operation


class Loss(Operation[Any]):
    """Base of the losses: :attr:`operation` with options filled in, ``None`` left out."""

    operation: ClassVar[Operation[Any]]

    def __init__(self, **options: Any) -> None:
        given = {name: value for name, value in options.items() if value is not None}
        defaults = self.operation.__signature__.parameters
        with located(type(self).__name__):
            for name, value in given.items():
                if isinstance(defaults[name].default, bool):
                    given[name] = flag(name, value)
        vars(self).update(vars(self.operation.with_options(**given)))

    def __repr__(self) -> str:
        defaults = self.__signature__.parameters
        words = [
            f"{name}={value!r}"
            for name, value in self.options.items()
            if _array.is_array(value) or value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(words)})"


class MSELoss(Loss):
    """The mean squared difference; see :func:`devconv.functional.mse_loss`.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    operation = functional.mse_loss

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)


class L1Loss(Loss):
    """The mean absolute difference; see :func:`devconv.functional.l1_loss`.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    operation = functional.l1_loss

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)


class SmoothL1Loss(Loss):
    """Squared near 0, absolute elsewhere; see :func:`devconv.functional.smooth_l1_loss`.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        beta: where the two meet.
    """

    operation = functional.smooth_l1_loss

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction, beta=beta)


class HuberLoss(Loss):
    """``delta`` times the smooth L1 loss; see :func:`devconv.functional.huber_loss`.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        delta: where squared and absolute meet.
    """

    operation = functional.huber_loss

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction, delta=delta)


class CrossEntropyLoss(Loss):
    """The surprise at the right class; see :func:`devconv.functional.cross_entropy`.

    Args:
        weight: ``(C,)``, how much each class counts, where the logits are; ``None`` for equally.
        ignore_index: a label that does not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: the share of the target that is spread over all classes.

    >>> import numpy as np
    >>> loss = CrossEntropyLoss(label_smoothing=0.1)
    >>> float(loss(np.zeros((1, 2)), np.asarray([1])).round(6))
    0.693147
    """

    operation = functional.cross_entropy

    def __init__(
        self,
        weight: Array | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            class_weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )


class NLLLoss(Loss):
    """The same from log-probabilities; see :func:`devconv.functional.nll_loss`.

    Args:
        weight: ``(C,)``, how much each class counts, where the prediction is.
        ignore_index: a label that does not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    operation = functional.nll_loss

    def __init__(
        self,
        weight: Array | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(class_weight=weight, ignore_index=ignore_index, reduction=reduction)


class BCELoss(Loss):
    """Cross-entropy of yes and no; see :func:`devconv.functional.binary_cross_entropy`.

    Args:
        weight: how much each entry counts, a constant that broadcasts against the prediction.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    operation = functional.binary_cross_entropy

    def __init__(self, weight: Array | None = None, *, reduction: str = "mean") -> None:
        super().__init__(weight=weight, reduction=reduction)


class BCEWithLogitsLoss(Loss):
    """The same from logits; see :func:`devconv.functional.binary_cross_entropy_with_logits`.

    Args:
        weight: how much each entry counts, a constant that broadcasts against the logits.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: how much a yes counts, likewise.
    """

    operation = functional.binary_cross_entropy_with_logits

    def __init__(
        self,
        weight: Array | None = None,
        *,
        reduction: str = "mean",
        pos_weight: Array | None = None,
    ) -> None:
        super().__init__(weight=weight, reduction=reduction, pos_weight=pos_weight)


class KLDivLoss(Loss):
    """How far the prediction is from the target; see :func:`devconv.functional.kl_div`.

    Args:
        reduction: ``"mean"``, ``"batchmean"``, ``"sum"`` or ``"none"``.
        log_target: whether the target is in logarithms, as the prediction is.
    """

    operation = functional.kl_div

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction=reduction, log_target=log_target)


class SoftMarginLoss(Loss):
    """Cross-entropy of -1 and 1; see :func:`devconv.functional.soft_margin_loss`.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    operation = functional.soft_margin_loss

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)


class HingeEmbeddingLoss(Loss):
    """Distances that shall be small or large; see :func:`devconv.functional.hinge_embedding_loss`.

    Args:
        margin: how large.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    operation = functional.hinge_embedding_loss

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(margin=margin, reduction=reduction)


class PoissonNLLLoss(Loss):
    """The surprise at a count; see :func:`devconv.functional.poisson_nll_loss`.

    Args:
        log_input: whether the prediction is the logarithm of the rate.
        full: whether Stirling's term is added.
        eps: keeps the logarithm from 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    operation = functional.poisson_nll_loss

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        *,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(log_input=log_input, full=full, eps=eps, reduction=reduction)


class GaussianNLLLoss(Loss):
    """The surprise at a number, ``loss(mean, target, var)``.

    See :func:`devconv.functional.gaussian_nll_loss`.

    Args:
        full: whether the constant is added.
        eps: the least variance.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    operation = functional.gaussian_nll_loss

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(full=full, eps=eps, reduction=reduction)
