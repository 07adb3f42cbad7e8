"""The report is checked: what agrees passes, and each planted error is found where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _array, _fast
from devconv import functional as F
from devconv.functional import differentiable
from devconv.testing import Parity, parity
from tests import backends
from tests.toys import Centre, unchanged

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.standard_normal((4, 2, 6, 6)), np.arange(4) % 3


def abroad(x: Any) -> bool:
    """Whether ``x`` is not the reference's: an error planted there alone."""
    return _array.dtype_name(x.dtype) == "float32"


def scaled(
    y: float = 1.0, dx: float = 1.0, dfactor: float = 1.0, where: Callable[[Any], bool] = abroad
) -> dc.Layer:
    """A layer ``y = x · factor`` that is off by these factors where told."""

    @differentiable
    def scale(x: Any, factor: Any, /) -> Any:
        wrong = where(x)

        def pullback(dy: Any) -> Any:
            back = _array.array_namespace(x).sum(dy * x)
            return dy * factor * (dx if wrong else 1.0), back * (dfactor if wrong else 1.0)

        return x * factor * (y if wrong else 1.0), pullback

    class Scale(dc.OperationLayer):
        operation = scale
        arrays = ("factor",)

        def declare(self, shape: Any) -> Any:
            return {"factor": dc.Parameter((), dc.initializers.ones)}

        def describe(self) -> str:
            return ""

    return Scale()


class Gated(dc.Layer):
    """``y = x · gate(x)``, whose own lines are off by these factors where the dtype is float32."""

    def __init__(self, gate: dc.Layer, *, handed: float = 1.0, sent_back: float = 1.0) -> None:
        self.gate, self.handed, self.sent_back = gate, handed, sent_back

    @property
    def children(self) -> Any:
        return {"gate": self.gate}

    def infer(self, trace: Any, shape: Any) -> Any:
        return trace.apply(self.gate, shape, "gate")

    def apply_vjp(self, scope: Any, x: Any) -> Any:
        a, b = (self.handed, self.sent_back) if abroad(x) else (1.0, 1.0)
        gate, back = scope.vjp("gate", self.gate, x * a)

        def pullback(dy: Any) -> Any:
            dx, grads = back(dy * x * b)
            return dy * gate + dx, grads

        return x * gate, pullback


class Widened(dc.Layer):
    """``y = x``, in float64."""

    def infer(self, trace: Any, shape: Any) -> Any:
        return shape

    def apply_vjp(self, scope: Any, x: Any) -> Any:
        return x.astype("float64"), lambda dy: (dy.astype(x.dtype), {})


def model(planted: dc.Layer | None = None) -> dc.Sequential:
    """A convolution, what is planted inside a residual layer, a norm and a dense layer."""
    return dc.Sequential(
        dc.Conv2d(2, 3, 3, padding=1, activation="relu"),
        dc.Residual(
            {"conv": dc.Conv2d(3, 3, 3, padding=1), "planted": planted or dc.Identity()},
            activation="relu",
        ),
        dc.BatchNorm2d(3),
        dc.MaxPool2d(2),
        dc.Dropout(0.5),
        dc.Flatten(),
        dc.Dense(27, 3),
    ).build(seed=0)


def report(planted: dc.Layer | None = None, **how: Any) -> Parity:
    how = {"devices": ["cpu"], "dtypes": ["float32"], **how}
    return parity(model(planted), IMAGES, LABELS, **how)


PLACES = {
    "numpy": "cpu",
    "array_api_strict": "array_api_strict:device1",
    "torch": "torch",
    "jax": "jax",
    "cupy": "cuda",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "jax" else [])
        for name in backends.usable()
    ],
)
def test_every_backend_agrees(name: str) -> None:
    found = report(devices=[PLACES[name]], dtypes=["float64", "float32"], differences=False)
    assert found.ok, str(found)
    assert {row.dtype for row in found.rows} == {"float64", "float32"}
    paths = [row.path for row in found.rows if row.dtype == "float32"]
    assert paths == ["0", "1.conv", "1.planted", "1", "2", "3", "4", "5", "6", "", "", ""]
    assert max(row.worst for row in found.rows if row.dtype == "float64") < 1e-14


def test_half_precision_is_told() -> None:
    found = report(dtypes=["float16"], differences=False)
    assert found.ok, str(found)
    assert 1e-4 < max(row.worst for row in found.rows if row.tolerance) < 1e-3
    assert str(found).startswith("cpu float16, half precision  ok, all 11 within 1e-03; largest ")


