"""How a table is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks import timing
from benchmarks.place import Place
from benchmarks.report import Row
from benchmarks.shapes import MEMORY, SHAPES, Shape


@dataclass(frozen=True)
class Options:
    """What the command line says; the smoke tests use small shapes and one round.

    Attributes:
        place: the CPU or a GPU.
        threads: how many threads everybody has.
        rounds: how many rounds count.
        turn: seconds a contestant's turn lasts.
        shapes: the convolutions, by name.
        large: the convolution whose memory is measured.
        dtypes: the dtypes; those of the place by default.
        networks: the networks, by name; all by default.
        batches: the batches of which the time per image is measured.
        images: the batch of the networks; each network's own by default.
    """

    place: Place = field(default_factory=Place)
    threads: int = 2
    rounds: int = 10
    turn: float = 0.05
    shapes: Mapping[str, Shape] = field(default_factory=lambda: SHAPES)
    large: Shape = MEMORY
    dtypes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    batches: tuple[int, ...] = (32, 256)
    images: int | None = None

    def kinds(self) -> tuple[str, ...]:
        """The dtypes to measure."""
        return self.dtypes or self.place.dtypes

    def time(self, contestants: Mapping[str, Any], longer: int = 1) -> timing.Timed:
        """Time calls as these options say, in turns so many times ``longer``."""
        return timing.interleaved(
            contestants,
            rounds=self.rounds,
            turn=longer * self.turn,
            finish=self.place.synchronize,
        )


class Table(Protocol):
    """What each module with a table offers."""

    def measure(self, options: Options) -> list[Row]:
        """Check that the contestants agree, then time them; prints each row when it is there."""

    def table(self, rows: list[Row]) -> str:
        """The rows in Markdown."""
