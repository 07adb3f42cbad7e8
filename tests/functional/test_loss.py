"""Losses where the table of cases does not look: at kinks, far out, at NaN, in errors."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from tests import backends
from tests.backends import Backend

INF, NAN = math.inf, math.nan


def agree(op: Any, theirs: Any, *arrays: Any, **options: Any) -> None:
    """PyTorch's values and derivatives, where it has them, are ours on NumPy and PyTorch."""
    torch = pytest.importorskip("torch")
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in arrays]
    wanted = theirs(*leaves, reduction="none", **options)
    wanted.sum().backward()
    for backend in (backends.get("numpy"), backends.get("torch")):
        args = [backend.asarray(np.asarray(x, dtype="float64")) for x in arrays]
        losses, pullback = op.vjp(*args, reduction="none", **options)
        np.testing.assert_allclose(
            backend.to_numpy(losses), wanted.detach().numpy(), rtol=1e-12, atol=1e-15
        )
        cotangents = pullback(backend.asarray(np.ones(losses.shape)))
        for found, leaf in zip(cotangents, leaves, strict=True):
            if leaf.grad is not None:
                np.testing.assert_allclose(
                    backend.to_numpy(found), leaf.grad.numpy(), rtol=1e-11, atol=1e-15
                )


def functional() -> Any:
    return pytest.importorskip("torch").nn.functional


# --- distances ---


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_distances_at_their_kinks_and_far_out(name: str) -> None:
    prediction = [0.0, 1.0, -1.0, 1.0, 1e4, -1e4, 0.5]
    target = [0.0, 0.0, 0.0, 1.0, -1e4, 1e4, 0.25]
    agree(getattr(F, name), getattr(functional(), name), prediction, target)


def test_bends_at_other_places() -> None:
    prediction, target = [0.0, 2.0, 2.5, -9.0, 0.1], [0.0, 0.0, 0.5, 1.0, 0.0]
    agree(F.smooth_l1_loss, functional().smooth_l1_loss, prediction, target, beta=2.0)
    agree(F.smooth_l1_loss, functional().smooth_l1_loss, prediction, target, beta=0.0)
    agree(F.huber_loss, functional().huber_loss, prediction, target, delta=2.0)


@pytest.mark.parametrize("op", [F.smooth_l1_loss, F.huber_loss])
def test_huge_differences_are_not_squared(op: Any) -> None:
    loss, pullback = op.vjp(np.asarray([1e300]), np.asarray([0.0]))
    assert float(loss) == 1e300
    np.testing.assert_array_equal(pullback(np.ones(()))[0], [1.0])


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
@pytest.mark.parametrize("which", [0, 1])
def test_nan_goes_on_and_back(name: str, which: int, backend: Backend) -> None:
    host = [np.zeros(2), np.ones(2)]
    host[which][0] = NAN
    losses, pullback = getattr(F, name).vjp(*map(backend.asarray, host), reduction="none")
    for x in (losses, *pullback(backend.asarray(np.ones(2)))):
        assert np.isnan(backend.to_numpy(x)).tolist() == [True, False]


# --- yes or no ---


def test_binary_cross_entropy_where_it_is_cut_off() -> None:
    torch = pytest.importorskip("torch")
    p, t = [0.0, 0.0, 1.0, 1.0, 1e-13, 0.5, 1e-30], [0.0, 1.0, 0.0, 1.0, 1.0, 0.3, 1.0]
    leaf = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    wanted = functional().binary_cross_entropy(
        leaf, torch.tensor(t, dtype=torch.float64), reduction="none"
    )
    wanted.sum().backward()
    losses, pullback = F.binary_cross_entropy.vjp(np.asarray(p), np.asarray(t), reduction="none")
    np.testing.assert_allclose(losses, wanted.detach().numpy(), rtol=1e-13)
    dp, dt = pullback(np.ones(len(p)))
    np.testing.assert_allclose(dp, leaf.grad.numpy(), rtol=1e-8)  # PyTorch's 1e-12 is a float32
    np.testing.assert_allclose(dt[:4], [100.0, 100.0, -100.0, -100.0])  # PyTorch: infinite


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_binary_cross_entropy_is_cut_off_in_every_dtype(dtype: str, backend: Backend) -> None:
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    p, t = (backend.asarray(np.asarray(x), dtype) for x in ([0.0, 1.0], [1.0, 0.0]))
    losses = F.binary_cross_entropy(p, t, reduction="none")
    np.testing.assert_array_equal(backend.to_numpy(losses), [100.0, 100.0])


