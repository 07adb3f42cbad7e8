"""Measures of a prediction that are watched, not learned from."""

from __future__ import annotations

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, located
from devconv.functional.operation import check_together


def accuracy(logits: Array, target: Array, *, ignore_index: int = -100) -> Array:
    """The share of examples whose largest logit is the right class.

    Args:
        logits: ``(N, C, ...)``, classes on axis 1.
        target: class indices ``(N, ...)``, or probabilities with the logits' shape.
        ignore_index: the label of examples that do not count.

    Returns:
        A 0-d float32 array of their library and device, from 0 to 1; 0 if nothing counts.

    Raises:
        ValueError: the two on two devices.
        TypeError: no array, or the two of two libraries.

    >>> import numpy as np
    >>> float(accuracy(np.asarray([[0.1, 0.9], [0.8, 0.2]]), np.asarray([1, 1])))
    0.5
    """
    with located("accuracy"):
        for name, x in (("logits", logits), ("target", target)):
            if not _array.is_array(x):
                raise InvalidType(f"{name} must be an array, got {type(x).__name__}")
        check_together([("logits", logits), ("target", target)])
    xp = _array.array_namespace(logits)
    with _array.on_device(logits):
        chosen = xp.argmax(logits, axis=1)
        right = xp.argmax(target, axis=1) if target.ndim == logits.ndim else target
        right = xp.astype(right, chosen.dtype)
        counted = xp.sum(xp.astype(right != ignore_index, xp.float32))
        hits = xp.sum(xp.astype(chosen == right, xp.float32))
        return hits / xp.maximum(counted, xp.ones_like(counted))
