"""The command for a GPU, tried on the CPU and on CuPy's double; nobody asserts a time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import benchmarks.__main__ as line
import benchmarks.gpu.numpy as numpy_part
import benchmarks.place
import devconv as dc
from benchmarks import child, machine, report, switches
from benchmarks.gpu import (
    clock,
    command,
    contestants,
    convolution,
    counted,
    digits,
    facts,
    memory,
    networks,
    parity,
    race,
    steps,
    suite,
    tables,
    targets,
    training,
    trials,
)
from benchmarks.gpu.lab import Lab
from benchmarks.gpu.operations import OPERATIONS
from benchmarks.gpu.told import Told
from benchmarks.networks import NETWORKS
from benchmarks.place import Place
from benchmarks.shapes import SHAPES, Shape, resnet50
from devconv import _fast
from tests import backends
from tests.doubles import cudnn, kernels, launches
from tests.doubles import cupy as double
from tests.test_benchmarks import assert_record, assert_well_formed

TOLD = Told(small=True, rounds=1, turn=0.0, dtypes=("float32",))
TINY = Shape(2, 3, (5, 5), 4, (3, 3), padding=1)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """One shape, one network; and nothing that outlives a test."""
    lenet = replace(NETWORKS["LeNet-5"], images=2)
    monkeypatch.setattr(convolution, "shapes", lambda small: {TINY: 3})
    for module in (networks, steps, memory, numpy_part):
        monkeypatch.setattr(
            module, "networks", lambda small: {"LeNet-5": lenet, "ResNet-18": lenet}, raising=False
        )
    monkeypatch.setattr(switches, "limit", lambda threads: None)


def run(part: str, out: Path, told: Told = TOLD, **how: Any) -> dict[str, Any]:
    """Run a part; its content, as it was written."""
    fine = command.one(part, told, out, **{"minutes": 0.0, "resume": False, **how})
    (path,) = out.glob("*.json")
    content = assert_record(path)["parts"][part]
    assert_well_formed(path.with_suffix(".md").read_text())
    return {"fine": fine, **content}


# Each part, on the CPU.


@pytest.mark.parametrize("part", ["facts", "parity", "convolution", "numpy", "inference"])
def test_a_part(part, tmp_path, monkeypatch):
    if part == "facts":
        pytest.importorskip("torch")
        monkeypatch.setattr(Lab, "size", lambda lab, n: max(4, n // 256))
    content = run(part, tmp_path)
    assert content["fine"], content
    assert content["rows"]


def test_training_in_every_precision(tmp_path):
    pytest.importorskip("torch")
    told = replace(TOLD, dtypes=("float32", "float16"))
    rows = run("training", tmp_path, told)["rows"]
    assert rows["LeNet-5, float64"]["seconds"] == {}
    assert all(far < 1e-9 for far in rows["LeNet-5, float64"]["differences"].values())
    for dtype in told.dtypes:
        row = rows[f"LeNet-5, {dtype}"]
        assert set(row["seconds"]) == {
            *("devconv", "written once", "PyTorch", "PyTorch channels-last")
        }
        assert row["failed"] == {}
        assert all(0.0 < far < 0.02 for far in row["differences"].values())
    assert rows["LeNet-5, tf32"]["failed"] == {}
    assert set(rows["LeNet-5, tf32"]["seconds"]) == set(rows["LeNet-5, float32"]["seconds"])
    assert not any(
        "tf32" in name for name in steps.jobs("training", replace(TOLD, dtypes=("float16",)))
    )
    assert not any("tf32" in name for name in steps.jobs("inference", TOLD))


@pytest.mark.parametrize("dtype", ["float32", "tf32"])
def test_tf32_is_allowed_on_both_sides_where_that_is_the_precision(dtype, monkeypatch):
    torch = pytest.importorskip("torch")
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    seen: list[list[bool]] = []
    levels: list[str] = []

    def noted(loss: Any, note: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            note()
            return loss(*given, **options)

        return call

    functional = torch.nn.functional
    note = lambda: seen.append([switch.allow_tf32 for switch in switches])  # noqa: E731
    monkeypatch.setattr(functional, "cross_entropy", noted(functional.cross_entropy, note))
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", noted(backward, note))
    dense = networks.F.dense.vjp
    monkeypatch.setattr(
        networks.F.dense, "vjp", noted(dense, lambda: levels.append(dc.precision()))
    )
    try:
        for switch in switches:
            switch.allow_tf32 = False
        network = networks.networks(True)["LeNet-5"]
        theirs = networks._their_step(network, Place(), dtype, False)
        ours = networks._our_step(network, Place(), dtype, contestants.on_trial)
        for racer in (theirs, ours):
            racer.check()
            racer.call()
        assert seen == [[dtype == "tf32"] * 2] * 4
        assert [switch.allow_tf32 for switch in switches] == [False, False]
        assert set(levels) == {"fast" if dtype == "tf32" else "exact"}
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.allow_tf32 = was


def test_tf32_takes_part_in_convolutions_without_cudnn():
    pytest.importorskip("torch")
    makers, left_out = convolution.entrants(TINY, "float32", TOLD)
    assert "cudnn" in left_out
    assert {"devconv fast", "PyTorch TF32"} <= set(makers)
    assert not {"devconv fast", "PyTorch TF32"} & set(
        convolution.entrants(TINY, "float16", TOLD)[0]
    )
    with contestants.ours(TOLD, traded=True)[0]["devconv fast"]():
        assert (dc.precision(), _fast.trials()) == ("fast", ())


def test_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "call", lambda function, limit=None, **given: function(**given))
    rows = run("memory", tmp_path)["rows"]
    assert all(row[figure] > 0 for row in rows.values() for figure in memory.FIGURES)


def test_digits(tmp_path, monkeypatch, capsys):
    said = "epoch  1: loss 0.1, 900 images/s\nepoch  2: loss 0.1, 1000 images/s\n"
    seen: list[Any] = []

    def process(words: list[str], **how: Any) -> Any:
        seen.append((words[2:6], how["env"]["DEVCONV_TRIAL"]))
        status = 1 if "float16" in words else 0
        out = f"{said}test accuracy 0.9812 on cpu" if not status else ""
        return SimpleNamespace(returncode=status, stdout=out, stderr="planted")

    monkeypatch.setattr(subprocess, "run", process)
    monkeypatch.setattr(digits, "_right", lambda model: 0.98)
    rows = run("digits", tmp_path, replace(TOLD, dtypes=("float32", "float16")))["rows"]
    row = rows["cpu, float32"]
    assert (row["accuracy"], row["images per second"], row["ok"]) == (0.9812, 1000.0, True)
    assert rows["cpu, float16"] == {"failed row": "RuntimeError: train_digits.py failed: planted"}
    assert seen[0] == (["--device", "cpu", "--precision", "float32"], "")


def test_digits_are_judged_on_images_that_were_held_out(tmp_path):
    """And on the same moved by a pixel each way, by NumPy in float32."""
    pytest.importorskip("sklearn")
    example = digits._example()
    model = example.network().build((1, 8, 8), seed=0)
    dc.save(model, tmp_path / "model.safetensors")
    images, labels = digits._held_out()
    assert len(labels) == 5 * 359
    right = sum(int(np.argmax(model(x[None]))) == t for x, t in zip(images, labels, strict=True))
    assert digits._right(tmp_path / "model.safetensors") == pytest.approx(right / len(labels))


def test_every_precision_of_a_gpu_is_judged_by_digits(gpu, monkeypatch):
    assert list(digits.jobs(TOLD)) == ["cpu, float32"]
    monkeypatch.setattr(contestants, "lacking", lambda trial, place: "")
    told = Told(place=gpu, dtypes=("float32", "float16", "bfloat16"))
    assert list(digits.jobs(told)) == [
        *(f"cuda, {each}" for each in ("float32", "float16", "bfloat16", "tf32")),
        *(f"cuda, {each}, kernels + cudnn" for each in ("float32", "float16", "bfloat16", "tf32")),
        "cpu, float32",
    ]
    without = digits.jobs(replace(told, dtypes=("float32",), without=("kernels", "cudnn")))
    assert list(without) == ["cuda, float32", "cuda, tf32", "cpu, float32"]


def judged_digits(**right: float) -> dict[str, dict[str, Any]]:
    """Rows of runs by ``<precision>_<trials>``."""
    rows = {}
    for name, share in right.items():
        dtype, _, trials = name.partition("_")
        row = {"device": "cuda", "dtype": dtype, "trials": trials.replace("_", ",")}
        rows[name] = {**row, "right": share, "accuracy": 0.98, "images per second": 1.0}
        rows[name]["seconds"] = 1.0
    return rows


def test_half_a_point_on_digits_is_a_target():
    rows = judged_digits(
        float32=0.980, float16=0.976, bfloat16=0.986, float32_kernels_cudnn=0.97,
        float16_kernels_cudnn=0.976, tf32_kernels_cudnn=0.966,
    )  # fmt: skip
    rows["float16"]["accuracy"] = 0.9777
    rows["lost"] = {"failed row": "x"}
    rows["older"] = {"device": "cuda", "dtype": "float16", "trials": "", "accuracy": 0.9}
    judged = {
        row["what"].rpartition(" ")[2]: row
        for row in targets.summary({"digits": {"rows": rows}})
        if row["what"].startswith("digits")
    }
    found = {name: (row["found"], row["verdicts"]) for name, row in judged.items()}
    assert "held-out images and the same moved by a pixel (5 × 359)" in judged["tf32"]["what"]
    alone = "test accuracy alone: devconv 0.23, kernels + cudnn 0.00"
    assert judged["float16"]["remark"] == alone
    both = "kernels + cudnn"
    assert found["float16"][0] == pytest.approx({"devconv": 0.4, both: 0.6})
    assert found["float16"][1] == {"devconv": "met", both: "missed"}
    assert found["bfloat16"][1] == {"devconv": "missed"}
    assert found["tf32"][1] == {both: "met"}
    rows.pop("older")
    assert "| float16 | 0.9777 | 0.23 | 0.9760 | 0.40 |" in digits.table(rows)
    assert "| float32 | 0.9800 | – | 0.9800 | – |" in digits.table(rows)
    del rows["float32"]
    (figures,) = (
        target.figures
        for target in targets.targets()
        if target.what.endswith("float32 and float16")
    )
    assert set(figures({"digits": {"rows": rows}})[0]) == {both}


def test_tests_are_run_in_a_process_of_their_own(tmp_path, capsys):
    (tmp_path / "test_it.py").write_text("import os\ndef test_it():\n    assert 0, 'planted'\n")
    given = ["gpu", "--device", "cpu", f"--tests=-k 'it and not that' {tmp_path / 'test_it.py'}"]
    said = line.arguments(given)
    told = line.told(line.arguments(["gpu", *line.flags(said, tmp_path)]))
    assert told.tests == ("-k", "it and not that", str(tmp_path / "test_it.py"))
    content = run("tests", tmp_path / "out", told)
    assert not content["fine"]
    assert any("planted" in each for each in content["rows"]["pytest"]["output"])


@pytest.mark.parametrize("deaf", [False, True])
def test_tests_that_take_too_long_are_ended(deaf, tmp_path, capsys, monkeypatch):
    """What had failed until then is told, but by a run that does not listen."""
    there, over = tmp_path / "there", tmp_path / "over"

    class Timer(threading.Timer):
        """Its time begins when the test sleeps, however long pytest takes to get there."""

        def run(self) -> None:
            while not there.exists() and not self.finished.wait(0.05):
                pass
            super().run()

    monkeypatch.setattr(suite.threading, "Timer", Timer)
    monkeypatch.setattr(suite, "PATIENCE", 1.0 if deaf else 60.0)
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)" if deaf else "pass"
    (tmp_path / "test_it.py").write_text(
        "import pathlib, signal, time\ndef test_bad():\n    assert 0, 'planted'\n"
        f"def test_it():\n    {ignored}\n    pathlib.Path({str(there)!r}).touch()\n"
        f"    time.sleep(100)\n    pathlib.Path({str(over)!r}).touch()\n"
    )
    each = suite.Run((str(tmp_path / "test_it.py"),), "numpy")
    row = suite.run(each, Place(), limit=0.1)
    assert (row["ok"], row["stopped"]) == (False, True)
    assert any("test_bad" in each for each in row["output"]) != deaf
    assert there.exists()
    assert not over.exists()
    assert "pytest: stopped at the limit of time: " in suite.table({"pytest": row})


def test_a_row_that_was_stopped_is_run_again(tmp_path, monkeypatch):
    ran: list[str] = []

    def jobs(*stopped: str) -> None:
        def job(name: str) -> Any:
            ran.append(name)
            whole = {"required": "numpy", "arguments": [], "output": ["1 passed in 1 s"]}
            return {**whole, "stopped": name in stopped, "ok": name not in stopped}

        made = {name: lambda name=name: job(name) for name in ("one", "two")}
        monkeypatch.setattr(suite, "jobs", lambda told: made)

    jobs("two")
    assert not run("tests", tmp_path)["fine"]
    jobs()
    assert run("tests", tmp_path, resume=True)["fine"]
    assert ran == ["one", "two", "two"]


def test_missing_rows_come_before_those_that_were_stopped_or_failed(tmp_path, monkeypatch):
    ran: list[str] = []
    whole = {"required": "numpy", "arguments": [], "output": [], "stopped": False, "ok": True}

    def job(name: str, row: dict[str, Any]) -> Any:
        return lambda: ran.append(name) or row

    def jobs(*names: str, **rows: dict[str, Any]) -> None:
        made = {name: job(name, rows.get(name, whole)) for name in names}
        monkeypatch.setattr(suite, "jobs", lambda told: made)

    stopped, failed = {**whole, "stopped": True, "ok": False}, {"failed row": "no time"}
    jobs("slow", "bad", "good", slow=stopped, bad=failed)
    run("tests", tmp_path)
    jobs("slow", "bad", "good", "more", "last")
    ran.clear()
    assert run("tests", tmp_path, resume=True)["fine"]
    assert ran == ["more", "last", "slow", "bad"]
    ran.clear()
    run("tests", tmp_path)
    assert ran == ["slow", "bad", "good", "more", "last"]


def test_the_ways_to_run_the_tests_on_a_gpu(gpu, monkeypatch):
    """What they are told is what the tests understand."""
    for name, there in (("lacks_torch", ""), ("lacks_jax", ""), ("count", 2)):
        monkeypatch.setattr(Place, name, there)
    runs = suite.on_a_gpu(gpu)
    assert list(runs) == [
        *("CuPy", "CuPy, streams of its own", "CuPy, the second GPU"),
        *("PyTorch on the GPU", "JAX on the GPU", "CuPy, slow"),
    ]
    assert set(suite.jobs(Told(place=gpu))) == set(runs)
    places = [backends.placed(each.where.get("DEVCONV_TEST_DEVICES", "")) for each in runs.values()]
    cuda = [{"cupy": "cuda:1"}, {"torch": "cuda"}, {"jax": "cuda"}]
    assert places == [{}, {}, *cuda, {}]
    assert {name for each in runs.values() for name in each.where} == {
        *("DEVCONV_TEST_DEVICES", "DEVCONV_TEST_STREAM")
    }
    assert list(suite.jobs(Told(place=gpu, tests=("-k", "x")))) == ["pytest"]
    for name, there in (("lacks_torch", "no PyTorch"), ("lacks_jax", "no JAX"), ("count", 1)):
        monkeypatch.setattr(Place, name, there)
    monkeypatch.setattr(suite, "run", lambda *given: {"required": "cupy", "arguments": []})
    jobs = suite.jobs(Told(place=gpu))
    assert list(jobs) == ["CuPy", "CuPy, streams of its own", "CuPy, slow"]
    rows = {name: {**job(), "output": [], "ok": True} for name, job in jobs.items()}
    for said in ("the second GPU left out: there is one GPU", "JAX on the GPU left out: no JAX"):
        assert suite.table(rows).count(said) == 1
    assert suite.table(rows).count("PyTorch on the GPU left out: no PyTorch") == 1


def test_the_tests_are_told_where_to_run(tmp_path, capsys):
    said = "assert (os.environ['DEVCONV_REQUIRE'], os.environ['DEVCONV_TEST_A']) == ('numpy', 'b')"
    (tmp_path / "test_it.py").write_text(f"import os\ndef test_it():\n    {said}\n")
    each = suite.Run((str(tmp_path / "test_it.py"),), "numpy", {"DEVCONV_TEST_A": "b"})
    row = suite.run(each, Place())
    assert row["ok"], row["output"]
    assert "`DEVCONV_REQUIRE=numpy DEVCONV_TEST_A=b pytest " in suite.table({"a": row})


def test_jax_takes_part_in_parity_where_it_sees_the_gpu(gpu, monkeypatch):
    seen: list[Any] = []

    def compared(*given: Any, devices: Any, **how: Any) -> Any:
        seen.append(list(devices))
        return SimpleNamespace(ok=True, rows=[])

    monkeypatch.setattr(parity.dc.testing, "parity", compared)
    for there in (True, False):
        monkeypatch.setattr(Place, "lacks_jax", "" if there else "no JAX")
        jobs = parity.jobs(on(gpu))
        assert ("LeNet-5, JAX" in jobs) == there
        assert there == (list(jobs)[-1] == "LeNet-5, JAX")
        rows = [job() for job in jobs.values()]
        assert rows[0]["left out"].get("JAX", "") == ("" if there else "no JAX")
        assert "PyTorch" in rows[0]["left out"]
    assert seen == [["cuda"], ["cuda"], ["jax:cuda"], ["cuda"], ["cuda"]]


@pytest.mark.slow
def test_a_rehearsal_in_processes_of_its_own(tmp_path, capsys):
    """The command as a person types it, with nothing replaced."""
    given = ["gpu", "--device", "cpu", "--small", "--out", str(tmp_path)]
    line.main([*given, "--parts", "facts", "digits", "--dtypes", "float32"])
    (path,) = tmp_path.glob("*.json")
    parts = assert_record(path)["parts"]
    assert set(parts) == {"facts", "digits"}
    assert set(parts["facts"]["rows"]) == set(facts.FACTS)
    assert parts["digits"]["rows"]["cpu, float32"]["accuracy"] > 0.0
    assert_well_formed(path.with_suffix(".md").read_text())
    assert str(path) in capsys.readouterr().out


def test_the_command(tmp_path, monkeypatch, capsys):
    """As a user types it: one part here, the flags of the others handed on."""
    given = ["gpu", "--device", "cpu", "--small", "--out", str(tmp_path)]
    line.main([*given, "--dtypes", "float32", "--parts", "convolution"])
    seen: list[list[str]] = []

    def process(words: list[str], **_: Any) -> Any:
        seen.append(words[4:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", process)
    line.main([*given, "--without", "cudnn", "--minutes", "1.5", "--tests", "-k x"])
    assert [words[words.index("--parts") + 1] for words in seen] == list(command.PARTS)
    for words in seen:
        said = line.arguments(["gpu", *words])
        assert (said.device, said.small, said.without) == ("cpu", True, ["cudnn"])
        assert (said.minutes, said.out, said.tests) == (1.5, tmp_path, "-k x")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--without", "cudnn", "cuDNN"], r"^--without 'cuDNN' is nobody; there are .*cudnn fast"),
        (["--without", "devconv"], "^--without 'devconv' is nobody"),
        (["--record"], "^--record: not of gpu$"),
        (["--networks", "LeNet-5", "--record"], "^--record, --networks: not of gpu$"),
        (["--shapes", next(iter(SHAPES))], "^--shapes: not of gpu$"),
    ],
)
def test_what_gpu_does_not_know_is_refused_before_the_work(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "one", None)
    monkeypatch.setattr(command, "several", None)
    with pytest.raises(SystemExit, match=said) as refused:
        line.main(["gpu", "--device", "cpu", "--small", "--out", str(tmp_path), *words])
    assert "\n" not in str(refused.value)


def test_a_rehearsal_is_never_a_result(tmp_path):
    with pytest.raises(SystemExit, match=r"a rehearsal is no result: --out .*results"):
        line.main(["gpu", "--device", "cpu", "--small", "--out", str(report.RESULTS / "new")])
    assert command.folder(None, Told()) == command.REHEARSALS
    tiny, real = (Told(place=Place("cuda"), small=small) for small in (True, False))
    assert command.folder(None, tiny) == command.REHEARSALS
    assert command.folder(None, real) == report.RESULTS
    assert command.folder(tmp_path, real) == tmp_path


# Rows and time.


def jobs_of(monkeypatch: pytest.MonkeyPatch, **jobs: Any) -> None:
    monkeypatch.setattr(training, "jobs", lambda told: jobs)


def test_a_row_that_fails_leaves_the_others(tmp_path, monkeypatch, capsys):
    row = {"case": "LeNet-5", "network": "LeNet-5", "dtype": "float32", "differences": {}}

    def fail() -> Any:
        raise ValueError("planted | here")

    jobs_of(monkeypatch, bad=fail, good=lambda: {**row, "seconds": {"devconv": 1.0}})
    content = run("training", tmp_path)
    assert not content["fine"]
    assert content["rows"]["bad"] == {"failed row": "ValueError: planted / here"}
    assert content["rows"]["good"]["seconds"] == {"devconv": 1.0}
    measured = []
    jobs_of(monkeypatch, bad=lambda: measured.append("bad") or row | {"seconds": {}}, good=fail)
    assert run("training", tmp_path, resume=True)["fine"]
    assert measured == ["bad"]


def test_a_part_stops_at_its_limit_and_keeps_what_it_has(tmp_path, monkeypatch):
    row = {"case": "c", "network": "n", "dtype": "float32", "differences": {}, "seconds": {}}

    def slow() -> Any:
        time.sleep(0.1)
        return row

    jobs_of(monkeypatch, one=slow, two=slow)
    content = run("training", tmp_path, minutes=0.05 / 60)
    assert not content["fine"]
    assert set(content["rows"]) == {"one"}
    assert content["stopped"].endswith("before two")
    jobs_of(monkeypatch, two=slow)
    assert set(run("training", tmp_path)["rows"]) == {"one", "two"}


def test_a_contestant_that_breaks_the_device_ends_the_part(tmp_path, monkeypatch, capsys):
    def break_it() -> Any:
        raise clock.Dead("kernels", "illegal address")

    jobs_of(monkeypatch, one=break_it)
    content = run("training", tmp_path)
    assert content["dead"] == "kernels"
    assert content["broke"] == ["the device answers no more after kernels: illegal address"]

    def killed() -> Any:
        raise KeyboardInterrupt  # nothing is written any more

    jobs_of(monkeypatch, one=killed)
    with pytest.raises(KeyboardInterrupt):
        run("training", tmp_path)
    (path,) = tmp_path.glob("*.json")
    assert command._dead(path, "training") == ""


@pytest.mark.parametrize("part", list(command.PARTS))
def test_a_part_without_rows_can_be_written(part):
    assert "cannot be told" not in command._table(part, {})


def test_and_it_is_run_again_without_it(tmp_path, monkeypatch, capsys):
    seen: list[tuple[str, list[str], list[str]]] = []

    def process(part: str, flags: Any, broken: Any, limit: float) -> bool:
        seen.append((part, list(flags), sorted(broken)))
        return len(seen) > 1

    monkeypatch.setattr(command, "_process", process)
    monkeypatch.setattr(command, "_dead", lambda path, part: "kernels + 1")
    assert not command.several(["training", "numpy"], ["--small"], tmp_path / "a.json", 1.0)
    assert seen == [
        ("training", ["--small"], []),
        ("training", ["--small", "--resume"], ["kernels"]),
        ("numpy", ["--small"], ["kernels"]),
    ]


def test_a_process_that_hangs_is_killed(monkeypatch, capsys):
    monkeypatch.setattr(command, "GRACE", 0.2)
    monkeypatch.setattr(sys, "executable", "/bin/sleep")

    def run_it(words: list[str], timeout: float, **_: Any) -> Any:
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(subprocess, "run", run_it)
    assert not command._process("training", [], (), 0.1)
    assert "killed after" in capsys.readouterr().out


def test_records_are_joined(tmp_path):
    about = {"gpu": "NVIDIA X", "cpu": "a CPU", "threads": 1, "libraries": {"numpy": "2"}}
    about |= {"environment": {}}
    paths = []
    for name, row in (("a", {"on trial": {}}), ("b", {"failed row": "x"})):
        paths.append(tmp_path / f"{name}.json")
        content = {"rows": {name: row, "both": {"failed row": name}}}
        paths[-1].write_text(json.dumps({"machine": about, "parts": {"kernels": content}}))
    path = command.join(paths, tmp_path / "out")
    assert path.name == "nvidia-x"
    rows = json.loads(Path(f"{path}.json").read_text())["parts"]["kernels"]["rows"]
    assert rows == {"a": {"on trial": {}}, "both": {"failed row": "b"}, "b": {"failed row": "x"}}
    other = {"machine": {**about, "gpu": ""}, "parts": {}}
    paths[1].write_text(json.dumps(other))
    with pytest.raises(SystemExit, match=r"b\.json is of another machine: a CPU"):
        command.join(paths, tmp_path)


def test_rows_of_another_program_do_not_keep_new_ones_from_being_written():
    assert "cannot be told (KeyError" in command._table("convolution", {"a": {"dtype": "x"}})


# A race.


def racer(value: float, call: Any = lambda: None) -> Any:
    return lambda: race.Racer(call, lambda: (np.asarray([value, 1.0]),))


def raced(**makers: Any) -> dict[str, Any]:
    return race.race(makers, TOLD, lambda label: 1e-3, {"absent": "not there"})


def test_a_contestant_out_of_memory_leaves_the_others():
    def full() -> Any:
        raise MemoryError("6 GB")

    row = raced(a=racer(1.0), b=full, c=racer(1.0, full), d=racer(1.0))
    assert set(row["seconds"]) == set(row["calls"]) == set(row["spread"]) == {"a", "d"}
    assert row["failed"] == {"b": "out of memory", "c": "out of memory"}
    assert row["left out"] == {"absent": "not there"}


def test_who_differs_is_named_and_not_timed():
    row = raced(a=racer(1.0), b=racer(1.1), c=racer(np.nan), d=racer(1.0001))
    assert set(row["seconds"]) == {"a", "d"}
    assert row["failed"] == {
        "b": "differs from a by 1.0e-01",
        "c": "differs from a by nan",
    }
    assert json.loads(json.dumps(row["differences"]))["c"] == "nan"


def test_a_device_that_answers_no_more_is_noticed(monkeypatch):
    def broken(place: Place) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    def fail() -> Any:
        raise RuntimeError("launch failed")

    monkeypatch.setattr(Place, "answers", broken)
    with pytest.raises(clock.Dead, match="no more after b: RuntimeError: launch failed; Runtime"):
        raced(a=racer(1.0), b=fail)


def test_turns_alternate_between_two_waits(monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(Place, "synchronize", lambda place: seen.append("|"))
    calls = {name: lambda name=name: seen.append(name) for name in "ab"}
    timed = clock.interleaved(calls, Place(), rounds=2, turn=0.0)
    assert "".join(seen) == "a|a|" + "b|b|" + "a|a|b|b|" + "b|b|a|a|"
    assert set(timed.seconds) == {"a", "b"}


def test_short_calls_share_a_turn(monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr(clock.time, "perf_counter", lambda: 0.001 * next(ticks))
    timed = clock.interleaved({"a": lambda: None}, Place(), rounds=1, turn=0.05)
    assert timed.calls == {"a": 50}
    assert timed.seconds["a"] == pytest.approx(0.001 / 50)


# Who takes part.


@pytest.mark.parametrize(
    ("without", "asked"),
    [
        ("PyTorch", {"PyTorch"}),
        ("devconv fast", {"devconv fast"}),
        ("kernels", {"kernels", "kernels + cudnn"}),
        ("cudnn", {"cudnn", "cudnn fast", "kernels + cudnn"}),
        ("cudnn fast", {"cudnn fast"}),
        ("kernels + cudnn", {"kernels + cudnn"}),
    ],
)
def test_contestants_are_left_out_by_label_and_by_routes(without, asked):
    makers = {label: racer(1.0) for label in ("devconv", *contestants.LABELS)}
    row = race.race(makers, replace(TOLD, without=(without,)), lambda label: 1e-3, {})
    assert row["left out"] == dict.fromkeys(asked, contestants.ASKED)
    assert set(row["seconds"]) == set(makers) - asked


def test_every_contestant_can_be_left_out(monkeypatch):
    pytest.importorskip("torch")
    for trial in ("kernels", "cudnn"):
        monkeypatch.setitem(_fast.TRIALS, trial, {("correlate", "numpy"): lambda *given: None})
    monkeypatch.setattr(contestants.presence, "find", lambda: None)
    lenet = networks.networks(True)["LeNet-5"]
    labels = {
        *convolution.entrants(TINY, "float32", TOLD)[0],
        *networks.entrants("training", lenet, "float32", TOLD)[0],
        numpy_part.NUMPY,
    }
    assert labels == {"devconv", *contestants.LABELS}


@pytest.mark.parametrize("part", ["memory", "parity", "digits"])
def test_parts_without_a_race_leave_contestants_out(part, monkeypatch):
    monkeypatch.setitem(_fast.TRIALS, "kernels", {("take", "numpy"): _fast.numpy.take})
    jobs = [
        [
            name
            for name in command.PARTS[part].jobs(replace(TOLD, without=without))
            if "kernels" in name
        ]
        for without in ((), ("kernels",))
    ]
    assert jobs[0]
    assert jobs[1] == []


def test_what_is_on_trial_takes_part_and_what_is_lacking_is_named(monkeypatch):
    found, left_out = contestants.ours(TOLD)
    assert list(found) == ["devconv", "written once"]
    assert left_out["kernels"] == "no route of kernels is on trial for numpy arrays"
    monkeypatch.setitem(_fast.TRIALS, "kernels", {("take", "numpy"): _fast.numpy.take})
    found, left_out = contestants.ours(TOLD)
    assert list(found) == ["devconv", "written once", "kernels"]
    assert "cudnn" in left_out["kernels + cudnn"]
    monkeypatch.setitem(_fast.TRIALS, "cudnn", {("correlate", "numpy"): lambda *given: None})
    monkeypatch.setattr(contestants.presence, "find", lambda: None)
    found, left_out = contestants.ours(TOLD, traded=True)
    on_trial = ["kernels", "cudnn", "kernels + cudnn"]
    assert list(found)[2:] == [*on_trial, "devconv fast", "cudnn fast"]


def test_a_missing_cudnn_is_named(monkeypatch):
    monkeypatch.setitem(_fast.TRIALS, "cudnn", {("correlate", "numpy"): lambda *given: None})

    def missing() -> Any:
        raise contestants.Unusable("cuDNN's front end is not installed", "pip", "missing")

    monkeypatch.setattr(contestants.presence, "find", missing)
    assert contestants.ours(TOLD)[1]["cudnn"] == "cuDNN's front end is not installed"


def test_a_route_that_gives_up_is_heard_each_time():
    for _ in range(2):
        with contestants.overheard() as said:
            contestants.presence.say("reason", "no plan", "leave it out")
        assert len(said) == 1
        assert said[0].startswith("no plan")


# Routes on trial.


@pytest.fixture
def _trial(monkeypatch):
    """A route that computes, one that is wrong, and one that nothing reaches."""
    routes = {
        ("columns", "numpy"): _fast.numpy.columns,
        ("moments", "numpy"): lambda *given: None,
        ("nowhere", "numpy"): lambda *given: None,
    }
    monkeypatch.setitem(_fast.TRIALS, "kernels", routes)
    few = ("conv 3×3", "relu")
    monkeypatch.setattr(trials, "OPERATIONS", {name: OPERATIONS[name] for name in few})


@pytest.mark.usefixtures("_trial")
def test_each_route_on_trial_is_compared_and_timed(tmp_path, monkeypatch):
    before = dict(_fast.TRIALS["kernels"])
    with _fast.numba(False):
        rows = run("kernels", tmp_path)["rows"]
    assert _fast.TRIALS["kernels"] == before
    assert rows["on trial"]["on trial"]["kernels"] == ["columns", "moments", "nowhere"]
    row = rows["kernels, float32: conv 3×3"]
    assert row["reached"] == ["columns"]
    assert row["differences"] == {"columns": 0.0, trials.ALL: 0.0}
    assert rows["kernels, float32: relu"]["seconds"] == {}
    text = trials.table(rows)
    assert "- kernels: nowhere is reached by no operation here" in text
    assert "| kernels: columns | conv 3×3 | float32 | 0.0e+00 |" in text


@pytest.mark.usefixtures("_trial")
def test_a_wrong_route_is_found(monkeypatch):
    def wrong(*given: Any) -> Any:
        return np.float32(1.01) * _fast.numpy.columns(*given)

    monkeypatch.setitem(_fast.TRIALS, "kernels", {("columns", "numpy"): wrong})
    with _fast.numba(False):
        row = trials.row("kernels", "conv 3×3", "float32", TOLD)
    assert row["failed"]["columns"].startswith("differs from devconv")


@pytest.mark.usefixtures("_trial")
@pytest.mark.parametrize(
    ("label", "dead"),
    [
        ("columns", "kernels: columns"),
        (trials.ALL, f"kernels: {trials.ALL}"),
        ("devconv", "devconv"),
    ],
)
def test_a_route_that_breaks_the_device_names_its_trial(label, dead, tmp_path, monkeypatch, capsys):
    """So that the part is run again without it; a break of the library's own names none."""

    def breaks(*given: Any) -> Any:
        raise clock.Dead(label, "illegal address")

    monkeypatch.setattr(trials, "race", breaks)
    seen: list[list[str]] = []

    def process(part: str, flags: Any, broken: Any, limit: float) -> bool:
        seen.append(sorted(broken))
        return command.one(
            part, replace(TOLD, without=tuple(broken)), tmp_path, minutes=0, resume=False
        )

    monkeypatch.setattr(command, "_process", process)
    path = tmp_path / f"{machine.label(Place())}.json"
    with _fast.numba(False):
        command.several(["kernels"], [], path, 0.0)
    content = assert_record(path)["parts"]["kernels"]
    assert content["broke"] == [f"the device answers no more after {dead}: illegal address"]
    assert seen == ([[], ["kernels"]] if dead.startswith("kernels") else [[]])


