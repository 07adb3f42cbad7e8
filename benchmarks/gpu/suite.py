"""The library's own tests, in another process."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import machine
from benchmarks.gpu.tables import absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.place import Place, installed
from benchmarks.report import Row

MINUTES = 6.0
ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds that pytest has to tell what failed until its time was over."""
OF_A_GPU = "(cupy or cuda or cudnn or kernels or test_gpu) and not benchmarks"
"""What pytest runs on a GPU unless it is told: what other machines cannot run."""
REHEARSED = ("tests/test_check.py",)
SECOND = "CuPy, the second GPU"
LIBRARIES = {"torch": "PyTorch on the GPU", "jax": "JAX on the GPU"}


@dataclass(frozen=True)
class Run:
    """One run of pytest.

    Attributes:
        tests: its arguments.
        required: the libraries without which it fails.
        where: what the tests' environment variables say of devices and streams.
    """

    tests: tuple[str, ...]
    required: str
    where: Mapping[str, str] = field(default_factory=dict)


def jobs(told: Told) -> Jobs:
    """On a GPU a row for each way to run the tests; one row where they are named."""
    place, missing = told.place, dict[str, str]()
    if place.is_gpu and not told.tests:
        missing = left_out(place)
        runs = {name: each for name, each in on_a_gpu(place).items() if name not in missing}
    else:
        second = "cupy" if place.is_gpu else "torch" if place.has_torch else ""
        required = ",".join(filter(None, ("numpy", second)))
        runs = {"pytest": Run(told.tests or (REHEARSED if told.small else ()), required)}
    return {name: partial(row, each, missing, told) for name, each in runs.items()}


def on_a_gpu(place: Place) -> dict[str, Run]:
    """The default run; CuPy elsewhere; the others' GPU backends; the cases left out at first."""
    cupy, devices = "numpy,cupy", "DEVCONV_TEST_DEVICES"
    selected, others = ("-k", OF_A_GPU), ("-k", "cupy and not benchmarks and not test_gpu")
    found = {"CuPy": Run(selected, cupy)}
    found["CuPy, streams of its own"] = Run(others, cupy, {"DEVCONV_TEST_STREAM": "own"})
    found[SECOND] = Run(others, cupy, {devices: "cuda:1"})
    for library, title in LIBRARIES.items():
        chosen = ("-k", f"{library} and not benchmarks and not doctor")
        where = {devices: f"{library}:{place.kind}"}
        found[title] = Run(chosen, f"numpy,{library}", where)
    found["CuPy, slow"] = Run(("-m", "slow", *selected), cupy)
    return found


def left_out(place: Place) -> dict[str, str]:
    """Which runs of a GPU there cannot be, and why."""
    why = {
        SECOND: "there is one GPU" if place.count == 1 else "",
        LIBRARIES["torch"]: place.lacks_torch,
        LIBRARIES["jax"]: place.lacks_jax,
    }
    return {name: said for name, said in why.items() if said}


def row(each: Run, missing: Mapping[str, str], told: Told) -> Row:
    """Run pytest, with the libraries of the place required; its last lines."""
    return {**run(each, told.place, told.remaining()), "left out": dict(missing)}


def run(each: Run, place: Place, limit: float | None = None) -> Row:
    """Run pytest; asked to end after ``limit`` seconds, and killed if it does not."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *each.tests]
    if place.is_gpu and installed("xdist") and "-n" not in each.tests:
        command += ["-n", str(min(8, machine.cores()))]
    surroundings = {"DEVCONV_REQUIRE": each.required, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    last: deque[str] = deque(maxlen=40)
    stopped = threading.Event()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, **surroundings, **each.where},
    ) as process:

        def end() -> None:
            stopped.set()
            process.send_signal(signal.SIGINT)

        timers = []
        for seconds, do in ((0.0, end), (PATIENCE, process.kill)) if limit is not None else ():
            timers.append(threading.Timer(limit + seconds, do))
            timers[-1].daemon = True
            timers[-1].start()
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last.append(line.rstrip())
        for timer in timers:
            timer.cancel()
    return {
        "required": each.required,
        "where": dict(each.where),
        "arguments": list(each.tests),
        "status": process.returncode,
        "output": list(last),
        "stopped": stopped.is_set(),
        "ok": process.returncode == 0,
    }


def table(rows: Mapping[str, Row]) -> str:
    """The last line, and failures."""
    said = []
    for name, row in complete(rows).items():
        last = next((line for line in reversed(row["output"]) if " in " in line), "")
        last = last or next(iter(row["output"][-1:]), "")
        asked = {"DEVCONV_REQUIRE": row["required"], **row.get("where", {})}
        how = " ".join([*(f"{key}={value}" for key, value in asked.items()), "pytest"])
        end = "stopped at the limit of time: " if row.get("stopped") else ""
        said.append(f"{name}: {end}{last.strip('= ')} (`{how} {shlex.join(row['arguments'])}`)")
        if not row["ok"]:
            bad = [line for line in row["output"] if line.startswith(("FAILED", "ERROR"))]
            said.append("```\n" + "\n".join(bad or row["output"]) + "\n```")
    return joined(*said, absent(rows))
