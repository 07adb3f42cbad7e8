"""The training loop: what it learns, what it reads, what it refuses, and how it is resumed."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

import devconv as dc
from devconv import checkpoint
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from devconv.layers.mixed import Mixed
from devconv.training import LossScale, accuracy, chosen, trainer
from tests import backends
from tests.backends import Backend
from tests.toys import (
    Centre,
    assert_close,
    assert_equal,
    cnn,
    images,
    labels,
    line,
    place,
    torch_cnn,
    unchanged,
)

Batch = tuple[np.ndarray, np.ndarray]


def clouds(count: int = 48) -> Batch:
    """Points around three centres, and which one it was."""
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 3, count)
    centres = np.asarray([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    return (centres[classes] + 0.5 * rng.standard_normal((count, 2))).astype("float32"), classes


def classifier() -> dc.Sequential:
    return dc.Sequential(dc.Dense(2, 8), Centre(), dc.ReLU(), dc.Dense(8, 3))


def trainer_of(device: Any = "cpu", seed: int = 0) -> dc.Trainer:
    model = classifier().build((2,), seed=seed).to(device)
    return dc.Trainer(model, F.cross_entropy, dc.optim.Adam(model, lr=0.02))


def trainer_of_lr(lr: float) -> dc.Trainer:
    model = classifier().build((2,))
    return dc.Trainer(model, F.cross_entropy, dc.optim.Adam(model, lr=lr))


def batches_of(size: int = 16) -> dc.data.Batches:
    return dc.data.Batches(*clouds(), batch_size=size, seed=1)


def kept(made: dc.Trainer) -> tuple[Any, ...]:
    rows = [dict(row) for row in made.history]
    return made.epoch, rows, dict(made.optimizer.state_dict()), made.optimizer.steps


# --- learning ---


def test_learns(backend: Backend) -> None:
    made = trainer_of(place(backend))
    validation = dc.data.Batches(*clouds(), batch_size=16, shuffle=False)
    history = made.fit(batches_of(), epochs=6, validation=validation)
    assert history is made.history
    assert history[-1]["accuracy"] > 0.9 > history[0]["accuracy"]
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert made.epoch == 6
    assert made.model.device == place(backend)


def test_the_same_numbers_on_every_device(backend: Backend) -> None:
    here, there = trainer_of(), trainer_of(place(backend))
    for made in (here, there):
        made.fit(batches_of(), epochs=2)
    np.testing.assert_allclose(there.history["loss"], here.history["loss"], rtol=1e-5)
    assert_close(there.model.state_dict(), here.model.state_dict(), 1e-5)


def test_history_has_a_row_an_epoch() -> None:
    made = trainer_of()
    made.fit(batches_of(), epochs=1)
    made.fit(batches_of(), epochs=2, validation=[clouds()])
    columns = {"epoch", "loss", "accuracy", "images_per_second"}
    more = {"validation_loss", "validation_accuracy"}
    assert [set(row) for row in made.history] == [columns, columns | more, columns | more]
    assert made.history["epoch"] == [1, 2, 3]
    for row in made.history:
        assert all(isinstance(value, int | float) for value in row.values())
        assert row["images_per_second"] > 0


def test_numbers_of_an_epoch_are_means_over_examples() -> None:
    """Also where the last batch is smaller; taken with the parameters of each step."""
    made = trainer_of()
    made.optimizer.lr = 0.0
    x, target = clouds()
    made.fit(dc.data.Batches(x, target, batch_size=20), epochs=1)
    logits = made.model.vjp(x, training=False)[0]
    measured = made.evaluate(dc.data.Batches(x, target, batch_size=20))
    assert measured["loss"] == pytest.approx(float(F.cross_entropy(logits, target)), rel=1e-5)
    assert measured["accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == target))
    assert set(measured) == {"loss", "accuracy"}
    assert made.history[-1]["loss"] > 0


def test_evaluate_changes_nothing(backend: Backend) -> None:
    made = trainer_of(place(backend))
    before = kept(made)
    with unchanged(made.model):
        one, two = made.evaluate(batches_of()), made.evaluate([clouds()])
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert kept(made) == before


def test_each_epoch_has_its_own_order() -> None:
    seen: list[Any] = []

    class Watched(dc.data.Batches):
        def for_epoch(self, epoch: int) -> Any:
            seen.append(epoch)
            return super().for_epoch(epoch)

    batches = Watched(*clouds(), batch_size=16)
    made = trainer_of()
    made.fit(batches, epochs=2)
    made.fit(batches, epochs=1, validation=batches)
    assert seen == [0, 1, 2, 0]  # validation is always the first
    assert batches.epoch == 0  # its own count is left to whoever iterates over it


def test_any_iterable_that_can_be_run_through_again() -> None:
    made = trainer_of()
    made.fit([clouds()], epochs=2)
    made.fit([list(clouds())], epochs=1)
    made.fit((batch for batch in [clouds()]), epochs=1)  # once is enough here
    assert made.epoch == 4
    made.fit([], epochs=0)
    assert made.epoch == 4


def test_batches_that_are_on_the_device_already(backend: Backend) -> None:
    made, other = trainer_of(place(backend)), trainer_of(place(backend))
    x, target = clouds()
    made.step((x, target))
    other.step((backend.asarray(x), backend.asarray(target)))
    assert_equal(made.model.state_dict(), other.model.state_dict())


def test_options_of_the_loss_and_other_metrics() -> None:
    model = classifier().build((2,))
    options = {"label_smoothing": 0.2, "ignore_index": -1}
    made = dc.Trainer(
        model,
        F.cross_entropy,
        dc.optim.SGD(model, lr=0.0),
        loss_options=options,
        metrics={"right": accuracy, "largest": lambda logits, target: logits.max()},
    )
    x, target = clouds()
    target[:5] = -1
    measured = made.evaluate([(x, target)])
    assert list(measured) == ["loss", "right", "largest"]
    assert measured["loss"] == pytest.approx(
        float(F.cross_entropy(model(x), target, **options)), rel=1e-6
    )
    assert measured["largest"] == pytest.approx(float(model(x).max()), rel=1e-6)


@pytest.mark.parametrize(
    "loss", [dc.CrossEntropyLoss(ignore_index=-1), F.cross_entropy.with_options(ignore_index=-1)]
)
def test_a_loss_with_its_options_filled_in(loss: Any) -> None:
    """It is recognised: accuracy is watched, labels are checked, an ignored one is let through."""
    model = classifier().build((2,))
    made = dc.Trainer(model, loss, dc.optim.SGD(model, lr=0.0))
    assert list(made.metrics) == ["accuracy"]
    x, target = clouds()
    target[:5] = -1
    measured = made.evaluate([(x, target)])
    assert measured["loss"] == pytest.approx(
        float(F.cross_entropy(model(x), target, ignore_index=-1)), rel=1e-6
    )
    with pytest.raises(InvalidValue, match=r"holds labels .* expected 0 to 2 \(or ignore_index=-1"):
        made.step((x, target + 1))


def test_a_loss_with_float_targets_has_no_accuracy() -> None:
    model = dc.Dense(3, 1).build()
    made = dc.Trainer(model, F.mse_loss, dc.optim.SGD(model, lr=0.1))
    history = made.fit([line()] * 5, epochs=4)
    assert set(history[0]) == {"epoch", "loss", "images_per_second"}
    assert history[-1]["loss"] < 0.1 * history[0]["loss"]


def test_an_open_size_is_found_by_the_first_batch() -> None:
    model = dc.Sequential(dc.Dense(None, 8), dc.ReLU(), dc.Dense(None, 3))
    made = dc.Trainer(model, F.cross_entropy, dc.optim.SGD(model, lr=0.1))
    made.fit(batches_of(), epochs=1)
    assert model.is_built


# --- an oracle: PyTorch's own layers and optimizers ---

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    "nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.01, "weight_decay": 0.01}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99)}),
}
STEPS = 50


def batch(step: int) -> Batch:
    """Five batches in turn."""
    return images(seed=step % 5), labels(seed=step % 5)


@functools.cache
def reference(variant: str) -> tuple[list[float], dict[str, Any], dict[str, Any]]:
    """PyTorch's losses, its parameters before and after."""
    model, torch = torch_cnn(), pytest.importorskip("torch")
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    kind, options = VARIANTS[variant]
    optimizer = getattr(torch.optim, kind)(model.parameters(), **options)
    losses = []
    for step in range(STEPS):
        x, target = map(torch.tensor, batch(step))
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, before, {name: x.detach() for name, x in model.named_parameters()}


