"""What every part is told, and what a part is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.place import Place
from benchmarks.report import Row

REHEARSED = ("float32", "float16")
"""The dtypes of a trial on the CPU."""


@dataclass(frozen=True)
class Told:
    """What the command line says.

    Attributes:
        place: a GPU; or the CPU, for a rehearsal whose numbers mean nothing.
        small: tiny shapes and few images.
        rounds: how many rounds count.
        turn: seconds a contestant's turn lasts.
        threads: how many threads NumPy has.
        dtypes: the dtypes; those of the place by default.
        without: contestants that are left out, such as routes on trial that broke.
        tests: what pytest is told to run.
        deadline: when to stop, by ``time.monotonic``.
    """

    place: Place = field(default_factory=Place)
    small: bool = False
    rounds: int = 7
    turn: float = 0.05
    threads: int = 2
    dtypes: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    deadline: float = math.inf

    def kinds(self) -> tuple[str, ...]:
        """The dtypes to measure."""
        return self.dtypes or (self.place.dtypes if self.place.is_gpu else REHEARSED)

    def remaining(self) -> float | None:
        """Seconds until the deadline, if there is one."""
        return None if math.isinf(self.deadline) else max(1.0, self.deadline - time.monotonic())


Jobs = Mapping[str, Callable[[], Row]]
"""What makes each row of a part, by the row's name; the most telling ones first."""


class Part(Protocol):
    """What each module with a part offers.

    Attributes:
        MINUTES: how long it may take unless the command line says otherwise.
    """

    MINUTES: float

    def jobs(self, told: Told) -> Jobs:
        """The rows to measure. A row with ``"ok": False`` fails the command."""

    def table(self, rows: Mapping[str, Row]) -> str:
        """The rows in Markdown."""
