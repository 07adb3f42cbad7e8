"""Do all backends compute the same? A small network, forward and gradients, on each."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from devconv import functional, layers, testing
from devconv._array import to_numpy
from devconv.device import device
from devconv.doctor.mending import export, unset
from devconv.doctor.report import Finding, Section, told

REFERENCE = "NumPy float64, by the written-once routes"
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
_TF32 = 2e-3


@dataclass(frozen=True)
class Trial:
    """How far one device is from the reference, as max |difference| over max |reference|."""

    device: str
    dtype: str
    difference: float | None
    tolerance: float
    ok: bool
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Agreement(Section):
    """All devices against one reference."""

    reference: str
    trials: tuple[Trial, ...]


def look_at_agreement(specs: Sequence[str]) -> Agreement:
    """Run the network on each of these devices, in each precision it has."""
    with testing.generic():
        expected = answers("cpu", "float64")
    trials = tuple(trial for spec in specs for trial in _trials(spec, expected))
    findings = tuple(_finding(trial) for trial in trials if not trial.ok)
    return Agreement(reference=REFERENCE, trials=trials, findings=findings)


def answers(spec: str, dtype: str) -> dict[str, np.ndarray]:
    """What a small network says to a small batch, and all gradients of its loss, by name."""
    place = device(spec)
    model = network().to(place, dtype=dtype)
    images = np.random.default_rng(0).standard_normal((4, 3, 12, 12))
    target = place.asarray(np.arange(4), "int32")
    logits, pullback = model.vjp(place.asarray(images, dtype))
    loss, loss_pullback = functional.cross_entropy.vjp(logits, target)
    dlogits = loss_pullback(place.asarray(np.ones(()), dtype))[0]
    dx, grads = pullback(dlogits)
    found = {"logits": logits, "loss": loss, "dx": dx, **grads}
    return {name: to_numpy(x) for name, x in found.items()}


def network() -> layers.Sequential:
    """Every kind of layer that has its own way through a backend."""
    return layers.Sequential(
        layers.Conv2d(3, 8, 3, padding="same", activation="relu"),
        layers.MaxPool2d(2),
        layers.Conv2d(8, 8, 3, groups=8, padding=1, bias=False),
        layers.BatchNorm2d(8),
        layers.GELU(),
        layers.Conv2d(8, 8, 3, stride=2),
        layers.Flatten(),
        layers.Dense(None, 10),
    ).build((3, 12, 12), seed=0)


def difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The largest max |difference| over max |reference| of all arrays; infinite for NaN."""
    worst = 0.0
    for name, reference in expected.items():
        gap = np.max(np.abs(found[name].astype(np.float64) - reference))
        relative = float(gap / np.max(np.abs(reference)))
        worst = max(worst, relative if np.isfinite(relative) else float("inf"))
    return worst


def _trials(spec: str, expected: Mapping[str, np.ndarray]) -> list[Trial]:
    try:
        place = device(spec)
        dtypes = [dtype for dtype in TOLERANCE if place.has_dtype(dtype)]
    except Exception as error:
        return [Trial(spec, "", None, 0.0, ok=False, problem=told(error))]
    trials = []
    for dtype in dtypes:
        limit = tolerance(spec, dtype)
        try:
            gap = difference(answers(spec, dtype), expected)
        except Exception as error:
            trials.append(Trial(spec, dtype, None, limit, ok=False, problem=told(error)))
            continue
        if not math.isfinite(gap):
            problem = "results that are not numbers"
            trials.append(Trial(spec, dtype, None, limit, ok=False, problem=problem))
        else:
            trials.append(Trial(spec, dtype, gap, limit, ok=gap <= limit))
    return trials


def tolerance(spec: str, dtype: str, environment: Mapping[str, str] = os.environ) -> float:
    """How far a device may be off: more where TF32 was asked for."""
    asked = spec.startswith("cuda") and environment.get("CUPY_TF32", "0") not in ("", "0")
    return _TF32 if dtype == "float32" and asked else TOLERANCE[dtype]


def _finding(trial: Trial) -> Finding:
    about = f"{trial.device} {trial.dtype}".strip()
    if trial.difference is None:
        return Finding(about, f"the network failed: {trial.problem}", wrong=True)
    text = (
        f"results differ from NumPy's by {trial.difference:.1e}, allowed is {trial.tolerance:.0e}"
    )
    return Finding(about, text, _tf32(trial), wrong=True)


def _tf32(trial: Trial) -> tuple[str, ...]:
    """What switches TF32 off, where a difference on a GPU looks like it."""
    if trial.dtype != "float32" or "cuda" not in trial.device or trial.difference is None:
        return ()
    if not trial.difference < 10 * _TF32:
        return ()
    return {
        "jax": (export("JAX_DEFAULT_MATMUL_PRECISION", "highest"),),
        "torch": ('torch.set_float32_matmul_precision("highest")',),
    }.get(trial.device.partition(":")[0], (unset("NVIDIA_TF32_OVERRIDE"),))
