"""The figures and what they mean."""

from __future__ import annotations

import pytest

from devconv.doctor import speed as room
from devconv.doctor.speed import judged


def test_figures_and_their_ratios() -> None:
    speed = judged(400.0, 300.0, 600.0)
    assert (speed.of_product, speed.of_torch) == (0.75, 0.5)
    expected = "fine: a convolution keeps 75% of the speed of the products it is made of"
    assert speed.verdict == expected
    assert speed.findings == ()
    assert judged(400.0, 300.0, None).of_torch is None


def test_a_slow_convolution_costs_time_only() -> None:
    speed = judged(400.0, 40.0, None)
    assert speed.verdict.startswith("slow: a convolution keeps 10% of the speed")
    (finding,) = speed.findings
    assert (finding.about, finding.wrong) == ("speed", False)


def test_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(room, "seconds", lambda call: calls.append(call()) or 1e-3)
    monkeypatch.setattr(room, "_torch", lambda x, weight: None)
    speed = room.look_at_speed()
    assert speed.product == pytest.approx(2 * 1024**3 / 1e6)
    assert speed.convolution == pytest.approx(2 * 32 * 64 * 32 * 32 * 64 * 9 / 1e6)
    assert [call.shape for call in calls] == [(1024, 1024), (32, 64, 32, 32)]


def test_what_looks_slow_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([judged(400.0, 40.0, None), judged(400.0, 300.0, None)])
    monkeypatch.setattr(room, "_measured", lambda: next(rounds))
    assert room.look_at_speed().convolution == 300.0


def test_the_shortest_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.time, "sleep", lambda s: None)
    ticks = iter([0.0, 0.0, 3.0, 3.0, 3.0, 4.0, 9.0])
    monkeypatch.setattr(room.time, "perf_counter", lambda: next(ticks))
    assert room.seconds(lambda: None, budget=5.0) == 1.0


@pytest.mark.parametrize(("load", "busy"), [(0.5, False), (4.5, True)])
def test_a_busy_machine_is_noted(monkeypatch: pytest.MonkeyPatch, load: float, busy: bool) -> None:
    monkeypatch.setattr(room.os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(room, "available_cpus", lambda: 4)
    monkeypatch.setattr(room, "_measured", lambda: judged(400.0, 300.0, None))
    assert room.look_at_speed().busy is busy
