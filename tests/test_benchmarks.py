"""The benchmarks run as they stand; nobody asserts a time."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import benchmarks.__main__ as command
import benchmarks.place
from benchmarks import (
    agreement,
    child,
    convolution,
    growth,
    inference,
    machine,
    memory,
    networks,
    peers,
    picture,
    report,
    routes,
    steps,
    switches,
    threads,
    timing,
    training,
)
from benchmarks.options import Options
from benchmarks.ours import devconv
from benchmarks.place import Place
from benchmarks.shapes import Shape, restored
from tests import backends

RECORDS = sorted(report.RESULTS.glob("*.json"))
SMALL = {
    "A": Shape(2, 3, (5, 5), 4, (3, 3), padding=1),
    "B": Shape(2, 3, (6, 6), 4, (3, 3), stride=2, padding=1),
    "depthwise": Shape(2, 4, (5, 5), 4, (3, 3), padding=1, groups=4),
}
QUICK = Options(
    threads=1,
    rounds=1,
    turn=0.0,
    shapes=SMALL,
    large=SMALL["A"],
    networks=("LeNet-5",),
    batches=(1, 2),
    images=2,
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Times that nobody reads need no rest before them."""
    monkeypatch.setattr(timing, "rest", lambda: None)


def assert_well_formed(text: str) -> None:
    """Every table in a Markdown text has a head, a rule, rows of one length and no NaN."""
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    assert tables
    for table in tables:
        lines = table.strip().splitlines()
        assert len(lines) > 2
        assert re.fullmatch(r"\|( -{3}:? \|)+", lines[1])
        assert len({line.count("|") for line in lines}) == 1, table
        assert "nan" not in table
        assert "inf" not in table


# Each table, with small shapes and one round.


@pytest.mark.parametrize(
    "module", [convolution, training, inference, growth, routes], ids=lambda m: m.__name__
)
def test_a_table(module, monkeypatch):
    monkeypatch.setattr(routes, "LIBRARIES", ("numpy",))
    if module in (training, inference):
        pytest.importorskip("torch")
    rows = module.measure(QUICK)
    assert json.loads(json.dumps(rows)) == rows
    assert_well_formed(module.table(rows))


@pytest.mark.parametrize("module", [memory, threads], ids=lambda m: m.__name__)
def test_a_table_of_other_processes(module, monkeypatch):
    """What each process would run, in this one."""
    monkeypatch.setattr(child, "call", lambda function, **given: function(**given))
    monkeypatch.setattr(switches, "limit", lambda threads: None)
    monkeypatch.setattr(timing, "keep_memory", lambda: None)
    if module is memory:
        monkeypatch.setattr(memory, "highest", lambda: memory.resident() + 1e6)
    rows = module.measure(replace(QUICK, threads=2, shapes={"A": SMALL["A"]}))
    assert_well_formed(module.table(rows))


def test_a_process_of_its_own():
    assert child.call(machine.cores) == machine.cores()
    with pytest.raises(RuntimeError, match=r"(?s)machine:label failed.*no_such"):
        child.call(machine.label, no_such=1)


def test_peak_memory_is_seen():
    """An array of a known size, filled and dropped, is in the peak."""
    before = memory.resident()
    memory.forget_peak()
    np.ones(64 * 2**20, dtype=np.uint8).sum()
    assert memory.highest() - before > 48 * 2**20


def test_every_table_is_on_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(command, "prepare", lambda told: None)
    for module in command.TABLES.values():
        monkeypatch.setattr(module, "measure", lambda told: [{}])
        monkeypatch.setattr(module, "table", lambda rows: "a table")
    command.main(["all"])
    assert capsys.readouterr().out.count("a table") == len(command.TABLES)


def test_records_are_written(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "prepare", lambda told: None)
    monkeypatch.setattr(command, "options", lambda said: replace(QUICK, shapes={"A": SMALL["A"]}))
    command.main(["convolution", "--record", "--out", str(tmp_path)])
    (record,) = tmp_path.glob("*.json")
    assert_record(record)
    assert_well_formed(record.with_suffix(".md").read_text())


# Agreement.


