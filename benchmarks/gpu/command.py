"""``python -m benchmarks gpu``: run parts, and write each row as soon as it is there.

Several parts run one after the other, each in a process of its own: what one leaves behind, or
breaks, is nothing to the others. A part stops at its time limit; what it had measured is in the
file, and a later run of the same part puts its rows beside them, or in their place. The record
ends with the targets and what was found.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.gpu import (
    convolution,
    digits,
    facts,
    inference,
    memory,
    numpy,
    parity,
    suite,
    targets,
    training,
    trials,
)
from benchmarks.gpu.clock import Dead, brief
from benchmarks.gpu.tables import UNMEASURED
from benchmarks.gpu.told import Jobs, Part, Told
from benchmarks.report import RESULTS, heading, save
from devconv import _fast

PARTS: dict[str, Part] = {
    "parity": parity,
    "training": training,
    "convolution": convolution,
    "tests": suite,
    "facts": facts,
    "kernels": trials,
    "digits": digits,
    "memory": memory,
    "numpy": numpy,
    "inference": inference,
}
"""What matters most comes first, should time end before the parts do."""
ROOT = Path(__file__).parents[2]
GRACE = 60.0
"""Seconds that a part may take to finish the row it is at."""
REHEARSALS = Path(tempfile.gettempdir()) / "devconv-rehearsal"
"""Where what is tiny, or on the CPU, is written."""
UNPREPARED = ("tests", "digits", "memory")
"""Parts whose work is in other processes."""


def one(part: str, told: Told, out: Path, *, minutes: float | None, resume: bool) -> bool:
    """Run one part in this process.

    Args:
        part: its name.
        told: how to measure.
        out: the folder of the record.
        minutes: how long it may take; the part's own by default, without end if 0.
        resume: whether rows that are there stay as they are.

    Returns:
        Whether it came to its end, and nothing in it failed.
    """
    minutes = PARTS[part].MINUTES if minutes is None else minutes
    start = time.monotonic()
    if minutes:
        told = replace(told, deadline=start + 60 * minutes)
    if part not in UNPREPARED:
        told.place.prepare()
    record = Record(out, told)
    content = record.begin(part)
    record.write()  # an earlier run's mark of who broke the device is no longer true
    try:
        jobs = _to_do(PARTS[part].jobs(told), content["rows"], resume)
        for count, (name, measure) in enumerate(jobs.items(), start=1):
            if time.monotonic() > told.deadline:
                content["stopped"] = f"after {minutes:g} minutes, before {name}"
                break
            content["rows"][name] = _row(name, measure, told)
            content["seconds"] = round(time.monotonic() - start, 1)
            record.write()
            print(f"{part} {count}/{len(jobs)}: {name} ({content['seconds']:.0f} s)", flush=True)
    except Exception as problem:
        traceback.print_exc()
        content["failed"] = brief(problem)
        if isinstance(problem, Dead):
            content["dead"] = problem.label
            content.setdefault("broke", []).append(str(problem))
    record.write()
    for key in ("failed", "stopped"):
        if key in content:
            print(f"{part} {key}: {content[key]}", flush=True)
    print(f"recorded in {record.path}.json and .md", flush=True)
    fine = all(row.get("ok", "failed row" not in row) for row in content["rows"].values())
    return fine and "failed" not in content and "stopped" not in content


def _to_do(jobs: Jobs, rows: dict[str, Any], resume: bool) -> Jobs:
    """The rows to measure.

    On resuming, those that are missing come before those that were stopped or failed, which may
    take all the time again.
    """
    if not resume:
        return jobs
    left = [name for name in jobs if not _is_whole(rows.get(name))]
    return {name: jobs[name] for name in sorted(left, key=lambda name: name in rows)}


def _is_whole(row: dict[str, Any] | None) -> bool:
    """Whether a row of an earlier run can stay."""
    if row is None or "failed row" in row or row.get("stopped"):
        return False
    return bool(row.get("verdict") != UNMEASURED)


def _row(name: str, measure: Callable[[], Any], told: Told) -> dict[str, Any]:
    try:
        return measure()
    except Dead:
        raise
    except Exception as problem:
        traceback.print_exc()
        said = brief(problem)
        problem.__traceback__ = None
        try:
            told.place.answers()
        except Exception as worse:
            raise Dead(name, f"{said}; {brief(worse)}") from None
        return {"failed row": said}
    finally:
        gc.collect()
        told.place.release()


def several(
    parts: Sequence[str],
    flags: Sequence[str],
    path: Path,
    minutes: float | None,
    without: Collection[str] = (),
) -> bool:
    """Run parts in processes of their own; once more without routes that broke the device.

    Args:
        parts: their names.
        flags: the command line without parts.
        path: the record, as JSON.
        minutes: how long each may take.
        without: who is left out.

    Returns:
        Whether all came to their end, and nothing in them failed.
    """
    fine, broken = True, set(without)
    for part in parts:
        print(f"== {part}", flush=True)
        limit = 60 * (PARTS[part].MINUTES if minutes is None else minutes)
        start = time.monotonic()
        passed = _process(part, flags, broken, limit)
        culprits = {trial for trial in _fast.TRIALS if trial in _dead(path, part)}
        left = max(1.0, limit - (time.monotonic() - start)) if limit else 0.0
        if culprits - broken:
            broken |= culprits
            passed = _process(part, [*flags, "--resume"], broken, left) and passed
        fine = fine and passed
    return fine


def _dead(path: Path, part: str) -> str:
    """Who broke the device in a part, as far as is known."""
    return str(earlier(path).get(part, {}).get("dead", ""))


def _process(part: str, flags: Sequence[str], without: Collection[str], limit: float) -> bool:
    command = [sys.executable, "-m", "benchmarks", "gpu", *flags, "--parts", part]
    command += ["--without", *sorted(without)] if without else []
    try:
        done = subprocess.run(
            [*command, "--minutes", f"{limit / 60:g}"],
            timeout=limit + GRACE if limit else None,
            cwd=ROOT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"killed after {limit + GRACE:.0f} seconds", flush=True)
        return False
    return done.returncode == 0


class Record:
    """The file of a GPU: what earlier runs wrote, and the part at hand."""

    def __init__(self, out: Path, told: Told) -> None:
        self.path = out / machine.label(told.place)
        self.told = told
        self.parts = earlier(Path(f"{self.path}.json"))

    def begin(self, part: str) -> dict[str, Any]:
        """The content of a part, with the rows of earlier runs."""
        before = self.parts.get(part, {})
        content = {"rows": before.get("rows", {}), "broke": before.get("broke", []), "seconds": 0.0}
        self.parts[part] = content
        return content

    def write(self) -> None:
        """Write all there is."""
        write(self.path, machine.describe(self.told.threads, self.told.place), self.parts)


def earlier(path: Path) -> dict[str, Any]:
    """The parts of a record; none where there is none."""
    try:
        return dict(json.loads(path.read_text())["parts"])
    except (OSError, KeyError, ValueError):
        return {}


def write(path: Path, about: dict[str, Any], parts: dict[str, Any]) -> None:
    """Write ``<path>.json`` and ``<path>.md``, targets first."""
    found = targets.summary(parts)
    content = {"machine": about, "targets": found, "parts": parts}
    save(path, content, f"{heading(about)}\n\n{text(about, parts)}")


def text(about: dict[str, Any], parts: dict[str, Any]) -> str:
    """The targets and all parts in Markdown."""
    pieces = []
    if not about.get("gpu"):
        pieces.append("**A rehearsal on a CPU: no number here means anything.**")
    found = targets.table(targets.summary(parts), judged=bool(about.get("gpu")))
    pieces.append(f"## Targets\n\n{found}")
    for part in (part for part in PARTS if part in parts):
        content = parts[part]
        pieces.append(f"## {part.capitalize()}")
        pieces += [f"**{said}**" for said in content.get("broke", ())]
        for key in ("failed", "stopped"):
            if key in content:
                pieces.append(f"**{key.capitalize()}: {content[key]}**")
        pieces.append(_table(part, content["rows"]))
    return "\n\n".join(piece for piece in pieces if piece)


def _table(part: str, rows: dict[str, Any]) -> str:
    """A part in Markdown; rows of an earlier program must not keep new ones from being written."""
    try:
        return PARTS[part].table(rows)
    except (KeyError, TypeError, ValueError) as problem:
        return f"These rows cannot be told ({brief(problem)}); the record has them."


def join(paths: Sequence[Path], out: Path) -> Path:
    """One record of several of one GPU, rows of later ones in place of earlier ones'."""
    parts: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for path in paths:
        record = json.loads(path.read_text())
        if about and record["machine"]["gpu"] != about["gpu"]:
            raise SystemExit(f"{path} is of another machine: {record['machine']['gpu'] or 'a CPU'}")
        about = record["machine"]
        for part, content in record["parts"].items():
            rows = {**parts.get(part, {}).get("rows", {}), **content["rows"]}
            parts[part] = {**content, "rows": rows}
    if not about["gpu"]:
        _elsewhere(out)
    path = out / machine.slug(about["gpu"] or about["cpu"])
    write(path, about, parts)
    return path


def folder(out: Path | None, told: Told) -> Path:
    """The folder of the record: the results', but never for a rehearsal."""
    real = told.place.is_gpu and not told.small
    return out or RESULTS if real else _elsewhere(out or REHEARSALS)


def _elsewhere(out: Path) -> Path:
    if out.resolve().is_relative_to(RESULTS.resolve()):
        raise SystemExit(f"a rehearsal is no result: --out {out} must be another folder")
    return out
