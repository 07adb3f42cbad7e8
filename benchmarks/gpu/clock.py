"""The clock of a GPU: turns of several calls, between two moments when all work is done.

The wall clock is read after the device has finished, then some calls are handed over in a row,
and it is read again when the device has finished them: the mean of a turn is what a call costs
in a loop that does not look at its results, for work that is bound by the device and for work
that is bound by handing it over alike. Turns alternate A B B A; the median of them counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.place import Place

SLOW, FEW = 0.5, 3
"""A call that takes longer than ``SLOW`` seconds has ``FEW`` rounds and is not called to wake."""
MOST = 200


class Dead(Exception):
    """The device answers no more; who was the last to use it."""

    def __init__(self, label: str, why: str) -> None:
        super().__init__(f"the device answers no more after {label}: {why}")
        self.label, self.why = label, why


@dataclass
class Timed:
    """By contestant: median seconds, largest less smallest over it, calls in a turn; who failed."""

    seconds: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def brief(problem: BaseException) -> str:
    """A problem in one short line."""
    kind = type(problem).__name__
    if isinstance(problem, MemoryError) or "OutOfMemory" in kind:
        return "out of memory"
    first = (str(problem).strip().splitlines() or [""])[0]
    return f"{kind}: {first}"[:200].replace("|", "/")


def survived(label: str, problem: Exception, place: Place) -> str:
    """What to say of a contestant that failed, its memory given back.

    Raises:
        Dead: the device does not compute any more either.
    """
    said = brief(problem)
    problem.__traceback__ = None  # which holds its arrays
    try:
        place.release()
        place.answers()
    except Exception as worse:
        raise Dead(label, f"{said}; {brief(worse)}") from None
    return said


def one(call: Callable[[], object], calls: int, place: Place) -> float:
    """Seconds of a call, the mean of some in a row."""
    place.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    place.synchronize()
    return (time.perf_counter() - start) / calls


def interleaved(
    contestants: Mapping[str, Callable[[], object]], place: Place, *, rounds: int, turn: float
) -> Timed:
    """Time calls that do comparable work, each in turn; one that fails leaves the others."""
    timed, turns = Timed(), {}

    def attempt(label: str, calls: int, wake: bool) -> float | None:
        try:
            place.make_room()
            if wake:
                contestants[label]()
            return one(contestants[label], calls, place)
        except Exception as problem:
            timed.failed[label] = survived(label, problem, place)
            return None

    for label in contestants:
        seconds = attempt(label, 1, wake=True)
        if seconds is not None:
            timed.calls[label] = max(1, min(MOST, round(turn / max(seconds, 1e-6))))
            turns[label] = [seconds] if seconds > SLOW else []
    slow = {label for label, seconds in turns.items() if seconds}
    for count in range(rounds):
        order = [each for each in turns if each not in slow or count < FEW - 1]
        for label in order if count % 2 == 0 else order[::-1]:
            if label not in timed.failed:
                seconds = attempt(label, timed.calls[label], wake=label not in slow)
                if seconds is not None:
                    turns[label].append(seconds)
    for label, each in turns.items():
        if label not in timed.failed:
            timed.seconds[label] = median = statistics.median(each)
            timed.spread[label] = (max(each) - min(each)) / median
    return timed