def test_a_planted_disagreement_stops_it(monkeypatch):
    def wrong(*given: Any, **options: Any) -> Any:
        racer = devconv(*given, **options)
        return replace(racer, both=lambda: tuple(1.01 * each for each in racer.both()))

    monkeypatch.setattr(
        convolution, "makers", lambda *given: {"devconv": lambda: devconv(*given),
                                               "wrong": lambda: wrong(*given)}
    )  # fmt: skip
    with pytest.raises(agreement.Disagreement, match=r"A: wrong differs from devconv by .*e-0"):
        convolution.measure(QUICK)


def test_a_network_that_differs_stops_it(monkeypatch):
    torch = pytest.importorskip("torch")
    lenet = networks.NETWORKS["LeNet-5"]

    def different() -> Any:
        module = lenet.theirs()
        module.c1.register_forward_hook(lambda layer, given, y: 1.001 * y)
        return module

    monkeypatch.setitem(networks.NETWORKS, "LeNet-5", replace(lenet, theirs=different))
    with pytest.raises(agreement.Disagreement, match="LeNet-5 in float64: PyTorch differs"):
        training.measure(QUICK)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_do_not_agree(bad):
    good = np.ones(3)
    results = {"devconv": lambda: (good,), "other": lambda: (np.asarray([1.0, bad, 1.0]),)}
    with pytest.raises(agreement.Disagreement):
        agreement.agree("case", results, lambda name: 1e30)


def test_agreement_is_measured_over_the_largest_entry():
    assert agreement.difference([np.asarray([4.0, 0.0])], [np.asarray([4.0, 1.0])]) == 0.25
    assert agreement.difference([np.zeros(2)], [np.zeros(2)]) == 0.0
    assert agreement.difference([np.zeros(2)], [np.zeros(3)]) == np.inf


@pytest.mark.parametrize("name", ["VGG-small", "ResNet-18"])
def test_the_networks_have_the_same_names(name):
    """Their results are compared by the tables; here, that the arrays fit."""
    pytest.importorskip("torch")
    network = networks.NETWORKS[name]
    module = network.theirs()
    state = network.ours().build().state_dict()
    theirs = {k: tuple(a.shape) for k, a in module.state_dict().items() if a.ndim}
    assert {k: tuple(a.shape) for k, a in state.items()} == theirs
    assert set(network.watched) <= set(state)


def test_a_training_step_learns():
    """The step that is timed changes the parameters of both."""
    pytest.importorskip("torch")
    for step in steps.training(networks.NETWORKS["LeNet-5"], Place(), images=2).values():
        first = [np.array(a) for a in map(np.asarray, step())]
        for _ in range(3):
            step()
        again = step()
        assert any(not np.array_equal(a, b) for a, b in zip(first, again, strict=True))


# Timing.


def test_rounds_alternate_and_the_slow_sit_out(monkeypatch):
    order: list[str] = []

    def fake(call: Any, repeats: int, **_: Any) -> tuple[float, float]:
        call()
        return (1.0 if order[-1] == "slow" else 1e-3), 0.0

    monkeypatch.setattr(timing, "timed", fake)
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b", "slow")}
    timed = timing.interleaved(calls, rounds=5)
    assert " ".join(order[6:]) == "a b slow slow b a a b slow b a a b"
    assert timed.seconds == {"a": 1e-3, "b": 1e-3, "slow": 1.0}


def test_disturbed_rounds_are_repeated_and_told(monkeypatch):
    noise = iter([0.0, 0.0, *([1.0] * 3), *([0.0] * 10)])
    monkeypatch.setattr(timing, "timed", lambda call, repeats, **_: (1e-3, next(noise)))
    assert timing.interleaved({"a": lambda: None, "b": lambda: None}, rounds=2).disturbed == 0
    monkeypatch.setattr(timing, "timed", lambda call, repeats, **_: (1e-3, 1.0))
    assert timing.interleaved({"a": lambda: None}, rounds=2).disturbed == 2


def test_the_clock_waits_for_the_device():
    seen: list[str] = []
    timing.timed(lambda: seen.append("call"), 2, finish=lambda: seen.append("finish"))
    assert seen == ["call", "finish", "call", "call", "finish"]


@pytest.mark.skipif("cupy" in backends.usable(), reason="there is a GPU")
@pytest.mark.parametrize("what", ["gpu", "convolution"])
def test_without_a_gpu_it_says_so_in_one_line(what):
    with pytest.raises(SystemExit, match=r'^"cuda" cannot be used: .*$'):
        command.main([what, "--device", "cuda"])


