"""The same convolution by PyTorch, JAX and MyGrad, each as its own users would call it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.ours import Contestant
from benchmarks.place import Place, installed
from benchmarks.shapes import Shape, arrays


def peers(
    shape: Shape, place: Place, dtype: str = "float32"
) -> dict[str, Callable[[], Contestant]]:
    """What makes those that are installed and can do this, by name."""
    found: dict[str, Callable[[], Contestant]] = {}
    if place.has_torch:
        found["PyTorch"] = partial(torch, shape, place, dtype)
        found["PyTorch channels-last"] = partial(torch, shape, place, dtype, last=True)
        if place.is_gpu and dtype == "float32":
            found["PyTorch TF32"] = partial(torch, shape, place, dtype, last=True, tf32=True)
    if not place.is_gpu and dtype == "float32":
        if installed("jax"):
            found["JAX"] = partial(jax, shape)
        if installed("mygrad") and suits_mygrad(shape):
            found["MyGrad"] = partial(mygrad, shape)
    return found


def torch(
    shape: Shape,
    place: Place,
    dtype: str = "float32",
    *,
    last: bool = False,
    tf32: bool = False,
) -> Contestant:
    """PyTorch, in its default memory format or in channels-last."""
    library = importlib.import_module("torch")
    x, weight, dy = (place.theirs(each, dtype) for each in arrays(shape))
    if last and len(shape.size) == 2:
        x, weight, dy = (a.contiguous(memory_format=library.channels_last) for a in (x, weight, dy))
    convolve = getattr(library.nn.functional, f"conv{len(shape.size)}d")
    leaf_x, leaf_weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    cudnn = library.backends.cudnn

    def forward() -> tuple[Any, ...]:
        cudnn.allow_tf32 = tf32
        with library.no_grad():
            return (convolve(x, weight, **shape.options),)

    def both() -> tuple[Any, ...]:
        cudnn.allow_tf32 = tf32
        y = convolve(leaf_x, leaf_weight, **shape.options)
        return y.detach(), *library.autograd.grad(y, (leaf_x, leaf_weight), dy)

    return Contestant(forward, both)


def jax(shape: Shape) -> Contestant:
    """JAX on the CPU, compiled; a call ends when its result is there."""
    library = importlib.import_module("jax")
    lax = library.lax
    cpu = library.devices("cpu")[0]
    x, weight, dy = (library.device_put(each, cpu) for each in arrays(shape))

    def convolve(x: Any, weight: Any) -> Any:
        return lax.conv_general_dilated(
            x,
            weight,
            window_strides=(shape.stride,) * len(shape.size),
            padding=[(shape.padding, shape.padding)] * len(shape.size),
            feature_group_count=shape.groups,
        )

    def convolve_and_return(x: Any, weight: Any, dy: Any) -> tuple[Any, ...]:
        y, pullback = library.vjp(convolve, x, weight)
        return y, *pullback(dy)

    quick = library.jit(convolve).lower(x, weight).compile()
    quick_both = library.jit(convolve_and_return).lower(x, weight, dy).compile()

    def forward() -> tuple[Any, ...]:
        return (quick(x, weight).block_until_ready(),)

    def both() -> tuple[Any, ...]:
        return tuple(library.block_until_ready(quick_both(x, weight, dy)))

    return Contestant(forward, both)


def suits_mygrad(shape: Shape) -> bool:
    """MyGrad has no groups, and refuses a stride that leaves pixels over."""
    exact = all(
        (n + 2 * shape.padding - k) % shape.stride == 0
        for n, k in zip(shape.size, shape.kernel, strict=True)
    )
    return shape.groups == 1 and exact


def mygrad(shape: Shape) -> Contestant:
    """MyGrad, on NumPy arrays."""
    library = importlib.import_module("mygrad")
    conv_nd = importlib.import_module("mygrad.nnet.layers").conv_nd
    x, weight, dy = arrays(shape)
    options = {"stride": shape.stride, "padding": shape.padding}

    def forward() -> tuple[Any, ...]:
        with library.no_autodiff:
            return (np.asarray(conv_nd(x, weight, **options)),)

    def both() -> tuple[Any, ...]:
        leaf_x, leaf_weight = library.tensor(x, copy=False), library.tensor(weight, copy=False)
        y = conv_nd(leaf_x, leaf_weight, **options)
        y.backward(dy)
        return y.data, leaf_x.grad, leaf_weight.grad

    return Contestant(forward, both)
