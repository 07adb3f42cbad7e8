"""Functions of each number by itself, in one launch and in the memory order of the first array."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

from devconv._array import Array
from devconv._fast.kernels.source import WIDE, Kernel, empty_like, made

Pullback = Callable[[Array], tuple[Array]]


def relu(x: Array) -> Array:
    """``max(x, 0)``; NaN stays NaN."""
    return made(_relu)(x, empty_like(x))


def _relu(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        "T x", "T y", "const wide v = x; y = v <= 0 ? (wide)0 : v;", "devconv_relu", preamble=WIDE
    )


def relu_back(dy: Array, y: Array) -> Array:
    """``dy`` where ``y`` is not 0, else 0."""
    return made(_relu_back)(dy, y, empty_like(dy))


def _relu_back(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        "T dy, T y",
        "T dx",
        "dx = (wide)dy * (wide)((wide)y != 0);",
        "devconv_relu_back",
        preamble=WIDE,
    )


def tanh_back(dy: Array, y: Array) -> Array:
    """``dy · (1 - y²)``."""
    return made(_tanh_back)(dy, y, empty_like(dy))


def _tanh_back(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        "T dy, T y",
        "T dx",
        "const wide v = y; dx = (wide)dy * (1 - v * v);",
        "devconv_tanh_back",
        preamble=WIDE,
    )


def blend(a: float, x: Array, b: float, y: Array) -> Array:
    """``a · x + b · y`` of two numbers and two arrays."""
    return made(_blend)(a, x, b, y, empty_like(x))


def _blend(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        "float64 a, T x, float64 b, T y",
        "T z",
        "z = (wide)a * (wide)x + (wide)b * (wide)y;",
        "devconv_blend",
        preamble=WIDE,
    )


def blend_twice(a: float, x: Array, b: float, y: Array, c: float, z: Array) -> tuple[Array, Array]:
    """``a · x + b · y``, and ``z + c`` times that."""
    return made(_blend_twice)(a, x, b, y, c, z, empty_like(x), empty_like(z))


def _blend_twice(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        "float64 a, T x, float64 b, T y, float64 c, T z",
        "T inner, T outer",
        """
        const wide mixed = (wide)a * (wide)x + (wide)b * (wide)y;
        inner = mixed; outer = (wide)z + (wide)c * mixed;
        """,
        "devconv_blend_twice",
        preamble=WIDE,
    )


# --- GELU ---

_NEAR = "const wide v = x, near = v < -40 ? (wide)-40 : v > 40 ? (wide)40 : v;"
_NUMBER = {"none": "const wide v = x;", "tanh": _NEAR}
_BELOW = {
    "none": f"const wide below = (wide)0.5 * (1 + erf(v / (wide){math.sqrt(2.0)!r}));",
    "tanh": f"const wide scale = {math.sqrt(2.0 / math.pi)!r};"
    "const wide bend = tanh(scale * (near + (wide)0.044715 * near * near * near));"
    "const wide below = (wide)0.5 * (1 + bend);",
}
_DENSITY = {
    "none": f"exp((wide)-0.5 * near * near) / (wide){math.sqrt(2.0 * math.pi)!r}",
    "tanh": "(wide)0.5 * (1 - bend * bend) * scale * (1 + (wide)0.134145 * near * near)",
}


def gelu(x: Array, approximate: str) -> tuple[Array, Pullback]:
    """``x · Phi(x)``, and the way back, which needs ``x`` alone."""

    def pullback(dy: Array) -> tuple[Array]:
        return (made(_gelu_back, approximate)(dy, x, empty_like(x)),)

    return made(_gelu, approximate)(x, empty_like(x)), pullback


def _gelu(cupy: ModuleType, approximate: str) -> Kernel:
    return cupy.ElementwiseKernel(
        "T x",
        "T y",
        f"{_NUMBER[approximate]} {_BELOW[approximate]} y = v * below;",
        "devconv_gelu",
        preamble=WIDE,
    )


def _gelu_back(cupy: ModuleType, approximate: str) -> Kernel:
    return cupy.ElementwiseKernel(
        "T dy, T x",
        "T dx",
        f"{_NEAR} {_BELOW[approximate]} dx = (wide)dy * (below + v * ({_DENSITY[approximate]}));",
        "devconv_gelu_back",
        preamble=WIDE,
    )


# --- dropout ---

# Threefry-2x32 as in devconv.random; the counter's second word is that of a draw, 0.
_THREEFRY = """
__device__ unsigned int threefry(unsigned int k0, unsigned int k1, unsigned int counter,
                                 bool second) {
  const int turns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const unsigned int words[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
  unsigned int a = counter + words[0], b = words[1];
  for (int group = 0; group < 5; ++group) {
    for (int turn = 0; turn < 4; ++turn) {
      const int by = turns[group % 2][turn];
      a += b;
      b = ((b << by) | (b >> (32 - by))) ^ a;
    }
    a += words[(group + 1) % 3];
    b += words[(group + 2) % 3] + group + 1;
  }
  return second ? b : a;
}
"""


def drop(x: Array, key: Array, below: int, scale: float, words: tuple[int, int]) -> Array:
    """``x · scale`` where the random word of a number is less than ``below``, else ``x · 0``.

    Of ``words`` there are so many each for so many parts of ``x``, which follow in C order and
    repeat their words.
    """
    parts, keep = words
    run = max(1, math.prod(x.shape) // max(1, parts))
    return made(_drop)(x, key, below, scale, run, max(1, keep), empty_like(x))


def _drop(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        "T x, raw int32 key, int64 below, float64 scale, int64 run, int64 keep",
        "T y",
        """
        const long long word = i / run * keep + i % keep;
        const int drawn = threefry(key[0], key[1], (unsigned int)(word >> 1), word & 1);
        y = (wide)x * (drawn < below ? (wide)scale : (wide)0);
        """,
        "devconv_drop",
        preamble=WIDE + _THREEFRY,
    )


# --- optimizers ---


def scaled_step(x: Array, *numbers: Any) -> tuple[Array, Array, Array]:
    """Adam's step, as :func:`devconv.functional.special.scaled_step` has it."""
    return made(_scaled_step)(x, *numbers, *(empty_like(x) for _ in range(3)))


def _scaled_step(cupy: ModuleType) -> Kernel:
    return cupy.ElementwiseKernel(
        "T x, T grad, T first, T second, T beta1, T beta2, T fresh1, T fresh2, T rate, T eps, "
        "T shrink, T decay",
        "T to, T mean, T square",
        """
        const T weight = x * shrink, slope = decay == 0 ? grad : grad + decay * x;
        const T m = fresh1 * slope + beta1 * first, v = fresh2 * slope * slope + beta2 * second;
        to = weight - rate * m / (sqrt(v) + eps); mean = m; square = v;
        """,
        "devconv_scaled_step",
    )


ROUTES: dict[str, Any] = {
    "relu": relu,
    "relu_back": relu_back,
    "tanh_back": tanh_back,
    "blend": blend,
    "blend_twice": blend_twice,
    "gelu": gelu,
    "drop": drop,
    "scaled_step": scaled_step,
}
