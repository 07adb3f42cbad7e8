"""Small models for the tests: in this library, the same in PyTorch, and ways to look at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _array
from devconv.functional import mse_loss
from tests import backends
from tests.backends import Backend

CLASSES = 3


def place(backend: Backend) -> dc.Device:
    """The backend's device, as ``.to`` takes it."""
    return dc.device(backend.asarray(np.zeros(1)))


def cnn() -> dc.Sequential:
    """Convolution, max pooling, convolution, average pooling, dense."""
    return dc.Sequential(
        dc.Conv2d(2, 4, 3, padding=1),
        dc.ReLU(),
        dc.MaxPool2d(2),
        dc.Conv2d(4, 4, 3, padding=1),
        dc.Tanh(),
        dc.AvgPool2d(2),
        dc.Flatten(),
        dc.Dense(16, CLASSES),
    )


def torch_cnn() -> Any:
    """The same of PyTorch's own layers, in float64; skips where there is no PyTorch."""
    torch = backends.get("torch").xp and pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    ).double()


def images(count: int = 4, *, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    """A batch for :func:`cnn`, on the host."""
    return np.random.default_rng(seed).standard_normal((count, 2, 8, 8)).astype(dtype)


def labels(count: int = 4, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + 1).integers(0, CLASSES, count)


def line(count: int = 16, *, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Points of three numbers and a linear function of them."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((count, 3))
    return x.astype(dtype), (x @ np.asarray([[1.0], [-2.0], [0.5]]) + 0.25).astype(dtype)


class Centre(dc.Layer):
    """Subtract a running mean and scale: a layer with a parameter and a buffer."""

    def __init__(self, channels: int | None = None) -> None:
        self.channels = channels

    def declare(self, shape: Any) -> Mapping[str, Any]:
        channels = self.channels if shape is None or self.channels else shape[1]
        if channels is None:
            raise ValueError("channels is not known")
        one = dc.initializers.ones
        return {
            "scale": dc.Parameter((channels,), one),
            "mean": dc.Buffer((channels,), dc.initializers.zeros),
        }

    def sizes(self, declared: Mapping[str, Any]) -> Mapping[str, int]:
        return {"channels": declared["scale"].shape[0]}

    def input_from(self, shapes: Mapping[str, Any]) -> Any:
        return (None, *shapes["scale"]) if "scale" in shapes else None

    def infer(self, trace: Any, shape: Any) -> Any:
        return shape

    def apply_vjp(self, scope: Any, x: Any) -> Any:
        name, scale, mean = scope.name("scale"), scope["scale"], scope["mean"]
        if scope.training:
            now = x[0, ...]  # as good a statistic as any
            # Beside a plain number CuPy makes float32 of bfloat16.
            scope.renew(mean=_array.cast(0.5 * mean + 0.5 * now, mean.dtype))
        centred = x - mean

        def pullback(dy: Any) -> Any:
            products = dy * centred
            total = products[0, ...]
            for i in range(1, products.shape[0]):
                total = total + products[i, ...]
            return dy * scale, {name: total}

        return centred * scale, pullback


def host(backend: Backend, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by name, on the host."""
    return {name: backend.to_numpy(x) for name, x in arrays.items()}


def assert_equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """The same names in the same order, the same dtypes and the same bits."""
    assert list(a) == list(b)
    for name in a:
        x, y = dc.to_numpy(a[name]), dc.to_numpy(b[name])
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


def assert_close(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float) -> None:
    """The same names and nearly the same numbers."""
    assert sorted(a) == sorted(b)
    for name in a:
        x, y = dc.to_numpy(a[name]), dc.to_numpy(b[name])
        scale = max(float(np.max(np.abs(y), initial=0.0)), 1.0)
        np.testing.assert_allclose(x, y, rtol=0.0, atol=tolerance * scale, err_msg=name)


def bindings(layer: dc.Layer) -> list[tuple[str, dict[str, Any]]]:
    """Everything that hangs on a layer and the layers inside."""
    return [
        (path, {name: value for name, value in vars(each).items() if name != "_accepted"})
        for path, each in layer._walk()
    ]


@contextmanager
def unchanged(*layers: dc.Layer) -> Iterator[None]:
    """Nothing that hangs on the layers is another object afterwards."""
    before = [(repr(layer), layer.is_built, bindings(layer)) for layer in layers]
    yield
    for layer, (text, built, kept) in zip(layers, before, strict=True):
        assert (repr(layer), layer.is_built) == (text, built)
        for (path, then), (_, now) in zip(kept, bindings(layer), strict=True):
            assert then.keys() == now.keys(), path
            for name in then:
                assert then[name] is now[name], f"{path}: {name}"


def gradients(model: dc.Layer, x: Any, target: Any, **how: Any) -> tuple[Any, dict[str, Any]]:
    """Loss and gradients of a model, mean squared error."""
    return dc.value_and_grad(model, mse_loss)(x, target, **how)
