"""One dimension at a time: outputs that each read a few pixels of one dimension.

Interpolation and adaptive pooling have windows that no stride describes, but they are
separable: :class:`Reads` says for one dimension which pixels each output reads, and the
same plan read the other way round says which outputs each pixel answers for. So the
adjoint is a gathering like the way forward, and no two sums ever meet at one place.

Images are ``(N, *spatial, C)`` here, as in :mod:`devconv.functional.windows`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from devconv import _array
from devconv._array import Array
from devconv._check import Shape

T = TypeVar("T")


class _once(Generic[T]):  # noqa: N801 - a decorator
    """A property worked out at its first use: ``functools.cached_property`` without a lock.

    Before Python 3.12 that has one, which ``torch.compile`` cannot read.
    """

    def __init__(self, work_out: Callable[[Any], T]) -> None:
        self.work_out = work_out
        self.__doc__ = work_out.__doc__

    def __get__(self, instance: Any, kind: type) -> T:
        value = self.work_out(instance)
        object.__setattr__(instance, self.work_out.__name__, value)
        return value


@dataclass(frozen=True)
class Reads:
    """Which pixels each output reads along one dimension of ``size`` pixels.

    ``pixels`` has one entry per output; ``weights``, in the same places, what each pixel
    counts, or ``None`` where every pixel counts 1.
    """

    size: int
    pixels: tuple[Shape, ...]
    weights: tuple[tuple[float, ...], ...] | None = None

    @property
    def out(self) -> int:
        """How many outputs there are."""
        return len(self.pixels)

    @_once
    def width(self) -> int:
        """The most pixels any output reads; at least 1."""
        return max(1, *map(len, self.pixels))

    @_once
    def counts(self) -> Shape:
        """How many pixels each output reads."""
        return tuple(map(len, self.pixels))

    @_once
    def places(self) -> Shape:
        """``(out, width)``, flat: the pixels read, the last one again where there are less."""
        return tuple(
            p[min(k, len(p) - 1)] if p else 0 for p in self.pixels for k in range(self.width)
        )

    @_once
    def is_read(self) -> tuple[bool, ...]:
        """``(out, width)``, flat: whether there is such a pixel."""
        return tuple(k < n for n in self.counts for k in range(self.width))

    @_once
    def factors(self) -> tuple[float, ...]:
        """``(out, width)``, flat: the weights, 0 where there is no pixel."""
        weights = self.weights or ()
        return tuple(w[k] if k < len(w) else 0.0 for w in weights for k in range(self.width))

    @_once
    def is_identity(self) -> bool:
        """Whether output ``o`` is pixel ``o``."""
        return self.weights is None and self.pixels == tuple((i,) for i in range(self.size))

    @_once
    def transposed(self) -> Reads:
        """Which outputs each pixel answers for: the plan of the adjoint."""
        shares: list[dict[int, float]] = [{} for _ in range(self.size)]
        weights = self.weights or tuple((1.0,) * len(pixels) for pixels in self.pixels)
        for o, (pixels, counted) in enumerate(zip(self.pixels, weights, strict=True)):
            for i, weight in zip(pixels, counted, strict=True):
                if weight:
                    shares[i][o] = shares[i].get(o, 0.0) + weight
        return Reads(
            self.out,
            tuple(tuple(share) for share in shares),
            None if self.weights is None else tuple(tuple(s.values()) for s in shares),
        )


def gather(x: Array, reads: Reads, axis: int) -> Array:
    """What each output reads: dimension ``axis`` becomes two, ``(out, width)``.

    Where an output reads less than ``width``, its last pixel comes again.
    """
    xp = _array.array_namespace(x)
    places = xp.asarray(reads.places, dtype=_array.index_dtype(x), device=_array.device(x))
    windows = xp.take(x, places, axis=axis)
    return xp.reshape(windows, (*x.shape[:axis], reads.out, reads.width, *x.shape[axis + 1 :]))


def weigh(x: Array, reads: Reads, axis: int) -> Array:
    """The weighted sum of what each output reads along one dimension."""
    if reads.is_identity:
        return x
    xp = _array.array_namespace(x)
    windows = gather(x, reads, axis)
    if any(n < reads.width for n in reads.counts):  # not 0 times it: it may be NaN
        read = _table(reads.is_read, xp.bool, windows, axis)
        windows = xp.where(read, windows, xp.zeros_like(windows))
    if reads.weights is not None:
        windows = windows * _table(reads.factors, x.dtype, windows, axis)
    if reads.width == 1:
        return xp.squeeze(windows, axis=axis + 1)
    return xp.sum(windows, axis=axis + 1)


def weigh_all(x: Array, reads: Sequence[Reads]) -> Array:
    """:func:`weigh` along each spatial dimension of ``x (N, *spatial, C)``."""
    for axis, along in enumerate(reads, start=1):
        x = weigh(x, along, axis)
    return x


def weigh_back(dy: Array, reads: Sequence[Reads]) -> Array:
    """The adjoint of :func:`weigh_all`."""
    for axis, along in reversed(list(enumerate(reads, start=1))):
        dy = weigh(dy, along.transposed, axis)
    return dy


def largest(x: Array, reads: Reads, axis: int) -> tuple[Array, Array]:
    """The maximum of what each output reads, and which of its pixels (0, 1, …) is the first."""
    xp = _array.array_namespace(x)
    windows = gather(x, reads, axis)
    best = xp.max(windows, axis=axis + 1)
    hit = (windows == xp.expand_dims(best, axis=axis + 1)) | (windows != windows)
    order = tuple(range(reads.width)) * reads.out
    ranks = _table(order, _array.index_dtype(x), windows, axis)
    return best, xp.min(xp.where(hit, ranks, reads.width), axis=axis + 1)


def largest_back(dy: Array, first: Array, reads: Reads, axis: int) -> Array:
    """The adjoint of taking the pixels that :func:`largest` had found."""
    xp, back = _array.array_namespace(dy), reads.transposed
    shares = gather(dy, back, axis)
    own = tuple(
        reads.pixels[outputs[k]].index(i) if k < len(outputs) else -1
        for i, outputs in enumerate(back.pixels)
        for k in range(back.width)
    )
    chosen = gather(first, back, axis) == _table(own, first.dtype, shares, axis)
    return xp.sum(xp.where(chosen, shares, xp.zeros_like(shares)), axis=axis + 1)


def _table(values: Sequence[Any], dtype: Any, windows: Array, axis: int) -> Array:
    """Constants ``(out, width)`` beside the dimensions that :func:`gather` made."""
    xp = _array.array_namespace(windows)
    flat = xp.asarray(values, dtype=dtype, device=_array.device(windows))
    shape = tuple(n if d in (axis, axis + 1) else 1 for d, n in enumerate(windows.shape))
    return xp.reshape(flat, shape)


def outer(along: Sequence[Sequence[float]], dtype: Any, like: Array) -> Array:
    """The products of one number per dimension: ``(*lengths, 1)``, on the device of ``like``."""
    xp, rank = _array.array_namespace(like), len(along)
    product = xp.ones((1,) * (rank + 1), dtype=dtype, device=_array.device(like))
    for d, values in enumerate(along):
        shape = tuple(len(values) if axis == d else 1 for axis in range(rank + 1))
        column = xp.asarray(values, dtype=dtype, device=_array.device(like))
        product = product * xp.reshape(column, shape)
    return product
