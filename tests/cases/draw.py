"""Ways to draw a case's arrays on the host: shapes in, ``rng -> arrays`` out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.cases.case import Arrays

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator], Arrays]


def normal(*shapes: Shape | None) -> Draw:
    """Normal numbers, one array per shape; ``None`` for an argument left out."""

    def draw(rng: np.random.Generator) -> Arrays:
        return tuple(None if s is None else np.asarray(rng.standard_normal(s)) for s in shapes)

    return draw


def smooth(*shapes: Shape, kinks: tuple[float, ...] = (0.0,)) -> Draw:
    """Normal numbers kept away from the points where a derivative jumps."""

    def draw(rng: np.random.Generator) -> Arrays:
        return tuple(_away(rng.standard_normal(s) * 2.0, kinks) for s in shapes)

    return draw


def _away(x: np.ndarray, kinks: tuple[float, ...], least: float = 0.02) -> np.ndarray:
    for kink in kinks:
        x = np.where(np.abs(x - kink) < least, x + 2 * least, x)
    return x


def distinct(*shapes: Shape) -> Draw:
    """Numbers of which no two are close: every maximum is unique and stays so."""

    def draw(rng: np.random.Generator) -> Arrays:
        return tuple(_spread(rng, shape) for shape in shapes)

    return draw


def _spread(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    count = int(np.prod(shape))
    values = (np.arange(count) - count / 2 + 0.25) * (4.0 / max(count, 1))
    return rng.permutation(values).reshape(shape)


def probabilities(rng: np.random.Generator, shape: Shape, axis: int = 1) -> np.ndarray:
    """Positive numbers that add up to 1 along an axis."""
    weights = rng.uniform(0.1, 1.0, shape)
    return weights / weights.sum(axis=axis, keepdims=True)
