"""ConvNeXt: a convolutional network with the habits of a transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devconv import _array, functional, random
from devconv._array import Array
from devconv._check import InvalidValue, located, show
from devconv.functional.operation import Pullback as Back
from devconv.functional.operation import differentiable
from devconv.initializers import Constant, Normal
from devconv.layers import (
    GELU,
    Conv2d,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    LayerNorm,
    Parameter,
    Scope,
    Sequential,
    Trace,
)
from devconv.layers.containers import chain, chain_shape, chain_vjp
from devconv.layers.scope import Grads, Pullback
from devconv.layers.shapes import InputShape

BEGIN = Normal(0.02)


@dataclass(repr=False, eq=False)
class Permute(Layer):
    """Exchange dimensions; moves no number, where a library has views.

    Args:
        axes: the input's dimension for each of the output's, the batch being 0 and first.

    Raises:
        ValueError: axes that are not 0 and then each of the others once.

    >>> Permute((0, 2, 3, 1)).output_shape((96, 56, 56))
    (56, 56, 96)
    """

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.axes[:1] != (0,) or sorted(self.axes) != list(range(len(self.axes))):
            raise InvalidValue(
                f"Permute: axes must be 0 and then the others in any order, got {self.axes}"
            )

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The sizes in their new order."""
        if len(shape) != len(self.axes):
            raise InvalidValue(f"expected x with {len(self.axes)} dimensions, got {show(shape)}")
        return tuple(shape[axis] for axis in self.axes)

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """``x`` with its dimensions in the new order; ``dy`` with them in the old."""
        xp = _array.array_namespace(x)
        old = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return xp.permute_dims(x, self.axes), lambda dy: (xp.permute_dims(dy, old), {})


