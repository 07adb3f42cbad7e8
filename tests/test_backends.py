"""The tests' own ground: which backends there are, and the count of host reads."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import array_api_compat
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


def pytest_with(*words: str, **surroundings: str) -> subprocess.CompletedProcess[str]:
    """A run of pytest in a process of its own."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("DEVCONV_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=ROOT,
        env={**kept, **surroundings},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("required", "code"), [("numpy", 0), ("tensorflow", 4)])
def test_the_run_itself_fails(required: str, code: int) -> None:
    run = pytest_with("tests/test_check.py", "-k", "choices", DEVCONV_REQUIRE=required)
    assert run.returncode == code, run.stdout + run.stderr
    if code:
        assert "DEVCONV_REQUIRE names 'tensorflow'" in run.stderr
    else:
        assert "tested: numpy" in run.stdout
        for name, reason in backends.missing().items():
            assert f"NOT TESTED: {name} ({reason})" in run.stdout


# --- backends that are put somewhere ---


def test_backends_are_put_somewhere() -> None:
    assert backends.placed("") == {}
    found = backends.placed("torch:cuda:1, cuda:1,jax:cpu:1")
    assert found == {"torch": "cuda:1", "cupy": "cuda:1", "jax": "cpu:1"}
    assert backends.placed("cuda") == {"cupy": "cuda:0"}
    assert backends.placed("double") == {"cupy": "double"}
    for wrong in ("numpy:cuda", "torch", "tensorflow:cuda", "torch:"):
        with pytest.raises(pytest.UsageError, match=f"DEVCONV_TEST_DEVICES names '{wrong}'"):
            backends.placed(wrong)


NOT_HERE = "which is not usable here"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEVCONV_TEST_DEVICES", "numpy:cuda", "DEVCONV_TEST_DEVICES names 'numpy:cuda'; it tak"),
        (
            "DEVCONV_TEST_DEVICES",
            "jax:cpu:77",
            f"jax on cpu:77, {NOT_HERE}: IndexError: list index",
        ),
        ("DEVCONV_TEST_DEVICES", "jax:x", f"jax on x, {NOT_HERE}: RuntimeError: Unknown backend x"),
        ("DEVCONV_TEST_STREAM", "other", "DEVCONV_TEST_STREAM is 'other'; it can be own"),
    ],
)
def test_what_cannot_be_had_ends_the_run(name: str, value: str, said: str) -> None:
    if value.startswith("jax"):
        pytest.importorskip("jax")
    run = pytest_with("tests/test_check.py", **{name: value})
    assert run.returncode == 4, run.stdout + run.stderr
    assert said in run.stdout + run.stderr


def test_pytorch_is_put_where_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """On PyTorch's device without numbers, which a first product shows."""
    backends.get("torch")
    assert isinstance(backends._torch(), Backend)
    monkeypatch.setenv("DEVCONV_TEST_DEVICES", "torch:meta")
    with pytest.raises(NotImplementedError, match="meta"):
        backends._torch()


def test_jax_on_its_second_device() -> None:
    backends.get("jax")
    run = pytest_with(
        *("tests/test_backends.py", "tests/test_array.py", "tests/optim/test_clip.py"),
        *("tests/layers/test_state.py", "-k", "jax and not second"),
        DEVCONV_TEST_DEVICES="jax:cpu:1",
        DEVCONV_REQUIRE="jax",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "jax on cpu:1" in run.stdout


def test_a_backend_is_where_it_was_put(backend: Backend) -> None:
    """Under whatever variable the tests run."""
    where = backends.placed().get(backend.name)
    x = backend.asarray(np.ones(2))
    assert array_api_compat.device(x) == backend.device
    if where is not None and backend.name == "torch":
        assert str(x.device).startswith(where)
    elif where is not None and backend.name == "jax":
        kind, _, index = where.partition(":")
        assert x.device == importlib.import_module("jax").devices(kind)[int(index or 0)]
    elif where is not None:
        assert x.device.id == (1 if where == "double" else int(where.removeprefix("cuda:")))


@pytest.mark.parametrize("fails", [False, True])
def test_each_gpu_gets_its_stream_and_loses_it(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream is the current one of its own device alone, which must be current then."""
    now, said = [0], []

    class Noted:
        def __init__(self, name: str, index: int) -> None:
            self.name, self.index = name, index

        def __enter__(self) -> None:
            said.append(("enter", self.name, now[-1]))
            now.append(self.index)

        def __exit__(self, *_: object) -> None:
            now.pop()
            said.append(("exit", self.name, now[-1]))

    class Stream(Noted):
        def __enter__(self) -> None:
            assert now[-1] == self.index
            said.append(("stream", self.name, now[-1]))

        def __exit__(self, *_: object) -> None:
            assert now[-1] == self.index
            said.append(("gone", self.name, now[-1]))

    pairs = tuple((Noted(f"d{i}", i), Stream(f"s{i}", i)) for i in (0, 1))
    monkeypatch.setattr(backends, "streams", lambda: pairs)
    ends = pytest.raises(ValueError, match="planted") if fails else nullcontext()
    with ends, backends.on_streams():
        assert now == [0]
        assert [name for what, name, _ in said if what == "stream"] == ["s0", "s1"]
        assert "gone" not in {what for what, *_ in said}
        if fails:
            raise ValueError("planted")
    assert now == [0]
    assert [name for what, name, _ in said if what == "gone"] == ["s1", "s0"]


ROOMS = [
    ["tests/layers"],
    ["tests/optim", "tests/training"],
    [
        *("tests/testing", "tests/models", "tests/data", "tests/test_array.py"),
        *("tests/test_checkpoint.py", "tests/test_random.py", "tests/test_seeds.py"),
        "tests/test_backends.py",
    ],
    pytest.param(["tests/functional"], marks=pytest.mark.slow),
]


@pytest.mark.parametrize("rooms", ROOMS, ids=lambda rooms: Path(rooms[0]).name)
def test_whole_rooms_on_the_double(rooms: list[str]) -> None:
    """Its second device is the backend, the first is current; operations may read nothing."""
    once = "cupy and not whole_rooms"  # not this test again
    run = pytest_with(*rooms, "-k", once, DEVCONV_TEST_DEVICES="double", DEVCONV_REQUIRE="cupy")
    assert run.returncode == 0, run.stdout[-20000:] + run.stderr
    assert "cupy on double" in run.stdout


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
