"""One convolution, forward and with both gradients, by the library and its peers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from devconv import functional as F
from devconv.testing import generic

Call = Callable[[], Any]


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


def arrays(shape: Shape, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``x``, ``weight`` and ``dy`` in float32."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((shape.n, shape.c, *shape.size), dtype=np.float32)
    weight = rng.standard_normal(
        (shape.o, shape.c // shape.groups, *shape.kernel), dtype=np.float32
    ) / float(np.sqrt(np.prod(shape.kernel) * shape.c / shape.groups))
    out = [
        (n + 2 * shape.padding - k) // shape.stride + 1
        for n, k in zip(shape.size, shape.kernel, strict=True)
    ]
    dy = rng.standard_normal((shape.n, shape.o, *out), dtype=np.float32)
    return x, weight.astype(np.float32), dy


def channels_last(x: np.ndarray) -> np.ndarray:
    """The same array, its memory in the order in which the library hands results on."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def devconv(shape: Shape, *, written_once: bool = False) -> tuple[Call, Call]:
    """The library on NumPy: forward, and forward with both gradients."""
    x, weight, dy = arrays(shape)
    x, dy = channels_last(x), channels_last(dy)
    options: dict[str, Any] = {
        "stride": shape.stride,
        "padding": shape.padding,
        "groups": shape.groups,
    }

    def forward() -> Any:
        with generic(written_once):
            return F.conv(x, weight, **options)

    def both() -> Any:
        with generic(written_once):
            y, pullback = F.conv.vjp(x, weight, **options)
            return y, *pullback(dy)

    return forward, both


def torch(shape: Shape, *, last: bool = False) -> tuple[Call, Call] | None:
    """PyTorch on the CPU, in its default memory format or in channels-last."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch as library

    x, weight, dy = (library.from_numpy(a) for a in arrays(shape))
    if last and len(shape.size) == 2:
        x, weight, dy = (a.contiguous(memory_format=library.channels_last) for a in (x, weight, dy))
    convolve = getattr(library.nn.functional, f"conv{len(shape.size)}d")
    options = {"stride": shape.stride, "padding": shape.padding, "groups": shape.groups}
    leaf_x, leaf_weight = x.clone().requires_grad_(), weight.clone().requires_grad_()

    def forward() -> Any:
        with library.no_grad():
            return convolve(x, weight, **options)

    def both() -> Any:
        y = convolve(leaf_x, leaf_weight, **options)
        return y.detach(), *library.autograd.grad(y, (leaf_x, leaf_weight), dy)

    return forward, both
