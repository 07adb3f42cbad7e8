"""Windows as columns, and columns back to an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from devconv import functional
from devconv.functional.fold import (
    Padding,
    Size,
    folded_windows,
    output_windows,
    unfold_windows,
)
from devconv.layers.operation import OperationLayer, rank_of
from devconv.layers.scope import Trace
from devconv.layers.shapes import InputShape, check_image, roomy, sized


@dataclass(repr=False, eq=False)
class Unfold(OperationLayer):
    """Lay out each window as a column; see :func:`devconv.functional.unfold`.

    Args:
        kernel_size: the window in pixels, an int or one per spatial dimension.
        dilation: pixels between the taps of a window.
        padding: zeros around the image: int, ints or ``(before, after)`` pairs.
        stride: pixels between windows.

    >>> Unfold(3, padding=1).output_shape((16, 8, 8))
    (144, 64)
    """

    operation = functional.unfold

    kernel_size: Size
    dilation: Size = 1
    padding: Padding = 0
    stride: Size = 1

    def _check_options(self) -> None:
        options = self.options()
        unfold_windows(roomy(rank_of(*options.values()))[2:], **options)

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.unfold`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C, *spatial)`` becomes ``(N, C·∏kernel, L)``."""
        check_image(shape, None)
        _, channels, *size = sized(shape)
        w = unfold_windows(tuple(size), **self.options())
        return (shape[0], channels * w.taps, math.prod(w.out))


@dataclass(repr=False, eq=False)
class Fold(OperationLayer):
    """Add up columns where :class:`Unfold` reads them; see :func:`devconv.functional.fold`.

    Args:
        output_size: pixels of the image per spatial dimension; its length is their number.
        kernel_size: the window in pixels, an int or one per spatial dimension.
        dilation: pixels between the taps of a window.
        padding: zeros that were around the image: int, ints or ``(before, after)`` pairs.
        stride: pixels between windows.

    >>> Fold((8, 8), 3, padding=1).output_shape((144, 64))
    (16, 8, 8)
    """

    operation = functional.fold

    output_size: Sequence[int]
    kernel_size: Size
    dilation: Size = 1
    padding: Padding = 0
    stride: Size = 1

    def _check_options(self) -> None:
        output_windows(**self.options())

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.fold`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C·∏kernel, L)`` becomes ``(N, C, *output_size)``."""
        w = folded_windows(sized(shape), **self.options())
        return (shape[0], sized(shape)[1] // w.taps, *w.size)
