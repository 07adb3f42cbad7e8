"""The self-check: agreement where there is some, and a planted disagreement that is found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from devconv.doctor import agreement as room
from devconv.doctor import mending
from devconv.doctor.agreement import Trial, look_at_agreement


def test_numpy_and_the_standard_s_own_arrays_agree() -> None:
    pytest.importorskip("array_api_strict")
    found = look_at_agreement(["cpu", "array_api_strict"])
    assert [(t.device, t.dtype, t.ok) for t in found.trials] == [
        ("cpu", "float64", True),
        ("cpu", "float32", True),
        ("array_api_strict", "float64", True),
        ("array_api_strict", "float32", True),
    ]
    assert found.findings == ()
    for trial in found.trials:
        assert trial.difference is not None
        assert trial.difference <= trial.tolerance == room.TOLERANCE[trial.dtype]


def test_pytorch_agrees() -> None:
    pytest.importorskip("torch")
    assert all(trial.ok for trial in look_at_agreement(["torch"]).trials)


def test_every_gradient_is_compared() -> None:
    answers = room.answers("cpu", "float64")
    parameters = set(room.network().parameters)
    assert set(answers) == {"logits", "loss", "dx"} | parameters
    for name in answers:
        off = {**answers, name: answers[name] * 1.01}
        assert room.difference(off, answers) > 1e-3, name


def test_no_two_windows_are_a_rounding_apart_from_a_tie() -> None:
    """A rectifier or a maximum decided by rounding would look like a disagreement."""
    from devconv import functional as F

    parameters = room.network().parameters
    x = np.random.default_rng(0).standard_normal((4, 3, 12, 12))
    weight, bias = (parameters[f"0.{name}"].astype("float64") for name in ("weight", "bias"))
    y = F.conv(x, weight, bias, padding="same")
    assert np.min(np.abs(y)) > 1e-5
    windows = np.sort(y.reshape(4, 8, 6, 2, 6, 2).transpose(0, 1, 2, 4, 3, 5).reshape(-1, 4))
    best, second = windows[:, 3], windows[:, 2]
    assert np.min((best - second)[best > 0]) > 1e-5


def plant(monkeypatch: pytest.MonkeyPatch, spoil: Any, name: str = "0.weight") -> None:
    """Spoil one array of all answers but the first, which is the reference."""
    right, calls = room.answers, []

    def answers(spec: str, dtype: str) -> dict[str, np.ndarray]:
        found = right(spec, dtype)
        calls.append(spec)
        return found if len(calls) == 1 else {**found, name: spoil(found[name])}

    monkeypatch.setattr(room, "answers", answers)


def test_a_planted_disagreement_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda gradient: gradient * 1.001)
    found = look_at_agreement(["cpu"])
    assert [trial.ok for trial in found.trials] == [False, False]
    assert [finding.about for finding in found.findings] == ["cpu float64", "cpu float32"]
    for finding in found.findings:
        assert finding.wrong
        assert finding.text.startswith("results differ from NumPy's by ")


def test_numbers_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda gradient: gradient * math.nan)
    trial = look_at_agreement(["cpu"]).trials[0]
    assert (trial.difference, trial.ok) == (None, False)
    assert trial.problem == "results that are not numbers"


def test_a_device_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(gradient: Any) -> Any:
        raise RuntimeError("out of\nmemory")

    plant(monkeypatch, fail)
    found = look_at_agreement(["cpu", "zork"])
    assert [trial.problem for trial in found.trials[:2]] == ["RuntimeError: out of memory"] * 2
    assert found.findings[0].text == "the network failed: RuntimeError: out of memory"
    assert found.trials[2].problem.startswith('InvalidValue: unknown device "zork"')
    assert not found.trials[2].ok


def test_tf32_that_was_asked_for_is_allowed_for() -> None:
    assert room.tolerance("cuda:0", "float32", {}) == 1e-5
    assert room.tolerance("cuda:0", "float32", {"CUPY_TF32": "1"}) == 2e-3
    assert room.tolerance("cuda:0", "float64", {"CUPY_TF32": "1"}) == 1e-12
    assert room.tolerance("cpu", "float32", {"CUPY_TF32": "1"}) == 1e-5


@pytest.mark.parametrize(
    ("device", "fix"),
    [
        ("jax:cuda:0", mending.export("JAX_DEFAULT_MATMUL_PRECISION", "highest")),
        ("torch:cuda:0", 'torch.set_float32_matmul_precision("highest")'),
        ("cuda:0", mending.unset("NVIDIA_TF32_OVERRIDE")),
    ],
)
def test_tf32_that_was_not_asked_for_is_named(device: str, fix: str) -> None:
    assert room._tf32(Trial(device, "float32", 1e-3, 1e-5, ok=False)) == (fix,)
    assert room._tf32(Trial(device, "float32", 1.0, 1e-5, ok=False)) == ()
    assert room._tf32(Trial(device, "float64", 1e-3, 1e-5, ok=False)) == ()
