"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from devconv import _array, _check
from devconv._array import Array
from devconv._check import InvalidValue, located
from devconv.functional.special import scaled_step
from devconv.layers import Layer
from devconv.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Scale each entry's step by the size of its recent gradients.

    With ``g = grad + weight_decay · x``: ``m ← β₁ m + (1 - β₁) g``, ``v ← β₂ v + (1 - β₂) g²``,
    ``x ← x - lr · m̂ / (sqrt(v̂) + eps)``, where ``m̂ = m / (1 - β₁ᵗ)`` and ``v̂ = v / (1 - β₂ᵗ)``
    in step ``t``.

    Args:
        model: the layer whose parameters change.
        lr: the step size.
        betas: how long gradients and their squares are remembered, each from 0 below 1.
        eps: keeps the quotient finite.
        weight_decay: added to the gradient.

    Raises:
        ValueError: an option out of range.

    Source: D. Kingma and J. Ba, "Adam: a method for stochastic optimization",
    arXiv:1412.6980; as ``torch.optim.Adam``.

    >>> import numpy as np
    >>> import devconv as dc
    >>> model = dc.Dense(1, 1, bias=False, weight_init="ones").build()
    >>> dc.optim.Adam(model, lr=0.5).step({"weight": np.ones((1, 1), dtype="float32")})
    >>> model.parameters["weight"].round(4)
    array([[0.5]], dtype=float32)
    """

    moments = ("first", "second")
    decoupled = False

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(model, lr, weight_decay=weight_decay)
        with located(type(self).__name__):
            if not isinstance(betas, Sequence) or len(betas) != 2:
                raise InvalidValue(f"betas must be two numbers, got {betas!r}")
            self.betas = (
                _check.number("betas[0]", betas[0], least=0.0),
                _check.number("betas[1]", betas[1], least=0.0),
            )
            if max(self.betas) >= 1:
                raise InvalidValue(f"betas must be below 1, got {betas!r}")
            self.eps = _check.number("eps", eps, least=0.0)

    def counted(self, step: Any) -> tuple[Any, Any]:
        """In step ``t``, ``lr · root / (1 - β₁ᵗ)`` and ``eps · root``: ``root = sqrt(1 - β₂ᵗ)``."""
        if _array.is_array(step):
            xp = _array.array_namespace(step)  # float32 would lose most digits of the difference
            first, second = (-xp.expm1(step * math.log(b)) if b else 1.0 for b in self.betas)
        else:
            first, second = (1.0 - b**step for b in self.betas)
        root = second**0.5
        return self.lr * root / first, self.eps * root

    def rule(
        self, x: Array, grad: Array, moments: dict[str, Array | None], step: Any
    ) -> tuple[Array, dict[str, Array]]:
        """One parameter's step; ``step`` is what :meth:`counted` gives."""
        rate, eps = step
        x, first, second = scaled_step(
            x,
            grad,
            moments["first"],
            moments["second"],
            betas=self.betas,
            rate=rate,
            eps=eps,
            shrink=1.0 - self.lr * self.weight_decay if self.decoupled else 1.0,
            decay=0.0 if self.decoupled else self.weight_decay,
        )
        return x, {"first": first, "second": second}


class AdamW(Adam):
    """Adam whose weight decay shrinks parameters directly: ``x ← (1 - lr · decay) x`` first.

    Args:
        model: the layer whose parameters change.
        lr: the step size.
        betas: how long gradients and their squares are remembered.
        eps: keeps the quotient finite.
        weight_decay: how strongly parameters are drawn to 0, 0.01 by default.

    Raises:
        ValueError: an option out of range.

    Source: I. Loshchilov and F. Hutter, "Decoupled weight decay regularization",
    arXiv:1711.05101; as ``torch.optim.AdamW``.

    >>> import devconv as dc
    >>> dc.optim.AdamW(dc.Dense(1, 1).build()).weight_decay
    0.01
    """

    decoupled = True

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(model, lr, betas=betas, eps=eps, weight_decay=weight_decay)
