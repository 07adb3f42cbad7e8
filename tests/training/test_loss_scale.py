"""The rules of the loss scale, against ``torch.amp.GradScaler``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from devconv.training import LossScale, chosen
from tests import backends
from tests.backends import Backend
from tests.toys import place

OPTIONS = {
    "init_scale": 1024.0,
    "growth_factor": 4.0,
    "backoff_factor": 0.25,
    "growth_interval": 3,
}
STEPS = [True, True, True, True, False, True, True, False, False, True, True, True, True]


def grads(backend: Backend, *, finite: bool) -> dict[str, Any]:
    b = np.asarray([[1.0, 2.0], [3.0, 4.0 if finite else -np.inf]])
    return {"a": backend.asarray(np.ones(3), "float32"), "b": backend.asarray(b, "float32")}


def numbers(state: Any) -> tuple[float, int, int]:
    return float(state["scale"]), int(state["good"]), int(state["skipped"])


def test_grows_and_backs_off_as_pytorch(backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    reference = torch.amp.GradScaler("cpu", **OPTIONS)
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter])
    scaling = LossScale(**OPTIONS)
    state = scaling.start(place(backend))
    for finite in STEPS:
        reference.scale(torch.ones(1))
        parameter.grad = torch.ones(1) if finite else torch.full((1,), torch.inf)
        reference.step(optimizer)
        reference.update()
        _, found = scaling.unscale(state, grads(backend, finite=finite))
        assert bool(found) == finite
        state = scaling.advance(state, found)
        assert float(state["scale"]) == reference.get_scale()
        assert int(state["good"]) == reference._get_growth_tracker()
    assert numbers(state)[2] == STEPS.count(False)


def test_starts_as_pytorch() -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = torch.amp.GradScaler("cpu"), LossScale()
    assert numbers(ours.start()) == (theirs.get_scale(), 0, 0)
    assert (ours.growth_factor, ours.backoff_factor, ours.growth_interval) == (
        theirs.get_growth_factor(),
        theirs.get_backoff_factor(),
        theirs.get_growth_interval(),
    )


def test_unscale_divides(backend: Backend) -> None:
    scaling = LossScale(init_scale=2.0)
    state = scaling.start(place(backend), scale=8.0, good=5, skipped=7)
    assert numbers(state) == (8.0, 5, 7)
    found, finite = scaling.unscale(state, grads(backend, finite=True))
    assert bool(finite)
    np.testing.assert_array_equal(backend.to_numpy(found["b"]), [[0.125, 0.25], [0.375, 0.5]])
    for x in (finite, *found.values(), *state.values()):
        assert dc.device_of(x) == place(backend)
    assert str(found["a"].dtype).endswith("float32")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_entry_is_enough(backend: Backend, value: float) -> None:
    x = np.ones((40, 50))
    x[17, 23] = value
    both = np.asarray([np.inf, -np.inf])
    state = LossScale().start(place(backend))
    for array in (x, both):
        given = {"a": backend.asarray(x[0], "float32"), "b": backend.asarray(array, "float32")}
        assert not bool(LossScale().unscale(state, given)[1])


def test_a_model_without_parameters_has_nothing_that_could_overflow(backend: Backend) -> None:
    found, finite = LossScale().unscale(LossScale().start(place(backend)), {})
    assert found == {}
    assert bool(finite)


def test_the_scale_is_never_0_nor_infinite(backend: Backend) -> None:
    scaling = LossScale(growth_interval=1)
    state = scaling.start(place(backend), scale=2.0**-126)
    low = scaling.advance(state, scaling.unscale(state, grads(backend, finite=False))[1])
    assert float(low["scale"]) == 2.0**-126
    high = scaling.start(place(backend), scale=2.0**127)
    high = scaling.advance(high, scaling.unscale(high, grads(backend, finite=True))[1])
    assert float(high["scale"]) == 2.0**127


def test_nothing_waits(host_reads: Any) -> None:
    backend, scaling = backends.get("array_api_strict"), LossScale()
    state, given = scaling.start(place(backend)), grads(backend, finite=False)
    with host_reads.forbidden():
        found, finite = scaling.unscale(state, given)
        after = scaling.advance(state, finite)
        chosen(finite, found, given)
    assert numbers(after) == (2.0**15, 0, 1)


def test_chosen_takes_all_or_nothing(backend: Backend) -> None:
    new = {"a": backend.asarray(np.ones(2)), "b": backend.asarray(np.asarray(np.nan))}
    old = {"a": backend.asarray(np.zeros(2)), "b": backend.asarray(np.asarray(3.0))}
    for finite, wanted in ((True, new), (False, old)):
        found = chosen(backend.asarray(np.asarray(finite)), new, old)
        for name, x in wanted.items():
            np.testing.assert_array_equal(backend.to_numpy(found[name]), backend.to_numpy(x))
    assert chosen(backend.asarray(np.asarray(False)), old, old)["a"] is old["a"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"init_scale": 0.0}, InvalidValue, r"init_scale must be greater than 0\.0, got 0\.0"),
        ({"growth_factor": 1.0}, InvalidValue, r"growth_factor must be greater than 1\.0, got 1"),
        ({"backoff_factor": 0.0}, InvalidValue, r"backoff_factor must be greater than 0\.0, got"),
        ({"backoff_factor": 1.0}, InvalidValue, r"backoff_factor must be below 1, got 1\.0"),
        ({"growth_interval": 0}, InvalidValue, "growth_interval must be at least 1, got 0"),
        ({"growth_interval": 2.5}, InvalidType, r"growth_interval must be an int, got 2\.5"),
    ],
)
def test_options_are_checked(options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^LossScale: {message}"):
        LossScale(**options)


def test_the_text_shows_the_options() -> None:
    assert repr(LossScale(growth_interval=5)) == (
        "LossScale(init_scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=5)"
    )
