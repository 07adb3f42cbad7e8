"""How many kernels the GPU runs for each part of a step, beside the launches that are on record.

``tests/doubles/launches.json`` counts calls of array functions, without a GPU. What CuPy makes of
them is counted here by PyTorch's profiler, whose source sees every kernel of the process, whoever
launched it. (A captured stream would not do: it takes no product of matrices of CuPy's.)
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.tables import UNMEASURED
from benchmarks.gpu.told import Jobs, Told
from benchmarks.place import Place
from benchmarks.report import Row

KINDS = {"kernel": "kernels", "gpu_memcpy": "copies", "gpu_memset": "fills"}
"""The profiler's categories of what a GPU does, and what they are called here."""


def jobs(told: Told) -> Jobs:
    """A row for each row of the table; where nobody can count, one that says why."""
    if lacks := told.place.lacks_torch:
        return {"launches": lambda: {"verdict": UNMEASURED, "found": lacks}}
    table = importlib.import_module("tests.doubles.launches")
    return {f"launches of {name}": partial(row, name, told) for name in table.ROWS}


def row(name: str, told: Told) -> Row:
    """One row of the table: for each count on record what the GPU did."""
    table = importlib.import_module("tests.doubles.launches")
    bench = table.Bench(told.place.kind, partial(did, told.place))
    x = bench.numbers(64)
    alone = [bench.counted(lambda: x + x)[1] for _ in range(2)][1]
    if alone != Counter(kernels=1):
        raise RuntimeError(f"the profiler sees {_said(alone)} in an addition, which is one kernel")
    table.ROWS[name](bench)  # kernels are compiled and memory is taken the first time
    found, known = table.ROWS[name](bench), table.recorded()[name]
    said = "; ".join(f"{part}: {known[part]} calls, {_said(found[part])}" for part in known)
    return {
        "verdict": "measured",
        "found": said,
        "calls": known,
        "launches": {part: dict(counts) for part, counts in found.items()},
    }


def did(place: Place, call: Callable[[], Any]) -> tuple[Any, Counter[str]]:
    """What a call returns, and how many kernels, copies and fills the GPU did for it."""
    result, events = traced(place, call)
    kinds = (KINDS.get(str(event.get("cat", "")).lower(), "") for event in events)
    return result, Counter(kind for kind in kinds if kind)


def traced(place: Place, call: Callable[[], Any]) -> tuple[Any, list[dict[str, Any]]]:
    """What a call returns, and the events of its trace."""
    profiler = importlib.import_module("torch").profiler
    place.synchronize()
    with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as seen:
        result = call()
        place.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        seen.export_chrome_trace(str(path))
        return result, json.loads(path.read_text())["traceEvents"]


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items(), reverse=True)) or "nothing"