def assert_same_curve(backend: Backend, variant: str, steps: int) -> None:
    losses, before, after = reference(variant)
    model = cnn().to(place(backend), dtype="float64").load_state_dict(before)
    kind, options = VARIANTS[variant]
    made = dc.Trainer(model, F.cross_entropy, getattr(dc.optim, kind)(model, **options))
    found = [float(made.step(batch(step))[0]) for step in range(steps)]
    np.testing.assert_allclose(found, losses[:steps], rtol=0.0, atol=1e-9)
    if steps == STEPS:
        assert_close(model.parameters, after, 1e-9)
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_loss_curves_are_those_of_pytorch(name: str, variant: str) -> None:
    """The same weights and batches in float64: to 1e-9 at every one of 50 steps."""
    assert_same_curve(backends.get(name), variant, STEPS)


@pytest.mark.parametrize("variant", ["nesterov", "adamw"])
def test_loss_curves_begin_as_those_of_pytorch(backend: Backend, variant: str) -> None:
    assert_same_curve(backend, variant, 5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_whole_loss_curves_on_every_backend(backend: Backend, variant: str) -> None:
    assert_same_curve(backend, variant, STEPS)


# --- what is read back, and when ---


def test_a_step_never_waits_for_the_device(host_reads: Any) -> None:
    made = trainer_of("array_api_strict:device1")
    assert made.model.device.spec == "array_api_strict:device1"
    with host_reads.forbidden():
        loss, prediction, _ = made.step(clouds())
        made.step(clouds())
    assert tuple(loss.shape) == ()
    assert tuple(prediction.shape) == (48, 3)
    assert host_reads.count == 0
    float(loss)
    assert host_reads.count == 1  # the counter counts


def test_numbers_are_read_when_an_epoch_ends(host_reads: Any) -> None:
    made = trainer_of("array_api_strict:device1")
    made.fit(batches_of(), epochs=2, progress=False)
    assert host_reads.names == ["to_device"] * 2  # all numbers in one look, twice
    made.evaluate(batches_of())
    assert host_reads.names == ["to_device"] * 3


@pytest.mark.parametrize("seconds", [0.04, 0.2, 3.0])
def test_the_bar_reads_at_most_twice_a_second(
    host_reads: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
) -> None:
    now = 0.0

    class Slow(list[Any]):
        def __iter__(self) -> Any:
            nonlocal now
            for batch in [clouds(6)] * 50:
                now += seconds  # as long as a step takes
                yield batch

    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter)
    monkeypatch.setattr(trainer, "time", clock)
    made = trainer_of("array_api_strict:device1")
    made.fit(Slow(), epochs=1, progress=True)
    shown = host_reads.count - 1  # all numbers in one look; the last is the epoch's end
    assert shown <= min(2 * now, 50)
    assert shown >= min(0.7 * 2 * now, 50)
    text = capsys.readouterr().err
    for word in ("epoch 1", "loss=", "accuracy=", "images/s"):
        assert word in text


