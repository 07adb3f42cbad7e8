"""Memory that belongs to a thread and is written over by its next call.

A fresh block for each tile would be faulted in page by page. Whoever asks for scratch memory
must be done with it by the next call, and hand on nothing that shares it.
"""

from __future__ import annotations

import threading

import numpy as np

KEPT = 16 * 2**20
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
