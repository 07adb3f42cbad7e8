"""Windows as the rows of a matrix, weighed channel by channel, and their adjoints."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.cupy import take
from devconv._fast.kernels.source import (
    WIDE,
    Kernel,
    Kind,
    at,
    empty,
    kind,
    made,
    reach,
    sizes,
)
from devconv._fast.plan import Plan


def cut(x: Array, lead: Shape, shape: Shape, fill: float) -> Array:
    """An array of ``shape`` with ``x`` in it from the index ``lead`` on, and ``fill`` around it."""
    slab = empty(shape, x.dtype)
    kernel = made(_cut, x.ndim)
    return kernel(x, fill, *lead, *x.shape, slab)


def _cut(cupy: ModuleType, rank: int) -> Kernel:
    axes = range(rank)
    inside = " && ".join(f"at[{d}] >= 0 && at[{d}] < size{d}" for d in axes)
    names = [f"int64 {name}{d}" for name in ("lead", "size") for d in axes]
    return cupy.ElementwiseKernel(
        f"raw T x, float64 fill, {', '.join(names)}",
        "T slab",
        f"""
        const ptrdiff_t* q = _ind.get();
        {at(*(f"q[{d}] - lead{d}" for d in axes))}
        slab = {inside} ? x[at] : static_cast<T>(fill);
        """,
        "devconv_cut",
        reduce_dims=False,
    )


def columns(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """The windows of ``slab`` (N, *spatial, C) as rows ``(windows, taps · C)``."""
    windows = take(slab, out, kernel, stride, dilation)
    rows = empty(windows.shape, slab.dtype)
    made(_copied)(windows, rows)
    count = slab.shape[0] * math.prod(out)
    return rows.reshape((count, math.prod(kernel) * slab.shape[-1]))


def _copied(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel("T windows", "T rows", "rows = windows;", "devconv_columns")


def put(windows: Array, w: Plan) -> Array:
    """The adjoint of taking windows: ``(N, *reach, C)`` of ``windows (N, *out, taps, C)``."""
    same = kind(w)
    slab = empty((windows.shape[0], *reach(w), windows.shape[-1]), windows.dtype)
    return made(_put, same)(windows, *sizes(w), slab)


def _put(cupy: ModuleType, same: Kind) -> Kernel:
    share = at("q[0]", *same.each("o"), same.number("k"), f"q[{same.rank + 1}]")
    return cupy.ElementwiseKernel(
        f"raw T windows, {same.parameters}",
        "T slab",
        f"wide total = 0; {same.covering(f'{share} total += (wide)windows[at];')} "
        "slab = static_cast<T>(total);",
        "devconv_put",
        reduce_dims=False,
        preamble=WIDE + same.constants,
    )


def weigh(windows: Array, kernel: Array) -> Array:
    """``(N, *out, C)``: the windows ``(N, *out, *kernel, C)`` weighed by ``(*kernel, C)``."""
    rank = kernel.ndim - 1
    y = empty((*windows.shape[: 1 + rank], windows.shape[-1]), windows.dtype)
    return made(_weigh, kernel.shape[:-1])(windows, kernel, y)


def _weigh(cupy: ModuleType, kernel: Shape) -> Kernel:
    rank = len(kernel)
    loops = "".join(
        f"for (int k{d} = 0; k{d} < {taps}; ++k{d}) {{" for d, taps in enumerate(kernel)
    )
    taps = [f"k{d}" for d in range(rank)]
    read = at(*(f"q[{d}]" for d in range(1 + rank)), *taps, f"q[{1 + rank}]")
    weight = at(*taps, f"q[{1 + rank}]").replace(" at[]", " of[]")
    return cupy.ElementwiseKernel(
        "raw T windows, raw T kernel",
        "T y",
        f"""
        const ptrdiff_t* q = _ind.get();
        T total = 0;
        {loops} {read} {weight} total += windows[at] * kernel[of]; {"}" * rank}
        y = total;
        """,
        "devconv_weigh",
        reduce_dims=False,
    )


def weigh_input(dy: Array, kernel: Array, w: Plan) -> Array:
    """The adjoint in the slab: ``(N, *reach, C)`` of ``dy (N, *out, C)`` and ``(*kernel, C)``."""
    same = kind(w)
    slab = empty((dy.shape[0], *reach(w), dy.shape[-1]), dy.dtype)
    return made(_weigh_input, same)(dy, kernel, *sizes(w), slab)


def _weigh_input(cupy: ModuleType, same: Kind) -> Kernel:
    channel = f"q[{same.rank + 1}]"
    read = at("q[0]", *same.each("o"), channel)
    weight = at(*same.each("k"), channel).replace(" at[]", " of[]")
    return cupy.ElementwiseKernel(
        f"raw T dy, raw T weight, {same.parameters}",
        "T slab",
        f"T total = 0; {same.covering(f'{read} {weight} total += dy[at] * weight[of];')} "
        "slab = total;",
        "devconv_weigh_input",
        reduce_dims=False,
        preamble=same.constants,
    )


def weigh_back(windows: Array, dy: Array) -> Array:
    """The adjoint in the kernel: ``(*kernel, C)`` of the windows and ``dy (N, *out, C)``.

    First over each image: there are too few numbers left at the end to share all sums between.
    """
    spread = dy[(..., *(None,) * (windows.ndim - dy.ndim), slice(None))]
    inside = tuple(range(1, dy.ndim - 1))
    shares = made(_products)(windows, spread, axis=inside)
    return shares[0] if shares.shape[0] == 1 else made(_sum)(shares, axis=0)


def _products(cupy: ModuleType) -> Kernel:
    return cupy.ReductionKernel(
        "T x, T dy", "T share", "x * dy", "a + b", "share = a", "0", "devconv_weigh_back"
    )


def _sum(cupy: ModuleType) -> Kernel:
    return cupy.ReductionKernel("T x", "T total", "x", "a + b", "total = a", "0", "devconv_sum")


ROUTES: dict[str, Any] = {
    "cut": cut,
    "columns": columns,
    "put": put,
    "weigh": weigh,
    "weigh_input": weigh_input,
    "weigh_back": weigh_back,
}
