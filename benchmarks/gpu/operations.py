"""Operations that together reach every primitive a route may stand for: forward and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import devconv as dc
from benchmarks.gpu.race import Racer
from benchmarks.place import Place
from benchmarks.shapes import channels_last
from devconv import functional as F

Make = Callable[[Place, str, bool], Racer]


def drawn(place: Place, dtype: str, *shape: int) -> Any:
    """Normal numbers on the device, images in the memory order in which layers hand them on."""
    host = np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)
    return place.ours(channels_last(host) if len(shape) > 2 else host, dtype)


def _images(small: bool, channels: int = 64) -> tuple[int, int, int, int]:
    return (2, min(channels, 8), 9, 9) if small else (64, channels, 56, 56)


def _convolution(
    place: Place, dtype: str, small: bool, *, kernel: int, groups: int = 1, **how: Any
) -> Racer:
    n, c, *size = _images(small)
    groups = c if groups < 0 else groups
    x = drawn(place, dtype, n, c, *size)
    weight = drawn(place, dtype, c, c // groups, kernel, kernel)
    weight = weight * (groups / (c * kernel**2)) ** 0.5
    bias = drawn(place, dtype, c)
    return _there_and_back(partial(F.conv.vjp, groups=groups, **how), x, weight, bias)


def _transposed(place: Place, dtype: str, small: bool) -> Racer:
    n, c, *size = _images(small)
    weight = drawn(place, dtype, c, c, 2, 2) * c**-0.5
    return _there_and_back(
        partial(F.conv_transpose.vjp, stride=2), drawn(place, dtype, n, c, *size), weight
    )


def _of_images(operation: Any, **how: Any) -> Make:
    def make(place: Place, dtype: str, small: bool) -> Racer:
        x = drawn(place, dtype, *_images(small))
        return _there_and_back(partial(operation.vjp, **how), x)

    return make


def _norm(operation: Any, parameters: int, **how: Any) -> Make:
    def make(place: Place, dtype: str, small: bool) -> Racer:
        x = drawn(place, dtype, *_images(small))
        sizes = [x.shape[parameters]] * 2
        return _there_and_back(
            partial(operation.vjp, **how), x, *(drawn(place, "float32", size) for size in sizes)
        )

    return make


def _layer_norm(place: Place, dtype: str, small: bool) -> Racer:
    width = 16 if small else 768
    x = drawn(place, dtype, 4 if small else 16384, width)
    given = (drawn(place, "float32", width) for _ in range(2))
    return _there_and_back(partial(F.layer_norm.vjp, normalized_shape=width), x, *given)


def _dense(place: Place, dtype: str, small: bool) -> Racer:
    n, c, o = (4, 8, 5) if small else (1024, 2048, 1000)
    weight = drawn(place, dtype, o, c) * c**-0.5
    return _there_and_back(F.dense.vjp, drawn(place, dtype, n, c), weight, drawn(place, dtype, o))


def _cross_entropy(place: Place, dtype: str, small: bool) -> Racer:
    n, classes = (4, 5) if small else (4096, 1000)
    logits, target = drawn(place, dtype, n, classes), place.ours(np.arange(n) % classes)
    return _there_and_back(F.cross_entropy.vjp, logits, target)


def _dropout(place: Place, dtype: str, small: bool) -> Racer:
    key = dc.to_device(dc.random.key(0), place.kind)
    vjp = partial(F.dropout.vjp, p=0.5, key=key, training=True)
    return _there_and_back(vjp, drawn(place, dtype, *_images(small)))


def _step(make: Callable[[dc.Layer], dc.optim.Optimizer]) -> Make:
    """Steps of one optimizer that keeps its moments; compared after two from the same start."""

    def prepared(place: Place, dtype: str, small: bool) -> Racer:
        width = 8 if small else 4096
        layer = dc.Dense(width, width).build(seed=0).to(place.kind, dtype)
        before = dict(layer.parameters)
        grads = {name: 0.01 * drawn(place, dtype, *x.shape) for name, x in before.items()}
        optimizer = make(layer)

        def check() -> Sequence[Any]:
            layer.load_state_dict(before)  # by way of the host
            fresh = make(layer)
            fresh.step(grads)
            fresh.step(grads)
            return tuple(layer.parameters.values())

        return Racer(lambda: optimizer.step(grads), check)

    return prepared


def _there_and_back(vjp: Callable[..., Any], *arguments: Any) -> Racer:
    """Forward, and back from a cotangent that is not constant."""
    dy: list[Any] = []

    def run() -> Sequence[Any]:
        y, pullback = vjp(*arguments)
        if not dy:
            dy.append(y * 0.5 + y * y)
        return y, *(each for each in pullback(dy[0]) if each is not None)

    return Racer(run, run)


OPERATIONS: dict[str, Make] = {
    "conv 3×3": partial(_convolution, kernel=3, padding=1),
    "conv 3×3, stride 2": partial(_convolution, kernel=3, padding=1, stride=2),
    "conv 1×1": partial(_convolution, kernel=1),
    "conv 7×7, stride 2": partial(_convolution, kernel=7, padding=3, stride=2),
    "conv 3×3, dilation 2": partial(_convolution, kernel=3, padding=2, dilation=2),
    "conv 3×3, 2 groups": partial(_convolution, kernel=3, padding=1, groups=2),
    "conv 3×3, depthwise": partial(_convolution, kernel=3, padding=1, groups=-1),
    "conv 3×3, depthwise, stride 2": partial(
        _convolution, kernel=3, padding=1, groups=-1, stride=2
    ),
    "conv_transpose 2×2, stride 2": _transposed,
    "max_pool 2×2": _of_images(F.max_pool, kernel_size=2),
    "max_pool 3×3, stride 2": _of_images(F.max_pool, kernel_size=3, stride=2, padding=1),
    "avg_pool 2×2": _of_images(F.avg_pool, kernel_size=2),
    "global_avg_pool": _of_images(F.global_avg_pool),
    "batch_norm": _norm(F.batch_norm, 1, training=True),
    "group_norm": _norm(F.group_norm, 1, num_groups=2),
    "layer_norm": _layer_norm,
    "relu": _of_images(F.relu),
    "gelu": _of_images(F.gelu),
    "silu": _of_images(F.silu),
    "tanh": _of_images(F.tanh),
    "sigmoid": _of_images(F.sigmoid),
    "softmax": _of_images(F.softmax, axis=1),
    "dropout": _dropout,
    "upsample, nearest": _of_images(F.upsample, scale_factor=2),
    "dense": _dense,
    "cross_entropy": _cross_entropy,
    "SGD, momentum": _step(lambda layer: dc.optim.SGD(layer, 0.1, momentum=0.9)),
    "SGD, Nesterov": _step(lambda layer: dc.optim.SGD(layer, 0.1, momentum=0.9, nesterov=True)),
    "Adam": _step(lambda layer: dc.optim.Adam(layer, 0.1)),
}
