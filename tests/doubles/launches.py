"""How many array functions each part of a step launches: the table, and how it is counted.

On a GPU a small layer takes as long as its launches, so their number is written down in
``launches.json`` and a test holds it. ``python -m tests.doubles.launches`` counts anew; what
then differs is for the change's author to explain. Views are free. One launch here is one call
of an array function; CuPy may need more kernels for it, which ``python -m benchmarks gpu --parts
facts`` counts on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import devconv as dc
from tests.doubles import cupy as double
from tests.doubles.cupy import watch

TABLE = Path(__file__).with_name("launches.json")

IMAGES = (8, 8, 12, 12)
LAYERS: dict[str, tuple[Callable[[], dc.Layer], tuple[int, ...]]] = {
    "Conv2d 3×3": (lambda: dc.Conv2d(8, 8, 3, padding=1), IMAGES),
    "Conv2d 3×3, relu": (lambda: dc.Conv2d(8, 8, 3, padding=1, activation="relu"), IMAGES),
    "Conv2d 3×3, stride 2": (lambda: dc.Conv2d(8, 8, 3, 2, 1), IMAGES),
    "Conv2d 1×1": (lambda: dc.Conv2d(8, 8, 1), IMAGES),
    "Conv2d 3×3, 2 groups": (lambda: dc.Conv2d(8, 8, 3, padding=1, groups=2), IMAGES),
    "Conv2d 3×3, depthwise": (lambda: dc.Conv2d(8, 8, 3, padding=1, groups=8), IMAGES),
    "ConvTranspose2d 2×2, stride 2": (lambda: dc.ConvTranspose2d(8, 8, 2, 2), IMAGES),
    "Dense": (lambda: dc.Dense(32, 10), (8, 32)),
    "BatchNorm2d": (lambda: dc.BatchNorm2d(8), IMAGES),
    "LayerNorm": (lambda: dc.LayerNorm(12), IMAGES),
    "MaxPool2d 2×2": (lambda: dc.MaxPool2d(2), IMAGES),
    "MaxPool2d 3×3, stride 2": (lambda: dc.MaxPool2d(3, 2, 1), IMAGES),
    "AvgPool2d 2×2": (lambda: dc.AvgPool2d(2), IMAGES),
    "GlobalAvgPool": (lambda: dc.GlobalAvgPool(), IMAGES),
    "ReLU": (lambda: dc.ReLU(), IMAGES),
    "GELU": (lambda: dc.GELU(), IMAGES),
    "Dropout": (lambda: dc.Dropout(0.5), IMAGES),
}
OPTIMIZERS: dict[str, Callable[[dc.Layer], dc.optim.Optimizer]] = {
    "SGD": lambda m: dc.optim.SGD(m, 0.1),
    "SGD, momentum and weight decay": lambda m: dc.optim.SGD(
        m, 0.1, momentum=0.9, weight_decay=0.01
    ),
    "Adam": lambda m: dc.optim.Adam(m, 0.1),
    "AdamW": lambda m: dc.optim.AdamW(m, 0.1),
}


@dataclass(frozen=True)
class Bench:
    """Where it is counted, and how: a call's result, and its launches."""

    place: str
    counted: Callable[[Callable[[], Any]], tuple[Any, Any]]

    def numbers(self, *shape: int) -> Any:
        """Normal float32 numbers there."""
        host = np.random.default_rng(0).standard_normal(shape).astype("float32")
        return dc.to_device(host, self.place)

    def labels(self) -> Any:
        return dc.to_device(np.arange(8), self.place)


def _counted(call: Callable[[], Any]) -> tuple[Any, int]:
    watch.reset()
    result = call()
    return result, sum(watch.launches.values())


DOUBLE = Bench("cuda:1", _counted)
"""The double's second device."""


def of_layer(name: str, bench: Bench = DOUBLE) -> dict[str, Any]:
    """A learning pass of a layer: there, and back."""
    make, shape = LAYERS[name]
    layer, x = make().build(shape[1:]).to(bench.place), bench.numbers(*shape)
    (y, pullback), forward = bench.counted(lambda: layer.vjp(x))
    dy = bench.numbers(*y.shape)
    return {"forward": forward, "pullback": bench.counted(lambda: pullback(dy))[1]}


def of_loss(bench: Bench = DOUBLE) -> dict[str, Any]:
    logits, target, loss = bench.numbers(8, 10), bench.labels(), dc.functional.cross_entropy
    (_, pullback), forward = bench.counted(lambda: loss.vjp(logits, target))
    one = dc.to_device(np.ones((), dtype="float32"), bench.place)
    return {"forward": forward, "pullback": bench.counted(lambda: pullback(one))[1]}


def of_optimizer(name: str, bench: Bench = DOUBLE) -> dict[str, Any]:
    """One parameter's first step, and each later one."""
    layer = dc.Dense(8, 8, bias=False).build().to(bench.place)
    optimizer, grads = OPTIMIZERS[name](layer), {"weight": bench.numbers(8, 8)}
    first, later = (bench.counted(lambda: optimizer.step(grads))[1] for _ in range(2))
    return {"first step": first, "step": later}


def of_training(bench: Bench = DOUBLE) -> dict[str, Any]:
    """A step of LeNet-5 with momentum, the batch on the device already."""
    model = dc.models.lenet5().build(seed=0).to(bench.place)
    optimizer = dc.optim.SGD(model, 0.1, momentum=0.9)
    trainer = dc.Trainer(model, dc.functional.cross_entropy, optimizer)
    batch = (bench.numbers(8, 1, 32, 32), bench.labels())
    first, later = (bench.counted(lambda: trainer.step(batch))[1] for _ in range(2))
    return {"first step": first, "step": later}


ROWS: dict[str, Callable[..., dict[str, Any]]] = {
    **{name: partial(of_layer, name) for name in LAYERS},
    "cross_entropy": of_loss,
    **{name: partial(of_optimizer, name) for name in OPTIMIZERS},
    "LeNet-5, SGD with momentum": of_training,
}


def recorded() -> dict[str, dict[str, int]]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def main() -> None:
    """Count all rows anew and write the table."""
    with double.installed():
        counts = {name: json.dumps(count()) for name, count in ROWS.items()}
    rows = (f" {json.dumps(name, ensure_ascii=False)}: {row}" for name, row in counts.items())
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
