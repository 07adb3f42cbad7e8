"""Convolution as its definition says: each window's products, added up.

One bilinear map of kernel and input from its three sides, tile by tile; by the library's own
route where :mod:`devconv._fast` has one; a route that finds no way returns ``None``. Arrays are
``(N, *spatial, C)`` here.
"""

from __future__ import annotations

from devconv import _array, _fast
from devconv._array import Array
from devconv.functional.contraction import contraction
from devconv.functional.windows import Tile, Windows, accumulate, assemble, spread


def correlate(x: Array, weight: Array, w: Windows, groups: int, bias: Array | None = None) -> Array:
    """``y (N, *out, O)``: the windows of ``x`` (N, *size, C) contracted with the kernel.

    Plus the bias, one number per output channel.
    """
    route = _fast.convolution("correlate", x, w, groups)
    y = None if route is None else route(x, weight, w, groups, bias)
    if y is not None:
        return y
    contract = contraction(weight, groups)
    y = assemble(
        contract.forward,
        x,
        w,
        channels=weight.shape[0],
        bytes_per_window=contract.bytes_per_window,
    )
    return y if bias is None else y + bias


def input_cotangent(dy: Array, weight: Array, w: Windows, groups: int) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``.

    At stride 1 a convolution of ``dy`` with the flipped kernel, input and output channels
    exchanged; otherwise the transposed contraction and the adjoint of taking windows.
    """
    route = _fast.convolution("input_cotangent", dy, w, groups)
    dx = None if route is None else route(dy, weight, w, groups)
    if dx is not None:
        return dx
    back = w.transposed()
    if back is not None:
        return correlate(dy, flipped(weight, groups), back, groups)
    contract = contraction(weight, groups)

    def body(tile: Tile) -> Array:
        return contract.to_input(dy[tile.of_y], tile.windows)

    shape = (dy.shape[0], *w.size, weight.shape[1] * groups)
    return spread(
        body,
        shape,
        w,
        bytes_per_window=contract.bytes_per_window,
        like=_array.widen(dy),
    )


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Windows, groups: int) -> Array:
    """``dweight (O, C/G, *kernel)``: each tap's inner product of input and ``dy``."""
    route = _fast.convolution("kernel_cotangent", x, w, groups)
    dweight = None if route is None else route(x, dy, weight, w, groups)
    if dweight is not None:
        return dweight
    contract = contraction(weight, groups)

    def body(tile: Tile, slab: Array) -> Array:
        return contract.to_kernel(slab, dy[tile.of_y], tile.windows)

    total = accumulate(body, x, w, bytes_per_window=contract.bytes_per_window)
    if total is None:
        xp = _array.array_namespace(weight)
        return xp.zeros_like(weight)
    return contract.kernel_shaped(total)


def flipped(weight: Array, groups: int) -> Array:
    """The kernel read backwards, with input and output channels exchanged in each group."""
    xp = _array.array_namespace(weight)
    o, c, *kernel = weight.shape
    spatial = tuple(range(3, 3 + len(kernel)))
    grouped = xp.reshape(weight, (groups, o // groups, c, *kernel))
    swapped = xp.permute_dims(xp.flip(grouped, axis=spatial), (0, 2, 1, *spatial))
    return xp.reshape(swapped, (groups * c, o // groups, *kernel))
