"""The training loop.

A step moves a batch, evaluates loss and gradients and lets the optimizer bind new
parameters; nothing in it waits for the device. Numbers are read back when an epoch ends,
and at most twice a second for the progress bar.
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
from devconv._check import InvalidType, InvalidValue, brief, flag, integer, located
from devconv.device import to_device
from devconv.functional import cross_entropy, nll_loss
from devconv.functional.loss.classification import check_labels
from devconv.functional.operation import Operation
from devconv.layers import Layer
from devconv.layers.hints import no_layer
from devconv.layers.pure import loss_and_grad
from devconv.optim import Optimizer
from devconv.training.history import History
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

    Raises:
        TypeError: something that is not a layer, an operation or an optimizer.
        ValueError: an optimizer of another model.
    """

    def __init__(
        self,
        model: Layer,
        loss: Operation[Any],
        optimizer: Optimizer,
        *,
        loss_options: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Metric] | None = None,
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
        return (
            f"Trainer({type(self.model).__name__}, {loss}, {self.optimizer!r}, epoch={self.epoch})"
        )

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
            The history, all epochs of the run.

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
        x, *targets = self._moved(batch)
        loss, prediction, grads = loss_and_grad(
            self.model, self.loss, x, tuple(targets), self.loss_options
        )
        self.optimizer.step(grads)
        return loss, prediction, tuple(targets)

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
            prediction = self.model(x)
            loss = self.loss(prediction, *targets, **self.loss_options)
            meter.add(loss, prediction, tuple(targets))
        return meter.read()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep the run in a file: parameters, buffers, moments, counts and history."""
        progress = {"epoch": self.epoch, "history": self.history.rows}
        checkpoint.save_training(path, self.model, self.optimizer, progress)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take up a run that :meth:`save` kept, on any device, with the same bits.

        The optimizer is made as it was for that run, ``lr`` included; the step size then becomes
        that of the last step, and may be set anew afterwards.

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
            },
        )
        self.epoch, self.history = progress["epoch"], History(progress["history"])

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
        with located(type(self.model).__name__):  # the array as it came: the message mends that
            self.model._check_dtype(batch[0])
        device = self.model.device
        return [to_device(x, device) for x in batch]


class _Meter:
    """Sums of loss and metrics that stay on the device until they are asked for."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.images = self.last = 0
        self.shown = time.monotonic()
        self.sums: dict[str, Array] = {}
        self.count: Array | float = 0.0

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
        """The means so far."""
        if not self.images:
            raise InvalidValue("Trainer: there were no examples; batches must not be empty")
        loss = self.sums["loss"]
        with _array.on_device(loss):  # all numbers in one look
            xp, count = _array.array_namespace(loss), self.count
            if isinstance(count, float):
                count = xp.full((), count, dtype=loss.dtype, device=_array.device(loss))
            row = xp.stack([_array.cast(x, loss.dtype) for x in (count, *self.sums.values())])
        counted, *totals = _array.to_numpy(row).tolist()
        return {
            name: total / counted if counted else math.nan
            for name, total in zip(self.sums, totals, strict=True)
        }
