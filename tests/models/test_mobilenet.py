"""MobileNetV2: published count, torchvision's names, and PyTorch's own layers beside a block."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from devconv import Sequential
from devconv.models import mobilenet_v2
from devconv.models.mobilenet import STAGES, inverted_residual
from tests.models import checks

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def tiny() -> Sequential:
    """One block without a widening, two with; the last has a shortcut."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2))
    return mobilenet_v2(checks.CLASSES, width=0.25, dropout=0.1, stages=stages)


def torch_block(inputs: int, outputs: int, stride: int, expansion: int) -> Any:
    """torchvision's ``InvertedResidual``, of PyTorch's own layers."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def normed(inputs: int, outputs: int, size: int, stride: int, groups: int) -> Any:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())

    class InvertedResidual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = inputs * expansion
            widen = [normed(inputs, width, 1, 1, 1)] if expansion != 1 else []
            self.conv = nn.Sequential(
                *widen,
                normed(width, width, 3, stride, width),
                nn.Conv2d(width, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

        def forward(self, x: Any) -> Any:
            y = self.conv(x)
            return x + y if stride == 1 and inputs == outputs else y

    return InvertedResidual()


def expected_names() -> list[str]:
    """The names in torchvision's ``mobilenet_v2().state_dict()``, without its batch counters."""
    conv_norm = [".0.weight", *(f".1.{array}" for array in BATCH_NORM)]
    names = [f"features.0{name}" for name in conv_norm]
    for i in range(1, 18):
        filtered = 0 if i == 1 else 1  # the first block does not widen
        names += [f"features.{i}.conv.{j}{n}" for j in range(filtered + 1) for n in conv_norm]
        names += [f"features.{i}.conv.{filtered + 1}.weight"]
        names += [f"features.{i}.conv.{filtered + 2}.{array}" for array in BATCH_NORM]
    names += [f"features.18{name}" for name in conv_norm]
    return [*names, "classifier.1.weight", "classifier.1.bias"]


def test_published_count_and_table() -> None:
    assert checks.count(mobilenet_v2()) == 3_504_872
    checks.assert_table_holds(mobilenet_v2, (3, 224, 224))


def test_names_are_torchvision_s() -> None:
    shapes = checks.shapes(mobilenet_v2())
    assert list(shapes) == expected_names()
    assert shapes["features.0.0.weight"] == (32, 3, 3, 3)
    assert shapes["features.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert shapes["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert shapes["features.2.conv.0.0.weight"] == (96, 16, 1, 1)
    assert shapes["features.17.conv.1.0.weight"] == (960, 1, 3, 3)
    assert shapes["features.17.conv.2.weight"] == (320, 960, 1, 1)
    assert shapes["features.18.0.weight"] == (1280, 320, 1, 1)
    assert shapes["classifier.1.weight"] == (1000, 1280)


@pytest.mark.parametrize(
    ("width", "first", "sixteen", "last"),
    [(0.35, 16, 8, 1280), (0.5, 16, 8, 1280), (0.75, 24, 16, 1280), (1.4, 48, 24, 1792)],
)
def test_width(width: float, first: int, sixteen: int, last: int) -> None:
    shapes = checks.shapes(mobilenet_v2(width=width))
    assert shapes["features.0.0.weight"] == (first, 3, 3, 3)
    assert shapes["features.1.conv.1.weight"] == (sixteen, first, 1, 1)
    assert shapes["classifier.1.weight"] == (1000, last)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mobilenet_v2: width must be greater than 0"):
        mobilenet_v2(width=0)


def test_inputs_and_outputs() -> None:
    assert mobilenet_v2().output_shape((3, 224, 224)) == (1000,)
    assert mobilenet_v2(7, 1).output_shape((1, 32, 40)) == (7,)


def test_strides() -> None:
    assert len(STAGES) == 7
    assert mobilenet_v2()["features"].output_shape((3, 224, 224)) == (1280, 7, 7)


def test_it_runs() -> None:
    x = np.zeros((2, 3, 32, 32), dtype="float32")
    assert mobilenet_v2(10)(x).shape == (2, 10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("inputs", "outputs", "stride", "expansion"),
    [(4, 4, 1, 6), (4, 6, 1, 6), (4, 4, 2, 6), (4, 6, 1, 1)],
)
def test_block_as_torch(
    inputs: int, outputs: int, stride: int, expansion: int, training: bool
) -> None:
    sizes = (inputs, outputs, stride, expansion)
    shape = (3, inputs, 8, 8)
    checks.assert_like_torch(
        inverted_residual(*sizes), torch_block(*sizes), shape, training=training
    )


@pytest.mark.parametrize("training", [True, False])
def test_network_as_torch(training: bool) -> None:
    nn = pytest.importorskip("torch").nn
    features = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
        torch_block(8, 8, 1, 1),
        torch_block(8, 8, 2, 6),
        torch_block(8, 8, 1, 6),
        nn.Sequential(nn.Conv2d(8, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()),
    )
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(1280, checks.CLASSES))
    module = nn.Sequential(OrderedDict(features=features, avgpool=pool, classifier=classifier))
    model = mobilenet_v2(
        checks.CLASSES, width=0.25, dropout=0.0, stages=((1, 16, 1, 1), (6, 24, 2, 2))
    )
    checks.assert_like_torch(model, module, (3, 3, 16, 16), training=training)


def test_it_learns() -> None:
    checks.assert_learns(tiny(), (3, 16, 16), lr=0.01)


def test_a_step_under_jit() -> None:
    checks.assert_jit_equals_eager(tiny(), (3, 16, 16))


def test_no_float64_is_made() -> None:
    checks.assert_stays_float32(tiny(), (3, 16, 16))


def test_torch_compile() -> None:
    checks.assert_compiles(tiny(), (3, 16, 16))


@pytest.mark.long
def test_the_whole_under_torch_compile() -> None:
    checks.assert_compiles(mobilenet_v2(checks.CLASSES), (3, 64, 64))


def test_a_pickle() -> None:
    checks.assert_pickles(tiny(), (3, 16, 16))


@pytest.mark.long
def test_a_step_under_torch_compile() -> None:
    checks.assert_step_compiles(tiny(), (3, 16, 16))


@pytest.mark.slow
def test_the_whole_under_jit() -> None:
    checks.assert_jit_equals_eager(mobilenet_v2(checks.CLASSES), (3, 32, 32))
