"""ResNet: published counts, torchvision's names, and PyTorch's own layers beside the blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from devconv import Sequential
from devconv.models import resnet18, resnet34, resnet50
from devconv.models.resnet import basic_block, bottleneck, resnet
from tests.models import checks

COUNTS = {resnet18: 11_689_512, resnet34: 21_797_672, resnet50: 25_557_032}
EACH = pytest.mark.parametrize("make", COUNTS, ids=lambda make: make.__name__)

# torchvision's resnet18().state_dict() without its batch counters. A line names a layer and
# the shape of its weight; a batch norm has four arrays of that shape.
RESNET18 = """
conv1 64 3 7 7
bn1 64
layer1.0.conv1 64 64 3 3
layer1.0.bn1 64
layer1.0.conv2 64 64 3 3
layer1.0.bn2 64
layer1.1.conv1 64 64 3 3
layer1.1.bn1 64
layer1.1.conv2 64 64 3 3
layer1.1.bn2 64
layer2.0.conv1 128 64 3 3
layer2.0.bn1 128
layer2.0.conv2 128 128 3 3
layer2.0.bn2 128
layer2.0.downsample.0 128 64 1 1
layer2.0.downsample.1 128
layer2.1.conv1 128 128 3 3
layer2.1.bn1 128
layer2.1.conv2 128 128 3 3
layer2.1.bn2 128
layer3.0.conv1 256 128 3 3
layer3.0.bn1 256
layer3.0.conv2 256 256 3 3
layer3.0.bn2 256
layer3.0.downsample.0 256 128 1 1
layer3.0.downsample.1 256
layer3.1.conv1 256 256 3 3
layer3.1.bn1 256
layer3.1.conv2 256 256 3 3
layer3.1.bn2 256
layer4.0.conv1 512 256 3 3
layer4.0.bn1 512
layer4.0.conv2 512 512 3 3
layer4.0.bn2 512
layer4.0.downsample.0 512 256 1 1
layer4.0.downsample.1 512
layer4.1.conv1 512 512 3 3
layer4.1.bn1 512
layer4.1.conv2 512 512 3 3
layer4.1.bn2 512
fc 1000 512
"""


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """The table above, written out."""
    shapes: dict[str, tuple[int, ...]] = {}
    for line in RESNET18.strip().splitlines():
        layer, *numbers = line.split()
        shape = tuple(int(n) for n in numbers)
        shapes[f"{layer}.weight"] = shape
        if len(shape) == 1:
            names = ("bias", "running_mean", "running_var")
            shapes.update({f"{layer}.{name}": shape for name in names})
    return {**shapes, "fc.bias": (1000,)}


def torch_block(kind: str, inputs: int, outputs: int, stride: int = 1) -> Any:
    """torchvision's ``BasicBlock`` or ``Bottleneck``, of PyTorch's own layers."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    width = outputs if kind == "basic" else outputs // 4

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if kind == "basic":
                self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
                self.bn1 = nn.BatchNorm2d(width)
                self.conv2 = nn.Conv2d(width, outputs, 3, 1, 1, bias=False)
                self.bn2 = nn.BatchNorm2d(outputs)
            else:
                self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
                self.bn1 = nn.BatchNorm2d(width)
                self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
                self.bn2 = nn.BatchNorm2d(width)
                self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
                self.bn3 = nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride != 1 or inputs != outputs:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            if kind != "basic":
                y = self.bn3(self.conv3(torch.relu(y)))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    return Block()


def torch_tiny(kind: str) -> Any:
    """The whole of :func:`tiny`."""
    nn = pytest.importorskip("torch").nn
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            bn1=nn.BatchNorm2d(64),
            relu=nn.ReLU(),
            maxpool=nn.MaxPool2d(3, 2, 1),
            layer1=nn.Sequential(torch_block(kind, 64, 8), torch_block(kind, 8, 8)),
            layer2=nn.Sequential(torch_block(kind, 8, 16, 2)),
            avgpool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            fc=nn.Linear(16, checks.CLASSES),
        )
    )


KINDS = {"basic": basic_block, "bottleneck": bottleneck}


def tiny(kind: str) -> Sequential:
    """Two stages, for small images."""
    return resnet(KINDS[kind], ((2, 8), (1, 16)), checks.CLASSES)


@EACH
def test_published_counts(make: Callable[..., Sequential]) -> None:
    assert checks.count(make()) == COUNTS[make]


