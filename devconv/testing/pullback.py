"""Is the pullback the transpose of the derivative?

``check_vjp`` is the question "change one filter value a little and look" asked of all values
at once: a random direction ``v`` costs two evaluations, not two per weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from devconv import _array
from devconv._array import Array
from devconv.functional.operation import Operation


def check_vjp(
    op: Operation[Any],
    *args: Array | None,
    seed: int = 0,
    directions: int = 3,
    step: float = 1e-4,
    tolerance: float = 1e-6,
    **options: Any,
) -> None:
    """Assert that an operation's pullback is the transpose of its derivative.

    For random directions ``v`` and a random ``dy``: ``<dy, J v>``, with ``J v`` by a central
    difference of four evaluations, equals ``<pullback(dy), v>``, jointly for all arguments
    and for each alone. Nothing needs to be of order 1: each argument moves in proportion to its
    own size, and what may differ is measured by the size of what is compared.

    Args:
        op: an operation, as made by :func:`devconv.functional.differentiable`.
        args: its arrays, in float64 (a difference quotient in float32 has three digits).
        seed: seeds the directions.
        directions: how many to try for each argument.
        step: of the difference, relative to each argument's mean absolute value (1 for zeros).
            If ``y`` is rounded by more than ``tolerance`` lets through, an argument smaller
            than 1 is moved by ``step`` itself, too.
        tolerance: largest difference, relative to the size of the two sums: the larger of
            ``‖dy · J v‖`` and ``‖pullback(dy) · v‖``, products entry by entry. What the rounding
            of ``y`` does to a quotient, ``1e-13 / step · ‖dy · y‖``, comes on top.
        options: the operation's options.

    Raises:
        AssertionError: naming the argument whose cotangent is wrong, and both values.
        TypeError: an argument that is not float64.

    The method is that of ``check_vjp`` in autograd (D. Maclaurin, D. Duvenaud, M. Johnson).

    >>> import numpy as np
    >>> from devconv import functional as F
    >>> check_vjp(F.dense, np.ones((2, 3)), np.ones((4, 3)), np.ones(4))
    """
    rng = np.random.default_rng(seed)
    y, pullback = op.vjp(*args, **options)
    y = y[0] if isinstance(y, tuple) else y
    xp, device = _array.array_namespace(y), _array.device(y)
    dy = rng.standard_normal(tuple(y.shape))
    cotangents = pullback(_to(xp, dy, y.dtype, device))
    smooth = [i for i, d in enumerate(cotangents) if d is not None]
    for i in smooth:
        _check_float64(i, args[i])
    relative = {i: _size(_array.to_numpy(args[i])) for i in smooth}
    absolute = {i: max(1.0, size) for i, size in relative.items()}
    noise = _ROUNDING / step * _norm(dy * _array.to_numpy(y))

    def evaluate(moved: Mapping[int, np.ndarray], amount: float) -> np.ndarray:
        inputs = [
            x
            if i not in moved
            else _to(xp, _array.to_numpy(x) + amount * moved[i], x.dtype, device)  # type: ignore[union-attr]
            for i, x in enumerate(args)
        ]
        out = op(*inputs, **options)
        return _array.to_numpy(out[0] if isinstance(out, tuple) else out)

    for group in [*([i] for i in smooth), smooth] if len(smooth) > 1 else [smooth]:
        for _ in range(directions):
            unit = {i: rng.standard_normal(tuple(args[i].shape)) for i in group}  # type: ignore[union-attr]
            for sizes in (relative, absolute):
                v = {i: sizes[i] * unit[i] for i in group}
                near = evaluate(v, step) - evaluate(v, -step)
                far = evaluate(v, 2 * step) - evaluate(v, -2 * step)
                ahead = dy * (8 * near - far) / (12 * step)  # dy · J v
                shares = [_array.to_numpy(cotangents[i]) * v[i] for i in group]
                forward, back = float(np.sum(ahead)), sum(float(np.sum(s)) for s in shares)
                allowed = tolerance * max(map(_norm, [ahead, *shares]))
                if not abs(forward - back) <= allowed + noise:
                    names = ", ".join(op.arguments[min(i, len(op.arguments) - 1)] for i in group)
                    raise AssertionError(
                        f"{op.__name__}: cotangent of {names} is wrong: <pullback(dy), v> = "
                        f"{back!r}, <dy, Jv> = {forward!r}"
                    )
                if noise <= allowed:
                    break


_ROUNDING = 1e-13
"""What a value of y may be off by, relative to it: float64 after sums of some length."""


def _size(x: np.ndarray) -> float:
    """The mean absolute value; 1 where that is 0."""
    return (float(np.mean(np.abs(x))) if x.size else 0.0) or 1.0


def _norm(x: np.ndarray) -> float:
    """How large a sum of ``x`` is if its signs are random."""
    return float(np.linalg.norm(np.ravel(x)))


def _to(xp: Any, x: np.ndarray, dtype: Any, device: Any) -> Array:
    return xp.asarray(np.array(x, order="C"), dtype=dtype, device=device)


def _check_float64(i: int, x: Any) -> None:
    if _array.dtype_name(x.dtype) != "float64":
        raise TypeError(
            f"check_vjp: argument {i} is {_array.dtype_name(x.dtype)}, expected float64; "
            "a difference quotient needs the digits"
        )
