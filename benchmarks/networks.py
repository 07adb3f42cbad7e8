"""The same networks in both libraries, with the same numbers in them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import devconv as dc


@dataclass(frozen=True)
class Network:
    """A network of both libraries, and the batch it is measured on.

    Attributes:
        ours: makes the layer.
        theirs: makes PyTorch's module, whose arrays have the same names.
        image: shape of an image.
        images: how many in a batch.
        watched: parameters whose gradients are compared: first, middle and last.
    """

    ours: Callable[[], dc.Layer]
    theirs: Callable[[], Any]
    image: tuple[int, int, int]
    images: int
    watched: tuple[str, ...]

    def batch(self, images: int | None = None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Images and labels."""
        rng = np.random.default_rng(0)
        n = images or self.images
        x = rng.standard_normal((n, *self.image), dtype=np.float32)
        return x, rng.integers(0, 10, n)


def pair(network: Network) -> tuple[dc.Layer, Any]:
    """The layer and the module, on the CPU, with the same numbers."""
    model, module = network.ours().build(seed=0), network.theirs()
    state = {
        name: _torch().from_numpy(np.array(dc.to_numpy(array), order="C"))
        for name, array in model.state_dict().items()
    }
    lacking = module.load_state_dict(state, strict=False)
    extra = [name for name in lacking.missing_keys if not name.endswith("num_batches_tracked")]
    if extra or lacking.unexpected_keys:
        raise ValueError(f"names differ: {extra}, {lacking.unexpected_keys}")
    return model, module


def _torch() -> Any:
    return importlib.import_module("torch")


def _lenet5() -> Any:
    nn = _torch().nn

    class LeNet5(nn.Module):  # type: ignore[misc, name-defined]
        """``devconv.models.lenet5(padding=2)``."""

        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c3 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
            self.c5, self.f6 = nn.Linear(400, 120), nn.Linear(120, 84)
            self.output = nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            tanh, pool = _torch().tanh, nn.functional.avg_pool2d
            x = pool(tanh(self.c1(x)), 2)
            x = pool(tanh(self.c3(x)), 2).flatten(1)
            return self.output(tanh(self.f6(tanh(self.c5(x)))))

    return LeNet5()


def _vgg_small() -> Any:
    """``devconv.models.vgg_small(dropout=0.0)``."""
    nn = _torch().nn
    features: list[Any] = []
    channels = 3
    for out in (64, 128, 256):
        for _ in range(2):
            features += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        features.append(nn.MaxPool2d(2))
    classifier = [
        *(nn.Linear(4096, 256), nn.ReLU(), nn.Dropout(0.0)),
        *(nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.0)),
        nn.Linear(256, 10),
    ]
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*features))
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(4))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Sequential(*classifier))
    return network


def _resnet18() -> Any:
    """``devconv.models.resnet18(10)``, as torchvision has it."""
    nn = _torch().nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        """Two 3×3 convolutions beside a shortcut."""

        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            conv = partial(nn.Conv2d, bias=False)
            self.conv1 = conv(inputs, outputs, 3, stride, 1)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = conv(outputs, outputs, 3, 1, 1)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = None
            if stride != 1 or inputs != outputs:
                shortcut = conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
                self.downsample = nn.Sequential(*shortcut)

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(3, 64, 7, 2, 3, bias=False))
    network.add_module("bn1", nn.BatchNorm2d(64))
    network.add_module("relu", nn.ReLU(inplace=True))
    network.add_module("maxpool", nn.MaxPool2d(3, 2, 1))
    channels = 64
    for stage, out in enumerate((64, 128, 256, 512), start=1):
        blocks = Block(channels, out, 1 if stage == 1 else 2), Block(out, out, 1)
        network.add_module(f"layer{stage}", nn.Sequential(*blocks))
        channels = out
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(512, 10))
    return network


NETWORKS = {
    "LeNet-5": Network(
        partial(dc.models.lenet5, padding=2),
        _lenet5,
        image=(1, 28, 28),
        images=64,
        watched=("c1.weight", "c3.weight", "output.weight"),
    ),
    "VGG-small": Network(
        partial(dc.models.vgg_small, dropout=0.0),
        _vgg_small,
        image=(3, 32, 32),
        images=32,
        watched=("features.0.weight", "features.10.weight", "classifier.6.weight"),
    ),
    "ResNet-18": Network(
        partial(dc.models.resnet18, 10),
        _resnet18,
        image=(3, 64, 64),
        images=8,
        watched=("conv1.weight", "layer2.0.conv1.weight", "fc.weight"),
    ),
}
