"""Memory that belongs to a thread and is written over by its next call.

A fresh block for each tile would be faulted in page by page. Whoever asks for scratch memory
must be done with it by the next call, and hand on nothing that shares it.
"""

from __future__ import annotations

import threading

import numpy as np

KEPT = 64 * 2**20
"""Larger blocks are not kept."""

_own = threading.local()


def scratch(size: int) -> np.ndarray:
    """At least so many bytes that belong to this thread."""
    if size > KEPT:
        return np.empty(size, dtype=np.uint8)
    kept = getattr(_own, "memory", None)
    if kept is None or kept.size < size:
        kept = _own.memory = np.empty(size, dtype=np.uint8)
    return kept


def borrowed(size: int) -> np.ndarray:
    """At least so many bytes that are nobody else's until they are :func:`returned`."""
    kept, _own.spare = getattr(_own, "spare", None), None
    return kept if kept is not None and kept.size >= size else np.empty(size, dtype=np.uint8)


def returned(memory: np.ndarray) -> None:
    """Keep borrowed memory for this thread's next call."""
    if memory.size <= KEPT:
        _own.spare = memory
