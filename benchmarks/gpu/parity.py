"""LeNet-5 and a small image through ResNet-18, layer by layer, beside float64 on NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

import devconv as dc
from benchmarks.gpu import contestants
from benchmarks.gpu.tables import absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.report import Row
from benchmarks.switches import Switch

MINUTES = 2.0


def jobs(told: Told) -> Jobs:
    """A row for each network: for all devices, and with each set of routes on trial."""
    switches, lacking = contestants.ours(told)
    switches, asked = contestants.wanted(switches, told.without)
    switches.pop("written once", None)
    place = told.place
    there = {"PyTorch": place.lacks_torch, "JAX": place.lacks_jax if place.is_gpu else ""}
    left_out = {**lacking, **asked, **{name: why for name, why in there.items() if why}}
    found = {
        f"{name}, {label}": partial(row, name, label, switch, left_out, told)
        for name in ("LeNet-5", *(["ResNet-18"] if place.is_gpu else []))
        for label, switch in switches.items()
    }
    if place.is_gpu and not there["JAX"]:  # last: it compiles each operation
        found["LeNet-5, JAX"] = partial(row, "LeNet-5", "JAX", nullcontext, {}, told)
    return found


def row(name: str, label: str, switch: Switch, left_out: Mapping[str, str], told: Told) -> Row:
    """One network on the device's own arrays and on PyTorch's; on trial, its own alone."""
    kind = told.place.kind
    plain = label == "devconv" and told.place.has_torch
    specs = [kind, f"torch:{kind}"] if plain else [kind]
    specs = [f"jax:{kind}"] if label == "JAX" else specs
    small = name == "LeNet-5"
    model = dc.models.lenet5() if small else dc.models.resnet18(10)
    shape = (1, 32, 32) if small else (3, 32, 32)
    x = np.random.default_rng(0).standard_normal((8, *shape))
    model.build(seed=0)
    with switch():
        report = dc.testing.parity(model, x, np.arange(8), devices=specs, differences=small)
    return {
        "ok": report.ok,
        "left out": dict(left_out),
        "report": str(report),
        "rows": [_plain(asdict(each)) for each in report.rows],
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON takes it, which has no infinity."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def table(rows: Mapping[str, Row]) -> str:
    """The reports; of those with nothing to complain of the first lines."""
    reports = []
    for name, row in complete(rows).items():
        report = row["report"].partition("\n\n")[0] if row["ok"] else row["report"]
        reports.append(f"{name}:\n\n```\n{report}\n```")
    return joined(*reports, absent(rows))
