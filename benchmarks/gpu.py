"""All there is to know about a GPU, by one command: tests, parity, tables.

Each part is written as soon as it is there and takes the place of its predecessor in the file,
so the parts can be run one by one, and a part that fails takes none of the others with it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import devconv as dc
from benchmarks import convolution, inference, machine, training
from benchmarks.options import Options, Table
from benchmarks.place import Place
from benchmarks.report import heading, save

ROOT = Path(__file__).parent.parent
TABLES: dict[str, Table] = {
    "convolution": convolution,
    "training": training,
    "inference": inference,
}
PARTS = ("tests", "parity", *TABLES)


def run(options: Options, out: Path, parts: Sequence[str], tests: Sequence[str]) -> bool:
    """Run the parts, and write ``out/<gpu name>.json`` and ``.md``.

    Args:
        options: how to measure, and where.
        out: a folder.
        parts: some of ``PARTS``.
        tests: what pytest is told to run; everything where empty.

    Returns:
        Whether every part came to its end, and the tests passed.
    """
    path = out / machine.label(options.place)
    written = _earlier(path)
    fine = True
    for part in parts:
        print(f"== {part}", flush=True)
        try:
            content, passed = _part(part, options, tests)
        except (Exception, SystemExit) as problem:
            traceback.print_exc()
            content, passed = {"failed": f"{type(problem).__name__}: {problem}"}, False
        fine = fine and passed
        written[part] = content
        about = machine.describe(options.threads, options.place)
        save(path, {"machine": about, "parts": written}, f"{heading(about)}\n\n{text(written)}")
    print(text(written))
    print(f"recorded in {path}.json and .md")
    return fine


def _earlier(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(f"{path}.json").read_text())["parts"])
    except (OSError, KeyError, ValueError):
        return {}


def _part(part: str, options: Options, tests: Sequence[str]) -> tuple[dict[str, Any], bool]:
    if part == "tests":
        return run_tests(options.place, tests)
    if part == "parity":
        found = parity(options.place)
        return found, bool(found["ok"])
    return {"rows": TABLES[part].measure(options)}, True


def run_tests(place: Place, tests: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Run pytest, with the libraries of the place required; its last lines."""
    other = "cupy" if place.is_gpu else "torch"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    required = f"numpy,{other}" if place.is_gpu or place.has_torch else "numpy"
    last: deque[str] = deque(maxlen=40)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "DEVCONV_REQUIRE": required},
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last.append(line.rstrip())
    passed = process.returncode == 0
    return {"required": required, "status": process.returncode, "output": list(last)}, passed


def parity(place: Place) -> dict[str, Any]:
    """LeNet-5 and a small image through ResNet-18, layer by layer, beside float64 on NumPy.

    On a GPU, for CuPy's arrays and PyTorch's; ResNet-18 there alone.
    """
    specs = [place.kind, f"torch:{place.kind}"] if place.has_torch else [place.kind]
    models = {"LeNet-5": (dc.models.lenet5(), (1, 32, 32))}
    if place.is_gpu:
        models["ResNet-18"] = (dc.models.resnet18(10), (3, 32, 32))
    place.prepare()  # without TF32: what then looks like it is a finding
    draw, reports = np.random.default_rng(0), {}
    for name, (model, shape) in models.items():
        x, target = draw.standard_normal((8, *shape)), np.arange(8)
        small = name == "LeNet-5"
        model.build(seed=0)
        reports[name] = dc.testing.parity(model, x, target, devices=specs, differences=small)
    return {
        "ok": all(report.ok for report in reports.values()),
        "report": "\n\n".join(f"{name}\n\n{report}" for name, report in reports.items()),
        "rows": {name: [_row(row) for row in report.rows] for name, report in reports.items()},
    }


def _row(row: dc.testing.Row) -> dict[str, Any]:
    """A row as JSON takes it, which has no infinity."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(row).items()
    }


def text(parts: dict[str, Any]) -> str:
    """All parts in Markdown."""
    pieces = []
    for part in (part for part in PARTS if part in parts):
        content = parts[part]
        if "failed" in content:
            body = f"Failed: {content['failed']}"
        elif part == "tests":
            summary = next((line for line in reversed(content["output"]) if " in " in line), "")
            body = f"pytest, `DEVCONV_REQUIRE={content['required']}`: {summary.strip('= ')}"
        elif part == "parity":
            body = f"```\n{content['report']}\n```"
        else:
            body = TABLES[part].table(content["rows"])
        pieces.append(f"## {part.capitalize()}\n\n{body}")
    return "\n\n".join(pieces)