# Reports, records, the picture.


def test_a_mean_says_how_many_rows_it_has():
    rows = [
        {"case": "A", "forward": {"devconv": 1e-3, "torch": 2e-3, "mygrad": 4e-3}},
        {"case": "F", "forward": {"devconv": 1e-3, "torch": 0.5e-3}},
    ]
    text = report.ratio_table(
        rows, "forward", {"case": lambda row: row["case"]}, {"mean": lambda row: True}
    )
    assert text.splitlines()[2:] == [
        "| A | 1.00 | 2.00 | 4.00 |",
        "| F | 1.00 | 0.50 | – |",
        "| **mean** |  | 1.00 | 4.00 (1) |",
    ]


def test_a_shape_survives_json():
    shape = SMALL["B"]
    assert restored(json.loads(json.dumps(vars(shape)))) == shape


def test_mygrad_is_asked_only_for_what_it_can():
    assert peers.suits_mygrad(SMALL["A"])
    assert not peers.suits_mygrad(SMALL["B"])
    assert not peers.suits_mygrad(SMALL["depthwise"])


def assert_record(path: Path) -> dict[str, Any]:
    """A record parses, names its machine, and holds what was measured."""
    record = json.loads(path.read_text())
    assert record["machine"]["cpu"]
    assert record["machine"]["libraries"]["numpy"]
    assert record.get("rows") or record["parts"]
    return record


def test_there_are_records():
    assert RECORDS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_recorded_results(path):
    record = assert_record(path)
    name = record["machine"].get("gpu") or record["machine"]["cpu"]
    assert re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") in path.stem
    assert_well_formed(path.with_suffix(".md").read_text())


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_picture(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    for path in (p for p in RECORDS if p.stem.startswith("convolution-")):
        picture.draw(picture.load(path), tmp_path / f"speed{suffix}")
        first = (tmp_path / f"speed{suffix}").read_bytes()
        picture.draw(picture.load(path), tmp_path / f"speed{suffix}")
        assert (tmp_path / f"speed{suffix}").read_bytes() == first


def test_what_the_picture_shows():
    seconds = {"devconv": 1.0, "NumPy alone": 2.0, "PyTorch": 4.0}
    rows = [{"case": name, "shape": "8, 3, 5×5, 4, 3×3 s2 g3", "forward": seconds} for name in "AB"]
    labels, found = picture.series(rows, "forward")
    assert labels == ["A\n3→4\n3×3 s2\n5×5", "B\n3→4\n3×3 s2\n5×5", picture.MEAN]
    assert found == {"with Numba": [4.0] * 3, "NumPy alone": [2.0] * 3}


def test_a_gpu_is_waited_for_and_asked_its_name(monkeypatch):
    """What a place does on a GPU, as far as stand-ins for its libraries can tell."""
    seen: list[str] = []

    def note(name: str) -> Any:
        return lambda *_: seen.append(name)

    runtime = SimpleNamespace(getDeviceProperties=lambda index: {"name": b"NVIDIA H200"})
    pool = SimpleNamespace(free_all_blocks=note("cupy frees"))
    cupy = SimpleNamespace(
        cuda=SimpleNamespace(
            runtime=runtime, Device=lambda: SimpleNamespace(synchronize=note("cupy"))
        ),
        get_default_memory_pool=lambda: pool,
    )
    cuda = SimpleNamespace(
        is_available=lambda: True, synchronize=note("torch"), empty_cache=note("torch frees")
    )
    matmul, cudnn = SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=True)
    switches_of_torch = SimpleNamespace(cuda=SimpleNamespace(matmul=matmul), cudnn=cudnn)
    torch = SimpleNamespace(cuda=cuda, backends=switches_of_torch)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(benchmarks.place, "_torch", lambda: torch)
    monkeypatch.setattr(benchmarks.place, "installed", lambda library: True)
    gpu_place = Place("cuda")
    gpu_place.prepare()
    gpu_place.synchronize()
    gpu_place.release()
    assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == (False, False, True)
    assert seen == ["cupy", "torch", "cupy frees", "torch frees"]
    assert machine.label(gpu_place) == "nvidia-h200"
