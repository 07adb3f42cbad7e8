"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from devconv import functional
from devconv._check import located
from devconv.functional.pool import Padding, Size, pool_windows
from devconv.layers.layer import InputShape, Trace, check_image
from devconv.layers.operation import OperationLayer


@dataclass(repr=False, eq=False)
class _Pool(OperationLayer):
    rank: ClassVar[int]

    kernel_size: Size
    stride: Size | None = None
    padding: Padding = 0

    def __post_init__(self) -> None:
        with located(type(self).__name__):
            self._out((1, 1, *(2**40,) * self.rank))  # no window is too large for it

    def options(self) -> dict[str, Any]:
        """The layer's fields are the operation's options."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        options = self.options()
        return pool_windows(
            shape,
            self.kernel_size,
            self.stride,
            self.padding,
            options.get("dilation", 1),
            options["ceil_mode"],
        ).out

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C, *spatial)`` becomes ``(N, C, *out)``."""
        check_image(shape, self.rank)
        return (*shape[:2], *self._out((1, 1, *(n or 0 for n in shape[2:]))))


@dataclass(repr=False, eq=False)
class _MaxPool(_Pool):
    operation = functional.max_pool

    dilation: int | Sequence[int] = 1
    ceil_mode: bool = False


@dataclass(repr=False, eq=False)
class _AvgPool(_Pool):
    operation = functional.avg_pool

    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None


class MaxPool1d(_MaxPool):
    """The largest pixel of each window in one dimension; see :class:`MaxPool2d`."""

    rank = 1


class MaxPool2d(_MaxPool):
    """The largest pixel of each window; see :func:`devconv.functional.max_pool`.

    Args:
        kernel_size: the window in pixels, an int or one per dimension.
        stride: pixels between windows; ``None`` means ``kernel_size``.
        padding: pixels around the image that no window chooses.
        dilation: pixels between the taps of a window.
        ceil_mode: round the number of windows up.

    >>> MaxPool2d(3, stride=2, padding=1).output_shape((16, 32, 32))
    (16, 16, 16)
    """

    rank = 2


class MaxPool3d(_MaxPool):
    """The largest pixel of each window in three dimensions; see :class:`MaxPool2d`."""

    rank = 3


class AvgPool1d(_AvgPool):
    """The mean of each window in one dimension; see :class:`AvgPool2d`."""

    rank = 1


class AvgPool2d(_AvgPool):
    """The mean of each window; see :func:`devconv.functional.avg_pool`.

    Args:
        kernel_size: the window in pixels, an int or one per dimension.
        stride: pixels between windows; ``None`` means ``kernel_size``.
        padding: zeros around the image.
        ceil_mode: round the number of windows up.
        count_include_pad: whether padding counts in the divisor.
        divisor_override: divide by this instead.

    >>> AvgPool2d(2).output_shape((16, 32, 32))
    (16, 16, 16)
    """

    rank = 2


class AvgPool3d(_AvgPool):
    """The mean of each window in three dimensions; see :class:`AvgPool2d`."""

    rank = 3


class _GlobalPool(OperationLayer):
    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C, *spatial)`` becomes ``(N, C)``."""
        check_image(shape, None)
        return shape[:2]


class GlobalAvgPool(_GlobalPool):
    """The mean of each channel, ``(N, C)``; see :func:`devconv.functional.global_avg_pool`.

    >>> GlobalAvgPool().output_shape((16, 7, 7))
    (16,)
    """

    operation = functional.global_avg_pool


class GlobalMaxPool(_GlobalPool):
    """The largest of each channel, ``(N, C)``; see :func:`devconv.functional.global_max_pool`.

    >>> GlobalMaxPool().output_shape((16, 7, 7))
    (16,)
    """

    operation = functional.global_max_pool
