"""Losses by PyTorch's names: the same numbers and gradients, and operations like any other."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from devconv.testing import check_vjp
from tests import backends
from tests.backends import Backend
from tests.toys import assert_close

RNG = np.random.default_rng(0)
REAL = RNG.standard_normal((4, 3))
OTHER = RNG.standard_normal((4, 3))
SHARE = RNG.uniform(0.1, 0.9, (4, 3))
SPREAD = RNG.dirichlet((1.0, 1.0, 1.0), 4)
LABELS = np.asarray([0, 2, -100, 1])
SIGNS = np.sign(OTHER)
COUNTS = np.abs(np.round(3 * OTHER))
WEIGHT = np.asarray([0.2, 1.0, 3.0])

# kind, options, prediction, targets
CASES: list[tuple[str, dict[str, Any], np.ndarray, tuple[np.ndarray, ...]]] = [
    ("MSELoss", {}, REAL, (OTHER,)),
    ("MSELoss", {"reduction": "sum"}, REAL, (OTHER,)),
    ("L1Loss", {}, REAL, (OTHER,)),
    ("SmoothL1Loss", {}, REAL, (OTHER,)),
    ("SmoothL1Loss", {"reduction": "sum", "beta": 0.3}, REAL, (OTHER,)),
    ("HuberLoss", {}, REAL, (OTHER,)),
    ("HuberLoss", {"reduction": "none", "delta": 0.3}, REAL, (OTHER,)),
    ("CrossEntropyLoss", {}, REAL, (LABELS,)),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, REAL, (LABELS,)),
    ("CrossEntropyLoss", {"ignore_index": 2, "reduction": "sum"}, REAL, (np.abs(LABELS) % 3,)),
    ("CrossEntropyLoss", {"weight": WEIGHT}, REAL, (SPREAD,)),
    ("NLLLoss", {}, np.log(SPREAD), (LABELS,)),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 0}, np.log(SPREAD), (np.abs(LABELS) % 3,)),
    ("BCELoss", {}, SHARE, (SPREAD,)),
    ("BCELoss", {"weight": WEIGHT}, SHARE, (SPREAD,)),
    ("BCEWithLogitsLoss", {}, REAL, (SHARE,)),
    ("BCEWithLogitsLoss", {"pos_weight": WEIGHT}, REAL, (SHARE,)),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT}, REAL, (SHARE,)),
    ("KLDivLoss", {"reduction": "batchmean"}, np.log(SHARE), (SPREAD,)),
    ("KLDivLoss", {"reduction": "sum", "log_target": True}, np.log(SHARE), (np.log(SPREAD),)),
    ("SoftMarginLoss", {}, REAL, (SIGNS,)),
    ("HingeEmbeddingLoss", {}, REAL, (SIGNS,)),
    ("HingeEmbeddingLoss", {"margin": 0.5}, REAL, (SIGNS,)),
    ("PoissonNLLLoss", {}, REAL, (COUNTS,)),
    ("PoissonNLLLoss", {"log_input": False, "full": True, "eps": 1e-6}, SHARE, (COUNTS,)),
    ("GaussianNLLLoss", {}, REAL, (OTHER, SHARE)),
    ("GaussianNLLLoss", {"full": True, "eps": 0.2}, REAL, (OTHER, SHARE)),
]


def made(
    kind: str, options: dict[str, Any], backend: Backend | None = None
) -> tuple[dc.Loss, dict[str, Any]]:
    """The loss, with arrays among its options where the backend has them."""
    put = backend.asarray if backend else np.asarray
    ours = {n: put(v) if isinstance(v, np.ndarray) else v for n, v in options.items()}
    return getattr(dc, kind)(**ours), ours


@pytest.mark.parametrize(("kind", "options", "prediction", "targets"), CASES, ids=str)
def test_as_pytorch(
    backend: Backend, kind: str, options: Any, prediction: Any, targets: Any
) -> None:
    torch = pytest.importorskip("torch")
    loss, _ = made(kind, options, backend)
    x = torch.tensor(prediction, requires_grad=True)
    theirs = getattr(torch.nn, kind)(
        **{n: torch.tensor(v) if isinstance(v, np.ndarray) else v for n, v in options.items()}
    )
    y = theirs(x, *map(torch.tensor, targets))
    dy = torch.ones_like(y)
    y.backward(dy)
    arrays = [backend.asarray(a) for a in (prediction, *targets)]
    value, pullback = loss.vjp(*arrays)
    cotangents = pullback(backend.asarray(dy.numpy()))
    assert len(cotangents) == len(arrays)  # nothing for what was filled in
    assert_close({"y": value, "dx": cotangents[0]}, {"y": y.detach(), "dx": x.grad}, 1e-12)
    np.testing.assert_array_equal(backend.to_numpy(loss(*arrays)), backend.to_numpy(value))


@pytest.mark.parametrize("kind", sorted({case[0] for case in CASES}))
def test_no_options_are_the_operation_s_own(kind: str) -> None:
    loss = getattr(dc, kind)()
    defaults = loss.origin.__signature__.parameters
    assert loss.options == {name: defaults[name].default for name in loss.options}
    assert isinstance(loss, F.Operation)
    assert loss.origin is type(loss).operation
    assert repr(loss) == f"{kind}()"


def test_every_loss_is_in_the_table() -> None:
    kinds = {name for name in dc.layers.__all__ if name.endswith("Loss")}
    assert kinds == {case[0] for case in CASES} | {"Loss"}
    assert {getattr(dc, kind).operation for kind in kinds - {"Loss"}} == {
        getattr(F, name) for name in F.__all__ if name.endswith(("loss", "entropy", "_logits"))
    } | {F.kl_div}


def test_it_may_be_checked_like_any_operation() -> None:
    check_vjp(dc.CrossEntropyLoss(WEIGHT, label_smoothing=0.1), REAL, LABELS)
    check_vjp(dc.BCEWithLogitsLoss(pos_weight=WEIGHT), REAL, SHARE)


def test_options_show() -> None:
    assert repr(dc.CrossEntropyLoss(label_smoothing=0.1)) == "CrossEntropyLoss(label_smoothing=0.1)"
    assert repr(dc.HuberLoss("sum", 2.0)) == "HuberLoss(reduction='sum', delta=2.0)"
    assert repr(dc.NLLLoss(WEIGHT)) == "NLLLoss(class_weight=array([0.2, 1. , 3. ]))"


def test_a_caller_s_option_wins() -> None:
    loss = dc.MSELoss(reduction="sum")
    assert loss(REAL, OTHER, reduction="mean") == F.mse_loss(REAL, OTHER)
    weighted = dc.BCELoss(WEIGHT)
    value, pullback = weighted.vjp(SHARE, SPREAD, np.ones(3))
    assert value == F.binary_cross_entropy(SHARE, SPREAD, np.ones(3))
    assert len(pullback(np.ones(()))) == 3


def test_in_value_and_grad(backend: Backend) -> None:
    model = dc.Dense(3, 3).build(seed=0).to(dc.device(backend.asarray(REAL)), dtype="float64")
    arrays = backend.asarray(REAL), backend.asarray(LABELS)
    loss = dc.CrossEntropyLoss(backend.asarray(WEIGHT), label_smoothing=0.2)
    value, grads = dc.value_and_grad(model, loss)(*arrays)
    wanted, others = dc.value_and_grad(
        model, F.cross_entropy, class_weight=backend.asarray(WEIGHT), label_smoothing=0.2
    )(*arrays)
    assert_close({"loss": value, **grads}, {"loss": wanted, **others}, 0.0)


def test_copies_are_independent() -> None:
    loss = dc.HuberLoss(delta=2.0)
    other = copy.deepcopy(loss).with_options(delta=1.0)
    assert (loss.options["delta"], other.options["delta"]) == (2.0, 1.0)
    assert F.huber_loss.options == {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_pickle_is_the_loss_again(case: Any) -> None:
    kind, options, prediction, targets = case
    loss = getattr(dc, kind)(**options)
    for again in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert type(again) is type(loss)
        assert repr(again) == repr(loss)
        np.testing.assert_array_equal(again(prediction, *targets), loss(prediction, *targets))


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (
            lambda: dc.MSELoss(reduction="avg")(REAL, OTHER),
            InvalidValue,
            "mse_loss: reduction must be one of",
        ),
        (
            lambda: dc.KLDivLoss(log_target="yes"),  # type: ignore[arg-type]
            InvalidType,
            "KLDivLoss: log_target must be True or False, got 'yes'",
        ),
        (
            lambda: dc.PoissonNLLLoss(full=1),  # type: ignore[arg-type]
            InvalidType,
            "PoissonNLLLoss: full must be True or False, got 1",
        ),
        (
            lambda: dc.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])(REAL, LABELS),
            InvalidType,
            "cross_entropy: class_weight must be an array, got list",
        ),
        (
            lambda: dc.CrossEntropyLoss(weight=WEIGHT[:2])(REAL, LABELS),
            InvalidValue,
            "cross_entropy: class_weight",
        ),
        (lambda: dc.MSELoss()(REAL), TypeError, "missing 1 required positional argument"),
    ],
)
def test_what_does_not_fit(run: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        run()


def test_arrays_among_the_options_must_be_where_the_prediction_is() -> None:
    strict = backends.get("array_api_strict")
    with pytest.raises(InvalidType, match=r"logits is a .* and class_weight a NumPy array on cpu"):
        dc.CrossEntropyLoss(WEIGHT)(strict.asarray(REAL), strict.asarray(LABELS))
