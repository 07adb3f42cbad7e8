"""Pooling over channels-last images, window by window, without intermediate results."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.kernels.source import (
    WIDE,
    Kernel,
    Kind,
    at,
    empty,
    kind,
    made,
    sizes,
    wide_dtype,
)
from devconv._fast.plan import Plan


def largest(x: Array, w: Plan) -> Array:
    """The largest pixel of each window, ``(N, *out, C)``; NaN wins."""
    y = empty((x.shape[0], *w.out, x.shape[-1]), x.dtype)
    return made(_largest, kind(w))(x, -math.inf, *sizes(w, _before(w)), y)


def _largest(cupy: ModuleType, same: Kind) -> Kernel:
    body = f"""
    {_pixel(same)} const wide pixel = x[at];
    if (pixel > best || pixel != pixel) best = pixel;
    """
    return cupy.ElementwiseKernel(
        f"raw T x, float64 least, {same.parameters}",
        "T y",
        f"wide best = least; {same.reading(body)} y = best;",
        "devconv_largest",
        reduce_dims=False,
        preamble=WIDE + same.constants,
    )


def largest_back(dy: Array, x: Array, y: Array, w: Plan) -> Array:
    """``dy`` sent to the first of the largest pixels of each window."""
    dx = empty(x.shape, x.dtype)
    return made(_largest_back, kind(w))(dy, x, y, *sizes(w, _before(w)), dx)


def _largest_back(cupy: ModuleType, same: Kind) -> Kernel:
    """Each pixel asks the windows that it is in whether it was the first to be the largest."""
    before = same.earlier(
        f"{_pixel(same)} const wide other = x[at];"
        "if (other == best || other != other) first = false;"
    )
    body = f"""
    const ptrdiff_t window[] = {{q[0], {", ".join(same.each("o"))}, q[{same.rank + 1}]}};
    const wide best = y[window];
    if (pixel != best && pixel == pixel) continue;
    bool first = true;
    {before}
    if (first) total += (wide)dy[window];
    """
    place = at(*(f"q[{d}]" for d in range(same.rank + 2)))
    return cupy.ElementwiseKernel(
        f"raw T dy, raw T x, raw T y, {same.parameters}",
        "T dx",
        f"""
        wide total = 0, pixel;
        {{ const ptrdiff_t* q = _ind.get(); {place} pixel = x[at]; }}
        {same.covering(body)}
        dx = total;
        """,
        "devconv_largest_back",
        reduce_dims=False,
        preamble=WIDE + same.constants,
    )


def total(x: Array, w: Plan) -> Array:
    """The sum of each window's pixels, ``(N, *out, C)``, widened."""
    y = empty((x.shape[0], *w.out, x.shape[-1]), wide_dtype(x))
    return made(_total, kind(w))(x, *sizes(w, _before(w)), y)


def _total(cupy: ModuleType, same: Kind) -> Kernel:
    body = f"{_pixel(same)} sum += (wide)x[at];"
    return cupy.ElementwiseKernel(
        f"raw T x, {same.parameters}",
        "W y",
        f"wide sum = 0; {same.reading(body)} y = sum;",
        "devconv_total",
        reduce_dims=False,
        preamble=WIDE + same.constants,
    )


def total_back(dy: Array, w: Plan) -> Array:
    """The adjoint: each pixel's sum of ``dy`` over the windows that it is in."""
    dx = empty((dy.shape[0], *w.size, dy.shape[-1]), dy.dtype)
    return made(_total_back, kind(w))(dy, *sizes(w, _before(w)), dx)


def _total_back(cupy: ModuleType, same: Kind) -> Kernel:
    window = at("q[0]", *same.each("o"), f"q[{same.rank + 1}]")
    return cupy.ElementwiseKernel(
        f"raw T dy, {same.parameters}",
        "T dx",
        f"wide total = 0; {same.covering(f'{window} total += (wide)dy[at];')} dx = total;",
        "devconv_total_back",
        reduce_dims=False,
        preamble=WIDE + same.constants,
    )


def _before(w: Plan) -> Shape:
    return tuple(before for before, _ in w.padding)


def _pixel(same: Kind) -> str:
    return at("q[0]", *same.each("p"), f"q[{same.rank + 1}]")


ROUTES: dict[str, Any] = {
    "largest": largest,
    "largest_back": largest_back,
    "total": total,
    "total_back": total_back,
}
