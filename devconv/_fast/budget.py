"""How much of a GPU's memory a tile may take up: by how much it has in all, never by what is free.

Tile edges decide the order of sums, so GPUs of one class give the same bits whatever else they do.
The bounds lie between the sizes that are sold (4 | 6, 8 | 10, 12, 16 | 20, 24, 32 | 40, 48, 80, …
GiB): what a driver keeps for itself moves none of them into another class.
"""

from __future__ import annotations

MIB, GIB = 2**20, 2**30

CLASSES = (
    (5 * GIB, 128 * MIB),
    (9 * GIB, 256 * MIB),
    (18 * GIB, 512 * MIB),
    (36 * GIB, 1024 * MIB),
)
"""Below how much memory in all, how many bytes of columns a tile may hold: an estimate."""
LARGEST = 2048 * MIB


def budget(total: int) -> int:
    """The bytes of columns that one tile may hold on a GPU with ``total`` bytes of memory.

    >>> budget(8 * GIB) // MIB, budget(80 * GIB) // MIB
    (256, 2048)
    """
    return next((size for below, size in CLASSES if total < below), LARGEST)
