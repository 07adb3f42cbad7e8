"""Unpooling: every option, and indices that meet."""

from __future__ import annotations

from typing import Any

import numpy as np

from devconv import functional as F
from tests.cases.case import Arrays, Case
from tests.cases.plain import each, pairs, prod

Shape = tuple[int, ...]


def _size(shape: Shape, options: dict[str, Any]) -> Shape:
    rank = len(shape) - 2
    if options.get("output_size") is not None:
        return tuple(options["output_size"])[-rank:]
    kernel = each(options["kernel_size"], rank)
    stride = kernel if options.get("stride") is None else each(options["stride"], rank)
    around = pairs(options.get("padding", 0), rank)
    return tuple(
        (n - 1) * s - sum(pair) + k
        for n, s, pair, k in zip(shape[2:], stride, around, kernel, strict=True)
    )


def max_unpool(x: np.ndarray, indices: np.ndarray, **options: Any) -> np.ndarray:
    """Values written in C order, so that the last one stays."""
    size = _size(x.shape, options)
    y = np.zeros((*x.shape[:2], prod(size)))
    for place in np.ndindex(*x.shape):
        y[(*place[:2], indices[place])] = x[place]
    return y.reshape(*x.shape[:2], *size)


def _case(id: str, shape: Shape, *, meet: bool = False, **options: Any) -> Case:
    pixels, values = prod(_size(shape, options)), prod(shape[2:])

    def arrays(rng: np.random.Generator) -> Arrays:
        planes = [
            rng.integers(0, pixels, values) if meet else rng.permutation(pixels)[:values]
            for _ in range(prod(shape[:2]))
        ]
        return rng.standard_normal(shape), np.asarray(planes, dtype=np.int64).reshape(shape)

    around = options.get("padding", 0)
    even = all(b == a for b, a in pairs(around, len(shape) - 2))

    def torch(x: Any, indices: Any) -> Any:
        import torch.nn.functional as T

        return getattr(T, f"max_unpool{len(shape) - 2}d")(x, indices, **options)

    return Case(
        id=id,
        op=F.max_unpool,
        arrays=arrays,
        reference=max_unpool,
        torch=torch if even and not meet else None,
        options=options,
    )


X1, X2, X3 = (2, 4, 5), (2, 4, 3, 4), (2, 4, 2, 3, 2)

CASES = [
    _case("2d", X2, kernel_size=2),
    _case("2d-kernels", X2, kernel_size=(3, 2)),
    _case("2d-strides", X2, kernel_size=3, stride=(2, 1)),
    _case("2d-padding", X2, kernel_size=3, stride=2, padding=1),
    _case("2d-padding-pairs", X2, kernel_size=3, stride=2, padding=[(1, 0), (0, 1)]),
    _case("2d-output-size", X2, kernel_size=2, output_size=(7, 9)),
    _case("2d-output-size-smaller", X2, kernel_size=2, stride=2, output_size=(5, 8)),
    _case("2d-output-size-whole", X2, kernel_size=3, stride=2, output_size=(2, 4, 8, 9)),
    _case("2d-indices-meet", X2, kernel_size=2, meet=True),
    _case("2d-indices-meet-padding", X2, kernel_size=3, stride=2, padding=1, meet=True),
    _case("1d", X1, kernel_size=2, stride=3),
    _case("1d-output-size", X1, kernel_size=3, padding=1, output_size=(15,)),
    _case("3d", X3, kernel_size=2),
    _case("3d-output-size", X3, kernel_size=2, stride=(1, 2, 3), output_size=(3, 7, 5)),
]
