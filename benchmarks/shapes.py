"""The convolutions that are measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Shape:
    """``x (n, c, *size)`` and a bank of ``o`` filters ``kernel``."""

    n: int
    c: int
    size: tuple[int, ...]
    o: int
    kernel: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def __str__(self) -> str:
        size, kernel = ("×".join(map(str, each)) for each in (self.size, self.kernel))
        extra = f" s{self.stride}" if self.stride > 1 else ""
        extra += f" g{self.groups}" if self.groups > 1 else ""
        return f"{self.n}, {self.c}, {size}, {self.o}, {kernel}{extra}"

    @property
    def options(self) -> dict[str, Any]:
        """The options of the operation, as this library and PyTorch both call them."""
        return {"stride": self.stride, "padding": self.padding, "groups": self.groups}

    @property
    def out(self) -> tuple[int, ...]:
        """The spatial shape of the result."""
        return tuple(
            (n + 2 * self.padding - k) // self.stride + 1
            for n, k in zip(self.size, self.kernel, strict=True)
        )

    def batch(self, n: int) -> Shape:
        """The same with ``n`` images."""
        return replace(self, n=n)


def restored(told: Mapping[str, Any]) -> Shape:
    """The shape that ``dataclasses.asdict`` told, after its way through JSON."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
    }
    return Shape(**given)


SHAPES = {
    "A": Shape(32, 3, (32, 32), 32, (3, 3), padding=1),
    "B": Shape(32, 64, (32, 32), 64, (3, 3), padding=1),
    "C": Shape(32, 128, (28, 28), 128, (3, 3), padding=1),
    "D": Shape(32, 256, (14, 14), 256, (3, 3), padding=1),
    "E": Shape(32, 256, (28, 28), 64, (1, 1)),
    "F": Shape(8, 3, (224, 224), 64, (7, 7), stride=2, padding=3),
    "H": Shape(64, 8, (14, 14), 16, (5, 5), padding=2),
    "L": Shape(256, 1, (28, 28), 8, (3, 3), padding=1),
    "S": Shape(16, 64, (56, 56), 128, (3, 3), stride=2, padding=1),
    "depthwise": Shape(16, 96, (28, 28), 96, (3, 3), padding=1, groups=96),
    "1-D": Shape(4, 16, (16384,), 16, (255,), padding=127),
}
NAMED = ("A", "B", "C", "D", "E", "F", "H", "L", "S")
"""Whose geometric mean is the figure to quote."""
MEMORY = Shape(64, 64, (56, 56), 64, (3, 3), padding=1)


def resnet50(images: int = 64, size: int = 224) -> dict[Shape, int]:
    """The distinct convolutions of ResNet-50, and how often each occurs (53 in all)."""
    found: Counter[Shape] = Counter()

    def add(c: int, o: int, kernel: int, stride: int = 1) -> None:
        shape = Shape(images, c, (size, size), o, (kernel, kernel), stride, kernel // 2)
        found[shape] += 1

    add(3, 64, 7, 2)
    channels, size = 64, size // 4  # after the pooling
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for stride in (first, *[1] * (blocks - 1)):
            add(channels, width, 1)
            add(width, width, 3, stride)
            if channels != 4 * width:
                add(channels, 4 * width, 1, stride)
            channels, size = 4 * width, size // stride
            add(width, channels, 1)
    return dict(found)


Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


@lru_cache(maxsize=1)
def arrays(shape: Shape, seed: int = 0) -> Arrays:
    """``x``, ``weight`` and ``dy`` in float32, such that ``y`` is of order 1; only to be read."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((shape.n, shape.c, *shape.size), dtype=np.float32)
    fan = float(np.prod(shape.kernel)) * shape.c / shape.groups
    weight = rng.standard_normal(
        (shape.o, shape.c // shape.groups, *shape.kernel), dtype=np.float32
    ) / np.float32(fan**0.5)
    dy = rng.standard_normal((shape.n, shape.o, *shape.out), dtype=np.float32)
    return x, weight, dy


def channels_last(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same array, its memory in the order in which the library hands results on."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
