"""The command: its exit status, its two faces, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import devconv as dc
from devconv import cli, doctor

ROOT = Path(__file__).parent.parent
NAMES = ["machine", "settings", "devices", "libraries", "blas", "routes", "agreement"]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets for its own process stays out of this one."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only NumPy: other libraries take seconds."""
    room = sys.modules["devconv.doctor.devices"]
    monkeypatch.setattr(room, "_look_at_library", lambda *a: [])
    monkeypatch.setattr(room, "look_at_cupy", lambda driver: ([], []))
    monkeypatch.setattr(room, "_auto", lambda: ("cpu", "asked for by name", ()))
    libraries = sys.modules["devconv.doctor.libraries"]
    known = libraries._known()
    monkeypatch.setattr(
        libraries, "_known", lambda: [k for k in known if k.module in ("numpy", "safetensors")]
    )


Capture = pytest.CaptureFixture[str]


def test_all_is_well(light: None, capsys: Capture) -> None:
    assert cli.main(["doctor", "--quick"]) == 0
    out, err = capsys.readouterr()
    titles = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert titles[:6] == [
        *("Machine", "Settings", "Devices", "Libraries", "NumPy's BLAS", "Quicker routes")
    ]
    assert f"  devconv             {dc.__version__}\n" in out
    assert "  cpu                 float64      ok  " in out
    assert "All 4 results agree" in titles[-1]
    assert max(map(len, out.splitlines())) <= 100
    assert err == ""


def test_a_planted_disagreement(
    light: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    room = sys.modules["devconv.doctor.agreement"]
    right = room.answers

    def answers(spec: str, dtype: str) -> dict[str, Any]:
        found = right(spec, dtype)
        return {**found, "dx": found["dx"] * 1.001} if dtype == "float32" else found

    monkeypatch.setattr(room, "answers", answers)
    assert cli.main(["doctor", "--quick"]) == 1
    out = capsys.readouterr().out
    assert "  cpu                 float32      NOT ok  off by " in out
    assert "\nWhat is wrong\n  1. cpu float32: results differ from NumPy's by " in out
    assert out.splitlines()[-1].startswith("2 things wrong, ")


def test_json(light: None, capsys: Capture) -> None:
    assert cli.main(["doctor", "--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["ok", "findings", *NAMES]
    assert report["ok"] is True
    assert report["machine"]["devconv"] == dc.__version__
    assert report["agreement"]["trials"][0]["device"] == "cpu"


def test_speed_is_measured_unless_it_is_to_be_quick(
    light: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(doctor, "look_at_agreement", lambda specs: doctor.Section())
    judged = sys.modules["devconv.doctor.speed"].judged
    monkeypatch.setattr(doctor, "look_at_speed", lambda: judged(400.0, 300.0, 600.0))
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["speed"]["of_torch"] == 0.5


@pytest.mark.parametrize("as_json", [False, True])
def test_every_probe_may_break_down(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, as_json: bool
) -> None:
    def fail(*args: Any) -> Any:
        raise SystemExit("a library left")

    for name in (*NAMES, "speed"):
        monkeypatch.setattr(doctor, f"look_at_{name}", fail)
    assert cli.main(["doctor", *(["--json"] if as_json else [])]) == 1
    out = capsys.readouterr().out
    if as_json:
        report = json.loads(out)
        assert len(report["findings"]) == 8
        assert report["speed"]["problem"] == "SystemExit: a library left"
    else:
        assert out.count("  not known           SystemExit: a library left\n") == 8
        assert out.endswith("\n8 things wrong, 0 to improve.\n")


def test_the_devices_that_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    room = sys.modules["devconv.doctor.devices"]
    places = tuple(room.Place(spec, "x", spec != "cuda:0") for spec in ("cpu", "cuda:0", "torch"))
    devices = room.Devices(driver=None, places=places, auto="cpu", reason="")
    found = {"array_api_strict": object()}
    monkeypatch.setattr(doctor.util, "find_spec", found.get)
    assert doctor.usable(devices) == ["cpu", "torch", "array_api_strict"]
    found.clear()
    assert doctor.usable(devices) == ["cpu", "torch"]
    assert doctor.usable(doctor.Section()) == ["cpu"]  # the probe broke down


def raising(error: BaseException) -> Callable[..., Any]:
    def examine(**options: Any) -> Any:
        raise error

    return examine


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(cli, "examine", raising(KeyboardInterrupt()))
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "devconv: stopped\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["zork"], "unknown command 'zork'"),
        (["doctor", "--zork"], "unrecognized arguments: --zork"),
        (["doctor", "zork"], "unrecognized arguments: zork"),
        (["--zork"], "unrecognized arguments: --zork"),
    ],
)
def test_refusals_take_one_line(arguments: list[str], problem: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr() == ("", f"devconv: {problem}; devconv --help says what there is\n")


def test_help(capsys: Capture) -> None:
    assert cli.main([]) == 0
    bare = capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out == bare
    for name, about in cli.COMMANDS.items():
        assert name in bare
        assert about in bare


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devconv", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_module_is_the_command() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"devconv {dc.__version__}\n", "")
    assert run("zork").returncode == 2


def test_whoever_reads_it_may_stop() -> None:
    code = "import sys; from devconv import cli; sys.exit(cli.main(['doctor', '--quick']))"
    code = f"import devconv.doctor as d; d.look_at_agreement = d.look_at_devices = None\n{code}"
    command = f'"{sys.executable}" -c "{code}" | head -n 1'
    done = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "Machine\n"
    assert done.stderr == ""


def test_the_script_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.scripts]\ndevconv = "devconv.cli:main"\n' in text