def test_no_bar_unless_asked_for_or_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer_of()
    made.fit(batches_of(), epochs=1)
    made.fit(batches_of(), epochs=1, progress=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "images" not in err
    made.fit(batches_of(), epochs=1, progress=True)
    assert "48/48" in capsys.readouterr().err


# --- saving and resuming ---


def without_times(history: dc.History) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


def test_a_resumed_run_has_the_same_bits(backend: Backend, tmp_path: Path) -> None:
    """Four epochs, against two, a file, and two more in a fresh trainer."""
    path = tmp_path / "runs" / "run.safetensors"
    whole = trainer_of(place(backend))
    whole.fit(batches_of(), epochs=4, validation=[clouds()])

    first = trainer_of(place(backend))
    first.fit(batches_of(), epochs=2, validation=[clouds()], save_to=path)
    second = trainer_of(place(backend), seed=9)
    second.resume(path)
    assert (second.epoch, second.optimizer.steps) == (2, 6)
    second.fit(batches_of(), epochs=2, validation=[clouds()], save_to=path)

    assert_equal(second.model.state_dict(), whole.model.state_dict())
    moments, wanted = second.optimizer.state_dict(), whole.optimizer.state_dict()
    assert_equal(dict(sorted(moments.items())), dict(sorted(wanted.items())))
    assert without_times(second.history) == without_times(whole.history)
    third = trainer_of(place(backend), seed=5)
    third.resume(path)
    assert third.epoch == 4
    assert list(third.history) == list(second.history)


def test_what_dropout_draws_and_batch_norm_remembers_is_resumed(tmp_path: Path) -> None:
    def made(seed: int) -> dc.Trainer:
        model = dc.Sequential(
            dc.Dense(2, 8), dc.BatchNorm1d(8), dc.ReLU(), dc.Dropout(0.3), dc.Dense(8, 3)
        ).build(seed=seed)
        return dc.Trainer(model, dc.CrossEntropyLoss(), dc.optim.Adam(model, lr=0.02))

    path = tmp_path / "run.safetensors"
    whole, first, second = made(0), made(0), made(9)
    whole.fit(batches_of(), epochs=3)
    first.fit(batches_of(), epochs=2, save_to=path)
    second.resume(path)
    second.fit(batches_of(), epochs=1)
    assert_equal(second.model.state_dict(), whole.model.state_dict())
    assert second.model.generator_state == whole.model.generator_state == {"seed": 0, "draws": 9}


def test_a_run_moves_to_another_device(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole = trainer_of()
    whole.fit(batches_of(), epochs=3)
    here = trainer_of()
    here.fit(batches_of(), epochs=2, save_to=path)
    there = trainer_of(place(backend), seed=9)
    there.resume(path)
    assert there.model.device == place(backend)
    assert all(dc.device_of(x) == place(backend) for x in there.optimizer.state_dict().values())
    there.fit(batches_of(), epochs=1)
    assert_close(there.model.state_dict(), whole.model.state_dict(), 1e-5)
    np.testing.assert_allclose(there.history["loss"], whole.history["loss"], rtol=1e-5)


def test_resume_takes_the_step_size_along(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    made = trainer_of()
    made.optimizer.lr = np.float32(0.25)  # type: ignore[assignment]
    made.save(path)
    other = trainer_of()
    other.resume(path)
    assert other.optimizer.lr == 0.25


def test_a_failed_resume_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    trainer_of().save(path)
    small = dc.Sequential({"head": dc.Dense(2, 3)}).build()
    sgd = classifier().build((2,))
    parameters = tmp_path / "model.safetensors"
    dc.save(sgd, parameters)
    cases = [
        (dc.Trainer(small, F.cross_entropy, dc.optim.Adam(small)), path, "state does not fit"),
        (
            dc.Trainer(sgd, F.cross_entropy, dc.optim.SGD(sgd)),
            path,
            r"the run was made with Adam, this optimizer is SGD; continue with the same kind",
        ),
        (
            trainer_of_lr(0.5),
            path,
            r"was made with lr=0\.02, this one with lr=0\.5; make it as that was",
        ),
        (trainer_of(), tmp_path / "none", "there is no such file"),
        (trainer_of(), parameters, r"holds no training run; dc\.load\(model, path\) reads a file"),
    ]
    for made, file, message in cases:
        made.fit([clouds()], epochs=1)
        before = kept(made)
        with unchanged(made.model), pytest.raises(InvalidValue, match=message) as caught:
            made.resume(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert repr(kept(made)) == repr(before)


@pytest.mark.parametrize("fault", ["fsync", "replace"])
def test_an_interrupted_save_leaves_the_last_good_file(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.safetensors"
    made = trainer_of()
    made.fit(batches_of(), epochs=1, save_to=path)
    good = path.read_bytes()

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint.os, "fsync") if fault == "fsync" else (Path, "replace")), stop)
        with pytest.raises(KeyboardInterrupt):
            made.fit(batches_of(), epochs=1, save_to=path)
    assert path.read_bytes() == good
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    again = trainer_of()
    again.resume(path)
    assert again.epoch == 1


# --- what is refused ---


def make(**changed: Any) -> dc.Trainer:
    model = classifier()
    given = {"model": model, "loss": F.cross_entropy, "optimizer": dc.optim.SGD(model), **changed}
    return dc.Trainer(**given)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"model": 3}, InvalidType, "model must be a devconv Layer, got 3"),
        ({"loss": "mse"}, InvalidType, "loss must be a devconv Operation, got 'mse'"),
        ({"optimizer": "adam"}, InvalidType, "optimizer must be a devconv Optimizer, got 'adam'"),
        ({"model": classifier()}, InvalidValue, "the optimizer belongs to another model; make one"),
    ],
)
def test_parts_are_checked(changed: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^Trainer: {message}"):
        make(**changed)


def test_the_text_is_one_line() -> None:
    made = trainer_of()
    made.fit([clouds()], epochs=1)
    assert repr(made) == (
        "Trainer(Sequential, cross_entropy, Adam(lr=0.02, betas=(0.9, 0.999), eps=1e-08, "
        "weight_decay=0.0), epoch=1)"
    )
    assert repr(make(loss=dc.CrossEntropyLoss(label_smoothing=0.1))).startswith(
        "Trainer(Sequential, CrossEntropyLoss(label_smoothing=0.1), SGD(lr=0.001, "
    )


@pytest.mark.parametrize("progress", [1, "yes"])
def test_progress_is_true_false_or_none(progress: Any) -> None:
    with pytest.raises(InvalidType, match=r"^Trainer\.fit: progress must be True or False, got "):
        trainer_of().fit(batches_of(), epochs=1, progress=progress)


@pytest.mark.parametrize(
    ("epochs", "error", "message"),
    [
        (-1, InvalidValue, "epochs must be at least 0, got -1"),
        (1.5, InvalidType, r"epochs must be an int, got 1\.5"),
    ],
)
def test_epochs_are_checked(epochs: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=rf"^Trainer\.fit: {message}"):
        trainer_of().fit(batches_of(), epochs=epochs)


def test_what_can_be_run_through_only_once() -> None:
    made = trainer_of()
    for name in ("batches", "validation"):
        once = (batch for batch in [clouds()])
        given = {"batches": [clouds()], name: once}
        message = rf"^Trainer\.fit: {name} can be run through only once, but epochs is 2; hand"
        with pytest.raises(InvalidValue, match=message):
            made.fit(**given, epochs=2)  # type: ignore[arg-type]
        assert next(once)  # it was not even begun
    assert made.epoch == 0


x, target = clouds()
BAD: dict[str, tuple[Any, type, str]] = {
    "none": ([], InvalidValue, r"^Trainer: there were no examples; batches must not be empty$"),
    "empty": ([(x[:0], target[:0])], InvalidValue, r"^Trainer: there is a batch without examples"),
    "array": ([x], InvalidType, r"^Trainer: a batch must be a tuple \(x, target, \.\.\.\), got nd"),
    "alone": (
        [(x,)],
        InvalidType,
        r"^Trainer: a batch must be a tuple \(x, target, \.\.\.\), got ",
    ),
    "lists": (
        [(x.tolist(), target.tolist())],
        InvalidType,
        r"^Trainer: a batch must hold arrays, got list; make one with numpy\.asarray\(x\)$",
    ),
    "features": (
        [(x[:, :1], target)],
        InvalidValue,
        r"0 \(Dense\): expected 2 input features \(weight \(8, 2\)\), got x \((N|48), 1\)$",
    ),
    "dtype": ([(x.astype("float64"), target)], InvalidType, r"x is float64 and 0\.weight is f"),
    "images": (
        [((8 * x).astype("uint8"), target)],
        InvalidType,
        r"^Sequential: x \(48, 2\) has dtype uint8, expected float32; convert it first: x\.astype",
    ),
    "count": ([(x, target[:5])], InvalidValue, r"target has shape \(5,\), expected class indices"),
    "range": (
        [(x, target + 1)],
        InvalidValue,
        r"^Trainer: target \(48,\) holds labels from 1 to 3, expected 0 to 2 \(or ignore_index=-1",
    ),
    "negative": ([(x, target - 1)], InvalidValue, r"holds labels from -1 to 1, expected 0 to 2"),
    "floats": (
        [(x, target.astype("float32"))],
        InvalidType,
        r"cross_entropy: target \(48,\) holds float32, but class indices are integers: convert it",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_batches_change_nothing(backend: Backend, fault: str) -> None:
    given, error, message = BAD[fault]
    made = trainer_of(place(backend))
    before = repr(kept(made))
    with unchanged(made.model):
        with pytest.raises(error, match=message):
            made.fit(given, epochs=1)
        with pytest.raises(error, match=message):
            made.evaluate(given)
    assert repr(kept(made)) == before


@pytest.mark.parametrize("fault", ["range", "floats", "dtype", "features"])
def test_bad_first_batches_leave_nothing_half_built(fault: str) -> None:
    given, error, message = BAD[fault]
    model = dc.Sequential(dc.Dense(2, 8), dc.ReLU(), dc.Dense(None, 3))
    made = dc.Trainer(model, F.cross_entropy, dc.optim.SGD(model))
    with unchanged(model), pytest.raises(error, match=message):
        made.fit(given, epochs=1)


def test_labels_are_looked_at_before_the_copy(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, host_reads: Any
) -> None:
    """Whatever the device: afterwards a wrong label could only be a NaN."""
    made = trainer_of(place(backend))

    def moved(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("moved before it was looked at")

    monkeypatch.setattr(trainer, "to_device", moved)
    with pytest.raises(InvalidValue, match=r"holds labels from 0 to 7, expected 0 to 2"):
        made.step((x, np.where(target == 2, 7, target)))
    assert host_reads.count == 0


def test_a_failure_in_the_second_epoch_keeps_the_first() -> None:
    made = trainer_of()
    seen = []

    class Batches(list[Any]):
        def __iter__(self) -> Any:
            seen.append(None)
            return iter([clouds()] if len(seen) == 1 else [])

    with pytest.raises(InvalidValue, match="there were no examples"):
        made.fit(Batches(), epochs=3)
    assert made.epoch == len(made.history) == 1


def test_the_mean_is_over_the_labels_that_count(backend: Backend) -> None:
    """Whatever batches they came in: ignored labels, and a batch of nothing else."""
    model = dc.Dense(2, 2, weight_init="ones").build().to(place(backend))
    x = np.arange(16.0, dtype="float32").reshape(8, 2) / 8
    labels = np.asarray([0, 1, -100, -100, -100, -100, 1, -100])
    made = dc.Trainer(model, dc.functional.cross_entropy, dc.optim.SGD(model))
    batches = [(x[i : i + 2], labels[i : i + 2]) for i in range(0, 8, 2)]
    whole = made.evaluate([(x, labels)])
    assert made.evaluate(batches) == pytest.approx(whole, rel=1e-5)
    assert whole["loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert whole["accuracy"] == pytest.approx(1 / 3, rel=1e-5)  # of equal logits the first wins


def test_labels_of_a_log_likelihood_are_checked_too() -> None:
    model = dc.Sequential(dc.Dense(2, 2), dc.LogSoftmax()).build()
    model.to("array_api_strict:device1")
    made = dc.Trainer(model, dc.functional.nll_loss, dc.optim.SGD(model))
    batch = (np.ones((2, 2), dtype="float32"), np.asarray([0, 7]))
    with pytest.raises(ValueError, match="holds labels from 0 to 7"):
        made.step(batch)


# --- mixed precision ---

HALVES = [(b, d) for b in backends.usable().values() for d in ("float16", "bfloat16") if b.has(d)]
halves = pytest.mark.parametrize(("backend", "dtype"), HALVES, ids=str)
HALF = [pytest.param(b, id=b.name) for b in backends.usable().values() if b.has("float16")]
half = pytest.mark.parametrize("backend", HALF)
OVERFLOW = 2e3
"""A factor that leaves a pass finite in float16, but not its gradients."""


class Steep(dc.Layer):
    """Return ``x``; where it is large, send back a gradient that float16 cannot hold."""

    def __init__(self, factor: float = 6e4) -> None:
        self.factor = factor

    def infer(self, trace: Any, shape: Any) -> Any:
        return shape

    def apply_vjp(self, scope: Any, x: Any) -> Any:
        xp = array_namespace(x)
        one = xp.ones_like(x)
        factor = xp.where(xp.abs(x) > 100.0, one * self.factor, one)
        return x, lambda dy: (xp.astype(dy * factor * factor, dy.dtype), {})


def normed() -> dc.Sequential:
    return dc.Sequential(
        dc.Dense(2, 8), Steep(), dc.BatchNorm1d(8), dc.ReLU(), dc.Dropout(0.1), dc.Dense(8, 3)
    )


def mixed_of(
    device: Any = "cpu", precision: str = "float16", *, kind: Any = dc.optim.Adam, **rules: Any
) -> dc.Trainer:
    model = normed().build(seed=3).to(device)
    scaling = None
    if precision == "float16":
        scaling = LossScale(**{"init_scale": 256.0, "growth_interval": 4, **rules})
    return dc.Trainer(
        model, F.cross_entropy, kind(model, lr=0.02), precision=precision, loss_scale=scaling
    )


def too_much() -> Batch:
    points, classes = clouds()
    return OVERFLOW * points, classes


def state_of(made: dc.Trainer) -> dict[str, Any]:
    return {**made.model.state_dict(), **made.optimizer.state_dict()}


def scale_of(made: dc.Trainer) -> tuple[float, int, int]:
    state = made.scale_state
    assert state is not None
    return float(state["scale"]), int(state["good"]), int(state["skipped"])


@halves
def test_mixed_precision_learns(backend: Backend, dtype: str) -> None:
    made, whole = mixed_of(place(backend), dtype), mixed_of(place(backend), "float32")
    for each in (made, whole):
        each.fit(batches_of(), epochs=6, validation=[clouds()])
    assert made.history[-1]["validation_accuracy"] > 0.9
    assert made.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], abs=0.02)
    assert made.history["loss"] != whole.history["loss"]
    assert all(str(x.dtype).endswith("float32") for x in state_of(made).values())
    loss, prediction, _ = made.step(clouds())
    assert str(loss.dtype).endswith("float32")
    assert str(prediction.dtype).endswith("float32")
    assert (made.scale_state is None) == (dtype == "bfloat16")


@half
def test_an_overflow_skips_exactly_that_step(backend: Backend) -> None:
    """Parameters, moments and running statistics keep their bits; the scale is halved."""
    made = mixed_of(place(backend))
    made.step(clouds())
    before = state_of(made)
    assert scale_of(made) == (256.0, 1, 0)
    loss, *_ = made.step(too_much())
    assert np.isfinite(float(loss))
    assert_equal(state_of(made), before)
    assert scale_of(made) == (128.0, 0, 1)
    made.step(clouds())
    assert scale_of(made) == (128.0, 1, 1)
    after = state_of(made)
    for name, x in before.items():
        assert not np.array_equal(backend.to_numpy(after[name]), backend.to_numpy(x)), name


@half
@pytest.mark.parametrize("kind", [dc.optim.SGD, dc.optim.Adam, dc.optim.AdamW])
def test_the_first_step_may_be_skipped(backend: Backend, kind: Any) -> None:
    """Before there are moments; the second step is then the rule's first."""
    options = {"momentum": 0.9, "dampening": 0.5} if kind is dc.optim.SGD else {}
    made, plain = (
        mixed_of(place(backend), kind=functools.partial(kind, **options), init_scale=scale)
        for scale in (256.0, 128.0)
    )
    made.step(too_much())
    assert_equal(made.model.state_dict(), plain.model.state_dict())
    assert all(not np.any(backend.to_numpy(x)) for x in made.optimizer.state_dict().values())
    plain.model.generator_state = made.model.generator_state
    for _ in range(3):
        for each in (made, plain):
            each.step(clouds())
    assert scale_of(made) == (128.0, 3, 1)
    assert scale_of(plain) == (128.0, 3, 0)
    assert_close(state_of(made), state_of(plain), 1e-6)


@half
def test_the_scale_grows_after_so_many_good_steps(backend: Backend) -> None:
    made = mixed_of(place(backend), init_scale=2.0)
    found = []
    for step in range(10):
        made.step(too_much() if step == 5 else clouds())
        found.append(scale_of(made)[:2])
    grown = [(2.0, 1), (2.0, 2), (2.0, 3), (4.0, 0), (4.0, 1)]
    assert found == [*grown, (2.0, 0), (2.0, 1), (2.0, 2), (2.0, 3), (4.0, 0)]


def test_a_skipped_step_as_pytorch_s_scaler() -> None:
    """The same casts, the same planted overflow, through ``torch.amp.GradScaler``."""
    torch, backend = pytest.importorskip("torch"), backends.get("torch")
    model = classifier_of_dense().to(place(backend))
    leaves = {n: p.detach().clone().requires_grad_() for n, p in model.parameters.items()}
    reference = torch.optim.Adam(leaves.values(), lr=0.02)
    rules = {"init_scale": 4096.0, "growth_interval": 3}
    scaler = torch.amp.GradScaler("cpu", **rules)
    made = dc.Trainer(
        model,
        F.cross_entropy,
        dc.optim.Adam(model, lr=0.02),
        precision="float16",
        loss_scale=LossScale(**rules),
    )
    nn = torch.nn.functional
    for step in range(12):
        x, target = too_much() if step in (0, 6) else clouds()
        low = {name: leaf.half() for name, leaf in leaves.items()}
        y = nn.linear(torch.tensor(x).half(), low["0.weight"], low["0.bias"])
        y = nn.linear(nn.relu(y), low["2.weight"], low["2.bias"]).float()
        loss = nn.cross_entropy(y, torch.tensor(target))
        reference.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(reference)
        scaler.update()
        found, *_ = made.step((x, target))
        assert float(found) == pytest.approx(loss.item(), rel=5e-3)
        assert scale_of(made)[0] == scaler.get_scale()
        assert_close(model.parameters, {n: p.detach() for n, p in leaves.items()}, 5e-3)
    assert scale_of(made)[2] == 2


def classifier_of_dense() -> dc.Sequential:
    return dc.Sequential(dc.Dense(2, 8), dc.ReLU(), dc.Dense(8, 3)).build(seed=1)


def test_no_step_waits_to_know_whether_it_counts(host_reads: Any) -> None:
    """The strict library has no float16: float64 stands for it, the rest is the same."""
    model = dc.Sequential(dc.Dense(2, 8), Steep(np.inf), Centre(8), dc.ReLU(), dc.Dense(8, 3))
    model.build().to("array_api_strict:device1")
    made = dc.Trainer(model, F.cross_entropy, dc.optim.Adam(model, lr=0.02))
    made.loss_scale, made._mixed = LossScale(), object.__new__(Mixed)
    vars(made._mixed).update(layer=model, dtype="float64", kept=frozenset())
    made.step(clouds())
    before = state_of(made)
    with host_reads.forbidden():
        made.step(clouds())
        middle = state_of(made)
        made.step(too_much())
    assert scale_of(made) == (2.0**15, 0, 1)
    assert_equal(state_of(made), middle)
    assert not np.array_equal(dc.to_numpy(before["0.weight"]), dc.to_numpy(middle["0.weight"]))
    count = host_reads.count
    made.fit([clouds()] * 3, epochs=2, progress=False)
    assert host_reads.names[count:] == ["to_device"] * 2  # all numbers in one look an epoch


@half
def test_history_counts_the_steps_skipped_in_an_epoch(backend: Backend) -> None:
    made = mixed_of(place(backend))
    made.fit([clouds(), too_much(), clouds()], epochs=1)
    made.fit([clouds()], epochs=1, validation=[clouds()])
    made.fit([too_much(), too_much()], epochs=1)
    assert made.history["skipped_steps"] == [1, 0, 2]
    assert made.history["loss_scale"] == [128.0, 128.0, 32.0]
    assert all(isinstance(n, int) for n in made.history["skipped_steps"])
    assert "skipped_steps" not in made.evaluate([clouds()])
    assert made.optimizer.steps == 6


@halves
def test_a_resumed_run_in_mixed_precision_has_the_same_bits(
    backend: Backend, dtype: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.safetensors"
    batches = [clouds(), too_much(), clouds(), clouds(), clouds(), clouds()]
    whole, first, second = (mixed_of(place(backend), dtype) for _ in range(3))
    whole.fit(batches, epochs=3)
    first.fit(batches, epochs=2, save_to=path)
    second.model.build(seed=9)
    second.resume(path)
    if dtype == "float16":
        assert scale_of(second) == scale_of(first)
    second.fit(batches, epochs=1)
    assert_equal(second.model.state_dict(), whole.model.state_dict())
    moments, wanted = second.optimizer.state_dict(), whole.optimizer.state_dict()
    assert_equal(dict(sorted(moments.items())), dict(sorted(wanted.items())))
    assert without_times(second.history) == without_times(whole.history)
    if dtype == "float16":
        assert scale_of(second) == scale_of(whole)
        assert scale_of(whole)[2] == 3


def test_a_run_goes_on_in_another_precision(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    made, whole = mixed_of(), mixed_of(precision="float32")
    made.fit([clouds(), too_much(), clouds()], epochs=1, save_to=path)
    whole.resume(path)
    assert whole.scale_state is None
    assert (whole.optimizer.steps, made.optimizer.steps) == (2, 3)  # those that counted
    whole.fit([clouds()], epochs=1, save_to=path)
    made.resume(path)
    assert made.scale_state is None
    made.step(clouds())
    assert scale_of(made) == (256.0, 1, 0)


def test_a_damaged_loss_scale_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    made = mixed_of()
    made.step(clouds())
    for wrong in ({"scale": 0.0}, {"scale": "2"}, {"good": -1}, {"skipped": 1.5}, 7):
        right = {"scale": 2.0, "good": 0, "skipped": 0}
        record = {**right, **wrong} if isinstance(wrong, dict) else wrong
        progress = {"epoch": 0, "history": [], "loss_scale": record}
        checkpoint.save_training(path, made.model, made.optimizer, progress)
        before = kept(made)
        with unchanged(made.model), pytest.raises(InvalidValue, match="the record of the run is d"):
            made.resume(path)
        assert repr(kept(made)) == repr(before)


def test_the_scale_follows_the_model() -> None:
    made = mixed_of()
    made.fit([clouds(), too_much()], epochs=1)
    backend = backends.get("torch")
    made.model.to(place(backend))
    made.fit([clouds(), too_much()], epochs=1)
    assert made.history["skipped_steps"] == [1, 1]
    assert made.scale_state is not None
    assert all(dc.device_of(x) == place(backend) for x in made.scale_state.values())


@half
def test_an_open_size_is_found_in_half_precision_too(backend: Backend) -> None:
    model = dc.Sequential(dc.Dense(None, 8), dc.BatchNorm1d(None), dc.ReLU(), dc.Dense(8, 3))
    model.to(place(backend))
    made = dc.Trainer(model, F.cross_entropy, dc.optim.SGD(model, lr=0.1), precision="float16")
    made.fit(batches_of(), epochs=1)
    assert model.is_built


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_that_fails_late_changes_nothing(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the pass has renewed running statistics, for example where memory ends."""
    made = mixed_of(precision=precision)
    made.step(clouds())
    scale, before = made.scale_state, kept(made)

    def fail(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(made.optimizer, "rule", fail)
    with unchanged(made.model), pytest.raises(MemoryError):
        made.step(clouds())
    assert made.scale_state is scale
    assert repr(kept(made)) == repr(before)


@half
def test_a_fault_in_a_batch_changes_nothing_in_half_precision(backend: Backend) -> None:
    points, classes = clouds()
    made = mixed_of(place(backend))
    with unchanged(made.model), pytest.raises(InvalidValue, match="expected 2 input features"):
        made.step((points[:, :1], classes))
    assert made.scale_state is None


class Watch(dc.Layer):
    """Note the precision in force in each pass."""

    def __init__(self) -> None:
        self.levels: list[str] = []

    def infer(self, trace: Any, shape: Any) -> Any:
        return shape

    def apply_vjp(self, scope: Any, x: Any) -> Any:
        self.levels.append(dc.precision())
        return x, lambda dy: (dy, {})


@pytest.mark.parametrize(
    ("precision", "around", "level"),
    [("tf32", "exact", "fast"), ("float32", "exact", "exact"), ("float32", "fast", "fast")],
)
def test_tf32_is_float32_under_fast(precision: str, around: str, level: str) -> None:
    watch = Watch()
    model = dc.Sequential(dc.Dense(2, 3), watch).build(seed=0)
    made = dc.Trainer(model, F.cross_entropy, dc.optim.SGD(model), precision=precision)
    points, classes = clouds()
    with dc.precision(around):
        made.step((points, classes))
        made.evaluate([(points, classes)])
        made.predict(points)
        assert dc.precision() == around
    assert watch.levels == [level] * 3
    assert model.dtype == "float32"


def test_a_step_in_tf32_that_fails_gives_the_precision_back() -> None:
    model = classifier_of_dense()
    made = dc.Trainer(model, F.cross_entropy, dc.optim.SGD(model), precision="tf32")
    with pytest.raises(InvalidValue, match="features"):
        made.step((np.ones((2, 7), dtype="float32"), np.zeros(2, dtype="int64")))
    assert dc.precision() == "exact"


@pytest.mark.parametrize(
    ("device", "dtype", "options", "error", "message"),
    [
        (
            "cpu",
            "float32",
            {"precision": "fp16"},
            InvalidValue,
            "precision must be one of 'float32', 'tf32', 'float16', 'bfloat16', got 'fp16'",
        ),
        (
            "cpu",
            "float64",
            {"precision": "tf32"},
            InvalidType,
            r"expected a model with float32 parameters, got float64; say model\.to",
        ),
        (
            "cpu",
            "float32",
            {"precision": "bfloat16"},
            InvalidType,
            r'cpu \(numpy\) has no bfloat16; use "float16" or "float32", or move the model to a d',
        ),
        (
            "array_api_strict",
            "float32",
            {"precision": "float16"},
            InvalidType,
            r'cpu \(array_api_strict\) has no float16; use "float32", or move the model to a devic',
        ),
        (
            "cpu",
            "float64",
            {"precision": "float16"},
            InvalidType,
            r"expected a model with float32 parameters, which are cast for each pass, got float64",
        ),
        (
            "cpu",
            "float32",
            {"loss_scale": LossScale()},
            InvalidValue,
            r"""loss_scale is for precision="float16", got precision='float32'; leave it out""",
        ),
        (
            "cpu",
            "float32",
            {"precision": "float16", "loss_scale": 2.0},
            InvalidType,
            r"loss_scale must be a LossScale, got 2\.0",
        ),
    ],
)
def test_precision_is_checked(
    device: str, dtype: str, options: Any, error: type, message: str
) -> None:
    model = classifier_of_dense().to(device, dtype=dtype)
    with pytest.raises(error, match=rf"^(Trainer|precision=\"\w+\"): {message}"):
        dc.Trainer(model, F.cross_entropy, dc.optim.SGD(model), **options)


def test_the_text_names_the_precision() -> None:
    made = mixed_of(kind=dc.optim.SGD)
    assert repr(made).endswith("nesterov=False), precision='float16', epoch=0)")


def test_a_step_in_half_precision_under_jit() -> None:
    """The trainer's step, composed of pure functions: the same scale, nearly the same numbers."""
    jax, backend = pytest.importorskip("jax"), backends.get("jax")
    model = classifier_of_dense().to(place(backend))
    rules, optimizer = (
        LossScale(init_scale=4096.0, growth_interval=3),
        dc.optim.Adam(model, lr=0.02),
    )
    loss_and_grads = dc.value_and_grad(dc.pure(model, precision="float16"), F.cross_entropy)

    @jax.jit
    def step(parameters: Any, buffers: Any, moments: Any, scale: Any, count: Any, *batch: Any):
        (loss, renewed), grads = loss_and_grads(parameters, buffers, *batch, scale=scale["scale"])
        grads, finite = rules.unscale(scale, grads)
        parameters, moments = optimizer.update(
            parameters, grads, moments, count - scale["skipped"], when=finite
        )
        buffers = chosen(finite, renewed, buffers)
        return parameters, buffers, moments, rules.advance(scale, finite), loss

    parameters, buffers = dict(model.parameters), dict(model.buffers)
    moments = {kind: {n: 0.0 * x for n, x in parameters.items()} for kind in optimizer.moments}
    scale = rules.start(place(backend))
    made = dc.Trainer(model, F.cross_entropy, optimizer, precision="float16", loss_scale=rules)
    for count in range(1, 8):
        given = too_much() if count == 3 else clouds()
        arrays = [backend.asarray(a) for a in given]
        carried = step(parameters, buffers, moments, scale, count, *arrays)
        parameters, buffers, moments, scale, loss = carried
        wanted, *_ = made.step(given)
        assert float(loss) == pytest.approx(float(wanted), rel=2e-3)
    assert_close(parameters, model.parameters, 5e-3)
    assert {name: float(x) for name, x in scale.items()} == {
        name: float(x) for name, x in (made.scale_state or {}).items()
    }
    assert int(scale["skipped"]) == 1


# --- predicting ---


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_predict(precision: str, backend: Backend) -> None:
    if not backend.has(precision):
        pytest.skip(f"{backend} has no {precision}")
    made = mixed_of(place(backend), precision)
    points, classes = clouds()
    with unchanged(made.model):
        found = made.predict(points, batch_size=20)
        assert isinstance(found, np.ndarray)
        assert (found.shape, found.dtype) == ((48, 3), np.float32)
        batches = dc.data.Batches(points, classes, batch_size=20, shuffle=False)
        for given in (
            backend.asarray(points),
            batches,
            [(points[:30], classes[:30]), (points[30:], classes[30:])],
            (part for part in (points[:30], points[30:])),
        ):
            np.testing.assert_allclose(made.predict(given), found, rtol=1e-2, atol=1e-3)
        assert made.predict(points[:0]).shape == (0, 3)
    loss = made.evaluate([(points, classes)])["loss"]
    assert float(F.cross_entropy(found, classes)) == pytest.approx(loss, rel=1e-2)
    if precision == "float32":
        np.testing.assert_allclose(
            found, backend.to_numpy(made.model(backend.asarray(points))), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ([], {}, InvalidValue, r"Trainer\.predict: there were no batches"),
        (3, {}, InvalidType, r"Trainer\.predict: batches must be an array or batches, got 3"),
        ([[1.0]], {}, InvalidType, r"Trainer\.predict: a batch must hold arrays, got float"),
        (np.asarray(1.0), {}, InvalidValue, r"Trainer\.predict: expected images \(N, \.\.\.\), g"),
        (x, {"batch_size": 0}, InvalidValue, r"Trainer\.predict: batch_size must be at least 1, "),
        (
            x.astype("float64"),
            {},
            InvalidType,
            r"Sequential: x is float64 and 0\.weight is float32",
        ),
    ],
)
def test_predict_refuses(given: Any, options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        trainer_of().predict(given, **options)
