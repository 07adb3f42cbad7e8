"""The training loop.

A step moves a batch, evaluates loss and gradients and lets the optimizer bind new
parameters; nothing in it waits for the device. Numbers are read back when an epoch ends,
and at most twice a second for the progress bar. In float16 a step whose gradients overflow
leaves all as it was, which is decided on the device, too.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from devconv import _array, checkpoint
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, brief, choice, flag, integer, located
from devconv.device import to_device
from devconv.functional import cross_entropy, nll_loss
from devconv.functional.loss.classification import check_labels
from devconv.functional.operation import Operation
from devconv.layers import Layer
from devconv.layers.hints import no_layer
from devconv.layers.mixed import PRECISIONS, Mixed, check_tf32, digits
from devconv.layers.pure import loss_and_grad
from devconv.optim import Optimizer
from devconv.training.history import History
from devconv.training.loss_scale import LossScale, chosen
from devconv.training.metrics import accuracy

Metric = Callable[..., Array]


class Trainer:
    """Train a model: batches in, better parameters and a history out.

    Args:
        model: a layer.
        loss: an operation ``(prediction, target, ...) -> loss``.
        optimizer: an optimizer of that model.
        loss_options: the loss's options.
        metrics: what to watch beside the loss, functions ``(prediction, target, ...) ->
            0-d array`` by name; accuracy by default where the loss is ``cross_entropy``.
        precision: ``"float32"`` computes in the model's own dtype. ``"tf32"`` is float32 under
            ``dc.precision("fast")``: on a GPU with CuPy products of matrices in TF32, on a CPU
            what "fast" allows there. ``"float16"`` and
            ``"bfloat16"`` cast parameters and batches for each pass; parameters, moments,
            statistics, losses and gradients in the optimizer's hands are float32.
        loss_scale: the rules of the loss scale that ``"float16"`` needs; by default those of
            ``torch.amp.GradScaler``.

    Attributes:
        scale_state: for ``"float16"``, after a first step: ``scale``, ``good`` and ``skipped``
            as 0-d arrays on the device (see :class:`LossScale`); else ``None``.

    Raises:
        TypeError: something that is not a layer, an operation or an optimizer; a precision that
            the model's device does not have, or of a model that is not float32.
        ValueError: an optimizer of another model, an unknown precision.
    """

    def __init__(
        self,
        model: Layer,
        loss: Operation[Any],
        optimizer: Optimizer,
        *,
        loss_options: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        precision: str = "float32",
        loss_scale: LossScale | None = None,
    ) -> None:
        with located("Trainer"):
            for name, value, kind in (
                ("model", model, Layer),
                ("loss", loss, Operation),
                ("optimizer", optimizer, Optimizer),
            ):
                if not isinstance(value, kind):
                    got = no_layer(value) if kind is Layer else brief(value)
                    raise InvalidType(f"{name} must be a devconv {kind.__name__}, got {got}")
            if optimizer.model is not model:
                raise InvalidValue("the optimizer belongs to another model; make one for this")
            self.precision = choice("precision", precision, PRECISIONS)
            self.loss_scale = _rules(precision, loss_scale)
            if precision == "tf32":
                check_tf32(model)
            self._mixed = Mixed(model, precision) if precision in _array.HALF else None
        self.scale_state: dict[str, Array] | None = None
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.loss_options = dict(loss_options or {})
        if metrics is None:
            metrics = {"accuracy": self._accuracy} if loss.origin is cross_entropy else {}
        self.metrics = dict(metrics)
        self.adds_up = {**loss.options, **self.loss_options}.get("reduction") == "sum"
        self.history = History()
        self.epoch = 0

    def __repr__(self) -> str:
        loss = self.loss.__name__ if type(self.loss) is Operation else repr(self.loss)
        words = [type(self.model).__name__, loss, repr(self.optimizer)]
        if self.precision != "float32":
            words.append(f"precision={self.precision!r}")
        return f"Trainer({', '.join(words)}, epoch={self.epoch})"

    def fit(
        self,
        batches: Iterable[tuple[Any, ...]],
        *,
        epochs: int,
        validation: Iterable[tuple[Any, ...]] | None = None,
        progress: bool | None = None,
        save_to: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train for some more epochs.

        Args:
            batches: tuples ``(x, target, ...)``, iterated once an epoch, on the host or on
                the model's device; :class:`devconv.data.Batches`, or any iterable that can be
                run through again.
            epochs: how many more.
            validation: likewise, evaluated after each epoch.
            progress: show a bar with loss, metrics and images per second; ``None`` means
                only on a terminal.
            save_to: a file to keep the run in after each epoch, for :meth:`resume`.

        Returns:
            The history, all epochs of the run; with ``precision="float16"`` a row also has
            ``skipped_steps``, those of the epoch, and ``loss_scale``, at its end.

        Raises:
            ValueError: batches that are empty or do not fit the model.
        """
        with located("Trainer.fit"):
            epochs = integer("epochs", epochs, least=0)
            progress = None if progress is None else flag("progress", progress)
            for name, given in (("batches", batches), ("validation", validation)):
                if isinstance(given, Iterator) and epochs > 1:
                    raise InvalidValue(
                        f"{name} can be run through only once, but epochs is {epochs}; hand in "
                        "dc.data.Batches or a list"
                    )
        for _ in range(epochs):
            row = self._run_epoch(batches, progress)
            if validation is not None:
                measured = self.evaluate(validation)
                row |= {f"validation_{name}": value for name, value in measured.items()}
            self.epoch += 1
            self.history.append(row)
            if save_to is not None:
                self.save(save_to)
        return self.history

    def _run_epoch(self, batches: Iterable[Any], progress: bool | None) -> dict[str, Any]:
        meter = _Meter(self)
        started = time.perf_counter()
        each = batches.for_epoch(self.epoch) if hasattr(batches, "for_epoch") else batches
        with tqdm(
            total=getattr(batches, "examples", None),
            desc=f"epoch {self.epoch + 1}",
            unit="images",
            disable=None if progress is None else not progress,
        ) as bar:
            for batch in each:
                meter.add(*self.step(batch))
                bar.update(meter.last)
                if not bar.disable:
                    meter.show(bar)
            measured = meter.read()
            if not bar.disable:
                bar.set_postfix(measured)
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch + 1,
            **measured,
            "images_per_second": round(meter.images / seconds, 1),
        }

    def step(self, batch: tuple[Any, ...]) -> tuple[Array, Array, tuple[Array, ...]]:
        """One step on one batch: ``(loss, prediction, targets)``, without waiting for them."""
        x, *others = self._moved(batch)
        targets = tuple(others)
        with self.model._whole_or_not_at_all(), digits(self.precision):
            if self.loss_scale is not None:
                loss, prediction = self._scaled_step(self.loss_scale, x, targets)
            else:
                loss, prediction, grads = self._loss_and_grad(x, targets)
                self.optimizer.step(grads)
        return loss, prediction, targets

    def _loss_and_grad(
        self, x: Array, targets: tuple[Array, ...], scale: Array | None = None
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Loss, prediction and gradients; new buffers are bound."""
        options = self.loss_options
        return loss_and_grad(
            self.model, self.loss, x, targets, options, mixed=self._mixed, scale=scale
        )

    def _scaled_step(
        self, rules: LossScale, x: Array, targets: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """A step that leaves all as it was if a gradient overflowed, without asking whether."""
        model, optimizer = self.model, self.optimizer
        if not model.is_built:
            model._make(tuple(x.shape), 0, anew=False)
        state, before = self._scale_beside(x), model.buffers
        loss, prediction, grads = self._loss_and_grad(x, targets, state["scale"])
        grads, finite = rules.unscale(state, grads)
        buffers = chosen(finite, model.buffers, before)
        after = rules.advance(state, finite)
        with _array.overflowing():
            optimizer.step(grads, when=finite, skipped=state["skipped"])
        model._keep(buffers)
        self.scale_state = after
        return loss, prediction

    def _scale_beside(self, x: Array) -> dict[str, Array]:
        """The state of the loss scale, where ``x`` is."""
        assert self.loss_scale is not None
        if self.scale_state is None:
            return self.loss_scale.start(x)
        scale = self.scale_state["scale"]
        if type(scale) is type(x) and _array.device(scale) == _array.device(x):
            return self.scale_state
        return {name: to_device(each, x) for name, each in self.scale_state.items()}

    def _infer(self, x: Array) -> Array:
        """The model's prediction, as it computes in training."""
        with digits(self.precision):
            return self.model(x) if self._mixed is None else self._mixed(x)

    def evaluate(self, batches: Iterable[tuple[Any, ...]]) -> dict[str, float]:
        """The mean loss and metrics of the model as it infers, over batches.

        Returns:
            ``{"loss": ..., "accuracy": ..., ...}``, means over the examples that count.

        Raises:
            ValueError: no batches.
        """
        meter = _Meter(self)
        each = batches.for_epoch(0) if hasattr(batches, "for_epoch") else batches
        for batch in each:
            x, *targets = self._moved(batch)
            prediction = self._infer(x)
            loss = self.loss(prediction, *targets, **self.loss_options)
            meter.add(loss, prediction, tuple(targets))
        return meter.read()

    def predict(self, batches: Any, *, batch_size: int = 256) -> Array:
        """What the model infers for each example, on the host.

        Args:
            batches: images ``(N, ...)``, of any library; or batches of images, or of tuples
                ``(x, target, ...)``, as for :meth:`evaluate`, of which only ``x`` is looked at.
            batch_size: how many images of one array are computed at a time.

        Returns:
            Predictions ``(N, ...)``, a NumPy array, in the order of the examples.

        Raises:
            ValueError: no batches.
            TypeError: something that is neither an array nor batches of arrays.
        """
        with located("Trainer.predict"):
            batch_size = integer("batch_size", batch_size, least=1)
            if _array.is_array(batches):
                if not batches.ndim:
                    raise InvalidValue("expected images (N, ...), got a 0-d array")
                batches = _cut(batches, batch_size)
            elif not isinstance(batches, Iterable):
                raise InvalidType(f"batches must be an array or batches, got {brief(batches)}")
            elif hasattr(batches, "for_epoch"):
                batches = batches.for_epoch(0)
        parts = []
        for batch in batches:
            x = batch[0] if isinstance(batch, tuple | list) and batch else batch
            with located("Trainer.predict"):
                if not _array.is_array(x):
                    raise InvalidType(f"a batch must hold arrays, got {type(x).__name__}")
            self._check_images(x)
            parts.append(_array.to_numpy(self._infer(to_device(x, self.model.device))))
        if not parts:
            raise InvalidValue("Trainer.predict: there were no batches")
        return _array.host().concat(parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep the run in a file: parameters, buffers, moments, counts, loss scale and history."""
        progress: dict[str, Any] = {"epoch": self.epoch, "history": self.history.rows}
        if self.scale_state is not None:
            progress["loss_scale"] = {
                name: _array.to_numpy(x).item() for name, x in self.scale_state.items()
            }
        checkpoint.save_training(path, self.model, self.optimizer, progress)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take up a run that :meth:`save` kept, on any device, with the same bits.

        The optimizer is made as it was for that run, ``lr`` included; the step size then becomes
        that of the last step, and may be set anew afterwards. The precision may be another: what
        is kept is float32 in all of them. A loss scale is taken up, or starts anew.

        Raises:
            ValueError: a file that is missing, truncated, or of another model or optimizer; the
                trainer is as it was then.
        """
        progress = checkpoint.load_training(
            path,
            self.model,
            self.optimizer,
            needs={
                "epoch": lambda epoch: isinstance(epoch, int) and epoch >= 0,
                "history": lambda rows: (
                    isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
                ),
                "loss_scale": _is_scale,
            },
        )
        self.epoch, self.history = progress["epoch"], History(progress["history"])
        numbers, self.scale_state = progress.get("loss_scale"), None
        if numbers is not None and self.loss_scale is not None:
            self.scale_state = self.loss_scale.start(self.model.device, **numbers)
        elif numbers is not None:  # from here on every step counts
            self.optimizer.steps -= numbers["skipped"]

    @property
    def _ignored(self) -> int:
        """The label of examples that do not count."""
        return {**self.loss.options, **self.loss_options}.get("ignore_index", -100)

    def _has_labels(self, target: Array) -> bool:
        """Whether the target holds classes by number."""
        return self.loss.origin in (cross_entropy, nll_loss) and _array.is_integer(target)

    def counted(self, prediction: Array, targets: tuple[Array, ...]) -> Array | float:
        """How many labels of a batch the mean loss is a mean over."""
        if not targets or not self._has_labels(targets[0]):
            return float(prediction.shape[0])
        xp = _array.array_namespace(prediction)
        labels = xp.astype(targets[0], _array.index_dtype(prediction))
        return xp.sum(xp.astype(labels != self._ignored, xp.float32))

    def _accuracy(self, prediction: Array, target: Array) -> Array:
        return accuracy(prediction, target, ignore_index=self._ignored)

    def _moved(self, batch: tuple[Any, ...]) -> list[Array]:
        with located("Trainer"):
            if not isinstance(batch, tuple | list) or len(batch) < 2:
                raise InvalidType(
                    f"a batch must be a tuple (x, target, ...), got {type(batch).__name__}"
                )
            for x in batch:
                if not _array.is_array(x):
                    raise InvalidType(
                        f"a batch must hold arrays, got {type(x).__name__}; make one with "
                        "numpy.asarray(x)"
                    )
                if 0 in x.shape[:1]:
                    raise InvalidValue("there is a batch without examples; leave it out")
            if self._has_labels(batch[1]):
                classes = self.model.output_shape(tuple(batch[0].shape[1:]))[0]
                check_labels(batch[1], classes, self._ignored)
        self._check_images(batch[0])
        device = self.model.device
        return [to_device(x, device) for x in batch]

    def _check_images(self, x: Array) -> None:
        with located(type(self.model).__name__):  # the array as it came: the message mends that
            self.model._check_dtype(x)


def _rules(precision: str, given: LossScale | None) -> LossScale | None:
    """The rules of the loss scale, for float16 alone."""
    if given is not None and not isinstance(given, LossScale):
        raise InvalidType(f"loss_scale must be a LossScale, got {brief(given)}")
    if precision == "float16":
        return LossScale() if given is None else given
    if given is not None:
        raise InvalidValue(
            f'loss_scale is for precision="float16", got precision={precision!r}; leave it out'
        )
    return None


def _is_scale(numbers: Any) -> bool:
    """Whether a file's loss scale is sound; ``None`` where there was none."""
    if numbers is None:
        return True
    counts = [numbers["good"], numbers["skipped"]]
    sound = all(isinstance(count, int) and count >= 0 for count in counts)
    return sound and isinstance(numbers["scale"], float) and 0.0 < numbers["scale"] < math.inf


def _cut(x: Array, size: int) -> Iterator[Array]:
    """An array in parts of so many examples; an empty one in one part."""
    count = int(x.shape[0])
    for start in range(0, max(count, 1), size):
        yield x[start : min(start + size, count), ...]


class _Meter:
    """Sums of loss and metrics that stay on the device until they are asked for."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.images = self.last = 0
        self.shown = time.monotonic()
        self.sums: dict[str, Array] = {}
        self.count: Array | float = 0.0
        self.before = trainer.scale_state

    def add(self, loss: Array, prediction: Array, targets: tuple[Array, ...]) -> None:
        """Count a batch."""
        self.last = int(prediction.shape[0])
        self.images += self.last
        with _array.on_device(prediction):
            xp, count = (
                _array.array_namespace(prediction),
                self.trainer.counted(prediction, targets),
            )
            values = {"loss": loss}
            for name, metric in self.trainer.metrics.items():
                values[name] = metric(prediction, *targets)
            for name, value in values.items():
                share = value if self.trainer.adds_up and name == "loss" else value * count
                if not isinstance(count, float):  # the mean over no label at all is NaN
                    share = xp.where(count == 0, xp.zeros_like(share), share)
                self.sums[name] = self.sums[name] + share if name in self.sums else share
            self.count = self.count + count

    def show(self, bar: Any) -> None:
        """Refresh the bar's numbers, at most twice a second: reading them waits."""
        if time.monotonic() - self.shown >= 0.5:
            bar.set_postfix(self.read(), refresh=False)
            self.shown = time.monotonic()

    def read(self) -> dict[str, float]:
        """The means so far, and what became of the loss scale."""
        if not self.images:
            raise InvalidValue("Trainer: there were no examples; batches must not be empty")
        loss = self.sums["loss"]
        with _array.on_device(loss):  # all numbers in one look
            xp, count = _array.array_namespace(loss), self.count
            if isinstance(count, float):
                count = xp.full((), count, dtype=loss.dtype, device=_array.device(loss))
            each = (count, *self.sums.values(), *self._scale())
            row = xp.stack([_array.cast(x, loss.dtype) for x in each])
        counted, *totals = _array.to_numpy(row).tolist()
        means = {
            name: total / counted if counted else math.nan
            for name, total in zip(self.sums, totals, strict=False)
        }
        if len(totals) == len(means):
            return means
        skipped, scale = totals[len(means) :]
        return {**means, "skipped_steps": int(skipped), "loss_scale": scale}

    def _scale(self) -> tuple[Array, ...]:
        """The steps skipped since the meter began, and the scale, where steps were taken."""
        now, before = self.trainer.scale_state, self.before
        if now is None or now is before:
            return ()
        skipped = now["skipped"]
        if before is not None:  # from where the model was then
            skipped = skipped - to_device(before["skipped"], skipped)
        return skipped, now["scale"]
