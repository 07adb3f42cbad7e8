"""Convolution, pooling and dense layers written once, for the arrays you bring.

The array decides, per call: the same lines run on NumPy, CuPy, PyTorch, JAX and
array-api-strict. :mod:`devconv.functional` has the operations, the names here the layers and
what trains them.
"""

from devconv import (
    checkpoint,
    data,
    functional,
    initializers,
    models,
    optim,
    random,
    testing,
    training,
)
from devconv._array import to_numpy
from devconv._check import DevconvError, InvalidType, InvalidValue
from devconv.checkpoint import load, save
from devconv.device import Device, device, device_of, to_device
from devconv.functional.conv import Explanation, explain_conv
from devconv.layers import *  # noqa: F403
from devconv.layers import __all__ as _layers
from devconv.precision import Precision, precision
from devconv.training import History, Trainer

__version__ = "0.1.0"

__all__ = [
    "DevconvError",
    "Device",
    "Explanation",
    "History",
    "InvalidType",
    "InvalidValue",
    "Precision",
    "Trainer",
    "__version__",
    "checkpoint",
    "data",
    "device",
    "device_of",
    "explain_conv",
    "functional",
    "initializers",
    "load",
    "models",
    "optim",
    "precision",
    "random",
    "save",
    "testing",
    "to_device",
    "to_numpy",
    "training",
]
__all__ += _layers
