"""Arrays as compiled loops can read them: numbers of the machine's own kind, in their places."""

from __future__ import annotations

import numpy as np

from devconv._array import Array


def readable(x: Array, dtype: np.dtype) -> Array:
    """``x``, or a copy where its dtype, its byte order or its address is another."""
    native = dtype.newbyteorder("=")
    return x if x.dtype == native and x.flags.aligned else x.astype(native, copy=True)


def filled(x: Array, dtype: np.dtype) -> Array:
    """The same without gaps, in memory in the order of its axes."""
    return np.ascontiguousarray(readable(x, dtype))
