"""One row: contestants are made, compared with the first, and timed; who fails is named."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import devconv as dc
from benchmarks.agreement import difference
from benchmarks.gpu.clock import Timed, interleaved, survived
from benchmarks.gpu.contestants import overheard, wanted
from benchmarks.gpu.told import Told
from benchmarks.report import Row


@dataclass(frozen=True)
class Racer:
    """What is timed, and what it computes: a few arrays, to be compared on the host."""

    call: Callable[[], object]
    check: Callable[[], Sequence[Any]]


Makers = Mapping[str, Callable[[], Racer]]


def race(
    makers: Makers, told: Told, tolerance: Callable[[str], float], left_out: Mapping[str, str]
) -> Row:
    """The row of some contestants, the library first.

    Args:
        makers: what makes each, with its arrays.
        told: how to measure, and without whom; without rounds they are compared alone.
        tolerance: how far from the first a contestant may be, over the largest entry; one that
            is farther is not timed, and named.
        left_out: who does not take part, and why.

    Raises:
        Dead: the device answers no more.
    """
    makers, asked = wanted(makers, told.without)
    racers: dict[str, Racer] = {}
    apart: dict[str, float] = {}
    failed: dict[str, str] = {}
    notes: dict[str, list[str]] = {}
    reference: list[Any] = []
    for label, make in makers.items():
        try:
            racer = make()
            with overheard() as said:
                found = [dc.to_numpy(each) for each in racer.check()]
                told.place.synchronize()
            notes |= {label: said} if said else {}
        except Exception as problem:
            failed[label] = survived(label, problem, told.place)
            continue
        if reference:
            apart[label] = difference(reference, found)
            if not apart[label] <= tolerance(label):
                failed[label] = f"differs from {next(iter(racers))} by {apart[label]:.1e}"
                continue
        reference = reference or found
        racers[label] = racer
    calls = {label: racer.call for label, racer in racers.items()}
    timed = Timed()
    if told.rounds:
        timed = interleaved(calls, told.place, rounds=told.rounds, turn=told.turn)
    racers.clear()
    calls.clear()
    gc.collect()
    told.place.release()
    return {
        "seconds": timed.seconds,
        "spread": timed.spread,
        "calls": timed.calls,
        "differences": {label: _plain(far) for label, far in apart.items()},
        "failed": {**failed, **timed.failed},
        "left out": {**left_out, **asked},
        "notes": notes,
    }


def _plain(far: float) -> float | str:
    """JSON has neither NaN nor infinity."""
    return far if far < float("inf") else str(far)
