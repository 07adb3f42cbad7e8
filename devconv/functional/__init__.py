"""Operations, each written once: ``op(...)`` evaluates, ``op.vjp(...)`` also goes back.

Arrays are positional, options are keywords; shapes are channels-first as in PyTorch. Every
operation runs on the arrays it is handed, whichever library and device they belong to.
"""

from devconv.functional.activation import (
    celu,
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    tanh,
)
from devconv.functional.adaptive_pool import adaptive_avg_pool, adaptive_max_pool
from devconv.functional.conv import conv
from devconv.functional.conv_transpose import conv_transpose
from devconv.functional.dense import dense
from devconv.functional.dropout import dropout, dropout_channels
from devconv.functional.fold import fold, unfold
from devconv.functional.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
)
from devconv.functional.lp_pool import lp_pool
from devconv.functional.norm import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from devconv.functional.operation import Operation, differentiable
from devconv.functional.pad import pad
from devconv.functional.pool import avg_pool, global_avg_pool, global_max_pool, max_pool
from devconv.functional.resample import upsample
from devconv.functional.response import local_response_norm
from devconv.functional.shape import flatten, pixel_shuffle, pixel_unshuffle
from devconv.functional.unpool import max_unpool

__all__ = [
    "Operation",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv",
    "conv_transpose",
    "cross_entropy",
    "dense",
    "differentiable",
    "dropout",
    "dropout_channels",
    "elu",
    "flatten",
    "fold",
    "gaussian_nll_loss",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "glu",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "local_response_norm",
    "log_sigmoid",
    "log_softmax",
    "lp_pool",
    "max_pool",
    "max_unpool",
    "mish",
    "mse_loss",
    "nll_loss",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
    "unfold",
    "upsample",
]
