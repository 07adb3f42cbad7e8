"""PyTorch: windows as a view, and on the CPU its own convolution."""

from __future__ import annotations

from typing import Any

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.budget import MIB, budget
from devconv._fast.plan import Plan
from devconv._fast.strides import layout

_ELSEWHERE = 256 * MIB  # on a device that nobody has told its memory of


def take(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """Windows ``(N, *out, *kernel, C)`` of ``slab`` (N, *spatial, C), a view."""
    shape, strides = layout(tuple(slab.shape), slab.stride(), out, kernel, stride, dilation)
    return slab.as_strided(shape, strides)


def workspace(x: Array) -> int:
    """How many bytes of columns one tile may hold on the device of ``x``, which is not the CPU."""
    import torch

    if x.device.type != "cuda":
        return _ELSEWHERE
    return budget(torch.cuda.get_device_properties(x.device).total_memory)


def suits(x: Array, w: Plan, groups: int) -> bool:
    """Whether PyTorch's convolution says the same: full precision, CPU, one to three dimensions.

    On a GPU its float32 products may be rounded to TF32, so there it is not asked.
    """
    import torch

    full = x.dtype in (torch.float32, torch.float64)
    known = w.is_whole and len(w.kernel) <= 3
    return known and full and x.device.type == "cpu" and x.shape[0] > 0


def correlate(x: Array, weight: Array, w: Plan, groups: int, bias: Array | None = None) -> Array:
    """``y (N, *out, O)`` for ``x (N, *size, C)``, plus the bias."""
    import torch

    image, padding = _padded(torch, _first(x), w)
    convolve = getattr(torch, f"conv{len(w.kernel)}d")
    return _last(convolve(image, weight, bias, w.stride, padding, w.dilation, groups))


def input_cotangent(dy: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
    import torch

    shape = (dy.shape[0], weight.shape[1] * groups, *w.size)
    like = dy.new_empty(1).expand(shape)
    image, padding = _padded(torch, like, w)
    dx = _backward(torch, _first(dy), image, weight, w, padding, groups, (True, False, False))[0]
    inside = tuple(
        slice(before, before + n) if image is not like else slice(None)
        for n, (before, _) in zip(w.size, w.padding, strict=True)
    )
    return _last(dx[(..., *inside)])


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``."""
    import torch

    image, padding = _padded(torch, _first(x), w)
    mask = (False, True, False)
    return _backward(torch, _first(dy), image, weight, w, padding, groups, mask)[1]


def _backward(
    torch: Any,
    dy: Array,
    image: Array,
    weight: Array,
    w: Plan,
    padding: Shape,
    groups: int,
    mask: tuple[bool, bool, bool],
) -> Any:
    none = (0,) * len(w.kernel)
    return torch.ops.aten.convolution_backward(
        dy, image, weight, None, w.stride, padding, w.dilation, False, none, groups, mask
    )


def _padded(torch: Any, image: Array, w: Plan) -> tuple[Array, Shape]:
    """The image, and the padding left to the convolution: equal on both sides, or none."""
    if all(before == after for before, after in w.padding):
        return image, tuple(before for before, _ in w.padding)
    amounts = [n for pair in reversed(w.padding) for n in pair]
    return torch.nn.functional.pad(image, amounts), (0,) * len(w.kernel)


def _first(x: Array) -> Array:
    return x.movedim(-1, 1)


def _last(x: Array) -> Array:
    return x.movedim(1, -1)