@pytest.mark.parametrize("factor", ["y", "dx", "dfactor"])
@pytest.mark.parametrize("training", [False, True])
def test_a_planted_error_is_found_where_it_is(factor: str, training: bool) -> None:
    column = {"y": "forward", "dx": "dx", "dfactor": "parameters"}[factor]
    found = report(scaled(**{factor: 1.00005}), training=training)
    wrong = [row for row in found.rows if not row.ok]
    assert [row.name for row in wrong] == ["1.planted (Scale)"]  # and nobody else
    assert found.first is wrong[0]
    assert wrong[0].mark == "outside"
    for name in ("forward", "dx", "parameters"):
        value = getattr(wrong[0], name)
        assert value == pytest.approx(5e-5, rel=0.1) if name == column else value < 1e-6
    assert (
        "cpu float32                                        first outside: 1.planted (Scale):"
        in (str(found))
    )


@pytest.mark.parametrize(
    ("factor", "mark"), [(1.0005, "TF32?"), (1.007, "bfloat16?"), (1.1, "outside")]
)
def test_errors_that_look_like_fewer_digits(factor: float, mark: str) -> None:
    found = report(scaled(y=factor), differences=False)
    assert found.first is not None
    assert (found.first.name, found.first.mark) == ("1.planted (Scale)", mark)
    assert f"first outside: 1.planted (Scale): {mark}, " in str(found)


def test_float64_in_name_only() -> None:
    found = report(
        scaled(y=1 + 1e-7, where=lambda x: not _array.is_plain(x)),
        devices=["array_api_strict"],
        dtypes=["float64"],
    )
    assert found.first is not None
    assert found.first.mark == "float32?"


@pytest.mark.parametrize(("how", "column"), [("handed", "forward"), ("sent_back", "dx")])
def test_a_layer_made_of_layers_answers_for_its_own_lines(how: str, column: str) -> None:
    gate = dc.Conv2d(3, 3, 1)
    found = report(Gated(gate, **{how: 1.01}), differences=False)
    wrong = [row for row in found.rows if not row.ok]
    assert [row.name for row in wrong] == ["1.planted (Gated)"]
    assert getattr(wrong[0], column) == pytest.approx(0.01, rel=0.1)
    inside = report(Gated(scaled(dx=1.01)), differences=False)
    assert [row.name for row in inside.rows if not row.ok] == ["1.planted.gate (Scale)"]


@pytest.mark.parametrize("factor", ["y", "dx", "dfactor"])
def test_what_is_wrong_everywhere_is_found_by_difference_quotients(factor: str) -> None:
    found = report(scaled(where=lambda x: True, **{factor: 1.01}))
    wrong = [row for row in found.rows if not row.ok]
    assert [row.name for row in wrong] == ["1.planted (Scale)"]  # the layers around are not asked
    assert wrong[0].mark == "pullback is not the forward's"
    assert "by difference quotients  first outside: 1.planted (Scale):" in str(found)
    assert report(scaled(where=lambda x: True, **{factor: 1.01}), differences=False).ok


def test_new_buffers_count() -> None:
    class Counting(Centre):
        def apply_vjp(self, scope: Any, x: Any) -> Any:
            y, pullback = super().apply_vjp(scope, x)
            if abroad(x) and scope.training:
                scope.renew(mean=scope["mean"] * 1.01)
            return y, pullback

    def look(training: bool) -> Parity:
        layers = dc.Sequential(dc.Dense(5, 3), Counting(3)).build(seed=0)
        x = RNG.standard_normal((4, 5))
        how: Any = {"devices": ["cpu"], "dtypes": ["float32"], "differences": False}
        return parity(layers, x, LABELS, training=training, **how)

    wrong = [row for row in look(training=True).rows if not row.ok]
    assert [row.name for row in wrong] == ["1 (Counting)"]
    assert wrong[0].forward == pytest.approx(0.01, rel=0.1)
    assert look(training=False).ok


def test_the_reference_takes_no_quicker_route() -> None:
    planted = scaled(y=1.01, where=lambda x: not _fast._door.closed)
    found = report(planted, dtypes=["float64"])
    assert [(row.device, row.name) for row in found.rows if not row.ok] == [
        ("cpu", "1.planted (Scale)")
    ]


def test_a_gradient_that_is_nothing_but_rounding() -> None:
    """That of a bias before a norm: no error of any layer, and none end to end."""
    layers = dc.Sequential(dc.Dense(5, 4), dc.BatchNorm1d(4), dc.Dense(4, 3)).build(seed=0)
    x = RNG.standard_normal((4, 5))
    found = parity(layers, x, LABELS, devices=["cpu"], dtypes=["float32"], differences=False)
    assert found.ok
    assert found.rows[-1].kind == "end to end"
    assert found.rows[-1].worst < 1e-4


