"""Operations, each written once: ``op(...)`` evaluates, ``op.vjp(...)`` also goes back.

Arrays are positional, options are keywords; shapes are channels-first as in PyTorch. Every
operation runs on the arrays it is handed, whichever library and device they belong to.
"""

from devconv.functional.activation import (
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from devconv.functional.conv import conv
from devconv.functional.dense import dense
from devconv.functional.loss import cross_entropy, mse_loss
from devconv.functional.operation import Operation, differentiable
from devconv.functional.pad import pad
from devconv.functional.pool import avg_pool, global_avg_pool, global_max_pool, max_pool
from devconv.functional.shape import flatten

__all__ = [
    "Operation",
    "avg_pool",
    "conv",
    "cross_entropy",
    "dense",
    "differentiable",
    "flatten",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "leaky_relu",
    "log_softmax",
    "max_pool",
    "mse_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
