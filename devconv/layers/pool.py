"""Pooling layers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from devconv import functional
from devconv._check import Shape
from devconv.functional.adaptive_pool import Sizes, adaptive_size
from devconv.functional.lp_pool import exponent
from devconv.functional.pool import Padding, Size, check_divisor, pool_windows
from devconv.layers.operation import OperationLayer
from devconv.layers.scope import Trace
from devconv.layers.shapes import InputShape, check_image, roomy, sized


@dataclass(repr=False, eq=False)
class _Pool(OperationLayer):
    rank: ClassVar[int]

    def _check_options(self) -> None:
        self._out(roomy(self.rank))

    def options(self) -> dict[str, Any]:
        """The layer's fields are the operation's options."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _out(self, shape: Shape) -> Shape:
        """The windows in each dimension."""
        raise NotImplementedError

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C, *spatial)`` becomes ``(N, C, *out)``."""
        check_image(shape, self.rank)
        return (*shape[:2], *self._out(sized(shape)))


@dataclass(repr=False, eq=False)
class _MaxPool(_Pool):
    operation = functional.max_pool

    kernel_size: Size
    stride: Size | None = None
    padding: Padding = 0
    dilation: Size = 1
    ceil_mode: bool = False

    def _out(self, shape: Shape) -> Shape:
        return pool_windows(shape, **self.options()).out


@dataclass(repr=False, eq=False)
class _AvgPool(_Pool):
    operation = functional.avg_pool

    kernel_size: Size
    stride: Size | None = None
    padding: Padding = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    def _out(self, shape: Shape) -> Shape:
        check_divisor(self.count_include_pad, self.divisor_override)
        w = pool_windows(
            shape, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode
        )
        return w.out


@dataclass(repr=False, eq=False)
class _LPPool(_Pool):
    operation = functional.lp_pool

    norm_type: float
    kernel_size: Size
    stride: Size | None = None
    ceil_mode: bool = False

    def _out(self, shape: Shape) -> Shape:
        exponent(self.norm_type)
        w = pool_windows(shape, self.kernel_size, self.stride, 0, ceil_mode=self.ceil_mode)
        return w.out


@dataclass(repr=False, eq=False)
class _AdaptivePool(_Pool):
    output_size: Sizes

    def _out(self, shape: Shape) -> Shape:
        return adaptive_size(shape, self.output_size)


class _AdaptiveAvgPool(_AdaptivePool):
    operation = functional.adaptive_avg_pool


class _AdaptiveMaxPool(_AdaptivePool):
    operation = functional.adaptive_max_pool


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


class LPPool1d(_LPPool):
    """The Lp norm of each window in one dimension; see :class:`LPPool2d`."""

    rank = 1


class LPPool2d(_LPPool):
    """The Lp norm of each window; see :func:`devconv.functional.lp_pool`.

    Args:
        norm_type: the exponent, at least 1 and finite.
        kernel_size: the window in pixels, an int or one per dimension.
        stride: pixels between windows; ``None`` means ``kernel_size``.
        ceil_mode: round the number of windows up.

    >>> LPPool2d(2, 3, stride=2).output_shape((16, 33, 33))
    (16, 16, 16)
    """

    rank = 2


class LPPool3d(_LPPool):
    """The Lp norm of each window in three dimensions; see :class:`LPPool2d`."""

    rank = 3


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The mean of windows that cover one dimension evenly; see :class:`AdaptiveAvgPool2d`."""

    rank = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The mean of windows that cover the image evenly, whatever its size.

    See :func:`devconv.functional.adaptive_avg_pool`.

    Args:
        output_size: windows, an int or one per dimension; ``None`` keeps a dimension as it is.

    >>> AdaptiveAvgPool2d((7, None)).output_shape((16, 30, 20))
    (16, 7, 20)
    """

    rank = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The mean of windows that cover three dimensions; see :class:`AdaptiveAvgPool2d`."""

    rank = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest pixel of windows that cover one dimension; see :class:`AdaptiveMaxPool2d`."""

    rank = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest pixel of windows that cover the image evenly, whatever its size.

    See :func:`devconv.functional.adaptive_max_pool`.

    Args:
        output_size: windows, an int or one per dimension; ``None`` keeps a dimension as it is.

    >>> AdaptiveMaxPool2d(7).output_shape((16, 30, 20))
    (16, 7, 7)
    """

    rank = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest pixel of windows that cover three dimensions; see :class:`AdaptiveMaxPool2d`."""

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