def test_failures_other_dtypes_and_nan() -> None:
    def broken(x: Any) -> bool:
        if abroad(x):
            raise RuntimeError("no kernel image\nfor this device")
        return False

    found = report(scaled(where=broken), differences=False).first
    assert found is not None
    assert found.name == "1.planted (Scale)"
    assert found.mark == "failed: RuntimeError: no kernel image for this device"
    found = report(scaled(y=np.nan), differences=False).first
    assert found is not None
    assert found.mark == "no finite numbers"
    found = report(Widened(), differences=False).first
    assert found is not None
    assert (found.name, found.mark) == ("1.planted (Widened)", "y is float64")


def test_fast_has_a_tolerance_of_its_own() -> None:
    with dc.precision("fast"):
        assert report(scaled(y=1.0001), differences=False).ok
        assert not report(scaled(y=1.0005), differences=False).ok
    assert not report(scaled(y=1.0001), differences=False).ok


def test_a_layer_used_twice_and_a_layer_alone() -> None:
    shared = dc.Dense(5, 5)
    x = RNG.standard_normal((4, 5))
    found = parity(
        dc.Sequential(shared, dc.Tanh(), shared), x, LABELS, devices=["cpu"], dtypes=["float32"]
    )
    assert found.ok
    assert [row.path for row in found.rows[-6:]] == ["0", "1", "0", "", "", ""]
    assert parity(dc.Dense(None, 3), x, LABELS, devices=["cpu"]).ok


def test_other_losses_and_arrays_of_other_libraries() -> None:
    torch = backends.get("torch")
    x = torch.asarray(RNG.standard_normal((4, 5)), "float32")
    y = torch.asarray(RNG.standard_normal((4, 2)), "float32")
    found = parity(dc.Dense(5, 2).build(), x, y, devices=[x], loss=F.mse_loss)
    assert found.ok, str(found)
    assert found.rows[-2].kind == "mse_loss"
    assert found.rows[-2].device == "torch"


def test_the_model_stays_as_it_is() -> None:
    layer = model()
    with unchanged(layer):
        parity(layer, IMAGES, LABELS, devices=["cpu"], dtypes=["float32"], differences=False)


def test_what_a_device_does_not_have_is_left_out_and_said() -> None:
    backends.get("array_api_strict")
    found = report(devices=["array_api_strict"], dtypes=["float32", "float16"], differences=False)
    assert found.ok
    assert found.left_out == ("cpu (array_api_strict) has no float16; use one of float32, float64",)
    assert "left out: cpu (array_api_strict) has no float16" in str(found)


def test_the_table() -> None:
    found = parity(
        dc.Sequential(dc.Dense(2, 2), scaled(y=1.01)),
        RNG.standard_normal((4, 2)),
        LABELS % 2,
        devices=["cpu"],
        dtypes=["float32"],
    )
    head, first, second = str(found).split("\n\n")
    assert [line.partition("  ")[0] for line in head.splitlines()] == [
        "the reference's pullbacks by difference quotients",
        "cpu float32",
    ]
    assert first.splitlines()[0] == "the reference's pullbacks by difference quotients"
    lines = second.splitlines()
    assert lines[0] == "cpu float32"
    assert lines[1].split() == ["layer", "kind", "forward", "dx", "parameters", "tolerance"]
    assert lines[3].split()[:3] == ["1", "Scale", "1.0e-02"]
    assert lines[3].split()[-2:] == ["1.0e-05", "bfloat16?"]
    assert lines[-1].split()[-1] == "–"
    widths = {line.index(word) for line, word in zip(lines[1:4], ("kind", "Dense", "Scale"))}  # noqa: B905
    assert len(widths) == 1
    assert json.loads(json.dumps([asdict(row) for row in found.rows]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "lenet"}, r"^parity: model must be a layer, got "),
        ({"loss": np.mean}, r"^parity: loss must be an operation, got "),
        ({"x": [1.0]}, r"^parity: x must be an array, got list"),
        ({"target": 1}, r"^parity: target must be an array, got int"),
        ({"devices": "cpu"}, r"^parity: devices must be a list, got 'cpu'"),
        ({"dtypes": "float32"}, r"^parity: dtypes must be a list, got 'float32'"),
        ({"dtypes": ["int8"]}, r"^parity: dtypes may hold float64, float32, .*, got 'int8'"),
        ({"devices": ["tpu"]}, r'^parity: unknown device "tpu", expected '),
        ({"loss": F.mse_loss.with_options(reduction="none")}, r"^parity: .*expected one number"),
    ],
)
def test_messages(given: dict[str, Any], message: str) -> None:
    rest = {"model": dc.Dense(2, 2).build(), "x": np.ones((4, 2)), "target": np.ones((4, 2))}
    how = {"devices": ["cpu"], **rest, **given}
    with pytest.raises(dc.DevconvError, match=message):
        parity(how.pop("model"), how.pop("x"), how.pop("target"), **how)
