"""Which algorithm computes a convolution: decided once, in the forward pass.

``"gemm"`` is the direct sum, by the library's own route or the written-once one,
``"winograd"`` trades multiplications for additions, ``"fft"`` takes a product at each frequency.
:func:`choose` is a function of shapes, names and constants alone, so the same call has the
same answer everywhere, and the answer says why. The pullback goes back the way the forward
pass came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from devconv import _array, _check, _fast
from devconv._array import Array
from devconv._check import InvalidValue, Shape
from devconv._winograd import TAPS
from devconv.functional import direct, fourier
from devconv.functional.fourier import Fourier
from devconv.functional.windows import Windows
from devconv.functional.winograd import Winograd
from devconv.precision import precision

ALGORITHMS = ("auto", "gemm", "winograd", "fft")
TILES = {"exact": 2, "fast": 4}
"""The m of Winograd's F(m, 3): F(2, 3) is as good as the direct sum, F(4, 3) loses a digit."""


@dataclass(frozen=True)
class Choice:
    """An algorithm, and in a few words why; ``tile`` is the m of Winograd's F(m, 3).

    ``quick`` says whether it runs by a route of the library's own.
    """

    name: str
    why: str
    quick: bool = False
    tile: int = 0


class Faces(Protocol):
    """The one bilinear map of kernel and input, seen from its three sides."""

    def correlate(
        self, x: Array, weight: Array, w: Windows, groups: int, bias: Array | None = None
    ) -> Array:
        """``y (N, *out, O)`` for ``x (N, *size, C)``, plus the bias."""
        ...

    def input_cotangent(self, dy: Array, weight: Array, w: Windows, groups: int) -> Array:
        """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
        ...

    def kernel_cotangent(
        self, x: Array, dy: Array, weight: Array, w: Windows, groups: int
    ) -> Array:
        """``dweight (O, C/G, *kernel)``."""
        ...


def faces(algorithm: str, x: Array, weight: Array, w: Windows, groups: int) -> Faces:
    """The way through a convolution for arrays like ``x`` (N, ...) and ``weight``."""
    choice = chosen(algorithm, x, (x.shape[0], *weight.shape[:2]), w, groups)
    if choice.name == "winograd":
        return Winograd(choice.tile)
    if choice.name == "fft":
        return Fourier(x.shape[0], weight, groups)
    return direct


def chosen(algorithm: str, like: Array, sizes: Shape, w: Windows, groups: int) -> Choice:
    """What :func:`choose` says about arrays like this one, under the precision in force."""
    return choose(
        _check.choice("algorithm", algorithm, ALGORITHMS),
        sizes,
        w,
        groups,
        dtype=_array.dtype_name(like.dtype),
        precision=precision(),
        fft_below=_fast.fft_below(like),
        winograd_from=_fast.winograd_from(like, w, groups),
        quick=_fast.convolution("correlate", like, w, groups) is not None,
    )


@lru_cache(maxsize=1024)
def choose(
    algorithm: str,
    sizes: Shape,
    w: Windows,
    groups: int,
    *,
    dtype: str,
    precision: str,
    fft_below: float,
    winograd_from: int | None,
    quick: bool,
) -> Choice:
    """Choose an algorithm.

    Args:
        algorithm: one of :data:`ALGORITHMS`.
        sizes: images, output channels, and input channels of a group.
        w: the windows of the convolution, or of the one this is the transpose of.
        groups: parts the channels are split into.
        dtype: the arrays' dtype by name.
        precision: ``"exact"`` or ``"fast"``.
        fft_below: the share of the direct sum's work below which Fourier's way is quicker.
        winograd_from: the channels from which on Winograd's way is quicker, if it ever is.
        quick: whether the library has a route of its own for the direct sum.

    Raises:
        InvalidValue: an algorithm asked for by name cannot compute this.
    """
    lack = winograd_lacks(w, dtype)
    if algorithm == "winograd":
        if lack:
            raise InvalidValue(
                f'algorithm="winograd" needs {lack}; use algorithm="auto", "gemm" or "fft"'
            )
        return _by_winograd("asked for by name", precision, winograd_from is not None)
    if algorithm != "auto":
        return Choice(algorithm, "asked for by name", quick and algorithm == "gemm")
    share = fft_share(sizes, w, groups) if fft_below else 1.0
    if share < fft_below:
        return Choice("fft", f"{_shape(w)}; {share:.0%} of the direct sum's work")
    if lack or winograd_from is None:
        other = f"winograd needs {lack}" if lack else "winograd only by name"
        return Choice("gemm", f"{_shape(w)}; {other}", quick)
    n, outputs, channels = sizes
    few, many = sorted((outputs, channels))
    if few < winograd_from or n * math.prod(w.out) < 2 * many:
        least = f"{winograd_from} channels and more windows than filters"
        return Choice("gemm", f"{_shape(w)}; winograd pays from {least} on", quick)
    return _by_winograd(f"{_shape(w)} and {few} channels", precision, True)


def _by_winograd(why: str, precision: str, quick: bool) -> Choice:
    tile = TILES[precision]
    return Choice("winograd", f"{why}; F({tile}, 3) under {precision!r}", quick, tile)


def winograd_lacks(w: Windows, dtype: str) -> str:
    """What Winograd's convolution needs and this one has not; ``""`` if it can run."""
    if any(k != TAPS for k in w.kernel):
        return f"a kernel of {TAPS} in every dimension, not {_times(w.kernel)}"
    if any(s != 1 for s in w.stride):
        return f"stride 1, not {_times(w.stride)}"
    if any(d != 1 for d in w.dilation):
        return f"dilation 1, not {_times(w.dilation)}"
    if dtype != "float32":
        return f"float32, not {dtype}"
    return ""


def fft_share(sizes: Shape, w: Windows, groups: int) -> float:
    """The work of Fourier's way as a share of the direct sum's; 1 of no images."""
    n, outputs, channels = sizes
    direct_sum = n * math.prod(w.out) * w.taps * channels * outputs
    if not direct_sum:
        return 1.0
    return fourier.work(n, outputs, channels * groups, groups, w) / direct_sum


def _shape(w: Windows) -> str:
    """``kernel 3x3``, and the stride and dilation that are not 1."""
    steps = (("stride", w.stride), ("dilation", w.dilation))
    said = [f"{name} {_times(values)}" for name, values in steps if any(v != 1 for v in values)]
    return f"kernel {_times(w.kernel)}" + (f" at {', '.join(said)}" if said else "")


def _times(values: Shape) -> str:
    return "x".join(map(str, values))
