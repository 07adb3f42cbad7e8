"""Layers that only move numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from devconv import _check, functional
from devconv._array import Array
from devconv._check import InvalidValue, show
from devconv.functional.shape import shuffle_factors, unshuffle_factors
from devconv.layers.layer import Layer
from devconv.layers.operation import OperationLayer, rank_of
from devconv.layers.scope import Pullback, Scope, Trace
from devconv.layers.shapes import InputShape, check_image, sized


class Identity(Layer):
    """Leave everything as it is.

    >>> Identity().output_shape((16, 7, 7))
    (16, 7, 7)
    """

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input."""
        return shape

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """``x``, and ``dy`` back."""
        return x, lambda dy: (dy, {})


@dataclass(repr=False, eq=False)
class Flatten(OperationLayer):
    """Join all dimensions from ``start`` on; see :func:`devconv.functional.flatten`.

    Args:
        start: the first dimension to join, the batch being dimension 0; at least 1.

    >>> Flatten().output_shape((16, 7, 7))
    (784,)
    """

    operation = functional.flatten

    start: int = 1

    def _check_options(self) -> None:
        self.start = _check.integer("start", self.start, least=1)

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.flatten`."""
        return {"start": self.start}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, a, b, ...)`` becomes ``(N, a·b·...)``."""
        if self.start > len(shape):
            raise InvalidValue(f"start={self.start} is out of range for x {show(shape)}")
        return (*shape[: self.start], math.prod([n or 0 for n in shape[self.start :]]))


@dataclass(repr=False, eq=False)
class _Shuffle(OperationLayer):
    factor: int | Sequence[int]

    def _check_options(self) -> None:
        _check.per_dimension("factor", self.factor, rank_of(self.factor), least=1)

    def options(self) -> dict[str, Any]:
        """The operation's options."""
        return {"factor": self.factor}


class PixelShuffle(_Shuffle):
    """Make groups of channels patches of pixels; see :func:`devconv.functional.pixel_shuffle`.

    Args:
        factor: the patch in pixels, an int or one per spatial dimension.

    >>> PixelShuffle(2).output_shape((16, 8, 8))
    (4, 16, 16)
    """

    operation = functional.pixel_shuffle

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C·∏factor, *spatial)`` becomes ``(N, C, *(spatial·factor))``."""
        check_image(shape, None)
        factors = shuffle_factors(sized(shape), self.factor)
        _, channels, *size = sized(shape)
        larger = (n * r for n, r in zip(size, factors, strict=True))
        return (shape[0], channels // math.prod(factors), *larger)


class PixelUnshuffle(_Shuffle):
    """Make patches of pixels groups of channels; see :func:`devconv.functional.pixel_unshuffle`.

    Args:
        factor: the patch in pixels, an int or one per spatial dimension.

    >>> PixelUnshuffle(2).output_shape((4, 16, 16))
    (16, 8, 8)
    """

    operation = functional.pixel_unshuffle

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C, *spatial)`` becomes ``(N, C·∏factor, *(spatial/factor))``."""
        check_image(shape, None)
        factors = unshuffle_factors(sized(shape), self.factor)
        _, channels, *size = sized(shape)
        smaller = (n // r for n, r in zip(size, factors, strict=True))
        return (shape[0], channels * math.prod(factors), *smaller)
