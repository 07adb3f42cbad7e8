"""Losses: how wrong a prediction is, as one number, and which way is better.

A loss is a 0-d array of its own library and device (float32 for half-precision
predictions); its pullback takes one. ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``.
"""

from devconv.functional.loss.binary import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    hinge_embedding_loss,
    soft_margin_loss,
)
from devconv.functional.loss.classification import check_labels, cross_entropy, nll_loss
from devconv.functional.loss.distance import (
    huber_loss,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from devconv.functional.loss.likelihood import gaussian_nll_loss, kl_div, poisson_nll_loss

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "check_labels",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
]
