"""What every published network is asked, each in one function."""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv.functional import cross_entropy
from tests import backends
from tests.compiled import assert_one_graph
from tests.toys import assert_close

Shape = tuple[int, ...]
CLASSES = 5


def shapes(model: dc.Layer, *, learning: bool = False) -> dict[str, Shape]:
    """Names and shapes of all arrays, or of those that learn; nothing is drawn."""
    return {
        f"{path}.{name}" if path else name: declared.shape
        for path, layer in model._firsts()
        for name, declared in layer.declare(None).items()
        if declared.learns or not learning
    }


def count(model: dc.Layer) -> int:
    """How many numbers learn; none is drawn."""
    return sum(math.prod(shape) for shape in shapes(model, learning=True).values())


def assert_table_holds(make: Callable[[], dc.Layer], shape: Shape) -> None:
    """The table in a docstring: its shapes occur on the way, its parameters are all there are."""
    model, trace = make(), dc.Trace()
    last = trace.apply(model, (None, *shape))
    seen = {reached[1:] for reached in (*trace.inputs.values(), last)}
    table = re.split(r"^ *==[= ]*$", make.__doc__ or "", flags=re.MULTILINE)[2]
    rows = [re.split(r" {2,}", line.strip()) for line in table.strip().splitlines()]
    assert len(rows) > 3
    for name, reached, *_ in rows:
        assert tuple(int(n) for n in reached.split("×")) in seen, name
    assert sum(int(row[2].replace(",", "")) for row in rows if len(row) > 2) == count(model)


def assert_like_torch(layer: dc.Layer, module: Any, shape: Shape, *, training: bool) -> None:
    """Output, gradients and renewed buffers equal those of a PyTorch module, name by name."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    module = module.double().train(training)
    for name, array in module.state_dict().items():
        if array.dtype.is_floating_point:
            spread = torch.from_numpy(rng.uniform(0.5, 1.5, tuple(array.shape)))
            noise = torch.from_numpy(rng.standard_normal(tuple(array.shape)))
            fan = max(math.prod(array.shape[1:]), 1)
            array.copy_(spread if array.ndim < 2 or "scale" in name else noise / math.sqrt(fan))
    layer.build().to(dtype="float64").load_state_dict(module.state_dict())

    x = rng.standard_normal(shape)
    y, pullback = layer.vjp(x, training=training)
    dy = rng.standard_normal(y.shape)
    dx, grads = pullback(dy)

    their_x = torch.from_numpy(x).requires_grad_()
    their_y = module(their_x)
    their_y.backward(torch.from_numpy(dy))
    theirs = {name: p.grad.numpy() for name, p in module.named_parameters()}
    assert_close({"y": y, "dx": dx}, {"y": their_y.detach(), "dx": their_x.grad}, 1e-11)
    assert_close(grads, theirs, 1e-11)
    renewed = {n: b for n, b in module.named_buffers() if not n.endswith("num_batches_tracked")}
    assert_close(layer.buffers, renewed, 1e-12)


def batch(shape: Shape, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Four images of four classes."""
    x = np.random.default_rng(7).standard_normal((4, *shape))
    return x.astype(dtype), np.asarray([3, 0, 2, 1])


def assert_learns(model: dc.Layer, shape: Shape, *, lr: float) -> None:
    """A few steps on one tiny batch tell its images apart.

    Without a look at the images no loss is below that of four equal chances, log 4 = 1.39.
    """
    x, target = batch(shape, "float32")
    optimizer = dc.optim.Adam(model.build(seed=0), lr=lr)
    losses = []
    for step in range(10):
        key = dc.random.fold_in(dc.random.key(0), step)
        loss, grads = dc.value_and_grad(model, cross_entropy)(x, target, key=key)
        optimizer.step(grads)
        losses.append(float(loss))
    assert losses[-1] < 1.0, losses


def assert_jit_equals_eager(model: dc.Layer, shape: Shape) -> None:
    """A training step under ``jax.jit``: loss, new buffers and gradients are the eager ones.

    The eager step runs on the host: on JAX, each operation would be compiled once more.
    """
    jax = pytest.importorskip("jax")
    backend = backends.get("jax")
    x, target = batch(shape, "float64")
    key = dc.random.key(3)
    step = dc.value_and_grad(dc.pure(model.build().to(dtype="float64")), cross_entropy)
    host = {**model.parameters}, {**model.buffers}, x, target
    (loss, buffers), grads = step(*host, key=key)

    device = jax.tree.map(backend.asarray, host)
    (their_loss, their_buffers), their_grads = jax.jit(step)(*device, key=backend.asarray(key))
    assert_close({"loss": their_loss}, {"loss": loss}, 1e-12)
    assert_close(their_buffers, buffers, 1e-11)
    assert_close(their_grads, grads, 1e-9)
    assert changed(model.buffers, buffers) == set(model.buffers)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """The names of arrays that are others now."""
    return {name for name in before if not np.array_equal(before[name], after[name])}


def assert_stays_float32(model: dc.Layer, shape: Shape) -> None:
    """A training step on a device without float64, which refuses to make such an array."""
    backends.get("array_api_strict")
    model.build().to("array_api_strict:no_float64")
    x, target = (dc.to_device(a, model.device) for a in batch(shape, "float32"))
    loss, grads = dc.value_and_grad(model, cross_entropy)(x, target, key=dc.random.key(0))
    everything = {"loss": loss, "y": model(x), **grads, **model.buffers}
    assert {str(array.dtype) for array in everything.values()} == {str(x.dtype)}


def assert_pickles(model: dc.Layer, shape: Shape) -> None:
    """What comes out of a pickle, and a copy, learn as the model itself does."""
    x, target = batch(shape, "float32")
    key = dc.random.key(3)
    copies = pickle.loads(pickle.dumps(model.build())), copy.deepcopy(model)
    loss, grads = dc.value_and_grad(model, cross_entropy)(x, target, key=key)
    for again in copies:
        assert repr(again) == repr(model)
        their_loss, their_grads = dc.value_and_grad(again, cross_entropy)(x, target, key=key)
        assert_close({"loss": their_loss, **their_grads}, {"loss": loss, **grads}, 0.0)
        assert_close(again.buffers, model.buffers, 0.0)


def assert_compiles(model: dc.Layer, shape: Shape) -> None:
    """``torch.compile`` takes the inference pass as one graph, which gives the same."""
    _, (x, _) = on_torch(model, shape)
    assert_one_graph(lambda x: model(x), x[:1, ...], tolerance=1e-6)


def assert_step_compiles(model: dc.Layer, shape: Shape) -> None:
    """``torch.compile`` takes a whole training step as one graph, which gives the same."""
    arguments, (x, target) = on_torch(model, shape)
    key = dc.random.key(3, like=x)
    loss_and_grads = dc.value_and_grad(dc.pure(model), cross_entropy)

    def step(*arrays: Any) -> Any:
        return loss_and_grads(*arrays[:-1], key=arrays[-1])

    everything = (*arguments, x, target, key)
    assert_one_graph(step, *everything, backend="aot_eager", tolerance=1e-6)


def on_torch(model: dc.Layer, shape: Shape) -> Any:
    """A model's arrays, and a batch, as PyTorch tensors."""
    torch = pytest.importorskip("torch")
    model.build().to("torch")
    images_and_labels = [torch.from_numpy(array) for array in batch(shape, "float32")]
    return (dict(model.parameters), dict(model.buffers)), images_and_labels
