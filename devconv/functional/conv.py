"""Convolution: a function of the kernel *and* the input, and its way back to both.

``conv`` is what deep learning calls convolution (cross-correlation: the kernel is not
flipped). It is linear in each argument, so its pullback holds two more convolutions: the
cotangent of the input is ``dy`` convolved with the flipped kernel, the cotangent of the
kernel is the input convolved with ``dy``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from devconv._array import Array
from devconv._check import InvalidValue, Shape, integer, located
from devconv.device import Device
from devconv.device import device as find
from devconv.functional.algorithm import chosen, faces
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.products import channel_sums
from devconv.functional.windows import Windows, channels_first, channels_last, checked_plan

Padding = int | str | Sequence[int | tuple[int, int]]


@differentiable(skips=True)
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    /,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> tuple[Array, Pullback]:
    """Convolve images with a bank of filters, in any number of spatial dimensions.

    ``y[n, o, p] = bias[o] + sum over c, k of weight[o, c, k] · x[n, c, q]`` with
    ``q = p·stride + k·dilation - before``.

    Args:
        x: images ``(N, C, *spatial)``.
        weight: one kernel per output channel over every input channel of its group,
            ``(C_out, C // groups, *kernel)``.
        bias: ``(C_out,)`` or ``None``.
        stride: pixels between windows, an int or one per spatial dimension.
        padding: zeros around the image in pixels: an int, one int or ``(before, after)``
            pair per spatial dimension, ``"valid"`` (none), or ``"same"`` (an output as large
            as the input; an odd surplus goes to the end; stride 1 only).
        dilation: pixels between the taps of a window.
        groups: parts the channels are split into; each output channel sees one part.
        algorithm: how the sum is computed, with its gradients. ``"gemm"``: directly;
            ``"winograd"``: kernels of 3 at stride 1 and dilation 1 in float32, as F(2, 3) or,
            under ``precision("fast")``, F(4, 3); ``"fft"``: through Fourier transforms, for
            long kernels; ``"auto"``: what was measured to be quickest, see
            :func:`devconv.explain_conv`. Only ``"gemm"`` keeps infinities of ``x`` as they are
            and a NaN to the windows that meet it.

    Returns:
        ``y (N, C_out, *out)`` with ``out = floor((n + before + after -
        dilation·(kernel - 1) - 1) / stride) + 1``, in channels-last memory. The pullback
        gives ``(dx, dweight, dbias)``.

    Raises:
        ValueError: shapes that do not fit together, an empty output, options out of range, an
            algorithm that cannot compute this.
        TypeError: integer images, mixed dtypes, arrays of two libraries.

    The options mean what they mean in ``torch.nn.functional.conv2d``; the arithmetic is laid
    out in V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285.

    >>> import numpy as np
    >>> image = np.asarray([[[[1.0, 2, 1], [0, 1, 2], [2, 1, 0]]]])
    >>> kernel = np.asarray([[[[0.5, 0.2], [0.3, 0.7]]]])
    >>> y, pullback = conv.vjp(image, kernel)
    >>> y
    array([[[[1.6, 2.9],
             [1.5, 1.2]]]])
    >>> dx, dkernel = pullback(np.ones_like(y))
    >>> dkernel  # each weight: the sum of the pixels it met
    array([[[[4., 6.],
             [4., 4.]]]])
    """
    w = _plan(x, weight, bias, stride, padding, dilation, groups)
    pixels = channels_last(x)
    way = faces(algorithm, pixels, weight, w, groups)
    y = way.correlate(pixels, weight, w, groups, bias)

    def pullback(dy: Array, skip: tuple[int, ...] = ()) -> tuple[Array | None, ...]:
        dy = channels_last(dy)
        dx = None if 0 in skip else channels_first(way.input_cotangent(dy, weight, w, groups))
        dweight = way.kernel_cotangent(pixels, dy, weight, w, groups)
        return dx, dweight, None if bias is None else channel_sums(dy)

    return channels_first(y), pullback


def _plan(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Windows:
    shape, bank = check_bank(x, weight, "(C_out, C // groups, *kernel)")
    groups = integer("groups", groups, least=1)
    channels, outputs = shape[1], bank[0]
    if outputs % groups or channels % groups:
        raise InvalidValue(
            f"groups={groups} must divide the channels of x {shape} ({channels}) and of "
            f"weight {bank} ({outputs})"
        )
    if bank[1] * groups != channels:
        raise InvalidValue(
            f"x {shape} has {channels} channels, weight {bank} with groups={groups} takes "
            f"{bank[1] * groups}; give x {bank[1] * groups} channels or weight shape "
            f"({outputs}, {channels // groups}, ...)"
        )
    check_bias(bias, outputs, bank)
    return checked_plan(shape, bank[2:], stride=stride, padding=padding, dilation=dilation)


def check_bank(x: Array, weight: Array, layout: str) -> tuple[Shape, Shape]:
    """The shapes of images and of a bank of filters over as many spatial dimensions."""
    bank = tuple(weight.shape)
    shape = check_image(x, len(bank) if len(bank) >= 3 else None)
    if len(bank) < 3:
        raise InvalidValue(f"weight must have shape {layout}, got {bank} for x {shape}")
    if 0 in bank:
        raise InvalidValue(f"weight {bank} has an empty dimension; each must be at least 1")
    return shape, bank


def check_bias(bias: Array | None, outputs: int, bank: Shape) -> None:
    """Refuse a bias that is not one number per output channel."""
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise InvalidValue(
            f"bias has shape {tuple(bias.shape)}, expected ({outputs},): one per output "
            f"channel of weight {bank}"
        )


def check_image(x: Array, ndim: int | None = None) -> Shape:
    """Refuse what is not ``(N, C, *spatial)``, with ``ndim`` dimensions if given."""
    shape = tuple(x.shape)
    if ndim is not None and len(shape) != ndim:
        raise InvalidValue(
            f"x must have {ndim} dimensions (N, C, {ndim - 2} spatial), got shape {shape}; "
            "a single image needs a batch dimension: x[None, ...]"
        )
    if len(shape) < 3:
        raise InvalidValue(f"x must have shape (N, C, *spatial), got {shape}")
    if shape[1] == 0 or math.prod(shape[2:]) == 0:
        raise InvalidValue(f"x {shape} has no channels or no pixels; only the batch may be empty")
    return shape


@dataclass(frozen=True)
class Explanation:
    """How a convolution would be computed: the algorithm, by which route, and why."""

    algorithm: str
    library: str
    route: str
    why: str

    def __str__(self) -> str:
        return f"{self.algorithm} ({self.library}, {self.route}): {self.why}"


def explain_conv(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    dtype: str = "float32",
    device: str | Device | Array = "cpu",
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> Explanation:
    """Tell which algorithm a :func:`conv` would run, and why; nothing is computed.

    Args:
        x_shape: ``(N, C, *spatial)``.
        weight_shape: ``(C_out, C // groups, *kernel)``.
        dtype: of both.
        device: where they would be, as for :func:`devconv.device`.
        stride: as for :func:`conv`, like all that follow.
        padding: likewise.
        dilation: likewise.
        groups: likewise.
        algorithm: likewise.

    Returns:
        An :class:`Explanation`, which reads as one line. It holds for the precision in force.

    Raises:
        ValueError: what :func:`conv` refuses, and devices that cannot be used.
        TypeError: a dtype that the device has not.

    >>> print(explain_conv((4, 16, 16384), (16, 16, 255), padding=127))
    fft (numpy, written once): kernel 255; 38% of the direct sum's work
    """
    with located("explain_conv"):
        place = find(device)
        shape = tuple(integer(f"x_shape[{i}]", n, least=0) for i, n in enumerate(x_shape))
        bank = tuple(integer(f"weight_shape[{i}]", n, least=0) for i, n in enumerate(weight_shape))
        x, weight = SimpleNamespace(shape=shape), SimpleNamespace(shape=bank)
        w = _plan(x, weight, None, stride, padding, dilation, groups)
        few = (min(shape[0], 1), *(1,) * len(w.out), shape[1])
        like = place.xp.zeros(few, dtype=place.dtype(dtype), device=place.native)
        choice = chosen(algorithm, like, (shape[0], *bank[:2]), w, groups)
    route = "quick route" if choice.quick else "written once"
    return Explanation(choice.name, place.library, route, choice.why)
