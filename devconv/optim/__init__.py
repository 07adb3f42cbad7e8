"""Optimizers: how parameters change."""

from devconv.optim.adam import Adam, AdamW
from devconv.optim.clip import clip_by_global_norm
from devconv.optim.optimizer import Optimizer
from devconv.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_by_global_norm"]
