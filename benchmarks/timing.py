"""Timing several contestants fairly in one process.

What makes such comparisons false, and what is done about it: BLAS threads spin for a while
after a product (wait until the process is at rest), fresh memory is faulted in page by page
(malloc is told to keep what it has, for all sides), a rested CPU is faster at first (turns
alternate A B B A), and other processes disturb (such rounds are dropped). A GPU works on
after a call has returned: the clock is read when it has finished all calls of a turn.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SLOW = 0.5
"""A call that takes longer than so many seconds needs no waking and few rounds."""
FEW = 3


@dataclass(frozen=True)
class Timed:
    """Median seconds of each contestant, and how many counted rounds others disturbed."""

    seconds: dict[str, float]
    disturbed: int


def keep_memory() -> None:
    """Tell glibc's malloc to keep large blocks instead of returning them at each free."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own mapping
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: return nothing
    except (OSError, AttributeError):
        pass  # another C library: both sides live with its habits


def rest(limit: float = 2.0) -> None:
    """Wait until this process uses no CPU.

    OpenBLAS threads spin for about 100 ms after a product. The kernel books the time of a
    thread that runs on another core only at its ticks, so shorter looks than these see
    nothing.
    """
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(0.03)
        if time.process_time() - before < 0.002:
            return


def _machine_busy() -> float:
    """Seconds all CPUs of the machine were busy since it started; 0 where that is not told."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    ticks = [int(field) for field in fields]
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def nothing() -> None:
    """What is to be waited for where calls return with their work done."""


def timed(
    call: Callable[[], object],
    repeats: int,
    *,
    wake: bool = True,
    finish: Callable[[], None] = nothing,
) -> tuple[float, float]:
    """Seconds a call takes, the mean of some in a row, and CPU seconds others used meanwhile.

    Args:
        call: what is timed.
        repeats: calls in a row.
        wake: whether one call before them wakes the threads that a rest has put to sleep.
        finish: waits until the device has done what it was told.
    """
    rest()
    if wake:
        call()
    finish()
    busy, own, start = _machine_busy(), time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    finish()
    seconds = time.perf_counter() - start
    others = _machine_busy() - busy - (time.process_time() - own)
    return seconds / repeats, max(others, 0.0)


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 10,
    turn: float = 0.05,
    finish: Callable[[], None] = nothing,
) -> Timed:
    """The median seconds of each contestant over rounds in alternating order.

    Args:
        contestants: calls that do comparable work; those slower than ``SLOW`` take part in
            the first ``FEW`` rounds only.
        rounds: how many rounds count; disturbed ones are repeated, up to as many again.
        turn: a contestant's turn lasts about this many seconds.
        finish: waits until the device has done what it was told.
    """
    repeats = {}
    slow = set()
    for name, call in contestants.items():
        call()
        seconds, _ = timed(call, 1, finish=finish)
        repeats[name] = max(1, min(200, round(turn / max(seconds, 1e-6))))
        if seconds > SLOW:
            slow.add(name)
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    done = tries = disturbed = 0
    while done < rounds and tries < 2 * rounds:
        order = [name for name in contestants if name not in slow or done < FEW]
        turns = {
            name: timed(contestants[name], repeats[name], wake=name not in slow, finish=finish)
            for name in (order if tries % 2 == 0 else order[::-1])
        }
        tries += 1
        spent = sum(seconds * repeats[name] for name, (seconds, _) in turns.items())
        noisy = sum(others for _, others in turns.values()) > 0.1 * spent
        if noisy and tries + rounds - done <= 2 * rounds:
            continue
        done += 1
        disturbed += noisy
        for name, (seconds, _) in turns.items():
            measured[name].append(seconds)
    return Timed({name: statistics.median(each) for name, each in measured.items()}, disturbed)
