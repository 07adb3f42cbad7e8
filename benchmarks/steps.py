"""A training step and an inference pass of a network, in either library."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import devconv as dc
from benchmarks.networks import Network, pair
from benchmarks.place import Place
from benchmarks.switches import Switch, variants
from devconv import functional as F

LR, MOMENTUM = 1e-6, 0.9
"""Steps so small that every round does the same work; no gradient fades to denormal numbers."""

Call = Callable[[], Sequence[Any]]


def training(
    network: Network, place: Place, dtype: str = "float32", images: int | None = None
) -> dict[str, Call]:
    """Forward, loss, gradients, step of SGD with momentum: loss and the watched gradients."""
    return _racers(network, place, dtype, images, _our_step, _their_step)


def inference(
    network: Network, place: Place, dtype: str = "float32", images: int | None = None
) -> dict[str, Call]:
    """The forward pass that keeps nothing: the logits."""
    return _racers(network, place, dtype, images, _our_pass, _their_pass)


def _racers(
    network: Network,
    place: Place,
    dtype: str,
    images: int | None,
    ours: Callable[..., Call],
    theirs: Callable[..., Call],
) -> dict[str, Call]:
    """The library each way it can be switched, and PyTorch in both memory formats."""
    racers = {}
    for name, switch in variants(place.is_gpu).items():
        model = network.ours().build(seed=0).to(place.kind, dtype)
        racers[name] = ours(network, model, place, dtype, images, switch)
    if place.has_torch:
        module = pair(network)[1].to(place.kind, getattr(importlib.import_module("torch"), dtype))
        for name, last in (("PyTorch", False), ("PyTorch channels-last", True)):
            racers[name] = theirs(network, copy.deepcopy(module), place, dtype, images, last)
    return racers


def _our_step(
    network: Network,
    model: dc.Layer,
    place: Place,
    dtype: str,
    images: int | None,
    switch: Switch,
) -> Call:
    x, target = network.batch(images)
    x, target = place.ours(x, dtype), place.ours(target)
    optimizer = dc.optim.SGD(model, lr=LR, momentum=MOMENTUM)
    loss_and_grads = dc.value_and_grad(model, F.cross_entropy)

    def step() -> Sequence[Any]:
        with switch():
            loss, grads = loss_and_grads(x, target)
            optimizer.step(grads)
        return loss, *(grads[name] for name in network.watched)

    return step


def _our_pass(
    network: Network,
    model: dc.Layer,
    place: Place,
    dtype: str,
    images: int | None,
    switch: Switch,
) -> Call:
    x = place.ours(network.batch(images)[0], dtype)

    def infer() -> Sequence[Any]:
        with switch():
            return (model(x),)

    return infer


def _batch(network: Network, place: Place, dtype: str, images: int | None, last: bool) -> Any:
    torch = importlib.import_module("torch")
    x, target = network.batch(images)
    x, target = place.theirs(x, dtype), place.theirs(target)
    return (x.contiguous(memory_format=torch.channels_last) if last else x), target


def _formatted(module: Any, last: bool) -> Any:
    torch = importlib.import_module("torch")
    return module.to(memory_format=torch.channels_last) if last else module


def _their_step(
    network: Network, module: Any, place: Place, dtype: str, images: int | None, last: bool
) -> Call:
    torch = importlib.import_module("torch")
    x, target = _batch(network, place, dtype, images, last)
    module = _formatted(module, last).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
    parameters = dict(module.named_parameters())
    cross_entropy = torch.nn.functional.cross_entropy

    def step() -> Sequence[Any]:
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(module(x), target)
        loss.backward()
        optimizer.step()
        return loss.detach(), *(parameters[name].grad for name in network.watched)

    return step


def _their_pass(
    network: Network, module: Any, place: Place, dtype: str, images: int | None, last: bool
) -> Call:
    torch = importlib.import_module("torch")
    x, _ = _batch(network, place, dtype, images, last)
    module = _formatted(module, last).eval()

    def infer() -> Sequence[Any]:
        with torch.inference_mode():
            return (module(x),)

    return infer
