"""What a route is told about the windows of a convolution."""

from __future__ import annotations

from typing import Protocol

from devconv._check import Pair, Shape


class Plan(Protocol):
    """Where windows lie: :class:`devconv.functional.windows.Windows`, seen from here."""

    @property
    def size(self) -> Shape:
        """The image, in pixels."""
        ...

    @property
    def kernel(self) -> Shape:
        """The kernel."""
        ...

    @property
    def stride(self) -> Shape:
        """Pixels between windows."""
        ...

    @property
    def padding(self) -> tuple[Pair, ...]:
        """Zeros before and after."""
        ...

    @property
    def dilation(self) -> Shape:
        """Pixels between taps."""
        ...

    @property
    def out(self) -> Shape:
        """How many windows there are."""
        ...


def is_full(w: Plan) -> bool:
    """Whether there are as many windows as fit, which is what other libraries assume."""
    axes = zip(w.size, w.kernel, w.stride, w.padding, w.dilation, w.out, strict=True)
    return all(o == (n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, o in axes)
