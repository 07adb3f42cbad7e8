"""``examples/train_digits.py`` as a user runs it: does the GPU learn what the CPU learns?"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import devconv as dc
from benchmarks.gpu import contestants
from benchmarks.gpu.tables import absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.report import Row, markdown

MINUTES = 4.0  # up to nine processes
ROOT = Path(__file__).parents[2]
LEAST = 0.97
"""The accuracy below which something is wrong; 12 epochs on NumPy reach more."""
WIDE, PRECISIONS = "float32", ("float16", "bfloat16", "tf32")
"""The precision with which the others are compared, and those."""
JUDGED = "held-out images and the same moved by a pixel (5 × 359)"
"""What the targets judge: of the 359 held-out images alone, two are more than half a point."""


def jobs(told: Told) -> Jobs:
    """The device in each precision, then with routes on trial; and the CPU beside it."""
    kind = told.place.kind
    switches, asked = contestants.wanted(contestants.ours(told)[0], told.without)
    run = partial(row, left_out=asked, told=told)
    has = {*told.kinds(), *(["tf32"] if told.place.is_gpu and WIDE in told.kinds() else [])}
    trials = [label for label in ("kernels", "cudnn") if label in switches]
    found = {}
    for asked_for in ([], trials) if trials else ([],):
        for precision in (WIDE, *(each for each in PRECISIONS if each in has)):
            name = ", ".join(filter(None, (kind, precision, " + ".join(asked_for))))
            found[name] = partial(run, kind, precision, ",".join(asked_for))
    if told.place.is_gpu:
        found["cpu, float32"] = partial(run, "cpu", WIDE, "")
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
        seconds = time.perf_counter() - start
        right = _right(Path(folder) / "model.safetensors") if not done.returncode else 0.0
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
        "right": right,
        "images per second": max(speeds),
        "seconds": seconds,
        "ok": told.small or found >= LEAST,
    }


def _right(model: Path) -> float:
    """The share of the held-out images, and of the same moved by a pixel, that a model gets right.

    By NumPy, whatever it was trained on.
    """
    images, labels = _held_out()
    network = _example().network().build(images.shape[1:])
    return float(np.mean(np.argmax(dc.load(network, model)(images), axis=1) == labels))


@cache
def _example() -> Any:
    about = importlib.util.spec_from_file_location("digits", ROOT / "examples/train_digits.py")
    assert about is not None
    assert about.loader is not None
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


@cache
def _held_out() -> tuple[Any, Any]:
    example = _example()
    *_, images, labels = example.split(*example.digits())
    found: tuple[Any, Any] = example.shifted(images, labels)
    return found


def apart(rows: Mapping[str, Row], share: str = "right") -> dict[str, float]:
    """By how many points each run is from the float32 run of its device and its routes.

    Args:
        rows: the runs.
        share: which figure of theirs, ``"right"`` or ``"accuracy"``.
    """
    finished = {name: row for name, row in complete(rows).items() if "right" in row}
    wide = {(r["device"], r["trials"]): r[share] for r in finished.values() if r["dtype"] == WIDE}
    found = {}
    for name, row in finished.items():
        beside = wide.get((row["device"], row["trials"]))
        if row["dtype"] != WIDE and beside is not None:
            found[name] = 100 * abs(row[share] - beside)
    return found


def _path() -> str:
    """The library beside this package, wherever Python looks otherwise."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))


def table(rows: Mapping[str, Row]) -> str:
    """Accuracy and time of each run."""
    by_share = {share: apart(rows, share) for share in ("accuracy", "right")}
    lines = [
        [
            name,
            *(
                cell
                for share, points in by_share.items()
                for cell in (f"{row[share]:.4f}", f"{points[name]:.2f}" if name in points else "–")
            ),
            f"{row['images per second']:.0f}",
            f"{row['seconds']:.1f}",
        ]
        for name, row in complete(rows).items()
    ]
    head = ["examples/train_digits.py"]
    for share in ("test accuracy", f"share right of {JUDGED}"):
        head += [share, "points from float32"]
    head += ["images/s, best epoch", "seconds in all"]
    return joined(markdown(head, lines) if lines else "", absent(rows))
