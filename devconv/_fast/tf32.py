"""CuPy's products of float32 matrices in TF32, which ``precision("fast")`` allows.

On each GPU they are tried before they are taken: if small ones are not right there, products stay
exact, and a :class:`NotTaken` says so.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import numpy as np

from devconv._array import Array
from devconv._detect import line
from devconv.precision import precision

_FLOAT32 = 0  # cudaDataType_t: CUDA_R_32F
_ONE, _ZERO = (np.asarray(factor, dtype="float32") for factor in (1.0, 0.0))
_ALPHA, _BETA = _ONE.ctypes.data, _ZERO.ctypes.data


class NotTaken(UserWarning):
    """TF32 was allowed, and exact products run in its place."""


def module(name: str) -> Any:
    """A module of CuPy's; asking for its import each time takes longer than a view does."""
    return sys.modules.get(name) or importlib.import_module(name)


def matrices(a: Array, b: Array) -> bool:
    """Whether the product of these may be rounded to TF32, and is right when it is."""
    return (
        precision() == "fast"
        and a.dtype == b.dtype == np.float32
        and a.ndim == b.ndim == 2
        and a.size > 0
        and b.size > 0
        and has_tf32(a.device)
    )


def has_tf32(device: Any) -> bool:
    """Whether a device has TF32, this CuPy the names it takes, and :func:`multiply` is right."""
    if int(device.compute_capability) < 80 or _names() is None:
        return False
    right = _verdicts.get(device.id)
    return _tried(device) if right is None else right


_verdicts: dict[int, bool] = {}
"""Whether products were right, by the number of the device; a failure that may pass is none."""


def _tried(device: Any) -> bool:
    """Whether products that TF32 holds to the last bit come out so, in each order in memory."""
    xp, problem = module("cupy"), "is wrong"
    a, b = (np.arange(n * m).reshape(n, m) % 7 - 3.0 for n, m in ((5, 6), (6, 8)))
    try:
        with device:
            right = _verdicts[device.id] = all(
                np.array_equal(multiply(p, q).get(), a @ b)
                for p in _both_orders(xp, a)
                for q in _both_orders(xp, b)
            )
    except Exception as error:  # out of memory, say
        right, problem = False, f"fails ({line(error)})"
    if not right:
        text = f"a product of matrices in TF32 {problem} on CUDA device {device.id}; it stays exact"
        warnings.warn(text, NotTaken, stacklevel=2)
    return right


def _both_orders(xp: Any, host: np.ndarray) -> tuple[Array, Array]:
    """A matrix on the current device, row after row in memory and column after column."""
    x = host.astype("float32")
    return xp.asarray(x), xp.asarray(np.ascontiguousarray(x.T)).T


def _names() -> tuple[Any, ...] | None:
    """The product of cuBLAS, and what it is told; ``None`` where CuPy has no such names."""
    try:
        cuda = module("cupy.cuda")
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
    found = _names()
    assert found is not None  # has_tf32() asked
    gemm, handle, kind, how, orders = found
    (m, k), n = a.shape, b.shape[1]
    (a, a_across, a_step), (b, b_across, b_step) = _laid_out(a), _laid_out(b)
    y = module("cupy").empty((m, n), dtype=np.float32)
    # Matrices are columns for cuBLAS, so rows of y = a b are for it the columns of yᵀ = bᵀ aᵀ.
    first, second = (b.data.ptr, _FLOAT32, b_step), (a.data.ptr, _FLOAT32, a_step)
    across, into = (orders[b_across], orders[a_across]), (y.data.ptr, _FLOAT32, n)
    gemm(handle(), *across, n, m, k, _ALPHA, *first, *second, _BETA, *into, kind, how)
    return y


def _laid_out(x: Array) -> tuple[Array, bool, int]:
    """A matrix without gaps, whether it lies in columns, and the numbers in each row or column."""
    if x.flags.c_contiguous:
        return x, False, x.shape[1]
    if x.flags.f_contiguous:
        return x, True, x.shape[0]
    return x.copy(order="C"), False, x.shape[1]
