"""Timing several contestants fairly in one process.

What makes such comparisons false, and what is done about it: BLAS threads spin for a while
after a product (wait until the process is at rest), fresh memory is faulted in page by page
(malloc is told to keep what it has, for all sides), a rested CPU is faster at first (turns
alternate A B B A), and other processes disturb (such rounds are dropped).
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


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


def timed(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds a call takes, the mean of some in a row, and CPU seconds others used meanwhile.

    One call before them wakes the threads that a rest has put to sleep.
    """
    rest()
    call()
    busy, own, start = _machine_busy(), time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    seconds = time.perf_counter() - start
    others = _machine_busy() - busy - (time.process_time() - own)
    return seconds / repeats, max(others, 0.0)


def interleaved(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int = 10, turn: float = 0.05
) -> dict[str, float]:
    """The median seconds of each contestant over rounds in alternating order.

    Args:
        contestants: calls that do comparable work.
        rounds: how many rounds count; disturbed ones are repeated, up to as many again.
        turn: a contestant's turn lasts about this many seconds.
    """
    repeats = {}
    for name, call in contestants.items():
        call()
        seconds, _ = timed(call, 1)
        repeats[name] = max(1, min(200, round(turn / max(seconds, 1e-6))))
    names = list(contestants)
    measured: dict[str, list[float]] = {name: [] for name in names}
    done = tries = 0
    while done < rounds and tries < 2 * rounds:
        order = names if tries % 2 == 0 else names[::-1]
        turns = {name: timed(contestants[name], repeats[name]) for name in order}
        tries += 1
        spent = sum(seconds * repeats[name] for name, (seconds, _) in turns.items())
        if sum(others for _, others in turns.values()) > 0.1 * spent and tries + rounds - done <= (
            2 * rounds
        ):
            continue
        done += 1
        for name, (seconds, _) in turns.items():
            measured[name].append(seconds)
    return {name: statistics.median(values) for name, values in measured.items()}
