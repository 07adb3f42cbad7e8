"""Device discipline without a GPU: everything on the second of two strict devices.

``tests/doubles/cupy.py`` plays CuPy. The input is on ``cuda:1`` while ``cuda:0`` is current:
whatever is made without entering the device of ``x`` lands on the wrong one and is refused, and
the host may look at no value.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _array, _fast
from devconv._check import InvalidValue
from devconv._fast import tf32
from devconv._fast.budget import budget
from devconv.functional import products
from tests.cases import collect
from tests.cases.case import Case
from tests.doubles import cupy as double
from tests.doubles import launches
from tests.doubles.cupy import HostRead, watch
from tests.layers.test_catalogue import ENTRIES, Entry
from tests.toys import cnn, images, labels

PLACE = "cuda:1"


@pytest.fixture(autouse=True, scope="module")
def _install() -> Iterator[None]:
    with double.installed():
        yield


@pytest.fixture(autouse=True)
def _start_anew() -> Iterator[None]:
    watch.reset()
    yield
    assert double.Device().id == 0, "a device was entered and not left"


def there(x: Any, dtype: str | None = None) -> Any:
    """An array of the host on the second device, without devconv's help."""
    if not isinstance(x, np.ndarray | np.generic):
        return x
    with double.Device(1):
        return double.asarray(x if dtype is None or x.dtype.kind != "f" else x.astype(dtype))


def back(x: Any) -> Any:
    """The values of an array that must be on the second device."""
    if x is None:
        return None
    assert isinstance(x, double.ndarray)
    assert x.device.id == 1
    return x._values  # no read that counts


def assert_equal(found: Any, wanted: Any, tolerance: float = 1e-12) -> None:
    found = back(found)
    assert (found is None) == (wanted is None)
    if wanted is not None:
        assert found.shape == wanted.shape
        assert found.dtype == wanted.dtype
        size = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
        np.testing.assert_allclose(found, wanted, rtol=0.0, atol=tolerance * size)


# --- operations ---


@pytest.mark.parametrize("case", collect(), ids=str)
def test_operation(case: Case) -> None:
    args = case.draw()
    y, pullback = case.op.vjp(*args, **case.options)
    lead = y[0] if isinstance(y, tuple) else y
    dy = np.random.default_rng(1).standard_normal(lead.shape)
    grads = pullback(dy)

    options = {name: there(value) for name, value in case.options.items()}
    z, pullback = case.op.vjp(*map(there, args), **options)
    cotangents = pullback(there(dy))
    for found, wanted in zip(
        z if isinstance(z, tuple) else [z], y if isinstance(y, tuple) else [y], strict=True
    ):
        assert_equal(found, np.asarray(wanted))
    for found, wanted in zip(cotangents, grads, strict=True):
        assert_equal(found, wanted)
    assert watch.reads == []
    assert watch.launches["batched matmul"] == 0


