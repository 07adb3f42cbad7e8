"""Normalisation layers: the operations with their weights, and batch norm's memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from devconv import _array, _check, functional
from devconv._array import Array
from devconv._check import InvalidValue, Shape, show
from devconv.functional.norm import (
    batch_norm_and_statistics,
    check_channels,
    check_groups,
    check_pixels,
    last_axes,
    normalized_sizes,
)
from devconv.functional.operation import Pullback as OperationPullback
from devconv.functional.response import neighbourhood
from devconv.functional.special import blend
from devconv.initializers import ones, zeros
from devconv.layers.declared import Buffer, Parameter
from devconv.layers.operation import OperationLayer
from devconv.layers.scope import Scope, Trace
from devconv.layers.shapes import InputShape, channels_last, check_image, settled, sized

Declared = Mapping[str, Parameter | Buffer]


def _weights(shape: Shape, *, weight: bool, bias: bool) -> dict[str, Parameter | Buffer]:
    """A weight that begins as 1 and a bias that begins as 0, where they are wanted."""
    declared: dict[str, Parameter | Buffer] = {}
    if weight:
        declared["weight"] = Parameter(shape, ones)
    if weight and bias:
        declared["bias"] = Parameter(shape, zeros)
    return declared


class _ChannelNorm(OperationLayer):
    """What the norms with one weight for each channel share."""

    arrays = ("weight", "bias")
    count: ClassVar[str] = "num_features"
    """The name of the attribute that counts the channels."""

    eps: float
    affine: bool
    bias: bool

    def _check_options(self) -> None:
        if self._channels is not None:
            setattr(self, self.count, _check.integer(self.count, self._channels, least=1))
        _check.number("eps", self.eps, least=0.0)

    @property
    def _channels(self) -> int | None:
        return getattr(self, self.count)

    def options(self) -> dict[str, Any]:
        """The operation's options."""
        return {"eps": self.eps}

    def declare(self, shape: InputShape | None) -> Declared:
        """``weight`` and ``bias``, if the layer is affine."""
        if not self.affine:
            return {}
        channels = settled(self.count, self._channels, shape, 1)
        return _weights((channels,), weight=True, bias=self.bias)

    def sizes(self, declared: Declared) -> Mapping[str, int]:
        """The number of channels, read off any array."""
        each = next(iter(declared.values()), None)
        return {} if each is None else {self.count: each.shape[0]}

    def input_from(self, shapes: Mapping[str, Shape]) -> InputShape | None:
        """The channels of the input are those of any array."""
        return next(((None, *shape) for shape in shapes.values() if len(shape) == 1), None)

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input."""
        check_channels(sized(shape))
        if self._channels not in (None, shape[1]):
            raise InvalidValue(
                f"expected {self.count}={self._channels} channels, got x {show(shape)}"
                f"{channels_last(shape, self._channels)}"
            )
        return shape


@dataclass(repr=False, eq=False)
class _BatchNorm(_ChannelNorm):
    operation = functional.batch_norm
    rank: ClassVar[int]

    num_features: int | None
    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = True
    track_running_stats: bool = True
    _: KW_ONLY
    bias: bool = True

    def _check_options(self) -> None:
        super()._check_options()
        if self.momentum is None:
            raise InvalidValue(
                "momentum=None, a cumulative average, would need a count of the batches; give "
                "the share of a new batch in the running statistics, such as 0.1"
            )
        _check.number("momentum", self.momentum, least=0.0)

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input."""
        self._check_rank(shape)
        return super().infer(trace, shape)

    def _check_rank(self, shape: InputShape) -> None:
        check_image(shape, self.rank)

    def declare(self, shape: InputShape | None) -> Declared:
        """``weight`` and ``bias``, if the layer is affine, and the running statistics."""
        declared = dict(super().declare(shape))
        if self.track_running_stats:
            channels = settled(self.count, self._channels, shape, 1)
            declared["running_mean"] = Buffer((channels,), zeros, wide=True)
            declared["running_var"] = Buffer((channels,), ones, wide=True)
        return declared

    def evaluate(self, scope: Scope, x: Array, *arrays: Array) -> tuple[Array, OperationPullback]:
        """The norm by the batch's statistics in training, else by the running ones."""
        if self.track_running_stats and not scope.training:
            running = {name: scope[name] for name in ("running_mean", "running_var")}
            return functional.batch_norm.vjp(x, *arrays, **running, **self.options())
        (y, mean, var), pullback = batch_norm_and_statistics.vjp(x, *arrays, **self.options())
        if self.track_running_stats:
            count = math.prod(x.shape) // x.shape[1]
            scope.renew(
                running_mean=self._moved(scope["running_mean"], mean),
                running_var=self._moved(scope["running_var"], var * (count / (count - 1))),
            )
        return y, pullback

    def _moved(self, running: Array, now: Array) -> Array:
        """A running statistic, a share of the way to that of a batch."""
        share = float(self.momentum)
        average = blend(1.0 - share, _array.widen(running), share, now)
        return _array.cast(average, running.dtype)