def test_tables() -> None:
    checks.assert_table_holds(resnet18, (3, 224, 224))
    checks.assert_table_holds(resnet50, (3, 224, 224))


def test_all_names_and_shapes_of_resnet18() -> None:
    shapes = checks.shapes(resnet18())
    assert len(shapes) == 102
    assert shapes == expected_shapes()
    assert list(shapes) == list(expected_shapes())


@pytest.mark.parametrize(
    ("make", "depths", "convolutions"),
    [(resnet34, (3, 4, 6, 3), 2), (resnet50, (3, 4, 6, 3), 3)],
    ids=["resnet34", "resnet50"],
)
def test_names_are_torchvision_s(
    make: Callable[..., Sequential], depths: tuple[int, ...], convolutions: int
) -> None:
    norm = ("weight", "bias", "running_mean", "running_var")
    names = ["conv1.weight", *(f"bn1.{array}" for array in norm)]
    for stage, depth in enumerate(depths, start=1):
        for i in range(depth):
            block = f"layer{stage}.{i}"
            for j in range(1, convolutions + 1):
                names += [f"{block}.conv{j}.weight", *(f"{block}.bn{j}.{n}" for n in norm)]
            if i == 0 and (stage > 1 or make is resnet50):
                names += [f"{block}.downsample.0.weight"]
                names += [f"{block}.downsample.1.{array}" for array in norm]
    assert list(checks.shapes(make())) == [*names, "fc.weight", "fc.bias"]


def test_shapes_of_resnet50() -> None:
    shapes = checks.shapes(resnet50())
    assert shapes["layer1.0.conv1.weight"] == (64, 64, 1, 1)
    assert shapes["layer1.0.conv3.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["fc.weight"] == (1000, 2048)


def test_the_stride_is_in_the_3x3() -> None:
    block = bottleneck(64, 128, 2)
    assert (block.children["conv1"].stride, block.children["conv2"].stride) == (1, 2)


@EACH
def test_inputs_and_outputs(make: Callable[..., Sequential]) -> None:
    assert make().output_shape((3, 224, 224)) == (1000,)
    assert make(7, 1).output_shape((1, 32, 45)) == (7,)


def test_it_begins_as_published() -> None:
    begun = resnet(basic_block, ((1, 64),)).build().parameters
    assert np.std(begun["conv1.weight"]) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    assert np.std(begun["fc.weight"]) == pytest.approx(0.01, rel=0.05)
    assert not begun["fc.bias"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs(kind: str) -> None:
    x = np.zeros((2, 3, 32, 32), dtype="float32")
    assert tiny(kind)(x).shape == (2, checks.CLASSES)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (4, 1), (8, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_block_as_torch(kind: str, inputs: int, stride: int, training: bool) -> None:
    layer, module = KINDS[kind](inputs, 8, stride), torch_block(kind, inputs, 8, stride)
    checks.assert_like_torch(layer, module, (3, inputs, 9, 8), training=training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_network_as_torch(kind: str, training: bool) -> None:
    checks.assert_like_torch(tiny(kind), torch_tiny(kind), (3, 3, 32, 32), training=training)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind: str) -> None:
    checks.assert_learns(tiny(kind), (3, 32, 32), lr=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_under_jit(kind: str) -> None:
    checks.assert_jit_equals_eager(tiny(kind), (3, 32, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_no_float64_is_made(kind: str) -> None:
    checks.assert_stays_float32(tiny(kind), (3, 32, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_torch_compile(kind: str) -> None:
    checks.assert_compiles(tiny(kind), (3, 32, 32))


@pytest.mark.long
@EACH
def test_the_whole_under_torch_compile(make: Callable[..., Sequential]) -> None:
    checks.assert_compiles(make(checks.CLASSES), (3, 64, 64))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle(kind: str) -> None:
    checks.assert_pickles(tiny(kind), (3, 32, 32))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_under_torch_compile(kind: str) -> None:
    checks.assert_step_compiles(tiny(kind), (3, 32, 32))


@pytest.mark.slow
@EACH
def test_the_whole_under_jit(make: Callable[..., Sequential]) -> None:
    checks.assert_jit_equals_eager(make(checks.CLASSES), (3, 32, 32))


@pytest.mark.slow
def test_eighteen_layers_learn() -> None:
    checks.assert_learns(resnet18(checks.CLASSES), (3, 32, 32), lr=0.001)
