"""Training: a loop that never waits for the device, and the record it leaves."""

from devconv.training.history import History
from devconv.training.loss_scale import LossScale, chosen
from devconv.training.metrics import accuracy
from devconv.training.trainer import Trainer

__all__ = ["History", "LossScale", "Trainer", "accuracy", "chosen"]
