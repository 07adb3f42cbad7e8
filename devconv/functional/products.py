"""Products of matrices, alone or in stacks, and sums over the rows of one.

Some libraries multiply a whole stack at once. Where one does it badly, by copies and in another
dtype than it was given, there are two ways around, and the rule that chooses between them looks
at shapes and constants alone.
"""

from __future__ import annotations

import math
from functools import lru_cache

from devconv import _array, _fast
from devconv._array import Array

SMALL = 8 * 2**20
"""Bytes of a pair's terms, written and read again while another product would be launched:
an estimate."""


def product(a: Array, b: Array) -> Array:
    """The product of two matrices, or of each pair in two stacks of them.

    >>> import numpy as np
    >>> product(np.ones((2, 3)), np.ones((3, 1)))[:, 0]
    array([3., 3.])
    """
    if max(a.ndim, b.ndim) > 2:
        return stacked(a, b)
    if a.shape[0] == b.shape[1] == 1:  # CuPy adds up one row's and one column's as they are
        a, b = _array.widen(a), _array.widen(b)
    return _fast.multiplication(a, b)(a, b)


def factor(x: Array) -> Array:
    """``x`` as one side of a product of two matrices: half precision widened, if need be.

    >>> import numpy as np
    >>> factor(np.ones(1, dtype="float16"))
    array([1.], dtype=float32)
    """
    return x if _fast.adds_up_wide(x) else _array.widen(x)


def stacked(a: Array, b: Array) -> Array:
    """The product of each pair of matrices, ``(..., M, K) (..., K, N)``.

    One matrix ``a`` is paired with each of ``b``. Where the library has no good way of its own:
    small pairs by all their terms, added up, as many pairs at a time as the workspace holds;
    large ones each by itself.

    >>> import numpy as np
    >>> stacked(np.ones((2, 1, 3)), np.ones((2, 3, 1)))[:, 0, 0]
    array([3., 3.])
    """
    if _fast.multiplies_stacks(a):
        return _fast.multiplication(a, b)(a, b)
    xp, lead, (m, k), n = _array.array_namespace(a), b.shape[:-2], a.shape[-2:], b.shape[-1]
    pairs = math.prod(lead)
    shared = a.ndim == 2
    left = a if shared else xp.reshape(a, (pairs, m, k))
    right = xp.reshape(b, (pairs, k, n))
    terms = m * k * n * itemsize(a)
    if terms > SMALL:
        parts = [product(a if shared else left[p, ...], right[p, ...]) for p in range(pairs)]
        y = xp.stack(parts)
    else:
        at_once = max(1, (_fast.workspace(a) or SMALL) // max(1, terms))
        parts = [
            _added_up(a if shared else left[some, ...], right[some, ...])
            for some in (slice(p, min(p + at_once, pairs)) for p in range(0, pairs, at_once))
        ]
        y = parts[0] if len(parts) == 1 else xp.concat(parts)
    return xp.reshape(y, (*lead, m, n))


def _added_up(a: Array, b: Array) -> Array:
    """Every term of every product, and the sum of them: ``(P, M, K, 1) (P, 1, K, N)``."""
    xp = _array.array_namespace(a)
    if a.shape[-1] == 1:
        return a * b
    terms = xp.expand_dims(a, axis=-1) * xp.expand_dims(b, axis=-3)
    return xp.sum(terms, axis=-2)


def channel_sums(dy: Array) -> Array:
    """The sum of ``dy (..., O)`` over everything but its channels.

    >>> import numpy as np
    >>> channel_sums(np.ones((2, 3, 1)))
    array([6.])
    """
    route = _fast.rows("channel_sums", dy)
    if route is not None:
        return route(dy)
    return _array.array_namespace(dy).sum(_array.widen(dy), axis=tuple(range(dy.ndim - 1)))


def itemsize(x: Array) -> int:
    """The bytes that each number takes up.

    >>> import numpy as np
    >>> itemsize(np.ones(1, dtype="complex64"))
    8
    """
    return _bits(_array.dtype_name(x.dtype)) // 8


@lru_cache(maxsize=32)
def _bits(dtype: str) -> int:
    return int("".join(filter(str.isdigit, dtype)))
