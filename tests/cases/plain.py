"""Windows in plain words, for the references: a loop over where they start."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Shape = tuple[int, ...]


def each(value: Any, rank: int) -> tuple[Any, ...]:
    """One entry per dimension."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * rank


def pairs(padding: Any, rank: int) -> list[tuple[int, int]]:
    """One ``(before, after)`` pair per dimension."""
    return [p if isinstance(p, tuple) else (p, p) for p in each(padding, rank)]


def surround(x: np.ndarray, around: list[tuple[int, int]], fill: float) -> np.ndarray:
    """``x (N, C, *spatial)`` with ``fill`` around each image."""
    return np.pad(x, [(0, 0), (0, 0), *around], constant_values=fill)


def window_starts(
    size: Shape,
    kernel: Shape,
    stride: Shape,
    around: list[tuple[int, int]],
    dilation: Shape,
    ceil_mode: bool = False,
) -> list[range]:
    """Per dimension, where windows start, counted from the first pixel of the image.

    They start every ``stride`` pixels as long as they fit; with ``ceil_mode`` also where
    only their start lies in the image or the padding before it.
    """
    starts = []
    for n, k, s, (before, after), d in zip(size, kernel, stride, around, dilation, strict=True):
        fits = [p for p in range(-before, n + after, s) if p + d * (k - 1) < n + after]
        if ceil_mode and fits:
            beyond = fits[-1] + s
            uncovered = fits[-1] + d * (k - 1) + 1 < n + after
            if uncovered and beyond < n:
                fits.append(beyond)
        starts.append(range(-before, -before + s * len(fits), s))
    return starts


def windows(
    starts: list[range], kernel: Shape, dilation: Shape
) -> Iterator[tuple[Shape, list[np.ndarray]]]:
    """Each window's place in the output, and the pixels it reads in each dimension."""
    for place in itertools.product(*(range(len(s)) for s in starts)):
        reads = [
            s[p] + np.arange(k) * d
            for s, p, k, d in zip(starts, place, kernel, dilation, strict=True)
        ]
        yield place, reads


def count(starts: list[range]) -> Shape:
    """How many windows there are in each dimension."""
    return tuple(len(s) for s in starts)


def prod(shape: Sequence[int]) -> int:
    """The product of a shape's entries."""
    return math.prod(shape)
