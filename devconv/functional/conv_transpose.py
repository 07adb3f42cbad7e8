"""Transposed convolution: the way back of a convolution, used as a way forward.

``conv`` holds three maps: forward, to the input, to the kernel. Here their roles are
exchanged: going forward is what convolution does to a cotangent of its output, and the
pullback in ``x`` is convolution itself. Nothing new is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, Shape, integer, pairs_per_dimension, per_dimension
from devconv.functional.algorithm import faces
from devconv.functional.conv import check_bank, check_bias
from devconv.functional.operation import Pullback, differentiable
from devconv.functional.products import channel_sums
from devconv.functional.windows import Windows, channels_first, channels_last

Size = int | Sequence[int]
Padding = int | Sequence[int | tuple[int, int]]


@differentiable
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    /,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> tuple[Array, Pullback]:
    """Let each pixel lay its copy of the kernel on a larger image: the adjoint of ``conv``.

    ``y[n, o, q] = bias[o] + sum of weight[c, o, k] · x[n, c, p]`` over all ``c``, ``k`` and ``p``
    with ``p·stride + k·dilation - before = q``

    Args:
        x: images ``(N, C_in, *spatial)``.
        weight: one kernel per input channel and output channel of its group,
            ``(C_in, C_out // groups, *kernel)``: the weight of the ``conv`` that this is the
            adjoint of.
        bias: ``(C_out,)`` or ``None``.
        stride: pixels of ``y`` from one copy to the next, an int or one per spatial dimension.
        padding: pixels cut off around ``y``: an int, one int or ``(before, after)`` pair per
            dimension. It undoes a ``conv`` with the same padding.
        output_padding: pixels added at the end of each dimension, which a ``conv`` with this
            stride would not have read; smaller than the stride or the dilation.
        dilation: pixels between the taps of a kernel.
        groups: parts the channels are split into; each output channel sees one part.
        algorithm: how the sum is computed, as for ``conv``.

    Returns:
        ``y (N, C_out, *out)`` with ``out = (n - 1)·stride - before - after +
        dilation·(kernel - 1) + output_padding + 1``, in channels-last memory. The pullback
        gives ``(dx, dweight, dbias)``.

    Raises:
        ValueError: shapes that do not fit together, an empty output, options out of range, an
            algorithm that cannot compute this.
        TypeError: integer images, mixed dtypes, arrays of two libraries.

    The options mean what they mean in ``torch.nn.functional.conv_transpose2d``. Source:
    M. Zeiler et al., "Deconvolutional networks", CVPR 2010; the arithmetic is laid out in
    V. Dumoulin and F. Visin, arXiv:1603.07285.

    >>> import numpy as np
    >>> kernel = np.asarray([[[1.0, 2.0, 3.0]]])
    >>> conv_transpose(np.asarray([[[1.0, 10.0]]]), kernel, stride=2)
    array([[[ 1.,  2., 13., 20., 30.]]])
    """
    shape, bank = check_bank(x, weight, "(C_in, C_out // groups, *kernel)")
    w = transposed_windows(shape, bank, stride, padding, output_padding, dilation, groups)
    check_bias(bias, bank[1] * groups, bank)
    pixels = channels_last(x)
    way = faces(algorithm, pixels, weight, w, groups)
    y = _array.cast(way.input_cotangent(pixels, weight, w, groups), x.dtype)
    if bias is not None:
        y = y + bias

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dy = channels_last(dy)
        dx = channels_first(way.correlate(dy, weight, w, groups))
        dweight = way.kernel_cotangent(dy, pixels, weight, w, groups)
        return dx, dweight, None if bias is None else channel_sums(dy)

    return channels_first(y), pullback


def transposed_windows(
    shape: Shape,
    bank: Shape,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> Windows:
    """The windows over ``y`` that lead back to images of ``shape`` (N, C_in, *spatial)."""
    groups = integer("groups", groups, least=1)
    if bank[0] != shape[1]:
        raise InvalidValue(
            f"x {shape} has {shape[1]} channels, weight {bank} takes {bank[0]}; give x "
            f"{bank[0]} channels or weight shape ({shape[1]}, C_out // groups, ...)"
        )
    if shape[1] % groups:
        raise InvalidValue(f"groups={groups} must divide the channels of x {shape} ({shape[1]})")
    kernel = bank[2:]
    rank = len(kernel)
    steps = per_dimension("stride", stride, rank, least=1)
    apart = per_dimension("dilation", dilation, rank, least=1)
    around = pairs_per_dimension("padding", padding, rank)
    extra = per_dimension("output_padding", output_padding, rank, least=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, apart, strict=True)):
        raise InvalidValue(
            f"output_padding {extra} must be smaller than the stride {steps} or the dilation "
            f"{apart} in each dimension"
        )
    out = tuple(
        (n - 1) * s - sum(pair) + d * (k - 1) + e + 1
        for n, s, pair, d, k, e in zip(shape[2:], steps, around, apart, kernel, extra, strict=True)
    )
    if min(out) < 1:
        raise InvalidValue(
            f"the output would be empty: x {shape} and kernel {kernel} with stride {steps} and "
            f"padding {around} leave {out} pixels; use less padding"
        )
    return Windows(out, kernel, steps, around, apart, shape[2:])
