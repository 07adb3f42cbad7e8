"""Layers: descriptions that hold arrays, around pure functions of them."""

from devconv.layers.activation import (
    GELU,
    Activation,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from devconv.layers.containers import Sequential
from devconv.layers.conv import Conv1d, Conv2d, Conv3d
from devconv.layers.dense import Dense
from devconv.layers.layer import Buffer, Layer, Parameter, Scope, Trace, summed
from devconv.layers.operation import OperationLayer
from devconv.layers.pool import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from devconv.layers.pure import Pure, pure, value_and_grad
from devconv.layers.shape import Flatten

__all__ = [
    "GELU",
    "Activation",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Dense",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "Layer",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "OperationLayer",
    "Parameter",
    "Pure",
    "ReLU",
    "Scope",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Trace",
    "pure",
    "summed",
    "value_and_grad",
]
