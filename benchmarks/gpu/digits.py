"""``examples/train_digits.py`` as a user runs it: does the GPU learn what the CPU learns?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.gpu import contestants
from benchmarks.gpu.tables import absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.report import Row, markdown

MINUTES = 2.0
ROOT = Path(__file__).parents[2]
LEAST = 0.97
"""The accuracy below which something is wrong; 12 epochs on NumPy reach more."""


def jobs(told: Told) -> Jobs:
    """The device in float32 and float16, with routes on trial, and the CPU beside it."""
    kind = told.place.kind
    switches, asked = contestants.wanted(contestants.ours(told)[0], told.without)
    run = partial(row, left_out=asked, told=told)
    found = {
        f"{kind}, float32": partial(run, kind, "float32", ""),
        f"{kind}, float16": partial(run, kind, "float16", ""),
    }
    trials = [label for label in ("kernels", "cudnn") if label in switches]
    for dtype in ("float32", "float16") if trials else ():
        name = f"{kind}, {dtype}, {' + '.join(trials)}"
        found[name] = partial(run, kind, dtype, ",".join(trials))
    if told.place.is_gpu:
        found["cpu, float32"] = partial(run, "cpu", "float32", "")
    return found


def row(device: str, dtype: str, trials: str, left_out: Mapping[str, str], told: Told) -> Row:
    """One run."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "examples/train_digits.py", "--device", device]
        command += ["--precision", dtype, "--out", folder]
        command += ["--epochs", "1"] if told.small else []
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "DEVCONV_TRIAL": trials, "PYTHONPATH": _path()},
            timeout=told.remaining(),
            check=False,
        )
    accuracy = re.search(r"test accuracy ([\d.]+)", done.stdout)
    if done.returncode or accuracy is None:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"train_digits.py failed: {''.join(last)}")
    speeds = [float(each) for each in re.findall(r"([\d.]+) images/s", done.stdout)]
    found = float(accuracy.group(1))
    return {
        "device": device,
        "dtype": dtype,
        "trials": trials,
        "left out": dict(left_out),
        "accuracy": found,
        "images per second": max(speeds),
        "seconds": time.perf_counter() - start,
        "ok": told.small or found >= LEAST,
    }


def _path() -> str:
    """The library beside this package, wherever Python looks otherwise."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))


def table(rows: Mapping[str, Row]) -> str:
    """Accuracy and time of each run."""
    lines = [
        [
            name,
            f"{row['accuracy']:.4f}",
            f"{row['images per second']:.0f}",
            f"{row['seconds']:.1f}",
        ]
        for name, row in complete(rows).items()
    ]
    head = ["examples/train_digits.py", "test accuracy", "images/s, best epoch", "seconds in all"]
    return joined(markdown(head, lines) if lines else "", absent(rows))
