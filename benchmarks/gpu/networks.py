"""A training step and a forward pass of whole networks, in one precision on both sides.

In half precision both train as their users do: arrays that learn stay float32, passes are in
half precision, and in float16 the loss is scaled (``Trainer(precision=...)`` here, autocast and
``GradScaler`` there). ``"tf32"`` is float32 with products, and PyTorch's convolutions, in TF32:
``precision="tf32"`` here, both of its switches there. Inference in half precision has
half-precision parameters on both sides.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import devconv as dc
from benchmarks.gpu import contestants
from benchmarks.gpu.race import Makers, Racer
from benchmarks.gpu.told import Told
from benchmarks.networks import NETWORKS, Network, pair
from benchmarks.place import Place
from benchmarks.steps import LR, MOMENTUM
from benchmarks.switches import Switch
from devconv import functional as F

SCALE = 1024.0
"""Of the loss whose gradients are compared in float16; the trainers find their own."""
HALF = ("float16", "bfloat16")
TF32 = "tf32"
FORMATS = {"PyTorch": False, "PyTorch channels-last": True}


def networks(small: bool) -> dict[str, Network]:
    """ResNet-18 (ten classes) as for ImageNet, bound by the device; LeNet-5, bound by launches."""
    size, images = (32, 4) if small else (224, 128)
    return {
        "ResNet-18": replace(NETWORKS["ResNet-18"], image=(3, size, size), images=images),
        "LeNet-5": replace(NETWORKS["LeNet-5"], images=8 if small else 64),
    }


def entrants(kind: str, network: Network, dtype: str, told: Told) -> tuple[Makers, dict[str, str]]:
    """Who takes part in ``"training"`` or ``"inference"``, and who does not."""
    switches, left_out = contestants.ours(told)
    mine, theirs = (_our_step, _their_step) if kind == "training" else (_our_pass, _their_pass)
    makers = {
        label: partial(mine, network, told.place, dtype, switch)
        for label, switch in switches.items()
    }
    if lacks := told.place.lacks_torch:
        return makers, {**left_out, "PyTorch": lacks}
    for label, last in FORMATS.items():
        makers[label] = partial(theirs, network, told.place, dtype, last)
    return makers, left_out


def _our_step(network: Network, place: Place, dtype: str, switch: Switch) -> Racer:
    wide = dtype if dtype == "float64" else "float32"
    model = network.ours().build(seed=0).to(place.kind, wide)
    x, target = network.batch()
    batch = place.ours(x, wide), place.ours(target)
    optimizer = dc.optim.SGD(model, lr=LR, momentum=MOMENTUM)
    precision = dtype if dtype in (*HALF, TF32) else "float32"
    trainer = dc.Trainer(model, F.cross_entropy, optimizer, precision=precision)

    def step() -> None:
        with switch():
            trainer.step(batch)

    def check() -> Sequence[Any]:
        pure = dc.pure(model, precision=precision)
        scale = place.ours(np.asarray(_scale(dtype), dtype=wide))
        with switch():
            (loss, _), grads = dc.value_and_grad(pure, F.cross_entropy)(
                model.parameters, model.buffers, *batch, scale=scale
            )
        return loss, *(dc.to_numpy(grads[name]) / _scale(dtype) for name in network.watched)

    return Racer(step, check)


def _their_step(network: Network, place: Place, dtype: str, last: bool) -> Racer:
    torch = importlib.import_module("torch")
    wide = dtype if dtype == "float64" else "float32"
    module, (x, target) = _theirs(network, place, wide, last)
    module.train()
    parameters = dict(module.named_parameters())
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
    scaler = torch.amp.GradScaler(place.kind, enabled=dtype == "float16")
    cross_entropy = torch.nn.functional.cross_entropy

    def loss_of() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(place, dtype):
            return cross_entropy(module(x), target)

    def step() -> None:
        with _rounding(dtype):
            scaler.scale(loss_of()).backward()
            scaler.step(optimizer)
            scaler.update()

    def check() -> Sequence[Any]:
        with _rounding(dtype):
            loss = loss_of()
            (loss * _scale(dtype)).backward()
        return loss.detach(), *(parameters[n].grad / _scale(dtype) for n in network.watched)

    return Racer(step, check)


def _our_pass(network: Network, place: Place, dtype: str, switch: Switch) -> Racer:
    model = network.ours().build(seed=0).to(place.kind, dtype)
    x = place.ours(network.batch()[0], dtype)

    def infer() -> Sequence[Any]:
        with switch():
            return (model(x),)

    return Racer(infer, infer)


def _their_pass(network: Network, place: Place, dtype: str, last: bool) -> Racer:
    torch = importlib.import_module("torch")
    module, (x, _) = _theirs(network, place, dtype, last)
    module.eval()

    def infer() -> Sequence[Any]:
        with torch.inference_mode():
            return (module(x),)

    return Racer(infer, infer)


def _theirs(network: Network, place: Place, dtype: str, last: bool) -> tuple[Any, tuple[Any, Any]]:
    """PyTorch's module with the same numbers, and its batch."""
    torch = importlib.import_module("torch")
    module = pair(network)[1].to(place.kind, getattr(torch, dtype))
    x, target = network.batch()
    x, target = place.theirs(x, dtype), place.theirs(target)
    if last:
        module = module.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    return module, (x, target)


def _autocast(place: Place, dtype: str) -> AbstractContextManager[Any]:
    if dtype not in HALF:
        return nullcontext()
    torch = importlib.import_module("torch")
    return torch.amp.autocast(place.kind, dtype=getattr(torch, dtype))


@contextmanager
def _rounding(dtype: str) -> Iterator[None]:
    """With PyTorch's two switches for TF32 on, if that is the precision."""
    if dtype != TF32:
        yield
        return
    backends = importlib.import_module("torch").backends
    switches = (backends.cudnn, backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = True
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.allow_tf32 = was


def _scale(dtype: str) -> float:
    return SCALE if dtype == "float16" else 1.0
