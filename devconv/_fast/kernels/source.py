"""Kernels made of their text, and what their texts share.

The text is CUDA C++; CuPy wraps a loop over the numbers that are written around it and compiles
it for the dtypes it meets. In it ``T`` is the dtype of the images and ``wide`` that of sums over
them. ``_ind.get()`` is the index of the number at hand, which one thread alone computes from
beginning to end: nothing is added by several, so the same call gives the same bits. Arrays marked
``raw`` are read by index, whatever their memory order.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

from devconv import _array
from devconv._array import Array
from devconv._check import Shape
from devconv._fast.plan import Plan

Kernel = Callable[..., Any]

WIDE = """
template<typename A> struct Widened { typedef float type; };
template<> struct Widened<double> { typedef double type; };
typedef Widened<T>::type wide;
"""
"""Half precision is summed in float."""


def cupy() -> ModuleType:
    """CuPy, which is there: somebody made an array with it."""
    return importlib.import_module("cupy")


def made(maker: Callable[..., Kernel], *options: Any) -> Kernel:
    """The kernel that ``maker(cupy, *options)`` makes, made once."""
    return _made(maker, cupy(), *options)


@lru_cache(maxsize=1024)
def _made(maker: Callable[..., Kernel], library: ModuleType, *options: Any) -> Kernel:
    return maker(library, *options)


def empty(shape: Shape, dtype: Any) -> Array:
    """An array on the current device, not filled yet."""
    return cupy().empty(shape, dtype)


def empty_like(x: Array, dtype: Any = None) -> Array:
    """An array with the shape and the memory order of ``x``, not filled yet.

    CuPy's own results of a kernel are in C order.
    """
    return cupy().empty_like(x, dtype)


wide_dtype = _array.wide_dtype


# --- windows ---


class Kind(NamedTuple):
    """What the text of a kernel over windows depends on; sizes are handed over as numbers."""

    kernel: Shape
    stride: Shape
    dilation: Shape
    place: str
    """The dtype of a place along an axis: ``"int32"`` unless images are enormous."""

    @property
    def rank(self) -> int:
        """Spatial dimensions."""
        return len(self.kernel)

    @property
    def parameters(self) -> str:
        """The numbers that :func:`sizes` gives, as a kernel declares them."""
        names = ("out", "size", "before")
        return ", ".join(f"{self.place} {name}{d}" for d in range(self.rank) for name in names)

    @property
    def constants(self) -> str:
        """What is known when the kernel is compiled: loops are unrolled, divisions multiply.

        A pixel ``q`` is met by tap ``k`` of a window if ``q + before - k · dilation`` is a
        multiple of the stride: by every ``step``-th tap from a first one on, each ``back``
        windows before the last.
        """
        known = []
        axes = zip(self.kernel, self.stride, self.dilation, strict=True)
        for d, (kernel, stride, dilation) in enumerate(axes):
            common = math.gcd(stride, dilation)
            step, back = stride // common, dilation // common
            for name, value in {
                "kernel": kernel,
                "stride": stride,
                "dilation": dilation,
                "common": common,
                "step": step,
                "back": back,
                "inverse": pow(back, -1, step),
            }.items():
                known.append(f"{name}{d} = {value}")
        place = "int" if self.place == "int32" else "long long"
        return f"typedef {place} place;\nenum : place {{ {', '.join(known)} }};\n"

    def reading(self, body: str) -> str:
        """``body`` for each tap ``k#`` of window ``q[1 + #]`` whose pixel ``p#`` is in the image.

        In C order of the taps, as all that follow.
        """
        return f"const ptrdiff_t* q = _ind.get();{self._nested(_READING, body)}"

    def covering(self, body: str) -> str:
        """``body`` for each tap ``k#`` by which a window ``o#`` reads the pixel ``q[1 + #]``."""
        first = self._along(_FIRST)
        return f"const ptrdiff_t* q = _ind.get();{first}{self._nested(_COVERING, body)}"

    def earlier(self, body: str) -> str:
        """While ``first``, ``body`` for each pixel ``p#`` that ``o#`` reads before tap ``k#``."""
        stop = f"if ({self.number('j')} >= {self.number('k')}) break;"
        return self._nested(_EARLIER, stop + body)

    def number(self, name: str) -> str:
        """The tap ``name#`` as a number."""
        total = f"{name}0"
        for d in range(1, self.rank):
            total = f"({total}) * kernel{d} + {name}{d}"
        return total

    def each(self, name: str) -> tuple[str, ...]:
        """``name#`` along each axis."""
        return tuple(f"{name}{d}" for d in range(self.rank))

    def _along(self, text: str) -> str:
        return "".join(text.replace("#", str(d)) for d in range(self.rank))

    def _nested(self, loop: str, body: str) -> str:
        return f"{self._along(loop)}{body}{'}' * self.rank}"


_READING = """
for (place k# = 0; k# < kernel#; ++k#) {
  const place p# = (place)q[1 + #] * stride# + k# * dilation# - before#;
  if (p# < 0 || p# >= size#) continue;"""

_FIRST = """
const place far# = (place)q[1 + #] + before#, left# = far# % stride#;
const place first# = left# % common# ? kernel# : left# / common# * inverse# % step#;
const place last# = (far# - first# * dilation#) / stride#;"""

_COVERING = """
for (place k# = first#, o# = last#; k# < kernel# && o# >= 0; k# += step#, o# -= back#) {
  if (o# >= out#) continue;"""

_EARLIER = """
for (place j# = 0; first && j# < kernel#; ++j#) {
  const place p# = o# * stride# + j# * dilation# - before#;
  if (p# < 0 || p# >= size#) continue;"""


def at(*places: str) -> str:
    """An index ``{a, b, ...}`` called ``at``."""
    return f"const ptrdiff_t at[] = {{{', '.join(places)}}};"


def reach(w: Plan) -> Shape:
    """The extent of the padded image that the windows read."""
    axes = zip(w.out, w.stride, w.dilation, w.kernel, strict=True)
    return tuple((o - 1) * s + d * (k - 1) + 1 for o, s, d, k in axes)


def kind(w: Plan) -> Kind:
    """The kind of these windows."""
    axes = zip(reach(w), w.size, w.stride, strict=True)
    far = max(max(extent, size, stride * stride) for extent, size, stride in axes)
    return Kind(w.kernel, w.stride, w.dilation, "int32" if far < 2**30 else "int64")


def sizes(w: Plan, before: Shape | None = None) -> tuple[int, ...]:
    """The numbers that :attr:`Kind.parameters` declares; of a slab, nothing lies before it."""
    before = (0,) * len(w.kernel) if before is None else before
    return tuple(n for axis in zip(w.out, w.size, before, strict=True) for n in axis)
