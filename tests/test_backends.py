"""The tests' own ground: which backends there are, and the count of host reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import backends
from tests.backends import Backend

ROOT = Path(__file__).resolve().parent.parent


def test_every_backend_is_usable_or_missing_for_a_reason() -> None:
    usable, missing = backends.usable(), backends.missing()
    assert sorted([*usable, *missing]) == sorted(backends.NAMES)
    assert "numpy" in usable
    assert all(missing.values())


def test_required_backends() -> None:
    assert backends.required("") == ()
    assert backends.required("numpy") == ("numpy",)
    assert backends.required(" numpy , numpy,") == ("numpy", "numpy")
    with pytest.raises(pytest.UsageError, match=r"names 'tensorflow', which is none of numpy, arr"):
        backends.required("numpy,tensorflow")


def test_a_required_backend_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "look", lambda name: f"no {name} today")
    with pytest.raises(
        pytest.UsageError, match=r"asks for cupy, .* not usable here: no cupy today"
    ):
        backends.required("cupy")


@pytest.mark.parametrize(("required", "code"), [("numpy", 0), ("tensorflow", 4)])
def test_the_run_itself_fails(required: str, code: int) -> None:
    command = [sys.executable, "-m", "pytest", "tests/test_check.py", "-q", "-k", "choices"]
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "DEVCONV_REQUIRE": required},
        capture_output=True,
        text=True,
    )
    assert run.returncode == code, run.stdout + run.stderr
    if code:
        assert "DEVCONV_REQUIRE names 'tensorflow'" in run.stderr
    else:
        assert f"tested: {', '.join(backends.usable())}" in run.stdout
        for name, reason in backends.missing().items():
            assert f"NOT TESTED: {name} ({reason})" in run.stdout


def test_arrays_are_copies_on_the_backend_s_device(backend: Backend) -> None:
    host = np.arange(6.0).reshape(2, 3)
    x = backend.asarray(host.T)
    host[0, 0] = 9.0
    np.testing.assert_array_equal(backend.to_numpy(x), [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]])
    assert backend.asarray([1, 2], "float32").dtype == backend.xp.float32


@pytest.mark.parametrize(
    ("look", "name"),
    [
        (float, "__float__"),
        (int, "__int__"),
        (bool, "__bool__"),
        (lambda x: x.to_device(backends.get("array_api_strict").xp.Device("CPU_DEVICE")), None),
    ],
)
def test_host_reads_are_seen(look: Any, name: str | None, host_reads: Any) -> None:
    backend = backends.get("array_api_strict")
    x = backend.asarray(np.ones(()))
    with pytest.raises(AssertionError, match="waited for its device"), host_reads.forbidden():
        look(x)
    assert host_reads.names[0] == (name or "to_device")


def test_an_index_is_a_host_read(host_reads: Any) -> None:
    x = backends.get("array_api_strict").asarray(np.asarray(1))
    assert [10, 20][x] == 20
    assert host_reads.names == ["__index__"]


def test_the_host_may_read_its_own(host_reads: Any) -> None:
    xp = backends.get("array_api_strict").xp
    with host_reads.forbidden():
        assert float(xp.ones(())) == 1.0
        xp.ones(()).to_device(xp.Device("device1"))