@dataclass(repr=False, eq=False)
class StochasticDepth(Layer):
    """Drop a whole image's share of a residual branch, and scale up what is left.

    ``y[n] = x[n] / (1 - p)`` with probability ``1 - p``, else 0, while training.

    Args:
        p: the probability of a drop, from 0 to 1.

    Raises:
        ValueError: ``p`` outside of [0, 1].

    Source: G. Huang et al., "Deep networks with stochastic depth", arXiv:1603.09382; as
    ``torchvision.ops.StochasticDepth`` in its mode ``"row"``.
    """

    p: float

    def __post_init__(self) -> None:
        with located("StochasticDepth"):
            self.p = random.probability("p", self.p)

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The shape of the input."""
        return shape

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """Each image times 0 or ``1 / (1 - p)``: what dropout makes of a 1 per image."""
        if not scope.training or self.p == 0.0:
            return x, lambda dy: (dy, {})
        xp, wide = _array.array_namespace(x), _array.wide_dtype(x)
        one = xp.ones((x.shape[0],), dtype=wide, device=_array.device(x))
        factor = functional.dropout(one, p=self.p, key=scope.key, training=True)
        factor = xp.reshape(factor, (x.shape[0], *(1,) * (x.ndim - 1)))

        def scaled(values: Array) -> Array:
            return _array.cast(_array.widen(values) * factor, x.dtype)

        return scaled(x), lambda dy: (scaled(dy), {})


@differentiable
def scale_channels(x: Array, factor: Array, /) -> tuple[Array, Back]:
    """Multiply each channel by a number of its own.

    ``y[n, c, p] = factor[c] · x[n, c, p]``

    Args:
        x: images ``(N, C, H, W)``.
        factor: ``(C, 1, 1)``.

    >>> import numpy as np
    >>> scale_channels(np.ones((1, 2, 1, 1)), np.asarray([[[2.0]], [[3.0]]])).ravel()
    array([2., 3.])
    """
    xp = _array.array_namespace(x)

    def pullback(dy: Array) -> tuple[Array, Array]:
        products = _array.widen(dy) * _array.widen(x)
        return dy * factor, xp.reshape(xp.sum(products, axis=(0, 2, 3)), factor.shape)

    return x * factor, pullback


class CNBlock(Layer):
    """A large depthwise filter, then a small dense network at each pixel, added to the input.

    ``y = x + layer_scale · block(x)``

    Args:
        channels: of the input and the output.
        stochastic_depth: the probability with which an image goes without the sum's second
            term.
        layer_scale: what the factor of each channel begins as.

    Arrays: ``layer_scale (C, 1, 1)``, and those of the layers in ``block``, where the channels
    come last from the norm to the second dense layer.
    """

    def __init__(
        self, channels: int, *, stochastic_depth: float = 0.0, layer_scale: float = 1e-6
    ) -> None:
        self._scale = Parameter((channels, 1, 1), Constant(layer_scale))
        block = Sequential(
            Conv2d(channels, channels, 7, padding=3, groups=channels, weight_init=BEGIN),
            Permute((0, 2, 3, 1)),
            LayerNorm(channels, eps=1e-6),
            Dense(channels, 4 * channels, weight_init=BEGIN),
            GELU(),
            Dense(4 * channels, channels, weight_init=BEGIN),
            Permute((0, 3, 1, 2)),
        )
        self._branch = {"block": block, "stochastic_depth": StochasticDepth(stochastic_depth)}

    @property
    def children(self) -> Mapping[str, Layer]:
        """The block, and what drops it."""
        return self._branch

    def declare(self, shape: InputShape | None) -> dict[str, Parameter]:
        """``layer_scale``, one number per channel."""
        return {"layer_scale": self._scale}

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """The shape of the input."""
        return chain_shape(trace, self._branch, shape)

    def apply(self, scope: Scope, x: Array) -> Array:
        """The sum."""
        return x + scale_channels(chain(scope, self._branch, x), scope["layer_scale"])

    def apply_vjp(self, scope: Scope, x: Array) -> tuple[Array, Pullback]:
        """The sum; ``dy`` goes back along both."""
        branch, branch_back = chain_vjp(scope, self._branch, x)
        scaled, scale_back = scale_channels.vjp(branch, scope["layer_scale"])
        name = scope.name("layer_scale")

        def pullback(dy: Array) -> tuple[Array, Grads]:
            dbranch, dscale = scale_back(dy)
            dx, grads = branch_back(dbranch)
            return dy + dx, {name: dscale, **grads}

        return x + scaled, pullback


def stem(in_channels: int, out_channels: int) -> Sequential:
    """Patches of 4×4 pixels as single ones, then a norm over the channels."""
    return Sequential(
        {
            "0": Conv2d(in_channels, out_channels, 4, stride=4, weight_init=BEGIN),
            "last": Permute((0, 2, 3, 1)),
            "1": LayerNorm(out_channels, eps=1e-6),
            "first": Permute((0, 3, 1, 2)),
        }
    )


def downsampling(in_channels: int, out_channels: int) -> Sequential:
    """A norm over the channels, then patches of 2×2 pixels as single ones."""
    return Sequential(
        {
            "last": Permute((0, 2, 3, 1)),
            "0": LayerNorm(in_channels, eps=1e-6),
            "first": Permute((0, 3, 1, 2)),
            "1": Conv2d(in_channels, out_channels, 2, stride=2, weight_init=BEGIN),
        }
    )


def convnext(
    stages: Sequence[tuple[int, int]],
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    stochastic_depth: float = 0.0,
    layer_scale: float = 1e-6,
) -> Sequential:
    """Make a network of ConvNeXt's kind.

    Args:
        stages: per stage its blocks and their channels.
        num_classes: logits.
        in_channels: channels of the images.
        stochastic_depth: the probability with which the last block is dropped; it grows from
            0 at the first.
        layer_scale: what the factor of each channel in each block begins as.

    Names are those of torchvision: ``features.1.0.layer_scale``, ``classifier.2.bias``, ...
    """
    (_, channels), *_ = stages
    features: list[Layer] = [stem(in_channels, channels)]
    deepest = sum(depth for depth, _ in stages) - 1
    passed = 0
    for depth, out_channels in stages:
        if passed:
            features.append(downsampling(channels, out_channels))
        numbers = range(passed, passed + depth)
        drops = (stochastic_depth * number / max(deepest, 1) for number in numbers)
        blocks = (CNBlock(out_channels, stochastic_depth=p, layer_scale=layer_scale) for p in drops)
        features.append(Sequential(*blocks))
        channels, passed = out_channels, passed + depth
    classifier = Sequential(
        LayerNorm(channels, eps=1e-6),
        Flatten(),
        Dense(channels, num_classes, weight_init=BEGIN),
    )
    return Sequential(
        {
            "features": Sequential(*features),
            "avgpool": GlobalAvgPool(),
            "classifier": classifier,
        }
    )


def convnext_tiny(
    num_classes: int = 1000, in_channels: int = 3, *, stochastic_depth: float = 0.1
) -> Sequential:
    """Make ConvNeXt-T.

    =========================  ============  ==========
    stage                      output shape  parameters
    =========================  ============  ==========
    4×4, 96, stride 4, norm    96×56×56      4,896
    3 blocks, 96               96×56×56      237,888
    norm, 2×2, 192, stride 2   192×28×28     74,112
    3 blocks, 192              192×28×28     918,144
    norm, 2×2, 384, stride 2   384×14×14     295,680
    9 blocks, 384              384×14×14     10,817,280
    norm, 2×2, 768, stride 2   768×7×7       1,181,184
    3 blocks, 768              768×7×7       14,289,408
    mean, norm, dense          1000          770,536
    =========================  ============  ==========

    A block filters each channel by a 7×7 kernel, normalises each pixel over its channels,
    widens it fourfold, applies GELU and narrows it again.

    Args:
        num_classes: logits.
        in_channels: channels of the images.
        stochastic_depth: the probability with which the last block is dropped while
            training; it grows from 0 at the first.

    Returns:
        A layer from ``(N, 3, 224, 224)`` (or anything from 32×32 on) to logits ``(N, 1000)``;
        28,589,128 parameters. Weights begin normal with deviation 0.02 (the paper cuts them
        off at ±2, a hundred deviations out), biases zero, layer scales 1e-6.

    Source: Z. Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545. Names and shapes are
    those of torchvision's ``convnext_tiny``.

    >>> convnext_tiny().output_shape((3, 224, 224))
    (1000,)
    """
    return convnext(
        ((3, 96), (3, 192), (9, 384), (3, 768)),
        num_classes,
        in_channels,
        stochastic_depth=stochastic_depth,
    )
