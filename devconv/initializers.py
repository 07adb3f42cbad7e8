"""How parameters begin: drawn on the host, so the same numbers for a seed on every device.

An initializer is called with a generator, the parameter's shape and its fans (how many
inputs feed one output, how many outputs one input feeds), and returns float64 numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from devconv import _check
from devconv._check import InvalidValue, Shape

Fans: TypeAlias = tuple[int, int]
Initializer: TypeAlias = Callable[[np.random.Generator, Shape, Fans], np.ndarray]


def generator(seed: int, path: str) -> np.random.Generator:
    """The generator of one parameter, keyed by the seed and the parameter's dotted path.

    >>> a, b = generator(0, "0.weight"), generator(0, "0.weight")
    >>> bool((a.random(3) == b.random(3)).all())
    True
    """
    text = f"{_check.integer('seed', seed, least=0)}/{path}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def fans(shape: Shape) -> Fans:
    """``(fan_in, fan_out)`` of a weight ``(out, in, *kernel)``.

    >>> fans((16, 3, 5, 5))
    (75, 400)
    """
    if len(shape) < 2:
        count = math.prod(shape)
        return count, count
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


@dataclass(frozen=True)
class Constant:
    """Every entry is ``value``.

    >>> Constant(0.5)(generator(0, "bias"), (2,), (1, 1))
    array([0.5, 0.5])
    """

    value: float

    def __call__(self, rng: np.random.Generator, shape: Shape, fans: Fans) -> np.ndarray:
        """Return the entries; nothing is drawn."""
        return np.full(shape, float(self.value))


@dataclass(frozen=True)
class Normal:
    """Entries are normal around 0, whatever the fans.

    Args:
        deviation: the standard deviation.

    Raises:
        ValueError: a deviation below 0.

    >>> Normal(0.01)(generator(0, "weight"), (2, 1), (1, 2)).round(4)
    array([[ 0.0019],
           [-0.0047]])
    """

    deviation: float

    def __post_init__(self) -> None:
        _check.number("deviation", self.deviation, least=0.0)

    def __call__(self, rng: np.random.Generator, shape: Shape, fans: Fans) -> np.ndarray:
        """Draw the entries."""
        return rng.normal(0.0, self.deviation, shape)


@dataclass(frozen=True)
class VarianceScaling:
    """Entries of variance ``scale / fan``, normal or uniform.

    Args:
        scale: the numerator.
        mode: ``"fan_in"`` (keeps the variance of the signal), ``"fan_out"`` (that of its
            cotangent) or ``"fan_avg"``.
        distribution: ``"normal"``, or ``"uniform"`` on ``±sqrt(3 · scale / fan)``.

    Raises:
        ValueError: another mode or distribution, a scale that is not positive.
    """

    scale: float
    mode: str
    distribution: str

    def __post_init__(self) -> None:
        _check.number("scale", self.scale, above=0.0)
        _check.choice("mode", self.mode, ("fan_in", "fan_out", "fan_avg"))
        _check.choice("distribution", self.distribution, ("normal", "uniform"))

    def __call__(self, rng: np.random.Generator, shape: Shape, fans: Fans) -> np.ndarray:
        """Draw the entries."""
        fan = {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": sum(fans) / 2}[self.mode]
        deviation = math.sqrt(self.scale / max(fan, 1))
        if self.distribution == "normal":
            return rng.normal(0.0, deviation, shape)
        edge = math.sqrt(3.0) * deviation
        return rng.uniform(-edge, edge, shape)


@dataclass(frozen=True)
class Orthogonal:
    """Rows (or columns, where there are more rows) that are orthonormal, times ``gain``.

    The weight is read as the matrix ``(out, in · kernel)``.

    Source: A. Saxe, J. McClelland and S. Ganguli, "Exact solutions to the nonlinear dynamics of
    learning in deep linear neural networks", arXiv:1312.6120.

    >>> w = Orthogonal()(generator(0, "weight"), (2, 5), (5, 2))
    >>> (w @ w.T).round(12) + 0.0  # no minus before a 0
    array([[1., 0.],
           [0., 1.]])
    """

    gain: float = 1.0

    def __call__(self, rng: np.random.Generator, shape: Shape, fans: Fans) -> np.ndarray:
        """Draw a matrix of normal numbers and keep its orthogonal factor."""
        if len(shape) < 2:
            raise InvalidValue(
                f"an orthogonal weight needs at least 2 dimensions, got shape {shape}; "
                "use another initializer"
            )
        rows, columns = shape[0], math.prod(shape[1:])
        normal = rng.normal(size=(max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(normal)
        q = q * np.sign(np.diag(r))  # makes the factor unique, so uniformly distributed
        return float(self.gain) * (q if rows >= columns else q.T).reshape(shape)


zeros = Constant(0.0)
"""Every entry 0."""
ones = Constant(1.0)
"""Every entry 1."""
he_normal = VarianceScaling(2.0, "fan_in", "normal")
"""Normal with variance ``2 / fan_in``, for rectifiers (K. He et al., arXiv:1502.01852)."""
he_uniform = VarianceScaling(2.0, "fan_in", "uniform")
"""Uniform with variance ``2 / fan_in`` (K. He et al., arXiv:1502.01852)."""
glorot_normal = VarianceScaling(1.0, "fan_avg", "normal")
"""Normal with variance ``2 / (fan_in + fan_out)`` (X. Glorot and Y. Bengio, AISTATS 2010)."""
glorot_uniform = VarianceScaling(1.0, "fan_avg", "uniform")
"""Uniform with variance ``2 / (fan_in + fan_out)`` (X. Glorot and Y. Bengio, AISTATS 2010)."""
lecun_normal = VarianceScaling(1.0, "fan_in", "normal")
"""Normal with variance ``1 / fan_in`` (Y. LeCun et al., "Efficient BackProp", 1998)."""
lecun_uniform = VarianceScaling(1.0, "fan_in", "uniform")
"""Uniform with variance ``1 / fan_in`` (Y. LeCun et al., "Efficient BackProp", 1998)."""
orthogonal = Orthogonal()
"""Orthonormal rows or columns."""

BY_NAME: dict[str, Initializer] = {
    "zeros": zeros,
    "ones": ones,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "orthogonal": orthogonal,
}


def initializer(name: str, spec: str | Initializer) -> Initializer:
    """The initializer called ``spec``, or ``spec`` itself when it is one."""
    if isinstance(spec, str):
        _check.choice(name, spec, tuple(BY_NAME))
        return BY_NAME[spec]
    if not callable(spec):
        raise _check.InvalidType(
            f"{name} must be the name of an initializer or a function (rng, shape, fans) -> "
            f"array, got {spec!r}"
        )
    return spec
