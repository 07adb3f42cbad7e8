"""Normalisation of each channel over a batch, in two readings of memory there and two back.

Images are rows of channels without gaps. Sums run over stretches of rows, many at a time, and a
second launch adds up the stretches: one launch alone would keep only a few threads for each
channel busy, and channels are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from devconv._array import Array, dtype_name
from devconv._fast.kernels.source import WIDE, Kernel, empty, made, wide_dtype

Moments = tuple[Array, Array]
Pullback = Callable[[Array], tuple[Array | None, ...]]

STRETCHES = 1024
"""How many stretches there are at most; it decides the order of sums, so it is a constant."""
SHORT = 32
"""The shortest stretch."""

_STRETCH = """
const ptrdiff_t s = i / channels, c = i - s * channels, from = s * stretch;
const ptrdiff_t to = from + stretch < rows ? from + stretch : rows;
"""
_EACH = "for (ptrdiff_t row = from; row < to; ++row)"
_SIZES = "int64 rows, int64 channels, int64 stretch"
_RATE = """
const wide noise = var + (wide)eps;
const wide rate = 1 / sqrt(noise < (wide)least ? (wide)least : noise);
"""


def channel_norm(
    x: Array, weight: Array | None, bias: Array | None, eps: float, given: Moments | None
) -> tuple[Array, Moments, Pullback]:
    """``y = (x - mean) / sqrt(var + eps) · weight + bias`` for channels-last ``x (..., C)``.

    Mean and variance, ``(C,)``, are those of ``x`` or the ``given`` ones, which are constants.
    """
    mean, var = _moments(x) if given is None else given
    least = float(np.finfo(dtype_name(var.dtype)).smallest_normal)
    gain = 1.0 if weight is None else weight
    offset = 0.0 if bias is None else bias
    scale = made(_scale, weight is not None, bias is not None)
    y = scale(x, mean, var, gain, offset, eps, least, empty(x.shape, x.dtype))

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dx = empty(x.shape, x.dtype)
        combine = made(_combine, weight is not None, given is None)
        if given is None or weight is not None or bias is not None:
            level, flow = _flows(x, dy, mean, var, eps, least)
        if given is None:
            combine(dy, var, gain, eps, least, x, mean, level, flow, 1.0 / rows(x), dx)
        else:
            combine(dy, var, gain, eps, least, dx)
        return dx, None if weight is None else flow, None if bias is None else level

    return y, (mean, var), pullback


def channel_sums(x: Array) -> Array:
    """The sum of ``x (..., C)`` over everything but its channels, widened."""
    channels = x.shape[-1]
    sums = made(_sums)(x, *_stretched(x), empty((_stretches(x), channels), wide_dtype(x)))
    return made(_sum)(sums, axis=0)


def rows(x: Array) -> int:
    """How many numbers each channel has."""
    return math.prod(x.shape[:-1])


def stretch(count: int) -> int:
    """How many of ``count`` rows one thread adds up: a power of two."""
    return max(SHORT, 1 << (-(-count // STRETCHES) - 1).bit_length())


def _stretches(x: Array) -> int:
    return -(-rows(x) // stretch(rows(x)))


def _stretched(x: Array) -> tuple[int, int, int]:
    """The numbers that ``_SIZES`` declares."""
    return rows(x), x.shape[-1], stretch(rows(x))


def _moments(x: Array) -> Moments:
    """Mean and biased variance: those of stretches, put together in float64.

    T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance",
    The American Statistician 37 (1983).
    """
    parts, wide, channels = _stretches(x), wide_dtype(x), x.shape[-1]
    counts, means, squares = (empty((parts, channels), wide) for _ in range(3))
    made(_parts)(x, *_stretched(x), counts, means, squares)
    mean, var = (empty((channels,), wide) for _ in range(2))
    made(_merged)(counts, means, squares, mean, var, axis=0)
    return mean, var


def _flows(x: Array, dy: Array, mean: Array, var: Array, eps: float, least: float) -> Moments:
    """The sums of ``dy`` and ``dy · (x - mean) · rate`` of each channel."""
    parts, wide, channels = _stretches(x), wide_dtype(x), x.shape[-1]
    levels, flows = (empty((parts, channels), wide) for _ in range(2))
    made(_flowing)(x, dy, mean, *_stretched(x), levels, flows)
    level, flow = (empty((channels,), wide) for _ in range(2))
    made(_gathered)(levels, flows, var, eps, least, level, flow, axis=0)
    return level, flow


# --- the kernels ---


def _scale(cupy: ModuleType, weight: bool, bias: bool) -> Kernel:
    vectors = f"{'A' if weight else 'float64'} weight, {'B' if bias else 'float64'} bias"
    return cupy.ElementwiseKernel(
        f"T x, W mean, W var, {vectors}, float64 eps, float64 least",
        "T y",
        f"{_RATE} y = ((wide)x - mean) * (rate * (wide)weight) + (wide)bias;",
        "devconv_scale",
        preamble=WIDE,
    )


def _parts(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        f"raw T x, {_SIZES}",
        "W counts, W means, W squares",
        f"""
        {_STRETCH}
        wide sum = 0, square = 0;
        {_EACH} sum += (wide)x[row * channels + c];
        const wide mean = sum / (to - from);
        {_EACH} {{ const wide far = (wide)x[row * channels + c] - mean; square += far * far; }}
        counts = to - from; means = mean; squares = square;
        """,
        "devconv_parts",
        preamble=WIDE,
    )


def _merged(cupy: ModuleType) -> Kernel:
    preamble = """
    struct Part {
      double count, mean, squares;
      __device__ Part() : count(0), mean(0), squares(0) {}
      __device__ Part(double n, double m, double s) : count(n), mean(m), squares(s) {}
    };
    __device__ Part merged(const Part& one, const Part& two) {
      const double count = one.count + two.count;
      if (count == 0) return one;
      const double far = two.mean - one.mean, share = two.count / count;
      return Part(count, one.mean + far * share,
                  one.squares + two.squares + far * far * one.count * share);
    }
    """
    return cupy.ReductionKernel(
        "W counts, W means, W squares",
        "W mean, W var",
        "Part(counts, means, squares)",
        "merged(a, b)",
        "mean = a.mean, var = a.squares / a.count",
        "Part()",
        "devconv_merged",
        reduce_type="Part",
        preamble=preamble,
    )


def _flowing(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        f"raw T x, raw T dy, raw W mean, {_SIZES}",
        "W levels, W flows",
        f"""
        {_STRETCH}
        wide level = 0, flow = 0;
        const wide middle = mean[c];
        {_EACH} {{
          const ptrdiff_t place = row * channels + c;
          const wide each = dy[place];
          level += each;
          flow += each * ((wide)x[place] - middle);
        }}
        levels = level; flows = flow;
        """,
        "devconv_flows",
        preamble=WIDE,
    )


def _gathered(cupy: ModuleType) -> Kernel:
    preamble = """
    struct Flow {
      double level, flow;
      __device__ Flow() : level(0), flow(0) {}
      __device__ Flow(double l, double f) : level(l), flow(f) {}
    };
    __device__ Flow added(const Flow& one, const Flow& two) {
      return Flow(one.level + two.level, one.flow + two.flow);
    }
    template<typename A> __device__ double rated(A flow, A var, A eps, A least) {
      const A noise = var + eps;
      return (double)flow * (1 / sqrt(noise < least ? least : noise));
    }
    """
    return cupy.ReductionKernel(
        "W levels, W flows, W var, W eps, W least",
        "W level, W flow",
        "Flow(levels, rated<W>(flows, var, eps, least))",
        "added(a, b)",
        "level = a.level, flow = a.flow",
        "Flow()",
        "devconv_gathered",
        reduce_type="Flow",
        preamble=preamble,
    )


def _combine(cupy: ModuleType, weight: bool, learning: bool) -> Kernel:
    """``dx``: through the numbers themselves, and where ``learning`` through their statistics."""
    inner = "(wide)dy"
    statistics = ""
    if learning:
        statistics = ", T x, W mean, W level, W flow, float64 share"
        inner = "(wide)dy - (level + ((wide)x - mean) * rate * flow) * (wide)share"
    return cupy.ElementwiseKernel(
        f"T dy, W var, {'A' if weight else 'float64'} weight, float64 eps, float64 least"
        f"{statistics}",
        "T dx",
        f"{_RATE} dx = ({inner}) * (rate * (wide)weight);",
        "devconv_combine",
        preamble=WIDE,
    )


def _sums(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        f"raw T x, {_SIZES}",
        "W sums",
        f"{_STRETCH} W sum = 0; {_EACH} sum += (W)x[row * channels + c]; sums = sum;",
        "devconv_sums",
    )


def _sum(cupy: ModuleType) -> Kernel:
    return cupy.ReductionKernel(
        "W sums", "W total", "sums", "a + b", "total = a", "0", "devconv_sum", reduce_type="double"
    )


ROUTES: dict[str, Any] = {"channel_norm": channel_norm, "channel_sums": channel_sums}
