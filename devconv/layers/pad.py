"""Padding layers, by PyTorch's names and with its order of paddings: last dimension first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from devconv import _check, functional
from devconv._check import InvalidValue, Pair
from devconv.functional.pad import padding_pairs
from devconv.layers.operation import OperationLayer
from devconv.layers.scope import Trace
from devconv.layers.shapes import InputShape, check_image, sized


@dataclass(repr=False, eq=False)
class _Pad(OperationLayer):
    operation = functional.pad
    rank: ClassVar[int]
    mode: ClassVar[str] = "constant"

    padding: int | Sequence[int]

    def _check_options(self) -> None:
        self._pairs = self._ordered()

    def _ordered(self) -> tuple[Pair, ...]:
        """A pair for each dimension, first dimension first."""
        ends = 2 * self.rank
        if isinstance(self.padding, Sequence) and len(self.padding) != ends:
            raise InvalidValue(
                f"padding must be an int or {ends} ints, before and after each dimension, the "
                f"last dimension first, got {self.padding!r}"
            )
        flat = _check.per_dimension("padding", self.padding, ends, least=0)
        return tuple((flat[i], flat[i + 1]) for i in range(ends - 2, -1, -2))

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.pad`."""
        return {"padding": self._pairs, "mode": self.mode}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C, *spatial)`` becomes ``(N, C, *padded)``."""
        check_image(shape, self.rank)
        pairs = padding_pairs(sized(shape), self._pairs, self.mode)
        padded = (n + sum(pair) for n, pair in zip(sized(shape)[2:], pairs, strict=True))
        return (*shape[:2], *padded)


@dataclass(repr=False, eq=False)
class _ConstantPad(_Pad):
    value: float

    def _check_options(self) -> None:
        super()._check_options()
        self.value = _check.number("value", self.value)

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.pad`."""
        return {**super().options(), "value": self.value}


class _ReflectionPad(_Pad):
    mode = "reflect"


class _ReplicationPad(_Pad):
    mode = "replicate"


class _CircularPad(_Pad):
    mode = "circular"


class ConstantPad1d(_ConstantPad):
    """Surround signals with a constant; see :class:`ConstantPad2d`."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """Surround images with a constant; see :func:`devconv.functional.pad`.

    Args:
        padding: pixels to add: an int, or before and after each dimension, the last
            dimension first: ``(left, right, top, bottom)``.
        value: the constant.

    >>> ConstantPad2d((1, 2, 0, 0), 0.5).output_shape((16, 8, 8))
    (16, 8, 11)
    """

    rank = 2


class ConstantPad3d(_ConstantPad):
    """Surround volumes with a constant; see :class:`ConstantPad2d`."""

    rank = 3


class ZeroPad1d(_Pad):
    """Surround signals with zeros; see :class:`ZeroPad2d`."""

    rank = 1


class ZeroPad2d(_Pad):
    """Surround images with zeros; see :func:`devconv.functional.pad`.

    Args:
        padding: pixels to add: an int, or before and after each dimension, the last
            dimension first: ``(left, right, top, bottom)``.

    >>> ZeroPad2d(1).output_shape((16, 8, 8))
    (16, 10, 10)
    """

    rank = 2


class ZeroPad3d(_Pad):
    """Surround volumes with zeros; see :class:`ZeroPad2d`."""

    rank = 3


class ReflectionPad1d(_ReflectionPad):
    """Reflect signals at their ends; see :class:`ReflectionPad2d`."""

    rank = 1


class ReflectionPad2d(_ReflectionPad):
    """Reflect images at their edges, without repeating them; see :func:`devconv.functional.pad`.

    Args:
        padding: pixels to add, less than the size: an int, or before and after each dimension,
            the last dimension first: ``(left, right, top, bottom)``.

    >>> ReflectionPad2d(1).output_shape((16, 8, 8))
    (16, 10, 10)
    """

    rank = 2


class ReflectionPad3d(_ReflectionPad):
    """Reflect volumes at their faces; see :class:`ReflectionPad2d`."""

    rank = 3


class ReplicationPad1d(_ReplicationPad):
    """Repeat the ends of signals; see :class:`ReplicationPad2d`."""

    rank = 1


class ReplicationPad2d(_ReplicationPad):
    """Repeat the edges of images; see :func:`devconv.functional.pad`.

    Args:
        padding: pixels to add: an int, or before and after each dimension, the last
            dimension first: ``(left, right, top, bottom)``.

    >>> ReplicationPad2d(1).output_shape((16, 8, 8))
    (16, 10, 10)
    """

    rank = 2


class ReplicationPad3d(_ReplicationPad):
    """Repeat the faces of volumes; see :class:`ReplicationPad2d`."""

    rank = 3


class CircularPad1d(_CircularPad):
    """Continue signals with their other end; see :class:`CircularPad2d`."""

    rank = 1


class CircularPad2d(_CircularPad):
    """Continue images with their other end; see :func:`devconv.functional.pad`.

    Args:
        padding: pixels to add, at most the size: an int, or before and after each dimension,
            the last dimension first: ``(left, right, top, bottom)``.

    >>> CircularPad2d(1).output_shape((16, 8, 8))
    (16, 10, 10)
    """

    rank = 2


class CircularPad3d(_CircularPad):
    """Continue volumes with their other end; see :class:`CircularPad2d`."""

    rank = 3
