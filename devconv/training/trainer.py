"""The training loop.

A step moves a batch, evaluates loss and gradients and lets the optimizer bind new
parameters; nothing in it waits for the device. Numbers are read back when an epoch ends,
and at most twice a second for the progress bar.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from devconv import _array, checkpoint
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, integer, located
from devconv.device import to_device
from devconv.functional import cross_entropy
from devconv.functional.loss.classification import check_labels
from devconv.functional.operation import Operation
from devconv.layers import Layer
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
                    raise InvalidType(f"{name} must be a devconv {kind.__name__}, got {value!r}")
            if optimizer.model is not model:
                raise InvalidValue("the optimizer belongs to another model; make one for this")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.loss_options = dict(loss_options or {})
        if metrics is None:
            metrics = {"accuracy": accuracy} if loss.origin is cross_entropy else {}
        self.metrics = dict(metrics)
        self.history = History()
        self.epoch = 0

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
            ``{"loss": ..., "accuracy": ..., ...}``, means over examples.

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

        Raises:
            ValueError: a file that is missing, truncated or of another model; the trainer is
                as it was then.
        """
        progress = checkpoint.load_training(
            path, self.model, self.optimizer, needs=("epoch", "history")
        )
        self.epoch, self.history = progress["epoch"], History(progress["history"])

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
            if self.loss.origin is cross_entropy and _array.is_integer(batch[1]):
                classes = self.model.output_shape(tuple(batch[0].shape[1:]))[0]
                options = {**self.loss.options, **self.loss_options}
                check_labels(batch[1], classes, options.get("ignore_index", -100))
        device = self.model.device
        return [to_device(x, device) for x in batch]


class _Meter:
    """Sums of loss and metrics that stay on the device until they are asked for."""

    def __init__(self, trainer: Trainer) -> None:
        self.metrics = trainer.metrics
        self.images = self.last = 0
        self.shown = time.monotonic()
        self.sums: dict[str, Array] = {}

    def add(self, loss: Array, prediction: Array, targets: tuple[Array, ...]) -> None:
        """Count a batch."""
        self.last = int(prediction.shape[0])
        self.images += self.last
        values = {"loss": loss}
        values |= {name: metric(prediction, *targets) for name, metric in self.metrics.items()}
        for name, value in values.items():
            share = value * float(self.last)
            self.sums[name] = self.sums[name] + share if name in self.sums else share

    def show(self, bar: Any) -> None:
        """Refresh the bar's numbers, at most twice a second: reading them waits."""
        if time.monotonic() - self.shown >= 0.5:
            bar.set_postfix(self.read(), refresh=False)
            self.shown = time.monotonic()

    def read(self) -> dict[str, float]:
        """The means so far."""
        if not self.images:
            raise InvalidValue("Trainer: there were no examples; batches must not be empty")
        return {name: float(total) / self.images for name, total in self.sums.items()}