def test_a_route_that_declines_is_not_reached(monkeypatch):
    routes = {("a", "numpy"): lambda: None, ("b", "numpy"): lambda: 1.0}
    monkeypatch.setitem(_fast.TRIALS, "kernels", routes)
    reached: set[str] = set()
    with trials._traced("kernels", Place(), reached):
        assert [route() for route in _fast.TRIALS["kernels"].values()] == [None, 1.0]
    assert reached == {"b"}
    assert _fast.TRIALS["kernels"] is routes


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_every_operation_runs(name):
    racer = OPERATIONS[name](Place(), "float32", True)
    racer.call()
    first, *others = racer.check()
    again = OPERATIONS[name](Place(), "float32", True).check()
    assert others
    for a, b in zip((first, *others), again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


@pytest.mark.parametrize("name", ["SGD, momentum", "SGD, Nesterov", "Adam"])
def test_an_optimizer_is_timed_alone(name, monkeypatch):
    """One step of one optimizer; its moments stay, and nothing comes from the host."""
    racer = OPERATIONS[name](Place(), "float32", True)
    racer.check()
    took: list[Any] = []
    step = dc.optim.Optimizer.step

    def noted(optimizer: Any, *given: Any) -> None:
        step(optimizer, *given)
        took.append((optimizer, optimizer.steps))

    monkeypatch.setattr(dc.optim.Optimizer, "step", noted)
    monkeypatch.setattr(dc.Layer, "load_state_dict", None)
    racer.call()
    racer.call()
    assert [steps for _, steps in took] == [1, 2]
    assert took[0][0] is took[1][0]
    assert took[0][0].state


def test_every_route_on_trial_is_asked_for(gpu, monkeypatch):
    """By some operation, on the arrays that it is for."""
    asked: set[tuple[str, str]] = set()

    class Asked(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            asked.add(key)
            return None

    wanted = [key for routes in _fast.TRIALS.values() for key in routes if key[1] == "cupy"]
    monkeypatch.setattr(_fast, "TRIALS", dict.fromkeys(_fast.TRIALS, Asked()))
    for make in OPERATIONS.values():
        with _fast.trial("kernels", "cudnn"):
            make(gpu, "float32", True).check()
    assert set(wanted) <= asked


@pytest.mark.skipif(kernels.COMPILER is None, reason="no C++ compiler is here")
@pytest.mark.parametrize("trial", list(_fast.TRIALS))
def test_every_route_on_trial_is_reached(trial):
    """It computes in some operation, and is not merely asked for; by CuPy's and cuDNN's doubles."""
    place, reached = Place("cuda"), set()
    with kernels.installed(), cudnn.installed(), double.watch.allowed(), _fast.generic(False):
        wanted = set(trials._keys(trial, place))
        for make in OPERATIONS.values():
            racer = make(place, "float32", True)
            with trials._traced(trial, place, reached):
                racer.check()
    assert reached == wanted != set()


# Shapes and targets.


def test_the_shapes_are_those_of_resnet50():
    counts = resnet50()
    assert (len(counts), sum(counts.values())) == (23, 53)
    kernels = Counter()
    for shape, times in counts.items():
        kernels[(shape.o, shape.c, *shape.kernel)] += times
    state = dc.models.resnet50().build(seed=0).state_dict()
    assert kernels == Counter(tuple(a.shape) for a in state.values() if a.ndim == 4)
    products = sum(
        times * s.o * s.c * np.prod(s.kernel) * np.prod(s.out) for s, times in counts.items()
    )
    assert products == pytest.approx(4.087e9, rel=1e-3)


def filled(ratio: float) -> dict[str, Any]:
    """Parts in which PyTorch takes ``ratio`` times as long, and as much memory, as devconv."""
    seconds = {"devconv": 1.0, "cudnn": 1.0, "PyTorch": ratio, "NumPy": ratio}
    convolutions = {str(n): {"dtype": "float32", "seconds": seconds} for n in range(23)}
    step = {"network": "ResNet-18", "dtype": "float32", "seconds": seconds}
    peaks = {
        f"{dtype}, {name}": {"contestant": name, "dtype": dtype, "arrays": each, "pool": each}
        for name, each in seconds.items()
        for dtype in memory.DTYPES
    }
    return {
        "convolution": {"rows": convolutions},
        "training": {"rows": {"step": step, "lost": {"failed row": "x"}}},
        "memory": {"rows": peaks},
        "numpy": {"rows": {"numpy": {"threads": 16, "seconds": seconds}}},
    }


SPEED, SIZE = ("convolutions of ResNet-50", "PyTorch / devconv, step"), "peak memory"


@pytest.mark.parametrize(
    ("ratio", "words", "verdicts"),
    [
        *((0.96, words, ("met", "met")) for words in (*SPEED, SIZE)),
        *((0.8, words, ("met", "missed")) for words in (*SPEED, SIZE)),
        *((0.4, words, ("missed", "missed")) for words in (*SPEED, SIZE)),
        (19.9, "NumPy / devconv", ("missed", "")),
        (20.0, "NumPy / devconv", ("met", "")),
    ],
)
def test_targets_are_judged(ratio, words, verdicts):
    rows = targets.summary(filled(ratio))
    assert_well_formed(targets.table(rows))
    judged = [row for row in rows if words in row["what"] and row["found"]]
    assert judged
    for row in judged:
        assert (row["verdicts"]["devconv"], row["verdicts"]["cudnn"]) == verdicts, row


def test_peaks_are_judged_in_both_dtypes():
    judged = [row["what"] for row in targets.summary(filled(1.0)) if SIZE in row["what"]]
    assert sum("float32" in what for what in judged) == 4
    assert sum("float16" in what for what in judged) == 4


def test_a_mean_over_some_of_the_shapes_says_so(monkeypatch):
    monkeypatch.setattr(targets, "shapes", lambda small: resnet50())
    parts = filled(1.0)
    del parts["convolution"]["rows"]["0"]
    (row, *_) = targets.summary(parts)
    assert row["remark"] == "of 23 shapes: devconv 22, cudnn 22"


def test_rows_in_which_routes_gave_up_are_left_out_of_their_mean(monkeypatch):
    monkeypatch.setattr(targets, "shapes", lambda small: resnet50())
    parts = filled(2.0)
    rows = parts["convolution"]["rows"]
    rows["0"] |= {"notes": {"cudnn": ["no plan"]}, "case": "0"}
    rows["0"]["seconds"] = {**rows["0"]["seconds"], "cudnn": 1e-3}
    row, *_ = targets.summary(parts)
    assert row["remark"] == "of 23 shapes: cudnn 22"
    assert row["found"] == pytest.approx({"devconv": 2.0, "cudnn": 2.0})
    two = {name: {**rows[name], "case": name} for name in ("0", "1")}
    assert "| **mean** |  | 1.00 (1) | 2.00 | 2.00 |" in tables.raced(two, "mean")
    for each in rows.values():
        each["notes"] = {"cudnn": ["no plan"]}
    row, *_ = targets.summary(parts)
    assert row["remark"] == "of 23 shapes: cudnn 0"
    assert set(row["found"]) == {"devconv"}


def test_a_network_whose_convolutions_were_written_once_in_part_says_so():
    parts = filled(2.0)
    for part, name in (("training", "step"), ("numpy", "numpy")):
        parts[part]["rows"][name]["notes"] = {"cudnn": ["no plan"]}
    remarks = {row["what"]: row["remark"] for row in targets.summary(parts)}
    said = "cudnn (some convolutions written once)"
    assert remarks["PyTorch / devconv, step of ResNet-18, float32"] == said
    last = remarks["NumPy / devconv, step of ResNet-18, float32"]
    assert last == f"NumPy with 16 threads; {said}"


GUIDE = (command.ROOT / "docs" / "gpu.md").read_text()


def limits(said: Any) -> list[float]:
    return [said.minutes or command.PARTS[part].MINUTES for part in said.parts]


def told_lines() -> list[Any]:
    words = [each.split()[3:] for each in GUIDE.splitlines() if "benchmarks gpu --parts" in each]
    return [line.arguments(each) for each in words]


def test_the_commands_for_ten_minutes_fit_and_leave_no_part_out():
    """Each line's limits, and what its parts may take beyond them, below nine minutes."""
    parts = set()
    for said in told_lines():
        minutes = limits(said)
        assert sum(minutes) + len(minutes) * command.GRACE / 60 < 9, said
        assert said.resume == bool(parts & set(said.parts)), said  # a second keeps what is there
        parts |= set(said.parts)
    assert parts == set(command.PARTS)


def test_every_part_has_a_line_and_a_second_one():
    for resume in (False, True):
        of_them = [part for said in told_lines() if said.resume == resume for part in said.parts]
        assert sorted(of_them) == sorted(command.PARTS)


def test_the_order_is_told_and_what_it_takes():
    """What matters most comes first, in the table and in the lines for half an hour."""
    rows = [each.split("|")[1:3] for each in GUIDE.splitlines() if each.startswith("| `")]
    minutes = {part.strip(" `"): each.strip() for part, each in rows if each.strip().isdigit()}
    assert minutes == {name: f"{part.MINUTES:g}" for name, part in command.PARTS.items()}
    assert list(minutes) == list(command.PARTS)
    assert f"That is {sum(map(int, minutes.values()))} minutes in all" in GUIDE
    first, _, _ = GUIDE.partition("gpu --parts memory\n")
    half = told_lines()[: first.count("gpu --parts")]
    others = [said for said in told_lines()[len(half) :] if not said.resume]
    assert (len(half), len(others)) == (5, 2)
    five, two = (sum(sum(limits(said)) for said in lines) for lines in (half, others))
    assert f"the first five lines are {five:g} minutes, the next two {two:g}" in first
    assert [part for said in half for part in said.parts] == list(command.PARTS)[:7]


def test_what_the_guide_installs_there_is():
    project = tomllib.loads((command.ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"(?:devconv|\.)\[([\w,]+)\]", GUIDE)
    extras = {name for each in named for name in each.split(",")}
    assert {"cuda12", "cuda13", "cudnn", "cudnn12", "test"} == extras
    assert extras <= set(project["optional-dependencies"])


# Memory, and CuPy's double.


def test_bytes_of_arrays_are_counted():
    arrays = memory.counter(object)
    for pmem, size in ((1, 512), (2, 1024)):
        arrays.malloc_postprocess(device_id=0, size=5, mem_size=size, mem_ptr=9, pmem_id=pmem)
    arrays.malloc_postprocess(device_id=0, size=5, mem_size=7, mem_ptr=0, pmem_id=0)  # it failed
    arrays.free_postprocess(device_id=0, mem_size=512, mem_ptr=9, pmem_id=1)
    arrays.free_postprocess(device_id=0, mem_size=99, mem_ptr=9, pmem_id=77)  # older than the hook
    arrays.malloc_postprocess(device_id=0, size=5, mem_size=256, mem_ptr=9, pmem_id=3)
    assert (arrays.now, arrays.most, arrays.total) == (1280, 1536, 1792)


class Hook:
    """CuPy's base of hooks, as far as a hook of ours sees it."""

    def __enter__(self) -> Any:
        self.malloc_postprocess(device_id=0, size=1, mem_size=64, mem_ptr=1, pmem_id=1)
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def gpu(monkeypatch) -> Iterator[Place]:
    """CuPy's double as the GPU, with the pool and the memory that it lacks; PyTorch sees none."""
    with double.installed(), double.watch.allowed():
        library = sys.modules["cupy"]
        pool = SimpleNamespace(total_bytes=lambda: 4096, free_all_blocks=lambda: None)
        monkeypatch.setattr(library, "get_default_memory_pool", lambda: pool, raising=False)
        monkeypatch.setattr(library.cuda, "MemoryHook", Hook, raising=False)
        for name, answer in (("memGetInfo", (10, 100)), ("runtimeGetVersion", 13000)):
            monkeypatch.setattr(
                library.cuda.runtime, name, lambda answer=answer: answer, raising=False
            )
        monkeypatch.setattr(benchmarks.place.Place, "has_torch", False)
        yield Place("cuda")


def on(place: Place) -> Told:
    return replace(TOLD, place=place, without=("kernels", "cudnn"))


@pytest.mark.parametrize("part", ["convolution", "training", "numpy", "kernels"])
def test_a_part_on_the_double(part, tmp_path, gpu):
    content = run(part, tmp_path, on(gpu))
    assert content["fine"], content
    (path,) = tmp_path.glob("*.json")
    assert path.stem == "a-double"
    assert json.loads(path.read_text())["machine"]["device"]["memory, GB"] == 0.0


def test_routes_on_trial_that_fail_on_the_double_are_named(tmp_path, gpu, monkeypatch):
    def broken(*given: Any) -> Any:
        raise RuntimeError("no such kernel")

    routes = {("take", "cupy"): broken}
    monkeypatch.setitem(_fast.TRIALS, "kernels", routes)
    monkeypatch.setattr(trials, "OPERATIONS", {"conv 3×3": OPERATIONS["conv 3×3"]})
    told = replace(on(gpu), without=("cudnn",))
    row = run("kernels", tmp_path, told)["rows"]["kernels, float32: conv 3×3"]
    assert row["failed"] == {"kernels": "RuntimeError: no such kernel"}
    row = run("training", tmp_path, told)["rows"]["LeNet-5, float32"]
    assert {"devconv", "written once"} <= set(row["seconds"])


def test_memory_on_the_double(gpu):
    found = memory.peak("devconv", "float32", "cuda", True, 1)
    assert found == {"arrays": 64.0, "pool": 4096.0, "driver": 0.0}


def test_memory_of_pytorch_is_read_alike():
    cuda = SimpleNamespace(
        mem_get_info=lambda: (10, 100),
        max_memory_allocated=lambda: 5,
        max_memory_reserved=lambda: 8,
        empty_cache=lambda: None,
        reset_peak_memory_stats=lambda: None,
    )
    read = memory._of_torch(SimpleNamespace(cuda=cuda))
    assert read() == {"arrays": 5.0, "pool": 8.0, "driver": 0.0}


@pytest.mark.parametrize("label", ["devconv", "PyTorch"])
def test_memory_is_watched_after_cupy_was_tried_and_let_go(label, gpu, monkeypatch):
    seen: list[str] = []

    @contextmanager
    def watched(place: Place, theirs: bool) -> Iterator[Any]:
        seen.append(f"watch {theirs}")
        yield lambda: seen.append("read") or {}

    def tried(*given: Any) -> Any:
        seen.append("entrants")
        return {label: lambda: race.Racer(lambda: None, lambda: ())}, {}

    monkeypatch.setattr(memory, "watch", watched)
    monkeypatch.setattr(memory, "entrants", tried)
    monkeypatch.setattr(Place, "release", lambda place: seen.append("release"))
    memory.peak(label, "float32", "cuda", True, 1)
    assert seen == ["entrants", "release", f"watch {label == 'PyTorch'}", "read", "read"]


def test_rounded_products_are_a_fact_of_gpus_alone(gpu, monkeypatch):
    (about,) = (each for each in facts.FACTS if "rounded to TF32" in each)
    monkeypatch.setattr(Lab, "size", lambda lab, n: n // 64)
    assert facts.row(about, on(gpu))["verdict"] == "holds"
    with _fast.generic():
        assert facts.row(about, on(gpu))["verdict"] == "DOES NOT HOLD"
    assert facts.row(about, TOLD)["verdict"] == "no meaning on the CPU"


def test_launches_are_counted_beside_those_on_record(gpu, monkeypatch):
    def traced(place: Place, call: Any) -> Any:
        before = double.watch.launches.total()
        result = call()
        ran = double.watch.launches.total() - before
        return result, [{"cat": "kernel"}] * ran + [{"cat": "cpu_op"}, {}]

    monkeypatch.setattr(counted, "traced", traced)
    monkeypatch.setattr(Place, "lacks_torch", "")
    told = on(gpu)
    assert {f"launches of {name}" for name in launches.ROWS} < set(facts.jobs(told))
    assert not any("launches of" in each for each in facts.jobs(TOLD))
    row, known = counted.row("Dense", told), launches.recorded()["Dense"]
    assert row["calls"] == known
    assert row["launches"] == {
        part: {"kernels": each} for part, each in launches.of_layer("Dense").items()
    }
    monkeypatch.setattr(counted, "traced", lambda place, call: (call(), []))
    with pytest.raises(RuntimeError, match="the profiler sees nothing in an addition"):
        counted.row("Dense", told)


def test_launches_are_read_from_the_profiler_s_own_trace(monkeypatch):
    torch = pytest.importorskip("torch")
    kinds = torch.profiler.ProfilerActivity
    monkeypatch.setattr(torch.profiler, "ProfilerActivity", SimpleNamespace(CUDA=kinds.CPU))
    result, events = counted.traced(Place(), lambda: torch.ones(3) + 1)
    assert result.tolist() == [2.0, 2.0, 2.0]
    assert any(event.get("cat") == "cpu_op" for event in events)
    assert counted.did(Place(), lambda: torch.ones(3))[1] == Counter()
    known = [{"cat": each} for each in ("kernel", "kernel", "gpu_memset", "Kernel", "python")]
    monkeypatch.setattr(counted, "traced", lambda place, call: (call(), known))
    assert counted.did(Place(), lambda: 1) == (1, Counter(kernels=3, fills=1))


def test_what_needs_pytorch_is_not_measured_without_it(gpu, tmp_path, monkeypatch):
    """Nothing fails; and it is measured as soon as PyTorch is there."""
    monkeypatch.setattr(Place, "lacks_torch", "no PyTorch | here")
    few = [about for about in facts.FACTS if "PyTorch's" in about]
    monkeypatch.setattr(facts, "FACTS", {about: facts.FACTS[about] for about in few})
    content = run("facts", tmp_path, on(gpu))
    assert content["fine"]
    assert list(content["rows"]) == [*few, "launches"]
    assert len(few) == 2
    said = {"verdict": "not measured", "found": "no PyTorch | here"}
    assert all(row == said for row in content["rows"].values())
    monkeypatch.setattr(counted, "jobs", lambda told: {"launches": lambda: said})
    monkeypatch.setattr(facts, "row", lambda line, told: {"verdict": "holds", "found": ""})
    rows = run("facts", tmp_path, on(gpu), resume=True)["rows"]
    assert [rows[about]["verdict"] for about in few] == ["holds", "holds"]


BEYOND_THE_DOUBLE = ("bfloat16", "sliding_window_view", "scatter_add", "a stream", "PyTorch's")
"""Facts about what the double does not have."""


@pytest.mark.parametrize("about", list(facts.FACTS))
def test_facts_on_the_double(about, gpu, monkeypatch):
    if any(words in about for words in BEYOND_THE_DOUBLE):
        pytest.skip("the double does not have it")
    monkeypatch.setattr(Lab, "size", lambda lab, n: max(4, n // 256))
    assert facts.row(about, on(gpu))["verdict"] in ("holds", "DOES NOT HOLD", "measured")


def test_a_gpu_is_named_and_makes_room(gpu, monkeypatch):
    released: list[int] = []
    monkeypatch.setattr(Place, "release", lambda place: released.append(1))
    gpu.make_room()
    assert released == [1]
    gpu.answers()
    assert machine.slug("NVIDIA H200 (x)") == "nvidia-h200-x"