def test_binary_cross_entropy_with_logits_far_out() -> None:
    x = [0.0, -1e4, 1e4, 1e4, -1e4, 40.0, -40.0, 0.5]
    t = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.3]
    theirs = functional().binary_cross_entropy_with_logits
    agree(F.binary_cross_entropy_with_logits, theirs, x, t)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (3, 4)])
def test_weights_are_pytorch_s(reduction: str, shape: Any) -> None:
    """Its losses take the weights; their derivatives there are ours alone."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    p, t = (torch.tensor(rng.uniform(0.1, 0.9, (3, 4))) for _ in range(2))
    weight, gain = (torch.tensor(rng.uniform(0.5, 2.0, shape)) for _ in range(2))

    def compare(op: Any, theirs: Any, *weights: Any, **named: Any) -> None:
        leaves = [x.clone().requires_grad_() for x in (p, t)]
        wanted = theirs(*leaves, reduction=reduction, **named)
        wanted.sum().backward()
        loss, pullback = op.vjp(p, t, *weights, reduction=reduction)
        np.testing.assert_allclose(loss, wanted.detach(), rtol=1e-12)
        found = pullback(torch.ones_like(loss))
        np.testing.assert_allclose(found[0], leaves[0].grad, rtol=1e-11)
        np.testing.assert_allclose(found[1], leaves[1].grad, rtol=1e-11)
        assert [tuple(d.shape) for d in found[2:] if d is not None] == [shape] * len(named)

    T = functional()
    compare(F.binary_cross_entropy, T.binary_cross_entropy, weight, weight=weight)
    op, theirs = F.binary_cross_entropy_with_logits, T.binary_cross_entropy_with_logits
    compare(op, theirs, weight, weight=weight)
    compare(op, theirs, None, gain, pos_weight=gain)
    compare(op, theirs, weight, gain, weight=weight, pos_weight=gain)


def test_none_for_a_weight_left_out() -> None:
    x = np.full(2, 0.5)
    _, pullback = F.binary_cross_entropy_with_logits.vjp(x, x, None, x)
    assert [d is None for d in pullback(np.ones(()))] == [False, False, True, False]
    assert len(F.binary_cross_entropy.vjp(x, x)[1](np.ones(()))) == 2


@pytest.mark.parametrize("op", [F.binary_cross_entropy, F.binary_cross_entropy_with_logits])
def test_nan_in_a_target_goes_on(op: Any) -> None:
    losses = op(np.full(2, 0.5), np.asarray([NAN, 1.0]), reduction="none")
    assert np.isnan(losses).tolist() == [True, False]


def test_signs_are_integers_or_floats_without_a_derivative(backend: Backend) -> None:
    x, signs = np.asarray([0.0, 1e4, -1e4, 0.5]), np.asarray([1, -1, 1, -1])
    for op in (F.soft_margin_loss, F.hinge_embedding_loss):
        results = []
        for target in (signs, signs.astype("float64"), signs.astype("int32")):
            loss, pullback = op.vjp(backend.asarray(x), backend.asarray(target))
            dx, dtarget = pullback(backend.asarray(np.asarray(1.0)))
            assert dtarget is None
            results.append((float(backend.to_numpy(loss)), *backend.to_numpy(dx).tolist()))
        assert results[0] == results[1] == results[2]


def test_soft_margin_does_not_overflow() -> None:
    x, t = np.asarray([1e4, -1e4, 1e4, -1e4, 0.0]), np.asarray([-1, 1, 1, -1, 1])
    losses, pullback = F.soft_margin_loss.vjp(x, t, reduction="none")  # PyTorch: infinite
    np.testing.assert_allclose(losses, [1e4, 1e4, 0.0, 0.0, math.log(2.0)])
    np.testing.assert_array_equal(pullback(np.ones(5))[0], [1.0, -1.0, 0.0, 0.0, -0.5])


def test_hinge_at_the_margin_and_at_other_targets() -> None:
    x = [0.0, 1.0, 1.0, 2.0, 0.5, NAN, -1.0, 5.0]
    t = [-1.0, -1.0, 1.0, -1.0, 0.0, -1.0, 1.0, 3.0]
    agree(F.hinge_embedding_loss, functional().hinge_embedding_loss, x, t)
    agree(F.hinge_embedding_loss, functional().hinge_embedding_loss, x, t, margin=-0.5)


# --- classes ---


def test_only_the_right_class_counts_in_nll(backend: Backend) -> None:
    log_p = backend.asarray(np.asarray([[-1.0, -INF], [-INF, -2.0]]))
    target = backend.asarray(np.asarray([0, 1]))
    loss, pullback = F.nll_loss.vjp(log_p, target)
    assert float(backend.to_numpy(loss)) == 1.5
    dlog_p, _ = pullback(backend.asarray(np.asarray(1.0)))
    np.testing.assert_array_equal(backend.to_numpy(dlog_p), [[-0.5, 0.0], [0.0, -0.5]])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nll_of_log_softmax_is_cross_entropy(reduction: str) -> None:
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((6, 3, 2)), rng.integers(0, 3, (6, 2))
    target[0] = 1
    options = {"class_weight": np.asarray([1.0, 2.0, 0.5]), "ignore_index": 1}
    log_p, back = F.log_softmax.vjp(logits, axis=1)
    loss, pullback = F.nll_loss.vjp(log_p, target, reduction=reduction, **options)
    whole, straight = F.cross_entropy.vjp(logits, target, reduction=reduction, **options)
    np.testing.assert_allclose(loss, whole, rtol=1e-13)
    dy = np.ones_like(loss)
    np.testing.assert_allclose(back(pullback(dy)[0])[0], straight(dy)[0], atol=1e-15)


def test_nothing_that_counts_is_nan() -> None:
    log_p = np.log(np.full((2, 2), 0.5))
    assert np.isnan(F.nll_loss(log_p, np.full(2, -100)))
    assert float(F.nll_loss(log_p, np.full(2, -100), reduction="sum")) == 0.0


def test_impossible_classes_with_a_share_of_0() -> None:
    logits = np.asarray([[0.0, -INF]])
    loss, pullback = F.cross_entropy.vjp(logits, np.asarray([[1.0, 0.0]]))
    assert float(loss) == 0.0
    np.testing.assert_array_equal(pullback(np.ones(()))[0], [[0.0, 0.0]])


@pytest.mark.parametrize("label", [-1, 3, 250, 10**6])
def test_labels_out_of_range_are_refused_or_nan(label: int, backend: Backend) -> None:
    """Refused where looking costs nothing; on a device the loss and its way back are NaN."""
    logits = backend.asarray(np.random.default_rng(0).standard_normal((2, 3)))
    target = backend.asarray(np.asarray([0, label]))
    if backend.name in ("numpy", "torch"):
        with pytest.raises(ValueError, match=r"^cross_entropy: target \(2,\) holds labels from "):
            F.cross_entropy(logits, target)
        return
    loss, pullback = F.cross_entropy.vjp(logits, target)
    assert np.isnan(backend.to_numpy(loss))
    dlogits, _ = pullback(backend.asarray(np.ones(())))
    assert np.isnan(backend.to_numpy(dlogits)[1]).all()


def test_labels_out_of_range_on_the_strict_library_s_cpu() -> None:
    xp = backends.get("array_api_strict").xp
    message = (
        r"^cross_entropy: target \(2,\) holds labels from 0 to 3, expected 0 to 2 "
        r"\(or ignore_index=-100\) for 3 classes$"
    )
    with pytest.raises(ValueError, match=message):
        F.cross_entropy(xp.ones((2, 3)), xp.asarray([0, 3]))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16"])
def test_small_integers_label_many_classes(dtype: str, backend: Backend) -> None:
    """int8 ends at 127 and uint8 at 255: neither may count round."""
    labels = np.arange(300) % 120
    logits = np.random.default_rng(0).standard_normal((300, 300))
    expected, back = F.cross_entropy.vjp(logits, labels)
    loss, pullback = F.cross_entropy.vjp(backend.asarray(logits), backend.asarray(labels, dtype))
    assert float(backend.to_numpy(loss)) == pytest.approx(float(expected), rel=1e-12)
    dlogits, _ = pullback(backend.asarray(np.ones(())))
    np.testing.assert_allclose(
        backend.to_numpy(dlogits), back(np.ones(()))[0], rtol=1e-10, atol=1e-18
    )


def test_integers_of_the_logits_shape_are_no_probabilities() -> None:
    with pytest.raises(ValueError, match=r"expected class indices with shape \(3,\) for logits"):
        F.cross_entropy(np.ones((3, 3)), np.eye(3, dtype="int64"))


def test_without_an_example_that_counts_the_mean_is_nan(backend: Backend) -> None:
    logits, target = backend.asarray(np.ones((2, 3))), backend.asarray(np.full(2, -100))
    assert np.isnan(backend.to_numpy(F.cross_entropy(logits, target)))
    total = F.cross_entropy(logits, target, reduction="sum")
    assert float(backend.to_numpy(total)) == 0.0


# --- likelihoods ---


@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(log_target: bool) -> None:
    target = [-0.3, -0.5, -30.0] if log_target else [0.3, 1.0, 1e-30]
    agree(F.kl_div, functional().kl_div, [-1.0, -2.0, -1e4], target, log_target=log_target)


def test_kl_div_of_a_target_of_0() -> None:
    losses, pullback = F.kl_div.vjp(np.asarray([-2.0]), np.zeros(1), reduction="none")
    np.testing.assert_array_equal(losses, [0.0])
    dlog_q, dtarget = pullback(np.ones(1))
    np.testing.assert_array_equal(dlog_q, [0.0])
    np.testing.assert_array_equal(dtarget, [2.0])  # PyTorch: NaN


def test_kl_div_over_the_batch(backend: Backend) -> None:
    log_q, p = np.log(np.full((4, 2), 0.5)), np.full((4, 2), 0.25)
    args = backend.asarray(log_q), backend.asarray(p)
    whole = backend.to_numpy(F.kl_div(*args, reduction="sum"))
    loss, pullback = F.kl_div.vjp(*args, reduction="batchmean")
    np.testing.assert_allclose(backend.to_numpy(loss), whole / 4)
    dlog_q, _ = pullback(backend.asarray(np.asarray(1.0)))
    np.testing.assert_allclose(backend.to_numpy(dlog_q), -p / 4)
    empty = backend.asarray(np.zeros((0, 2)))
    assert np.isnan(backend.to_numpy(F.kl_div(empty, empty, reduction="batchmean")))


@pytest.mark.parametrize("log_input", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_poisson(log_input: bool, full: bool) -> None:
    options = {"log_input": log_input, "full": full, "eps": 1e-3}
    x, t = [0.0, 2.0, 0.5, 3.0, 10.0], [0.5, 1.0, 1.5, 4.0, 1e4]
    agree(F.poisson_nll_loss, functional().poisson_nll_loss, x, t, **options)


def test_poisson_of_no_events() -> None:
    losses, pullback = F.poisson_nll_loss.vjp(
        np.asarray([0.5]), np.zeros(1), full=True, reduction="none"
    )
    np.testing.assert_allclose(losses, np.exp([0.5]))
    np.testing.assert_allclose(pullback(np.ones(1))[1], [-0.5])  # PyTorch: NaN


@pytest.mark.parametrize("options", [{}, {"full": True, "eps": 0.1}])
def test_gaussian_and_the_least_variance(options: Any) -> None:
    """The derivative passes through the limit."""
    x, t, var = [0.5, 2.0, 0.0, 1e4], [0.0, 1.0, 1.5, 4.0], [1.0, 0.0, 0.05, 2.0]
    agree(F.gaussian_nll_loss, functional().gaussian_nll_loss, x, t, var, **options)


@pytest.mark.parametrize(
    ("shape", "var"),
    [
        ((2, 3), (2, 3)),
        ((2, 3), (2,)),
        ((2, 3), (2, 1)),
        ((2, 3), (1, 3)),
        ((2, 2), (2,)),
        ((2, 3, 4), (2, 3)),
        ((2, 3, 4), (2, 1, 4)),
        ((2, 1, 4), (2, 1)),
        ((1, 3), (1,)),
        ((3,), (1,)),
        ((3,), ()),
        ((), ()),
    ],
)
def test_variances_that_fit(shape: Any, var: Any) -> None:
    rng = np.random.default_rng(0)
    x, t, v = rng.standard_normal(shape), rng.standard_normal(shape), rng.uniform(0.5, 2, var)
    agree(F.gaussian_nll_loss, functional().gaussian_nll_loss, x, t, v)


# --- where looking costs something ---


def test_what_is_not_looked_at_becomes_nan() -> None:
    backend = backends.get("array_api_strict")  # on its second device

    def value(op: Any, *host: Any) -> float:
        return float(backend.to_numpy(op(*(backend.asarray(np.asarray(x)) for x in host))))

    assert np.isnan(value(F.gaussian_nll_loss, [0.0], [0.0], [-1.0]))
    assert np.isnan(value(F.nll_loss, [[-1.0, -1.0]], [2]))
    assert np.isnan(value(F.nll_loss, [[-1.0, -1.0]], [-1]))
    assert np.isnan(value(F.cross_entropy, [[-1.0, -1.0]], [2]))
    with np.errstate(invalid="ignore"):  # the logarithm of a negative number
        assert np.isnan(value(F.binary_cross_entropy, [1.5], [1.0]))
        assert np.isnan(value(F.binary_cross_entropy, [-0.5], [1.0]))


# --- precision ---

PAIRS = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss"]
PAIRS += ["binary_cross_entropy", "binary_cross_entropy_with_logits"]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_loss_of_half_precision_is_summed_in_float32(
    name: str, dtype: str, backend: Backend
) -> None:
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    host = np.full(5000, 0.25), np.full(5000, 0.75)
    exact = float(getattr(F, name)(*host, reduction="sum"))
    loss, pullback = getattr(F, name).vjp(
        *(backend.asarray(x, dtype) for x in host), reduction="sum"
    )
    assert backend.to_numpy(loss).dtype == np.float32
    assert float(backend.to_numpy(loss)) == pytest.approx(exact, rel=1e-5)
    for d in pullback(backend.asarray(np.asarray(1.0), "float32")):
        assert d.dtype == backend.asarray(host[0], dtype).dtype


# --- errors ---

X, Y = np.full((2, 3), 0.5), np.full((2, 3), 0.25)
LABELS, EIGHT = np.asarray([0, 2]), np.zeros((8, 2))
PAIR_LOSSES = [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div]
PAIR_LOSSES += [F.poisson_nll_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits]
PAIR_LOSSES += [F.soft_margin_loss, F.hinge_embedding_loss]


@pytest.mark.parametrize("op", PAIR_LOSSES)
def test_a_target_of_another_shape_is_refused(op: Any) -> None:
    message = f"{op.__name__}: target has shape (1, 3), expected that of the prediction, (2, 3);"
    with pytest.raises(ValueError, match=re.escape(message)):
        op(X, X[:1])


@pytest.mark.parametrize("op", [*PAIR_LOSSES, F.gaussian_nll_loss, F.nll_loss, F.cross_entropy])
def test_other_reductions_are_refused(op: Any) -> None:
    args = {F.gaussian_nll_loss: (X, X, X), F.nll_loss: (X, LABELS), F.cross_entropy: (X, LABELS)}
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum', 'none'"):
        op(*args.get(op, (X, X)), reduction="average")


@pytest.mark.parametrize("op", [op for op in PAIR_LOSSES if op is not F.kl_div])
def test_only_kl_div_takes_the_mean_over_the_batch(op: Any) -> None:
    with pytest.raises(ValueError, match="reduction must be one of"):
        op(X, X, reduction="batchmean")


@pytest.mark.parametrize("op", PAIR_LOSSES[:8])
def test_integer_targets_are_refused(op: Any) -> None:
    with pytest.raises(TypeError, match=r"target .* has dtype int64, expected a real floating"):
        op(X, np.ones((2, 3), dtype=np.int64))


ERRORS = [
    (lambda: F.smooth_l1_loss(X, Y, beta=-1.0), ValueError, "beta must be at least 0.0, got -1.0"),
    (lambda: F.smooth_l1_loss(X, Y, beta="1"), TypeError, "beta must be a number, got '1'"),
    (lambda: F.huber_loss(X, Y, delta=0.0), ValueError, "delta must be greater than 0.0, got 0.0"),
    (lambda: F.huber_loss(X, Y, delta=NAN), ValueError, "huber_loss: delta must be"),
    (lambda: F.poisson_nll_loss(X, Y, eps=-1e-8), ValueError, "eps must be at least 0.0"),
    (lambda: F.gaussian_nll_loss(X, Y, X, eps=-1.0), ValueError, "eps must be at least 0.0"),
    (lambda: F.hinge_embedding_loss(X, Y, margin=None), TypeError, "margin must be a number"),
    (
        lambda: F.binary_cross_entropy(4 * X, Y),
        ValueError,
        "prediction (2, 3) holds values from 2 to 2, expected probabilities from 0 to 1; for "
        "logits there is binary_cross_entropy_with_logits",
    ),
    (lambda: F.binary_cross_entropy(-X, Y), ValueError, "prediction (2, 3) holds values from -0.5"),
    (lambda: F.binary_cross_entropy(X, -Y), ValueError, "target (2, 3) holds values from -0.25"),
    (
        lambda: F.binary_cross_entropy(X, Y, np.ones(2)),
        ValueError,
        "weight has shape (2,), which does not broadcast to that of the prediction, (2, 3)",
    ),
    (
        lambda: F.binary_cross_entropy(X, Y, np.ones((1, 2, 3))),
        ValueError,
        "weight has shape (1, 2, 3), which does not broadcast",
    ),
    (
        lambda: F.binary_cross_entropy_with_logits(X, Y, None, np.ones((3, 3))),
        ValueError,
        "pos_weight has shape (3, 3), which does not broadcast to that of the prediction, (2, 3)",
    ),
    (
        lambda: F.gaussian_nll_loss(X, Y, np.ones(3)),
        ValueError,
        "var has shape (3,), expected that of the prediction, (2, 3), or (2,), or that with one",
    ),
    (lambda: F.gaussian_nll_loss(X, Y, np.ones(())), ValueError, "var has shape ()"),
    (lambda: F.gaussian_nll_loss(X, Y, np.ones((1, 1))), ValueError, "var has shape (1, 1)"),
    (lambda: F.gaussian_nll_loss(X, Y, np.ones((1, 2, 3))), ValueError, "var has shape (1, 2, 3)"),
    (
        lambda: F.gaussian_nll_loss(X, Y, -X),
        ValueError,
        "var (2, 3) holds values down to -0.5, expected variances of at least 0",
    ),
    (lambda: F.gaussian_nll_loss(X, X[:1], X), ValueError, "target has shape (1, 3)"),
    (
        lambda: F.nll_loss(X, np.asarray([0, 3])),
        ValueError,
        "nll_loss: target (2,) holds labels from 0 to 3, expected 0 to 2 (or ignore_index=-100)",
    ),
    (
        lambda: F.nll_loss(X, np.asarray([0.0, 1.0])),
        TypeError,
        "target (2,) holds float64, but class indices are integers: convert it",
    ),
    (lambda: F.nll_loss(X, Y), TypeError, "integers; cross_entropy takes probabilities"),
    (
        lambda: F.nll_loss(X, np.asarray([0])),
        ValueError,
        "target has shape (1,), expected class indices with shape (2,) for log_probabilities",
    ),
    (
        lambda: F.nll_loss(np.asarray(0.0), np.asarray(0)),
        ValueError,
        "log_probabilities must have shape (N, C, ...) or (C,), got a 0-d array",
    ),
    (
        lambda: F.nll_loss(np.ones((2, 0)), LABELS),
        ValueError,
        "log_probabilities (2, 0) has no classes on axis 1",
    ),
    (
        lambda: F.nll_loss(X, LABELS, class_weight=np.ones(2)),
        ValueError,
        "class_weight has shape (2,), expected (3,): one per class of log_probabilities (2, 3)",
    ),
    (
        lambda: F.nll_loss(X, LABELS, class_weight=np.ones(3, dtype=np.int64)),
        TypeError,
        "class_weight (3,) has dtype int64, expected a real floating dtype",
    ),
    (lambda: F.nll_loss(X, LABELS, ignore_index=1.5), TypeError, "ignore_index must be an int"),
    (
        lambda: F.cross_entropy(X, np.ones((2, 3), dtype=bool)),
        TypeError,
        "target (2, 3) has dtype bool, expected integers or a real floating dtype",
    ),
    (
        lambda: F.cross_entropy(X, np.asarray([0.0, 1.0])),
        TypeError,
        "target (2,) holds float64, but class indices are integers",
    ),
    (
        lambda: F.cross_entropy(X, np.ones((2, 2))),
        ValueError,
        "target has shape (2, 2), expected probabilities with the logits' shape (2, 3), or class",
    ),
    (
        lambda: F.cross_entropy(X, np.ones((2, 3), dtype=np.int64)),
        ValueError,
        "target has shape (2, 3), expected class indices with shape (2,) for logits (2, 3)",
    ),
    (lambda: F.cross_entropy(X, -LABELS), ValueError, "holds labels from -2 to 0, expected 0 to 2"),
    (
        lambda: F.cross_entropy(X, LABELS, label_smoothing=1.5),
        ValueError,
        "label_smoothing must be at most 1, got 1.5",
    ),
    (
        lambda: F.cross_entropy(X, LABELS, label_smoothing=-0.5),
        ValueError,
        "label_smoothing must be at least 0.0",
    ),
    (
        lambda: F.cross_entropy(X, LABELS, class_weight=np.ones(2)),
        ValueError,
        "class_weight has shape (2,), expected (3,): one per class of logits (2, 3)",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_errors(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        call()


def test_the_ignored_label_may_be_out_of_range() -> None:
    log_p = np.log(np.full((2, 2), 0.5))
    ignored = np.asarray([7, 1], dtype=np.uint8)
    assert float(F.nll_loss(log_p, ignored, ignore_index=7)) == pytest.approx(math.log(2.0))
    with pytest.raises(ValueError, match="holds labels from 1 to 7"):
        F.nll_loss(log_p, ignored, ignore_index=-100)  # not a number uint8 can hold


def test_probabilities_have_no_ignored_class() -> None:
    with pytest.raises(ValueError, match=r"ignore_index=1 needs class indices; target \(2, 3\)"):
        F.cross_entropy(np.zeros((2, 3)), np.full((2, 3), 1 / 3), ignore_index=1)


def test_an_ignored_row_may_hold_anything() -> None:
    logits = np.asarray([[0.0, 1.0], [np.nan, 2.0]])
    loss, pullback = F.cross_entropy.vjp(logits, np.asarray([0, -100]))
    assert float(loss) == pytest.approx(np.log(1 + np.e))
    assert pullback(np.ones(()))[0][1].tolist() == [0.0, 0.0]
