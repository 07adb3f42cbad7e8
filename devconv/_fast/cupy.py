"""CuPy: windows as a view, and products in TF32 where ``precision("fast")`` allows them."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import numpy as np

from devconv._array import Array
from devconv._check import Shape
from devconv._fast.budget import budget
from devconv._fast.strides import layout
from devconv.precision import precision

_FLOAT32 = 0  # cudaDataType_t: CUDA_R_32F
_ONE, _ZERO = np.ones((), dtype="float32"), np.zeros((), dtype="float32")


def take(slab: Array, out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Array:
    """Windows ``(N, *out, *kernel, C)`` of ``slab`` (N, *spatial, C), a view.

    CuPy's own ``sliding_window_view`` waits for the device at every call.
    """
    shape, strides = layout(slab.shape, slab.strides, out, kernel, stride, dilation)
    as_strided = importlib.import_module("cupy.lib.stride_tricks").as_strided
    return as_strided(slab, shape, strides)


def workspace(x: Array) -> int:
    """How many bytes of columns one tile may hold on the device of ``x``."""
    return _workspace(importlib.import_module("cupy.cuda").runtime, x.device.id)


@lru_cache(maxsize=64)
def _workspace(runtime: Any, index: int) -> int:
    return budget(runtime.getDeviceProperties(index)["totalGlobalMem"])


def matrices(a: Array, b: Array) -> bool:
    """Whether the product of these may be rounded to TF32, and CuPy can be told so."""
    return (
        precision() == "fast"
        and a.dtype == b.dtype == np.float32
        and a.ndim == b.ndim == 2
        and a.size > 0
        and b.size > 0
        and has_tf32(a.device)
    )


def has_tf32(device: Any) -> bool:
    """Whether a device has TF32, and this CuPy the names that :func:`multiply` needs."""
    return _tf32() is not None and int(device.compute_capability) >= 80


def _tf32() -> tuple[Any, ...] | None:
    """The product of cuBLAS, and what it is told; ``None`` where CuPy has no such names."""
    try:
        cuda = importlib.import_module("cupy.cuda")
        cublas, handle = cuda.cublas, cuda.get_cublas_handle
        kind, how = cublas.CUBLAS_COMPUTE_32F_FAST_TF32, cublas.CUBLAS_GEMM_DEFAULT
        orders = (cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_T)
        return None if cuda.runtime.is_hip else (cublas.gemmEx, handle, kind, how, orders)
    except (ImportError, AttributeError):
        return None


def multiply(a: Array, b: Array) -> Array:
    """Two float32 matrices multiplied, their numbers rounded to TF32.

    CuPy's own switch is one for the whole process, for complex numbers too, so another thread's
    products would be rounded with these. cuBLAS takes the kind of computation as an argument:
    nothing is switched, and nothing is to be put back. On the current device and stream.
    """
    found = _tf32()
    assert found is not None  # matrices() asked
    gemm, handle, kind, how, orders = found
    xp = importlib.import_module("cupy")
    (m, k), n = a.shape, b.shape[1]
    (a, a_across, a_step), (b, b_across, b_step) = _laid_out(a), _laid_out(b)
    y = xp.empty((m, n), dtype=np.float32)
    # Matrices are columns for cuBLAS, so rows of y = a b are for it the columns of yᵀ = bᵀ aᵀ.
    one, zero = _ONE.ctypes.data, _ZERO.ctypes.data
    first, second = (b.data.ptr, _FLOAT32, b_step), (a.data.ptr, _FLOAT32, a_step)
    across = orders[b_across], orders[a_across]
    gemm(handle(), *across, n, m, k, one, *first, *second, zero, y.data.ptr, _FLOAT32, n, kind, how)
    return y


def _laid_out(x: Array) -> tuple[Array, bool, int]:
    """A matrix without gaps, whether it lies in columns, and the numbers in each row or column."""
    if x.flags.c_contiguous:
        return x, False, x.shape[1]
    if x.flags.f_contiguous:
        return x, True, x.shape[0]
    return x.copy(order="C"), False, x.shape[1]