class BatchNorm1d(_BatchNorm):
    """Batch norm of features ``(N, C)`` or images ``(N, C, W)``; see :class:`BatchNorm2d`."""

    rank = 1

    def _check_rank(self, shape: InputShape) -> None:
        if len(shape) not in (2, 3):
            raise InvalidValue(
                f"expected x with 2 or 3 dimensions, (N, C) or (N, C, W), got x {show(shape)}"
            )


class BatchNorm2d(_BatchNorm):
    """Normalise each channel by the batch's statistics; see :func:`devconv.functional.batch_norm`.

    ``layer.vjp(x, training=True)`` uses the statistics of ``x`` and moves the running ones by
    ``momentum`` towards them, the variance unbiased; inference, ``layer(x)`` or
    ``training=False``, uses the running ones.

    Args:
        num_features: channels of ``x (N, C, H, W)``; ``None`` to work it out.
        eps: added to the variance.
        momentum: the share of a new batch in the running statistics.
        affine: whether there are ``weight`` and ``bias``.
        track_running_stats: whether there are running statistics; without them inference
            uses those of its own batch.
        bias: whether an affine layer has a ``bias``.

    Arrays: ``weight``, ``bias`` and the buffers ``running_mean``, ``running_var``, each
    ``(num_features,)``, as in ``torch.nn.BatchNorm2d``; the buffers stay float32 in a model
    of half precision, and ``num_batches_tracked`` is not kept.

    >>> layer = BatchNorm2d(16).build()
    >>> layer.output_shape((16, 8, 8)), list(layer.buffers)
    ((16, 8, 8), ['running_mean', 'running_var'])
    """

    rank = 2


class BatchNorm3d(_BatchNorm):
    """Batch norm over three spatial dimensions; see :class:`BatchNorm2d`."""

    rank = 3


@dataclass(repr=False, eq=False)
class _InstanceNorm(_ChannelNorm):
    operation = functional.instance_norm
    rank: ClassVar[int]

    num_features: int | None
    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = False
    track_running_stats: bool = False
    _: KW_ONLY
    bias: bool = True

    def _check_options(self) -> None:
        super()._check_options()
        if self.track_running_stats:
            raise InvalidValue(
                "track_running_stats=True is not offered: each image is normalised by itself, in "
                "training and inference; BatchNorm keeps running statistics"
            )

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input."""
        check_image(shape, self.rank)
        check_pixels(sized(shape))
        return super().infer(trace, shape)


class InstanceNorm1d(_InstanceNorm):
    """Instance norm over one spatial dimension; see :class:`InstanceNorm2d`."""

    rank = 1


class InstanceNorm2d(_InstanceNorm):
    """Normalise each channel of each image; see :func:`devconv.functional.instance_norm`.

    Args:
        num_features: channels of ``x (N, C, H, W)``; ``None`` to work it out.
        eps: added to the variance.
        momentum: has no effect; it stands here for PyTorch's order of arguments.
        affine: whether there are ``weight`` and ``bias``.
        track_running_stats: running statistics are refused.
        bias: whether an affine layer has a ``bias``.

    Arrays: with ``affine``, ``weight`` and ``bias (num_features,)``, as in
    ``torch.nn.InstanceNorm2d``.

    >>> InstanceNorm2d(16).output_shape((16, 8, 8))
    (16, 8, 8)
    """

    rank = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance norm over three spatial dimensions; see :class:`InstanceNorm2d`."""

    rank = 3