@pytest.mark.parametrize("small", [0, products.SMALL], ids=["large", "small"])
@pytest.mark.parametrize("level", ["exact", "fast"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_stack_is_multiplied(
    dtype: str, level: str, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is any number read, whatever the dtype, the precision and the way around stacks."""
    monkeypatch.setattr(products, "SMALL", small)
    multiplying = (case for case in collect() if "conv" in case.op.__name__ or "dense" in str(case))
    for case in multiplying:
        if dtype == "float16" and case.options.get("algorithm") == "winograd":
            continue
        options = {name: there(value, dtype) for name, value in case.options.items()}
        with dc.precision(level):
            y, pullback = case.op.vjp(*(there(x, dtype) for x in case.draw()), **options)
        pullback(y)
        assert watch.launches["batched matmul"] == 0, str(case)
    assert watch.reads == []
    assert watch.launches["matmul"] + watch.launches["gemmEx"] > 0


def test_many_groups_take_few_launches() -> None:
    """As many for 32 groups as for 2, where the products are small."""
    counts = []
    for groups in (2, 32):
        x, weight = there(np.ones((2, 64, 6, 6))), there(np.ones((64, 64 // groups, 3, 3)))
        watch.reset()
        y, pullback = dc.functional.conv.vjp(x, weight, padding=1, groups=groups)
        pullback(y)
        counts.append(sum(watch.launches.values()))
    assert counts[0] == counts[1] < 40


# --- layers ---


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_layer(entry: Entry) -> None:
    x = np.random.default_rng(0).standard_normal((3, *entry.shape))
    here = entry.mine().build(entry.shape, seed=1).to(dtype="float64")
    away = entry.mine().build(entry.shape, seed=1).to(PLACE, dtype="float64")
    for training in (True, False):
        y, pullback = here.vjp(x, training=training)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        dx, grads = pullback(dy)
        z, pullback = away.vjp(there(x), training=training)
        dz, away_grads = pullback(there(dy))
        assert_equal(z, y)
        assert_equal(dz, dx)
        assert away_grads.keys() == grads.keys()
        for name, grad in grads.items():
            assert_equal(away_grads[name], grad)
    assert_equal(away(there(x)), here(x))
    assert watch.reads == []
    assert watch.launches["batched matmul"] == 0
    for name, array in here.state_dict().items():
        assert_equal(away.state_dict()[name], array)


def test_layers_in_layers() -> None:
    def blocks() -> dc.Layer:
        return dc.Sequential(
            dc.Residual(
                dc.Conv2d(2, 4, 3, padding=1), dc.Conv2d(2, 4, 1), activation=dc.LeakyReLU()
            ),
            dc.Concatenate(dc.Conv2d(4, 2, 1), dc.Identity()),
            dc.Parallel(dc.GELU(), dc.Dropout(0.5)),
            dc.GlobalAvgPool(),
        ).build(seed=0).to(dtype="float64")  # fmt: skip

    x = images()
    y, pullback = blocks().vjp(x)
    dx, grads = pullback(np.ones_like(y))
    away = blocks().to(PLACE)
    z, pullback = away.vjp(there(x))
    dz, away_grads = pullback(there(np.ones_like(y)))
    assert_equal(z, y)
    assert_equal(dz, dx)
    for name, grad in grads.items():
        assert_equal(away_grads[name], grad)
    pure = dc.pure(away)
    (again, _), _ = pure.vjp(away.parameters, away.buffers, there(x), training=False)
    assert_equal(again, back(pure(away.parameters, away.buffers, there(x))))
    assert watch.reads == []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_smaller_dtypes(dtype: str) -> None:
    tolerance = {"float16": 3e-2, "float32": 1e-5}[dtype]
    here, away = cnn().build(seed=0).to(dtype=dtype), cnn().build(seed=0).to(PLACE, dtype=dtype)
    x, target = images(dtype=dtype), labels()
    wanted, grads = dc.value_and_grad(here, dc.functional.cross_entropy)(x, target)
    found, away_grads = dc.value_and_grad(away, dc.functional.cross_entropy)(
        there(x), there(target)
    )
    assert_equal(found, wanted, tolerance)
    for name, grad in grads.items():
        assert_equal(away_grads[name], grad, tolerance)
    assert "batched matmul" not in watch.launches


# --- optimizers, training ---

OPTIMIZERS = {
    "SGD": lambda m: dc.optim.SGD(m, 0.1),
    "SGD, momentum": lambda m: dc.optim.SGD(m, 0.1, momentum=0.9, weight_decay=0.01),
    "SGD, Nesterov": lambda m: dc.optim.SGD(m, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda m: dc.optim.Adam(m, 0.1, weight_decay=0.01),
    "AdamW": lambda m: dc.optim.AdamW(m, 0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizer(make: Any) -> None:
    here, away = cnn().build(seed=0), cnn().build(seed=0).to(PLACE)
    ours, theirs = make(here), make(away)
    for step in range(3):
        rng = np.random.default_rng(step)
        grads = {
            name: rng.standard_normal(x.shape).astype("float32")
            for name, x in here.parameters.items()
        }
        ours.step(grads)
        theirs.step({name: there(grad) for name, grad in grads.items()})
    assert watch.reads == []
    for name, x in here.parameters.items():
        assert_equal(away.parameters[name], x, 1e-6)
    for name, x in ours.state_dict().items():
        assert_equal(theirs.state_dict()[name], x, 1e-6)


def test_clipping() -> None:
    grads = {"a": np.asarray([3.0, 0.0]), "b": np.asarray([[4.0]])}
    clipped = dc.optim.clip_by_global_norm({name: there(x) for name, x in grads.items()}, 1.0)
    wanted = dc.optim.clip_by_global_norm(grads, 1.0)
    for name, x in wanted[0].items():
        assert_equal(clipped[0][name], x)
    assert_equal(clipped[1], wanted[1])
    assert watch.reads == []


def trainer(place: str, precision: str = "float32") -> dc.Trainer:
    model = dc.Sequential(cnn(), dc.BatchNorm1d(3), dc.Dropout(0.1)).build(seed=0).to(place)
    optimizer = dc.optim.SGD(model, 1e-2, momentum=0.9)
    return dc.Trainer(model, dc.functional.cross_entropy, optimizer, precision=precision)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_an_epoch(precision: str) -> None:
    x, target = images(12, dtype="float32"), labels(12)
    batches = dc.data.Batches(x, target, batch_size=4, seed=0)
    here, away = trainer("cpu", precision), trainer(PLACE, precision)
    here.fit(batches, epochs=1, progress=False)
    with watch.allowed():
        away.fit(batches, epochs=1, progress=False)
        assert len(watch.reads) <= (2 if precision == "float16" else 1), "one look, at the end"
        validated = away.evaluate(batches)
    tolerance = {"float32": 1e-4, "float16": 0.05}[precision]
    for name, value in here.model.state_dict().items():
        found = back(away.model.state_dict()[name])  # a bias before a norm moves by rounding alone
        np.testing.assert_allclose(found, value, rtol=0.0, atol=tolerance, err_msg=name)
    assert away.history[-1]["loss"] == pytest.approx(here.history[-1]["loss"], rel=tolerance)
    assert validated["loss"] == pytest.approx(here.evaluate(batches)["loss"], rel=tolerance)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_waits_for_nothing(precision: str) -> None:
    run = trainer(PLACE, precision)
    for _ in range(2):
        loss, prediction, _ = run.step((images(dtype="float32"), labels()))
    assert watch.reads == []
    assert back(loss).shape == ()
    assert back(prediction).shape == (4, 3)


def test_a_step_that_overflows_is_skipped_and_nobody_waits() -> None:
    run = trainer(PLACE, "float16")
    run.loss_scale = dc.training.LossScale(init_scale=256.0)
    before = {name: back(x).copy() for name, x in run.model.parameters.items()}
    for large, skipped, scale in ((1.0, 0, 256.0), (1e6, 1, 128.0), (1e6, 2, 64.0)):
        run.step((np.float32(large) * images(dtype="float32"), labels()))
        state = run.scale_state
        assert state is not None
        assert (int(back(state["skipped"])), float(back(state["scale"]))) == (skipped, scale)
        after = {name: back(x).copy() for name, x in run.model.parameters.items()}
        for name, x in before.items():
            assert np.isfinite(after[name]).all()
            assert np.array_equal(after[name], x) == bool(skipped), name
        before = after
    assert watch.reads == []


def test_a_run_is_kept_and_resumed(tmp_path: Any) -> None:
    batches = [(images(dtype="float32"), labels())]
    first, second = trainer(PLACE), trainer(PLACE)
    with watch.allowed():
        first.fit(batches, epochs=2, progress=False, save_to=tmp_path / "run.safetensors")
        second.fit(batches, epochs=1, progress=False, save_to=tmp_path / "half.safetensors")
        resumed = trainer(PLACE)
        resumed.resume(tmp_path / "half.safetensors")
        resumed.fit(batches, epochs=1, progress=False)
        np.testing.assert_array_equal(resumed.predict(batches), first.predict(batches))
    for name, array in first.model.state_dict().items():
        np.testing.assert_array_equal(back(resumed.model.state_dict()[name]), back(array))


# --- launches ---


@pytest.mark.parametrize("name", launches.ROWS)
def test_launches(name: str) -> None:
    counted = launches.ROWS[name]()
    assert watch.reads == []
    assert counted == launches.recorded().get(name), (
        f"launches of {name} differ from {launches.TABLE}: explain it, and count anew with "
        "python -m tests.doubles.launches"
    )


def test_every_launch_on_record_is_counted() -> None:
    assert launches.recorded().keys() == launches.ROWS.keys()


def test_moves_and_random_numbers() -> None:
    x = there(np.arange(6.0).reshape(2, 3).T)
    assert dc.to_device(x, PLACE) is x
    assert dc.to_device(x, "cuda:0").device.id == 0
    assert dc.to_device(x, PLACE, dtype="float32").device.id == 1
    assert dc.to_device(dc.to_device(x, "cuda:0"), x).device.id == 1
    assert watch.reads == []
    with watch.allowed():
        np.testing.assert_array_equal(dc.to_numpy(x), np.arange(6.0).reshape(2, 3).T)
    key = dc.random.key(7, like=x)
    for draw in (
        lambda k: dc.random.uniform(k, (3, 5)),
        lambda k: dc.random.normal(k, 4, "float64"),
        lambda k: dc.random.bernoulli(k, 0.5, 9),
        lambda k: dc.random.permutation(k, 6),
        lambda k: dc.random.fold_in(dc.random.split(k)[1], "path"),
    ):
        assert_equal(draw(key), draw(dc.random.key(7)))


# --- what is around ---


def test_a_pure_step() -> None:
    model = cnn().build(seed=0).to(PLACE)
    pure, optimizer = dc.pure(model), dc.optim.Adam(model, 0.1)
    f = dc.value_and_grad(pure, dc.functional.cross_entropy)
    x, target = there(images(dtype="float32")), there(labels())
    (loss, _), grads = f(model.parameters, model.buffers, x, target)
    step = there(np.asarray(1, dtype="int32"))
    found, _ = optimizer.update(model.parameters, grads, {}, step)
    wanted, _ = optimizer.update(model.parameters, grads, {}, 1)
    assert back(loss).shape == ()
    for name, array in wanted.items():
        assert_equal(found[name], back(array), 1e-6)
    assert watch.reads == []


@pytest.mark.parametrize("algorithm", ["auto", "gemm", "winograd", "fft"])
@pytest.mark.parametrize("level", ["exact", "fast"])
def test_algorithms(level: str, algorithm: str) -> None:
    rng = np.random.default_rng(0)
    x, weight = (
        rng.standard_normal(s).astype("float32") for s in ((2, 16, 14, 14), (16, 16, 3, 3))
    )
    with dc.precision(level):
        y, pullback = dc.functional.conv.vjp(x, weight, padding=1, algorithm=algorithm)
        z, back_there = dc.functional.conv.vjp(
            there(x), there(weight), padding=1, algorithm=algorithm
        )
    tolerance = 2e-3 if level == "fast" and algorithm in ("auto", "gemm") else 2e-4  # TF32
    for found, wanted in zip((z, *back_there(there(y))), (y, *pullback(y)), strict=True):
        assert_equal(found, wanted, tolerance)
    assert watch.reads == []


# --- precision ---


def multiplied(dtype: str = "float32", groups: int = 2) -> list[Any]:
    """What a convolution and a dense product give, there and back."""
    rng = np.random.default_rng(0)
    shapes = ((2, 4, 6, 6), (4, 4 // groups, 3, 3)), ((8, 40), (16, 40))
    ops = dc.functional.conv.with_options(groups=groups), dc.functional.dense
    found = []
    for op, (x, weight) in zip(ops, shapes, strict=True):
        y, pullback = op.vjp(*(there(rng.standard_normal(s).astype(dtype)) for s in (x, weight)))
        with dc.precision("exact"):  # a pullback goes back as the forward pass came
            found += [y, *pullback(y)]
    return [back(x) for x in found]


def test_fast_products_are_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SMALL", 0)  # pairs by themselves, not by terms
    exact = multiplied()
    assert watch.products.keys() == {"exact"}
    watch.reset()
    with dc.precision("fast"):
        found = multiplied()
    assert watch.products.keys() == {"tf32"}
    for a, b in zip(found, exact, strict=True):
        error = float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
        assert 1e-5 < error < 2e-3
    watch.reset()
    multiplied()
    assert watch.products.keys() == {"exact"}


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_fast_costs_other_dtypes_no_digits(dtype: str) -> None:
    with dc.precision("fast"):
        found = multiplied(dtype, groups=1)
    tolerance = {"float64": 0.0, "float16": 1e-3}[dtype]
    for a, b in zip(found, multiplied(dtype, groups=1), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
    assert dtype == "float16" or watch.products.keys() == {"exact"}


@pytest.mark.parametrize("lack", ["capability", "a name", "gemmEx", "NVIDIA", "an open door"])
def test_fast_is_exact_where_there_is_no_tf32(lack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lack == "capability":
        monkeypatch.setitem(double.CAPABILITY, 1, "75")
    if lack == "a name":
        monkeypatch.delattr(double._cublas, "CUBLAS_COMPUTE_32F_FAST_TF32")
    if lack == "gemmEx":
        monkeypatch.delattr(double._cublas, "gemmEx")
    if lack == "NVIDIA":
        monkeypatch.setattr(double._runtime, "is_hip", True)
    with dc.precision("fast"), _fast.generic(lack == "an open door"):
        found = multiplied()
        assert not _fast.rounds_products(there(np.ones(1, dtype="float32")))
    assert watch.products.keys() == {"exact"}
    for a, b in zip(found, multiplied(), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("fault", ["wrong", "raises"])
def test_fast_is_exact_where_a_first_product_is_not_right(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so, once for a device."""
    gemm = double._cublas.gemmEx

    def faulty(handle: int, left: int, right: int, *rest: Any) -> None:
        if fault == "raises":
            raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")
        gemm(handle, left, right, *rest)
        if left and not right:  # in one order in memory alone
            ctypes.cast(rest[11], ctypes.POINTER(ctypes.c_float))[3] += 1.0

    x = there(np.eye(3, dtype="float32"))
    monkeypatch.setattr(double._cublas, "gemmEx", faulty)
    monkeypatch.setattr(tf32, "_verdicts", {})
    words = {"wrong": "is wrong", "raises": r"fails \(.*CUBLAS_STATUS_NOT_SUPPORTED.*\)"}[fault]
    with dc.precision("fast"):
        with watch.allowed(), pytest.warns(tf32.NotTaken, match=f"TF32 {words} on CUDA device 1"):
            assert not _fast.rounds_products(x)
        watch.reset()
        with warnings.catch_warnings():  # a failure may pass: it is tried again, and said again
            warnings.simplefilter("ignore", tf32.NotTaken)
            multiplied()
    assert watch.products.keys() == {"exact"}
    assert tf32._verdicts == ({1: False} if fault == "wrong" else {})


def test_another_thread_stays_exact() -> None:
    """While this one multiplies in TF32: nothing is switched for the process."""
    seen: list[Any] = []
    gemm = double._cublas.gemmEx

    def meanwhile(*args: Any) -> None:
        before = watch.products.copy()
        other = threading.Thread(target=multiplied)
        other.start()
        other.join()
        seen.append(watch.products - before)
        gemm(*args)

    with pytest.MonkeyPatch.context() as patch, dc.precision("fast"):
        patch.setattr(double._cublas, "gemmEx", meanwhile)
        x = there(np.ones((2, 3), dtype="float32"))
        dc.functional.dense(x, x)
    assert [set(counts) for counts in seen] == [{"exact"}]


def test_a_product_in_tf32_is_one_launch_and_copies_only_what_has_gaps() -> None:
    rng = np.random.default_rng(0)
    a, b = (there(rng.standard_normal(s).astype("float32")) for s in ((10, 12), (12, 8)))
    cut = a[:5, :6], b[::2]
    for x, y, copies in (
        (a, b, 0),
        (b.T, a.T, 0),
        (*cut, 2),
        (a[:, ::2], cut[1], 2),
        (a[::2], b, 1),
    ):
        watch.reset()
        with a.device, dc.precision("fast"):
            z = _fast.multiplication(x, y)(x, y)
        wanted = double.tf32(x._values) @ double.tf32(y._values)
        np.testing.assert_allclose(back(z), wanted, rtol=0, atol=1e-5)
        assert watch.launches == Counter(empty=1, gemmEx=1, copy=copies)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_model_changes_its_dtype_where_it_is(dtype: str) -> None:
    if not dc.device(PLACE).has_dtype(dtype):
        pytest.skip(f"no {dtype} without ml_dtypes")
    model = dc.models.lenet5().build(seed=0).to(PLACE)
    before = [back(x).copy() for x in model.parameters.values()]
    model.to(dtype=dtype)
    assert watch.reads == []
    for x, was in zip(model.parameters.values(), before, strict=True):
        assert (x.device.id, _array.dtype_name(x.dtype)) == (1, dtype)
        with watch.allowed():
            np.testing.assert_allclose(dc.to_numpy(x), was, rtol=1e-2, atol=1e-4)


def test_half_precision_is_not_rounded_before_it_is_added_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither before a bias, nor before the next tile's share of a kernel's cotangent."""
    x, weight = np.full((2, 2), 200.0), np.asarray([[200.0, 200.0], [1.0, 1.0]])
    bias = np.asarray([-30000.0, 0.0])
    y = dc.functional.dense(*(there(a.astype("float16")) for a in (x, weight, bias)))
    np.testing.assert_array_equal(back(y), np.asarray([[5e4, 400.0]] * 2, dtype="float16"))

    monkeypatch.setattr(_fast, "workspace", lambda x: 150_000)
    images = np.stack([np.full((1, 64, 64), 30.0), np.full((1, 64, 64), -30.0)])
    kernel = np.ones((1, 1, 3, 3))
    z, pullback = dc.functional.conv.vjp(*(there(a.astype("float16")) for a in (images, kernel)))
    dweight = pullback(there(np.ones(z.shape, dtype="float16")))[1]
    np.testing.assert_array_equal(back(dweight), np.zeros((1, 1, 3, 3)))


def test_a_metric_is_computed_where_its_arrays_are() -> None:
    logits, target = there(np.eye(3, dtype="float32")), there(np.asarray([0, 1, 0]))
    share = dc.training.accuracy(logits, target)
    assert share.device.id == 1
    assert back(share) == np.float32(2.0 / 3.0)
    with logits.device, pytest.raises(InvalidValue, match=r"^accuracy: logits is on cuda:1"):
        dc.training.accuracy(logits, dc.to_device(np.asarray([0, 1, 0]), "cuda:0"))


def test_training_in_tf32() -> None:
    made = trainer(PLACE, "tf32")
    made.step((images(dtype="float32"), labels()))
    assert watch.products.keys() == {"tf32"}
    assert dc.precision() == "exact"
    with watch.allowed():
        made.predict(images(dtype="float32"))
        made.evaluate([(images(dtype="float32"), labels())])
    assert watch.products.keys() == {"tf32"}
    assert watch.launches["batched matmul"] == 0


def test_parity_allows_for_tf32_where_it_was_asked_for() -> None:
    x, target = images(dtype="float32"), labels()
    model = cnn().build(seed=0)
    with watch.allowed(), dc.precision("fast"):
        report = dc.testing.parity(model, x, target, devices=[PLACE, "cpu"], dtypes=["float32"])
    assert report.ok, str(report)
    rows = {(row.device, row.name): row for row in report.rows}
    assert rows[PLACE, "0 (Conv2d)"].tolerance == 2e-3
    assert rows[PLACE, "0 (Conv2d)"].worst > 1e-5
    assert rows["cpu", "0 (Conv2d)"].tolerance == 2e-4
    assert {(row.device, row.tf32) for row in report.rows if row.dtype == "float32"} == {
        *((PLACE, True), ("cpu", False))
    }
    titles = [line.partition("  ")[0] for line in str(report).splitlines()]
    assert [title for title in titles if title.endswith("TF32")] == [f"{PLACE} float32, TF32"] * 2
    assert "cpu float32" in titles


def test_parity_says_no_tf32_where_nothing_was_rounded() -> None:
    given = cnn().build(seed=0), images(dtype="float32"), labels()
    with watch.allowed():
        exact = dc.testing.parity(*given, devices=[PLACE], dtypes=["float32"])
        with dc.precision("fast"):
            half = dc.testing.parity(*given, devices=[PLACE], dtypes=["float16"])
    for report in (exact, half):
        assert not any(row.tf32 for row in report.rows)
        assert "TF32" not in str(report)


def test_parity_finds_products_that_were_rounded_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under ``CUPY_TF32=1``: 10 bits of mantissa are left."""
    exact = double.ndarray.__matmul__

    def rounded(a: Any, b: Any) -> Any:
        if a.dtype != np.float32:
            return exact(a, b)
        return exact(*(double.ndarray(double.tf32(x._values), x.device.id) for x in (a, b)))

    monkeypatch.setattr(double.ndarray, "__matmul__", rounded)
    wide = dc.Sequential(dc.Conv2d(2, 8, 3, padding=1), dc.ReLU(), dc.Flatten(), dc.Dense(None, 3))
    with watch.allowed():
        report = dc.testing.parity(
            wide.build((2, 8, 8), seed=0), images(dtype="float32"), labels(), devices=[PLACE]
        )
    marks = {(row.dtype, row.name): row.mark for row in report.rows if not row.ok}
    assert marks == {("float32", "0 (Conv2d)"): "TF32?", ("float32", "3 (Dense)"): "TF32?"}
    assert "TF32?" in str(report)


# --- memory, streams ---


def test_the_workspace_follows_the_device_s_memory_in_all() -> None:
    for index, total in enumerate(double.MEMORY):
        assert _fast.workspace(dc.to_device(np.ones(1), f"cuda:{index}")) == budget(total)
    assert len({budget(total) for total in double.MEMORY}) == len(double.MEMORY)
    assert watch.reads == []


def test_a_move_between_gpus_keeps_to_the_order_of_both_streams() -> None:
    x = there(np.arange(24.0).reshape(2, 3, 4))
    for view in (x, x[:, ::2], dc.functional.relu(x[:, None]).T, x[..., 0]):
        watch.reset()
        with double.Stream(7):
            y = dc.to_device(view, "cuda:0")
        assert y.device.id == 0
        np.testing.assert_array_equal(y._values, view._values)
        assert watch.order == [
            ("done", 1, 7),
            ("waits for (1, 7)", 0, 7),
            ("copy", 0, 7),
            ("done", 0, 7),
            ("waits for (0, 7)", 1, 7),
        ]
    assert watch.reads == []


def test_everything_runs_on_the_stream_that_is_current() -> None:
    """A step of training, moves of arrays and a file, on a stream of the user's own."""
    with double.Stream(7):
        made = trainer(PLACE)
        for _ in range(2):
            made.step((images(dtype="float32"), labels()))
        x = dc.to_device(np.ones(3), PLACE)
        dc.to_device(dc.to_device(x, "cuda:0"), PLACE, dtype="float32")
        with dc.precision("fast"):
            multiplied()
    assert set(watch.streams) == {7}


def test_parity_reports_on_any_device() -> None:
    x, target = images(dtype="float32"), labels()
    block = dc.Residual(dc.Conv2d(2, 2, 3, padding=1), activation="relu")
    model = dc.Sequential(block, cnn()).build(seed=0)
    with watch.allowed():
        report = dc.testing.parity(model, x, target, devices=[PLACE])
    assert report.ok, str(report)
    assert {row.device for row in report.rows[1:]} >= {PLACE}
    assert {row.dtype for row in report.rows} == set(dc.device(PLACE).dtypes)


# --- the double itself ---


def test_the_double_is_as_strict_as_cupy() -> None:
    x, xp = there(np.arange(6.0).reshape(2, 3)), double.namespace
    with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array is not allowed"):
        np.asarray(x)
    with x.device:
        for mix in (lambda: x + np.ones(3), lambda: np.ones(3) * x, lambda: xp.add(x, np.ones(3))):
            with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy.ndarray'>"):
                mix()
        with pytest.raises(TypeError, match="Unsupported type"):
            x[0, :] = np.ones(3)
        total = xp.sum(x)
        assert isinstance(total, double.ndarray)
        assert (total.shape, total.device.id) == ((), 1)
        assert isinstance(np.float64(2.0) * x, double.ndarray)
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        x + 1.0
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        xp.sum(x)
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        xp.zeros((2, 3), device=x.device) + x
    assert xp.zeros(2, device=x.device).device.id == 0  # device= is ignored
    assert (x[0, :].device.id, x.T.device.id, len(x)) == (1, 1, 2)  # views, from anywhere
    assert _array.library(_array.array_namespace(x)) == "cupy"
    assert dc.device_of(x).spec == PLACE


@pytest.mark.parametrize(
    "look", [bool, int, float, lambda x: range(9)[x], lambda x: x.item(), lambda x: x.get()]
)
def test_the_double_counts_reads(look: Any) -> None:
    x = there(np.asarray(1))
    with pytest.raises(HostRead, match="waits for the device"):
        look(x)
    with watch.allowed():
        look(x)
    assert len(watch.reads) == 2


def test_the_double_s_new_memory_is_nan() -> None:
    xp = double.namespace
    for made in (
        xp.empty((2, 3)),
        xp.empty_like(xp.ones(3, dtype="float16")),
        double._cupy.empty(4),
    ):
        assert np.isnan(made._values).all()
    assert (xp.empty(2, dtype="int32")._values == -1).all()
    turned = np.empty((2, 3, 4), dtype="float32").transpose(0, 2, 1)
    assert np.isnan(double.garbage(turned)).all()
    scratch = watch.addresses[double.alloc(16).ptr]
    assert np.isnan(scratch._values.view("float32")).all()


def test_an_operation_may_not_read_where_a_test_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under ``DEVCONV_TEST_DEVICES=double``, where tests know nothing of the double."""
    monkeypatch.setattr(watch, "_outside", True)
    x = there(np.asarray(1))

    def called_in(room: str, text: str) -> Any:
        return eval(text, {"__name__": room, "dc": dc}, {"x": x, "look": dc.to_numpy})

    assert called_in("tests.functional.sample", "bool(x)")
    assert called_in("devconv.training.trainer", "int(x)") == 1
    assert called_in("devconv.layers.sample", "look(x)") == 1
    for room in ("functional.sample", "layers.sample", "optim.sgd", "_fast.cupy", "_fast"):
        with pytest.raises(HostRead):
            called_in(f"devconv.{room}", "bool(x)")


def test_the_double_counts_launches() -> None:
    x, xp = there(np.ones((2, 3, 3))), double.namespace
    watch.reset()
    with x.device:
        y = xp.reshape(xp.permute_dims(x, (0, 2, 1))[0, ...], (9,))  # the order changed: a copy
        y += 1.0
        y[0:2] = 0.0
        xp.matmul(x, x)
        x[0] @ x[1]
        xp.fft.rfftn(x)
    counts = {"reshape": 1, "add": 1, "setitem": 1, "batched matmul": 1, "matmul": 1, "rfftn": 1}
    assert watch.launches == counts


def test_the_double_finds_what_forgets_the_device() -> None:
    @dc.functional.differentiable
    def forgetful(x: Any, /) -> Any:
        return x + x, lambda dy: (2.0 * dy,)

    x = there(np.ones(3))
    forgetful(x)  # the decorator enters the device
    with pytest.raises(ValueError, match="while current = 0"):
        forgetful.__wrapped__(x)
