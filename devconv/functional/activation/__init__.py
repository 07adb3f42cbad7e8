"""Activations: one function of each number, or a distribution along one axis.

Each returns its derivative times ``dy``. At a kink the derivative is PyTorch's choice, the
one stated in the docstring. Half precision is computed in float32.
"""

from devconv.functional.activation.gates import gelu, glu, hard_swish, mish, silu
from devconv.functional.activation.rectifiers import (
    celu,
    elu,
    leaky_relu,
    prelu,
    relu,
    relu6,
    selu,
)
from devconv.functional.activation.sigmoids import (
    hard_sigmoid,
    hard_tanh,
    log_sigmoid,
    sigmoid,
    softplus,
    softsign,
    tanh,
)
from devconv.functional.activation.softmaxes import log_softmax, softmax

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
]