@dataclass(repr=False, eq=False)
class GroupNorm(_ChannelNorm):
    """Normalise each image over groups of channels; see :func:`devconv.functional.group_norm`.

    Args:
        num_groups: parts of neighbouring channels.
        num_channels: channels of ``x (N, C, *spatial)``; ``None`` to work it out.
        eps: added to the variance.
        affine: whether there are ``weight`` and ``bias``.
        bias: whether an affine layer has a ``bias``.

    Arrays: ``weight (num_channels,)``, ``bias (num_channels,)``, as in ``torch.nn.GroupNorm``.

    >>> GroupNorm(4, 16).output_shape((16, 8, 8))
    (16, 8, 8)
    """

    operation = functional.group_norm
    count = "num_channels"

    num_groups: int
    num_channels: int | None
    eps: float = 1e-5
    affine: bool = True
    _: KW_ONLY
    bias: bool = True

    def _check_options(self) -> None:
        super()._check_options()
        self.num_groups = _check.integer("num_groups", self.num_groups, least=1)
        if self.num_channels is not None and self.num_channels % self.num_groups:
            raise InvalidValue(
                f"num_groups={self.num_groups} must divide num_channels={self.num_channels}"
            )

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.group_norm`."""
        return {"num_groups": self.num_groups, "eps": self.eps}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input, whose channels the groups divide."""
        super().infer(trace, shape)
        check_groups(sized(shape), self.num_groups)
        return shape


class _LastNorm(OperationLayer):
    """What the norms over the last dimensions share."""

    arrays = ("weight", "bias")

    normalized_shape: int | Sequence[int]
    eps: float | None
    elementwise_affine: bool
    bias: bool = False

    def _check_options(self) -> None:
        self._sizes = normalized_sizes(self.normalized_shape)
        if self.eps is not None:
            _check.number("eps", self.eps, least=0.0)

    def options(self) -> dict[str, Any]:
        """The operation's options."""
        return {"normalized_shape": self.normalized_shape, "eps": self.eps}

    def declare(self, shape: InputShape | None) -> Declared:
        """``weight`` and ``bias``, if the layer is affine."""
        return _weights(self._sizes, weight=self.elementwise_affine, bias=self.bias)

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input, which ends with ``normalized_shape``."""
        last_axes(sized(shape), self._sizes)
        return shape


@dataclass(repr=False, eq=False)
class LayerNorm(_LastNorm):
    """Normalise each example over its last dimensions; see :func:`devconv.functional.layer_norm`.

    Args:
        normalized_shape: the last dimensions of ``x``; an int for one.
        eps: added to the variance.
        elementwise_affine: whether there are ``weight`` and ``bias``.
        bias: whether an affine layer has a ``bias``.

    Arrays: ``weight`` and ``bias`` of ``normalized_shape``, as in ``torch.nn.LayerNorm``.

    >>> LayerNorm(16).output_shape((10, 16))
    (10, 16)
    """

    operation = functional.layer_norm

    normalized_shape: int | Sequence[int]
    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True


@dataclass(repr=False, eq=False)
class RMSNorm(_LastNorm):
    """Divide each example by its root mean square; see :func:`devconv.functional.rms_norm`.

    Args:
        normalized_shape: the last dimensions of ``x``; an int for one.
        eps: added to the mean square; ``None`` for the distance from 1 to the next number.
        elementwise_affine: whether there is a ``weight``.

    Arrays: ``weight`` of ``normalized_shape``, as in ``torch.nn.RMSNorm``.

    >>> RMSNorm(16).output_shape((10, 16))
    (10, 16)
    """

    operation = functional.rms_norm

    normalized_shape: int | Sequence[int]
    eps: float | None = None
    elementwise_affine: bool = True


@dataclass(repr=False, eq=False)
class LocalResponseNorm(OperationLayer):
    """Divide by what neighbours hold; see :func:`devconv.functional.local_response_norm`.

    Args:
        size: how many channels are neighbours.
        alpha: weight of the neighbours.
        beta: exponent.
        k: above 0.

    >>> LocalResponseNorm(5).output_shape((16, 8, 8))
    (16, 8, 8)
    """

    operation = functional.local_response_norm

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def _check_options(self) -> None:
        neighbourhood(**self.options())

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.local_response_norm`."""
        return {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The output's shape: that of the input, images."""
        check_image(shape, None)
        return shape
