"""JAX: its own convolution, one operation to compile instead of one for each tap.

Products of matrices, too: on a GPU JAX rounds those of float32 to TF32 unless it is told not to.
"""

from __future__ import annotations

import importlib
from typing import Any

from devconv import _array
from devconv._array import Array
from devconv._fast.plan import Plan


def suits(x: Array, w: Plan, groups: int) -> bool:
    """Whether JAX's convolution says the same, and sooner: float32 and float64, no groups.

    XLA's grouped convolution on a CPU takes several times as long as the written-once route.
    """
    full = _array.dtype_name(x.dtype) in ("float32", "float64")
    return w.is_whole and groups == 1 and full and x.shape[0] > 0


def matrices(*stacks: Array) -> bool:
    """Always: float32 keeps all its digits, as in convolutions."""
    return True


def multiply(a: Array, b: Array) -> Array:
    """Matrices, or each pair of two stacks of them, multiplied with all digits."""
    jax = importlib.import_module("jax")
    return jax.numpy.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def correlate(x: Array, weight: Array, w: Plan, groups: int, bias: Array | None = None) -> Array:
    """``y (N, *out, O)`` for ``x (N, *size, C)``, plus the bias."""
    lax = importlib.import_module("jax.lax")
    spatial = "".join(chr(ord("a") + d) for d in range(len(w.kernel)))
    image = f"N{spatial}C"
    y = lax.conv_general_dilated(
        x,
        weight,
        window_strides=w.stride,
        padding=w.padding,
        rhs_dilation=w.dilation,
        dimension_numbers=(image, f"OI{spatial}", image),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )
    return y if bias is None else y + bias


def input_cotangent(dy: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``: the transpose of a map that is linear."""
    shape = (dy.shape[0], *w.size, weight.shape[1] * groups)
    return _transposed(lambda x: correlate(x, weight, w, groups), shape, dy)


def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan, groups: int) -> Array:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``."""
    return _transposed(lambda k: correlate(x, k, w, groups), tuple(weight.shape), dy)


def _transposed(linear: Any, shape: tuple[int, ...], dy: Array) -> Array:
    jax = importlib.import_module("jax")
    return jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, dy.dtype))(dy)[0]
