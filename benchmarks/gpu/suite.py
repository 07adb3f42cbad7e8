"""The library's own tests, in another process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks import machine
from benchmarks.gpu.tables import absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.place import Place, installed
from benchmarks.report import Row

MINUTES = 6.0
ROOT = Path(__file__).parents[2]
OF_A_GPU = ("-k", "(cupy or cuda or cudnn or kernels or test_gpu) and not benchmarks")
"""What pytest runs on a GPU unless it is told: what other machines cannot run."""

REHEARSED = ("tests/test_check.py",)


def jobs(told: Told) -> Jobs:
    """One row."""
    return {"pytest": partial(row, told)}


def row(told: Told) -> Row:
    """Run pytest, with the libraries of the place required; its last lines."""
    usual = OF_A_GPU if told.place.is_gpu else REHEARSED if told.small else ()
    return run(told.place, told.tests or usual, told.remaining())


def run(place: Place, tests: Sequence[str], limit: float | None = None) -> Row:
    """Run pytest with these arguments; killed after ``limit`` seconds."""
    other = "cupy" if place.is_gpu else "torch"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    if place.is_gpu and installed("xdist") and "-n" not in tests:
        command += ["-n", str(min(8, machine.cores()))]
    required = f"numpy,{other}" if place.is_gpu or place.has_torch else "numpy"
    surroundings = {"DEVCONV_REQUIRE": required, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    last: deque[str] = deque(maxlen=40)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, **surroundings},
    ) as process:
        timer = threading.Timer(threading.TIMEOUT_MAX if limit is None else limit, process.kill)
        timer.daemon = True
        timer.start()
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last.append(line.rstrip())
        timer.cancel()
    return {
        "required": required,
        "arguments": list(tests),
        "status": process.returncode,
        "output": list(last),
        "ok": process.returncode == 0,
    }


def table(rows: Mapping[str, Row]) -> str:
    """The last line, and failures."""
    said = []
    for row in complete(rows).values():
        last = next((line for line in reversed(row["output"]) if " in " in line), "")
        last = last or next(iter(row["output"][-1:]), "")
        how = " ".join(row["arguments"])
        said.append(f"pytest {how}, `DEVCONV_REQUIRE={row['required']}`: {last.strip('= ')}")
        if not row["ok"]:
            bad = [line for line in row["output"] if line.startswith(("FAILED", "ERROR"))]
            said.append("```\n" + "\n".join(bad or row["output"]) + "\n```")
    return joined(*said, absent(rows))
