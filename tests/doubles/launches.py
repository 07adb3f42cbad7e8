"""How many array functions each part of a step launches: the table, and how it is counted.

On a GPU a small layer takes as long as its launches, so their number is written down in
``launches.json`` and a test holds it. ``python -m tests.doubles.launches`` counts anew; what
then differs is for the change's author to explain. Views are free. One launch here is one call
of an array function; CuPy may need more kernels for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import devconv as dc
from tests.doubles import cupy as double
from tests.doubles.cupy import watch

TABLE = Path(__file__).with_name("launches.json")
PLACE = "cuda:1"

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


def numbers(*shape: int) -> Any:
    """Normal float32 numbers on the second device."""
    host = np.random.default_rng(0).standard_normal(shape).astype("float32")
    return dc.to_device(host, PLACE)


def counted(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call returns, and how often it launches."""
    watch.reset()
    result = call()
    return result, sum(watch.launches.values())


def of_layer(name: str) -> dict[str, int]:
    """A learning pass of a layer: there, and back."""
    make, shape = LAYERS[name]
    layer, x = make().build(shape[1:]).to(PLACE), numbers(*shape)
    (y, pullback), forward = counted(lambda: layer.vjp(x))
    dy = numbers(*y.shape)
    return {"forward": forward, "pullback": counted(lambda: pullback(dy))[1]}


def of_loss() -> dict[str, int]:
    logits, target = numbers(8, 10), dc.to_device(np.arange(8), PLACE)
    (loss, pullback), forward = counted(lambda: dc.functional.cross_entropy.vjp(logits, target))
    with loss.device:
        one = double.namespace.ones_like(loss)
    return {"forward": forward, "pullback": counted(lambda: pullback(one))[1]}


def of_optimizer(name: str) -> dict[str, int]:
    """One parameter's first step, and each later one."""
    layer = dc.Dense(8, 8, bias=False).build().to(PLACE)
    optimizer, grads = OPTIMIZERS[name](layer), {"weight": numbers(8, 8)}
    first, later = (counted(lambda: optimizer.step(grads))[1] for _ in range(2))
    return {"first step": first, "step": later}


def of_training() -> dict[str, int]:
    """A step of LeNet-5 with momentum, the batch on the device already."""
    model = dc.models.lenet5().build(seed=0).to(PLACE)
    optimizer = dc.optim.SGD(model, 0.1, momentum=0.9)
    trainer = dc.Trainer(model, dc.functional.cross_entropy, optimizer)
    batch = (numbers(8, 1, 32, 32), dc.to_device(np.arange(8), PLACE))
    first, later = (counted(lambda: trainer.step(batch))[1] for _ in range(2))
    return {"first step": first, "step": later}


ROWS: dict[str, Callable[[], dict[str, int]]] = {
    **{name: lambda name=name: of_layer(name) for name in LAYERS},  # type: ignore[misc]
    "cross_entropy": of_loss,
    **{name: lambda name=name: of_optimizer(name) for name in OPTIMIZERS},  # type: ignore[misc]
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
