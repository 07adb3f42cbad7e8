"""Convolution through the Fourier transform: a product at each frequency, however long the kernel.

The transform turns a circular correlation into a product with the conjugate of the kernel's
transform. Blocks of ``length`` pixels that overlap by a kernel's reach give ``length - kernel +
1`` pixels of ``y`` each, which do not notice that the block is a circle ("overlap-save"). A
stride is a choice among the pixels at stride 1, a dilation a kernel with zeros between its
taps; the cotangents are the adjoints: zeros between the pixels of ``dy``, and a choice of taps.

Sums are rounded relative to a block's largest numbers, not to each pixel's own, and a NaN or an
infinity fills its block. Half precision is computed in float32. Sources: J. Cooley and
J. Tukey, 1965; T. Stockham, "High-speed convolution and correlation", 1966; for networks
M. Mathieu, M. Henaff and Y. LeCun, arXiv:1312.5851.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import lru_cache

from devconv import _array
from devconv._array import Array
from devconv._check import Shape
from devconv.functional import blocks
from devconv.functional.blocks import points_first, points_last
from devconv.functional.windows import Windows

PRODUCT, TRANSFORM, TRANSFORMS = 30.0, 40.0, 70.0
"""What it costs to multiply two complex numbers, and to halve a transform once for each number in
it, in one dimension and in several; in multiply-adds of the direct sum, which NumPy's BLAS
spreads over two threads and its transforms do not."""


@lru_cache(maxsize=1024)
def lengths(n: int, outputs: int, channels: int, groups: int, w: Windows) -> Shape:
    """The block in each dimension that makes the least work of ``n`` images.

    Short blocks overlap much, long ones make long transforms, of the kernels too. Tried are
    the whole image and about 2, 4 and 8 times the kernel.
    """
    best: Shape = ()
    least = math.inf
    for block in _candidates(w):
        needed = _work(n, outputs, channels, groups, w, block)
        if needed < least:
            best, least = block, needed
    return best


def work(n: int, outputs: int, channels: int, groups: int, w: Windows) -> float:
    """The work of a forward pass through blocks of :func:`lengths`, in multiply-adds."""
    w = unit(w)
    block = lengths(n, outputs, channels, groups, w)
    return _work(n, outputs, channels, groups, w, block)


def _candidates(w: Windows) -> list[Shape]:
    """Blocks with lengths that factor into 2, 3 and 5."""
    each = []
    for kernel, out in zip(w.kernel, w.out, strict=True):
        whole = out + kernel - 1
        each.append(sorted({smooth(min(times * kernel, whole)) for times in (2, 4, 8, whole)}))
    return list(itertools.product(*each))


def _work(n: int, outputs: int, channels: int, groups: int, w: Windows, block: Shape) -> float:
    axes = zip(w.out, block, w.kernel, strict=True)
    count = n * math.prod([-(-out // (length - kernel + 1)) for out, length, kernel in axes])
    pixels, pairs = math.prod(block), outputs * channels // groups
    halvings = (count * (channels + outputs) + pairs) * pixels * math.log2(pixels + 1)
    each = TRANSFORM if len(block) == 1 else TRANSFORMS
    return each * halvings + PRODUCT * count * pairs * pixels / 2


def smooth(n: int) -> int:
    """The least number from ``n`` on with no prime factor above 5.

    >>> smooth(1021), smooth(17)
    (1024, 18)
    """
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


class Spectrum:
    """Real Fourier transforms: see :class:`devconv.functional.blocks.Transform`."""

    def __init__(self, block: Shape, kernel: Shape, itemsize: int) -> None:
        self.block, self.taps, self.rank = block, kernel, len(block)
        self.step = tuple(n - k + 1 for n, k in zip(block, kernel, strict=True))
        self.shape = (*block[:-1], block[-1] // 2 + 1)
        self.bytes_per_channel = 2 * itemsize * math.prod(self.shape)

    def image(self, blocks: Array) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        return self._flat(self._forward(blocks, 1 + self.rank), 1 + self.rank)

    def kernel(self, weight: Array) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        xp = _array.array_namespace(weight)
        taps = xp.permute_dims(weight, (1, *range(2, 2 + self.rank), 0))  # (C, *kernel, O)
        return xp.conj(self._flat(self._forward(taps, 1), 1))

    def result(self, points: Array, lead: Shape) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        return self._backward(points, lead, self.step)

    def result_back(self, blocks: Array) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        return _array.array_namespace(blocks).conj(self.image(blocks))

    def kernel_back(self, points: Array) -> Array:
        """See :class:`devconv.functional.blocks.Transform`."""
        xp = _array.array_namespace(points)
        taps = self._backward(points, (points.shape[1],), self.taps)  # (C, *kernel, O)
        return xp.permute_dims(taps, (1 + self.rank, 0, *range(1, 1 + self.rank)))

    def _forward(self, x: Array, lead: int) -> Array:
        """Transforms along the ``rank`` axes after the first ``lead``, zeros added at the end."""
        fft = _array.array_namespace(x).fft
        x = fft.rfft(x, n=self.block[-1], axis=lead + self.rank - 1)
        for d in reversed(range(self.rank - 1)):
            x = fft.fft(x, n=self.block[d], axis=lead + d)
        return x

    def _flat(self, x: Array, lead: int) -> Array:
        """``(*lead, *shape, C)`` as ``(points, M, C)``."""
        first = points_first(x, lead, self.rank)
        shape = (math.prod(self.shape), *first.shape[self.rank :])
        return _array.array_namespace(x).reshape(first, shape)

    def _backward(self, points: Array, lead: Shape, kept: Shape) -> Array:
        """``(points, M, C)`` as ``(*lead, *kept, C)``: the beginning of each block."""
        xp = _array.array_namespace(points)
        x = points_last(xp.reshape(points, (*self.shape, *points.shape[1:])), lead)
        for d, n in enumerate(kept[:-1]):
            axis = len(lead) + d
            x = xp.fft.ifft(x, n=self.block[d], axis=axis)
            x = x[(*(slice(None),) * axis, slice(0, n), ...)]
        x = xp.fft.irfft(x, n=self.block[-1], axis=len(lead) + self.rank - 1)
        return x[..., : kept[-1], :]


def unit(w: Windows) -> Windows:
    """The same windows at stride 1 and dilation 1: more of them, with zeros in the kernel."""
    one = (1,) * len(w.out)
    kernel = tuple(d * (k - 1) + 1 for d, k in zip(w.dilation, w.kernel, strict=True))
    out = tuple((o - 1) * s + 1 for o, s in zip(w.out, w.stride, strict=True))
    return replace(w, kernel=kernel, out=out, stride=one, dilation=one)


def apart(x: Array, steps: Shape, first: int) -> Array:
    """``x`` with zeros between its pixels along the axes from ``first`` on."""
    if all(s == 1 for s in steps):
        return x
    xp = _array.array_namespace(x)
    shape, where = list(x.shape), [slice(None)] * first
    for axis, step in enumerate(steps, start=first):
        shape[axis] = (x.shape[axis] - 1) * step + 1
        where.append(slice(0, shape[axis], step))
    zeros = xp.zeros(tuple(shape), dtype=x.dtype, device=_array.device(x))
    return _array.written(zeros, (*where, ...), x)


def every(x: Array, steps: Shape, first: int) -> Array:
    """Every ``step``-th pixel along the axes from ``first`` on: the adjoint of :func:`apart`."""
    if all(s == 1 for s in steps):
        return x
    where = (slice(0, n, s) for n, s in zip(x.shape[first:], steps, strict=False))
    return x[(*(slice(None),) * first, *where, ...)]


class Fourier:
    """The three faces of convolution through Fourier transforms; any stride and dilation."""

    def __init__(self, n: int, weight: Array, groups: int) -> None:
        itemsize = 8 if _array.dtype_name(weight.dtype) == "float64" else 4
        sizes = weight.shape[0], weight.shape[1] * groups

        def choose(w: Windows) -> Spectrum:
            return Spectrum(lengths(n, *sizes, groups, w), w.kernel, itemsize)

        self._choose = choose

    def correlate(
        self, x: Array, weight: Array, w: Windows, groups: int, bias: Array | None = None
    ) -> Array:
        """``y (N, *out, O)``, plus the bias."""
        kernel = apart(weight, w.dilation, 2)
        y = blocks.correlate(x, kernel, unit(w), groups, self._choose)
        y = every(y, w.stride, 1)
        return y if bias is None else y + bias

    def input_cotangent(self, dy: Array, weight: Array, w: Windows, groups: int) -> Array:
        """``dx (N, *size, C)``."""
        dy, kernel = apart(dy, w.stride, 1), apart(weight, w.dilation, 2)
        return blocks.input_cotangent(dy, kernel, unit(w), groups, self._choose)

    def kernel_cotangent(
        self, x: Array, dy: Array, weight: Array, w: Windows, groups: int
    ) -> Array:
        """``dweight (O, C/G, *kernel)``."""
        dy, kernel = apart(dy, w.stride, 1), apart(weight, w.dilation, 2)
        dkernel = blocks.kernel_cotangent(x, dy, kernel, unit(w), groups, self._choose)
        return every(dkernel, w.dilation, 2)
