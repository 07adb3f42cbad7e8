"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from devconv import _array, _check
from devconv._array import Array
from devconv._check import InvalidValue, located
from devconv.functional.special import blend, blend_twice
from devconv.layers import Layer
from devconv.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Step against the gradient, ``x ← x - lr · g``, with momentum if asked for.

    ``g = grad + weight_decay · x``; ``b ← momentum · b + (1 - dampening) · g`` (the first
    step: ``b = g``); the step is ``b``, or ``g + momentum · b`` with ``nesterov``.

    Args:
        model: the layer whose parameters change.
        lr: the step size.
        momentum: from 0 up to, usually, 0.99.
        dampening: holds back the gradient in the momentum.
        weight_decay: how strongly parameters are drawn to 0.
        nesterov: look ahead along the momentum.

    Raises:
        ValueError: a negative option, or ``nesterov`` without momentum or with dampening.

    As ``torch.optim.SGD``; its Nesterov form follows I. Sutskever et al., "On the importance
    of initialization and momentum in deep learning", ICML 2013.

    >>> import numpy as np
    >>> import devconv as dc
    >>> model = dc.Dense(1, 1, bias=False, weight_init="ones").build()
    >>> dc.optim.SGD(model, lr=0.5).step({"weight": np.ones((1, 1), dtype="float32")})
    >>> model.parameters["weight"]
    array([[0.5]], dtype=float32)
    """

    moments = ("momentum",)

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(model, lr, weight_decay=weight_decay)
        with located("SGD"):
            self.momentum = _check.number("momentum", momentum, least=0.0)
            self.dampening = _check.number("dampening", dampening)
            self.nesterov = _check.flag("nesterov", nesterov)
            if self.nesterov and (self.momentum == 0 or self.dampening != 0):
                raise InvalidValue(
                    "nesterov needs momentum above 0 and no dampening, got "
                    f"momentum={momentum!r}, dampening={dampening!r}"
                )

    def rule(
        self, x: Array, grad: Array, moments: dict[str, Array | None], step: Any
    ) -> tuple[Array, dict[str, Array]]:
        """One parameter's step."""
        if self.weight_decay:
            grad = blend(1.0, grad, self.weight_decay, x)
        if not self.momentum:
            return blend(1.0, x, -self.lr, grad), {}
        before = moments["momentum"]
        if before is None:
            # whoever computed the gradient may use its memory again
            b = grad if self.weight_decay else _array.copied(grad)
        elif not self.nesterov and not self.dampening:
            b, new = blend_twice(self.momentum, before, 1.0, grad, -self.lr, x)
            return new, {"momentum": b}
        else:
            b = blend(self.momentum, before, 1.0 - self.dampening, grad)
            if self.dampening and _array.is_array(step):  # zeros may stand for no moment yet
                b = _array.array_namespace(x).where(step == 1, grad, b)
        ahead = blend(1.0, grad, self.momentum, b) if self.nesterov else b
        return blend(1.0, x, -self.lr, ahead), {"momentum": b}
