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
    def out(self) -> Shape:
        """How many windows there are."""
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
    def is_whole(self) -> bool:
        """Whether there are as many windows as fit, which is what other libraries assume."""
        ...

    @property
    def edges(self) -> tuple[tuple[int, int, int], ...]:
        """Per dimension: padding before, pixels of the image read, padding after."""
        ...
