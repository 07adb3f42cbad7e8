"""VGG: published counts, torchvision's names, and a net of PyTorch's own layers beside it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from devconv import Sequential
from devconv.models import vgg11, vgg13, vgg16, vgg19, vgg_small
from devconv.models.vgg import VGG19, vgg
from tests.models import checks

COUNTS = {  # as torchvision publishes them, without and with batch norm
    vgg11: (132_863_336, 132_868_840),
    vgg13: (133_047_848, 133_053_736),
    vgg16: (138_357_544, 138_365_992),
    vgg19: (143_667_240, 143_678_248),
}
EACH = pytest.mark.parametrize("make", COUNTS, ids=lambda make: make.__name__)
CONVOLUTIONS = {  # the numbers of torchvision's convolutions in ``features``
    vgg11: (0, 3, 6, 8, 11, 13, 16, 18),
    vgg13: (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    vgg16: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    vgg19: (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}


def tiny(dropout: float = 0.5) -> Sequential:
    """Two stages with batch norm, for 16×16 images."""
    return vgg(
        ((1, 6), (2, 8)), checks.CLASSES, batch_norm=True, pixels=2, width=12, dropout=dropout
    )


def torch_tiny() -> Any:
    """The same of PyTorch's own layers."""
    nn = pytest.importorskip("torch").nn
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(6, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ),
            avgpool=nn.AdaptiveAvgPool2d(2),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Linear(32, 12),
                nn.ReLU(),
                nn.Dropout(0.0),
                nn.Linear(12, 12),
                nn.ReLU(),
                nn.Dropout(0.0),
                nn.Linear(12, checks.CLASSES),
            ),
        )
    )


@EACH
def test_published_counts(make: Callable[..., Sequential]) -> None:
    assert (checks.count(make()), checks.count(make(batch_norm=True))) == COUNTS[make]


def test_tables() -> None:
    checks.assert_table_holds(vgg16, (3, 224, 224))
    checks.assert_table_holds(vgg_small, (3, 32, 32))
    assert checks.count(vgg_small()) == 2_264_394


@EACH
def test_names_are_torchvision_s(make: Callable[..., Sequential]) -> None:
    shapes = checks.shapes(make())
    layers = [f"features.{i}" for i in CONVOLUTIONS[make]] + [f"classifier.{i}" for i in (0, 3, 6)]
    assert list(shapes) == [f"{layer}.{array}" for layer in layers for array in ("weight", "bias")]
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    assert shapes["classifier.0.weight"] == (4096, 512 * 7 * 7)
    assert shapes["classifier.6.bias"] == (1000,)


def test_names_with_batch_norm() -> None:
    names = [name for name in checks.shapes(vgg11(batch_norm=True)) if name.startswith("feat")]
    arrays = ("weight", "bias"), ("weight", "bias", "running_mean", "running_var")
    convolutions = (0, 4, 8, 11, 15, 18, 22, 25)  # torchvision's vgg11_bn
    assert names == [
        f"features.{i + step}.{array}"
        for i in convolutions
        for step in (0, 1)
        for array in arrays[step]
    ]


@EACH
def test_inputs_and_outputs(make: Callable[..., Sequential]) -> None:
    assert make().output_shape((3, 224, 224)) == (1000,)
    assert make(10, 1).output_shape((1, 32, 50)) == (10,)


def test_small_inputs_and_outputs() -> None:
    assert vgg_small().output_shape((3, 32, 32)) == (10,)
    assert vgg_small(7, 1).output_shape((1, 48, 40)) == (7,)


def test_it_begins_as_published() -> None:
    begun = vgg(((1, 64),), width=64, pixels=2).build().parameters
    assert np.std(begun["features.0.weight"]) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert np.std(begun["classifier.0.weight"]) == pytest.approx(0.01, rel=0.05)
    assert not begun["features.0.bias"].any()
    assert not begun["classifier.0.bias"].any()


def test_it_runs() -> None:
    x = np.zeros((2, 3, 32, 32), dtype="float32")
    assert vgg_small()(x).shape == (2, 10)


@pytest.mark.parametrize("training", [True, False])
def test_as_torch(training: bool) -> None:
    checks.assert_like_torch(tiny(0.0), torch_tiny(), (3, 3, 16, 16), training=training)


def test_it_learns() -> None:
    model = vgg(((1, 8), (1, 8)), 5, batch_norm=True, pixels=4, width=64, dropout=0.1)
    checks.assert_learns(model, (3, 16, 16), lr=0.02)


def test_a_step_under_jit() -> None:
    checks.assert_jit_equals_eager(tiny(), (3, 16, 16))


def test_no_float64_is_made() -> None:
    checks.assert_stays_float32(tiny(), (3, 16, 16))


def test_torch_compile() -> None:
    checks.assert_compiles(tiny(), (3, 16, 16))


@pytest.mark.long
@EACH
def test_the_whole_under_torch_compile(make: Callable[..., Sequential]) -> None:
    checks.assert_compiles(make(checks.CLASSES), (3, 224, 224))


@pytest.mark.long
def test_the_small_one_under_torch_compile() -> None:
    checks.assert_compiles(vgg_small(checks.CLASSES), (3, 32, 32))


def test_a_pickle() -> None:
    checks.assert_pickles(tiny(), (3, 16, 16))


@pytest.mark.long
def test_a_step_under_torch_compile() -> None:
    checks.assert_step_compiles(tiny(), (3, 16, 16))


@pytest.mark.slow
def test_the_small_one_under_jit() -> None:
    checks.assert_jit_equals_eager(vgg_small(checks.CLASSES), (3, 32, 32))


@pytest.mark.slow
def test_all_convolutions_under_jit() -> None:
    """Of the deepest; its classifier is cut, which would have 120 million parameters."""
    model = vgg(VGG19, checks.CLASSES, batch_norm=True, pixels=1, width=32)
    checks.assert_jit_equals_eager(model, (3, 32, 32))


@pytest.mark.slow
def test_sixteen_layers_run() -> None:
    x = np.zeros((1, 3, 224, 224), dtype="float32")
    model = vgg16().build()
    assert model.parameter_count == 138_357_544
    assert model(x).shape == (1, 1000)


def test_batch_norm_is_true_or_false() -> None:
    with pytest.raises(TypeError, match=r"^batch_norm must be True or False, got 'yes'$"):
        vgg11(batch_norm="yes")  # type: ignore[arg-type]
