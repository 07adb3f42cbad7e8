"""Dropout layers: silence numbers, or whole channels, while training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from devconv import functional, random
from devconv._array import Array
from devconv.functional.operation import Pullback as OperationPullback
from devconv.layers.operation import OperationLayer
from devconv.layers.scope import Scope, Trace
from devconv.layers.shapes import InputShape, check_image


@dataclass(repr=False, eq=False)
class _Dropout(OperationLayer):
    p: float = 0.5

    def _check_options(self) -> None:
        self.p = random.probability("p", self.p)

    def evaluate(self, scope: Scope, x: Array, *arrays: Array) -> tuple[Array, OperationPullback]:
        """Drop with a key of the layer's own, in training alone."""
        key = scope.key if scope.training and self.p else None
        return self.operation.vjp(x, p=self.p, key=key, training=scope.training)


class Dropout(_Dropout):
    """Set each number to 0 with probability ``p``; see :func:`devconv.functional.dropout`.

    ``layer.vjp(x, training=True, key=...)`` drops and scales up what is left; inference,
    ``layer(x)`` or ``training=False``, leaves ``x`` as it is. The layer folds its path, and
    how often it was used before in the pass, into the key of the pass: layers of one model
    drop independently, and the same key drops the same numbers in every library.

    Args:
        p: the probability of a drop, from 0 to 1.

    >>> Dropout(0.1).output_shape((16, 8, 8))
    (16, 8, 8)
    """

    operation = functional.dropout


class _ChannelDropout(_Dropout):
    operation = functional.dropout_channels
    rank: ClassVar[int]

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input, images."""
        check_image(shape, self.rank)
        return shape


class Dropout1d(_ChannelDropout):
    """Drop whole channels of images ``(N, C, W)``; see :class:`Dropout2d`."""

    rank = 1


class Dropout2d(_ChannelDropout):
    """Drop whole channels; see :func:`devconv.functional.dropout_channels`, and :class:`Dropout`.

    Args:
        p: the probability of a drop, from 0 to 1.

    >>> Dropout2d().output_shape((16, 8, 8))
    (16, 8, 8)
    """

    rank = 2


class Dropout3d(_ChannelDropout):
    """Drop whole channels of images ``(N, C, D, H, W)``; see :class:`Dropout2d`."""

    rank = 3
