"""ConvNeXt: published count, torchvision's names, and PyTorch's own layers beside a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import Sequential
from devconv.models import convnext_tiny
from devconv.models.convnext import CNBlock, Permute, StochasticDepth, convnext, scale_channels
from devconv.testing import check_vjp
from tests import backends
from tests.backends import Backend
from tests.models import checks

DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)


def tiny(stochastic_depth: float = 0.5, layer_scale: float = 0.5) -> Sequential:
    """Two stages of one block, whose shares are large enough to see."""
    return convnext(
        ((1, 4), (1, 6)),
        checks.CLASSES,
        stochastic_depth=stochastic_depth,
        layer_scale=layer_scale,
    )


def torch_parts() -> tuple[Any, Any]:
    """torchvision's ``CNBlock`` and ``LayerNorm2d``, of PyTorch's own layers."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Permute(nn.Module):
        def __init__(self, *axes: int) -> None:
            super().__init__()
            self.axes = axes

        def forward(self, x: Any) -> Any:
            return torch.permute(x, self.axes)

    class LayerNorm2d(nn.LayerNorm):
        def forward(self, x: Any) -> Any:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.block = nn.Sequential(
                nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
                Permute(0, 2, 3, 1),
                nn.LayerNorm(channels, eps=1e-6),
                nn.Linear(channels, 4 * channels),
                nn.GELU(),
                nn.Linear(4 * channels, channels),
                Permute(0, 3, 1, 2),
            )
            self.layer_scale = nn.Parameter(torch.ones(channels, 1, 1) * 1e-6)

        def forward(self, x: Any) -> Any:
            return self.layer_scale * self.block(x) + x

    return Block, LayerNorm2d


def torch_tiny() -> Any:
    """The whole of :func:`tiny`, without stochastic depth."""
    nn = pytest.importorskip("torch").nn
    block, norm = torch_parts()

    class ConvNeXt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Sequential(nn.Conv2d(3, 4, 4, 4), norm(4, eps=1e-6)),
                nn.Sequential(block(4)),
                nn.Sequential(norm(4, eps=1e-6), nn.Conv2d(4, 6, 2, 2)),
                nn.Sequential(block(6)),
            )
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential(
                norm(6, eps=1e-6), nn.Flatten(1), nn.Linear(6, checks.CLASSES)
            )

        def forward(self, x: Any) -> Any:
            return self.classifier(self.avgpool(self.features(x)))

    return ConvNeXt()


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes in torchvision's ``convnext_tiny().state_dict()``."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    add("features.0.0", 96, 3, 4, 4)
    add("features.0.1", 96)
    for stage, (depth, c) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        if stage:
            add(f"features.{2 * stage}.0", WIDTHS[stage - 1])
            add(f"features.{2 * stage}.1", c, WIDTHS[stage - 1], 2, 2)
        for i in range(depth):
            block = f"features.{2 * stage + 1}.{i}"
            shapes[f"{block}.layer_scale"] = (c, 1, 1)
            add(f"{block}.block.0", c, 1, 7, 7)
            add(f"{block}.block.2", c)
            add(f"{block}.block.3", 4 * c, c)
            add(f"{block}.block.5", c, 4 * c)
    add("classifier.0", 768)
    add("classifier.2", 1000, 768)
    return shapes


def test_published_count_and_table() -> None:
    assert checks.count(convnext_tiny()) == 28_589_128
    checks.assert_table_holds(convnext_tiny, (3, 224, 224))


def test_names_are_torchvision_s() -> None:
    shapes = checks.shapes(convnext_tiny())
    assert shapes == expected_shapes()
    assert list(shapes) == list(expected_shapes())


def test_inputs_and_outputs() -> None:
    assert convnext_tiny().output_shape((3, 224, 224)) == (1000,)
    assert convnext_tiny(7, 1).output_shape((1, 32, 65)) == (7,)


def test_it_begins_as_published() -> None:
    begun = convnext(((1, 64),)).build().parameters
    for name in ("features.0.0.weight", "features.1.0.block.3.weight", "classifier.2.weight"):
        assert np.std(begun[name]) == pytest.approx(0.02, rel=0.05)
    assert not begun["features.1.0.block.3.bias"].any()
    assert np.unique(begun["features.1.0.layer_scale"]) == np.float32(1e-6)


def test_stochastic_depth_grows_with_depth() -> None:
    drops = [
        layer.p
        for _, layer in convnext_tiny(stochastic_depth=0.17)._walk()
        if isinstance(layer, StochasticDepth)
    ]
    assert drops == pytest.approx([0.01 * i for i in range(18)])


def test_it_runs() -> None:
    x = np.zeros((2, 3, 32, 32), dtype="float32")
    assert tiny()(x).shape == (2, checks.CLASSES)


@pytest.mark.parametrize("training", [True, False])
def test_block_as_torch(training: bool) -> None:
    block, _ = torch_parts()
    checks.assert_like_torch(CNBlock(4), block(4), (2, 4, 9, 8), training=training)


@pytest.mark.parametrize("training", [True, False])
def test_network_as_torch(training: bool) -> None:
    checks.assert_like_torch(tiny(0.0), torch_tiny(), (2, 3, 32, 32), training=training)


def test_it_learns() -> None:
    checks.assert_learns(tiny(0.1), (3, 32, 32), lr=0.03)


def test_a_step_under_jit() -> None:
    checks.assert_jit_equals_eager(tiny(), (3, 32, 32))


def test_no_float64_is_made() -> None:
    checks.assert_stays_float32(tiny(), (3, 32, 32))


def test_torch_compile() -> None:
    checks.assert_compiles(tiny(), (3, 32, 32))


@pytest.mark.long
def test_the_whole_under_torch_compile() -> None:
    checks.assert_compiles(convnext_tiny(checks.CLASSES), (3, 64, 64))


def test_a_pickle() -> None:
    checks.assert_pickles(tiny(), (3, 32, 32))


@pytest.mark.long
def test_a_step_under_torch_compile() -> None:
    checks.assert_step_compiles(tiny(), (3, 32, 32))


@pytest.mark.slow
def test_the_whole_under_jit() -> None:
    checks.assert_jit_equals_eager(convnext_tiny(checks.CLASSES), (3, 32, 32))


@pytest.mark.slow
def test_the_whole_learns() -> None:
    checks.assert_learns(convnext_tiny(checks.CLASSES), (3, 32, 32), lr=0.001)


# --- the layers of its own ---


def test_channels_are_scaled(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, factor = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((3, 1, 1))
    y = scale_channels(backend.asarray(x), backend.asarray(factor))
    np.testing.assert_array_equal(backend.to_numpy(y), x * factor)
    check_vjp(scale_channels, backend.asarray(x), backend.asarray(factor))


def test_permute_moves_dimensions_there_and_back(backend: Backend) -> None:
    x = np.arange(120.0).reshape(2, 3, 4, 5)
    layer = Permute((0, 2, 3, 1))
    y, pullback = layer.vjp(backend.asarray(x))
    np.testing.assert_array_equal(backend.to_numpy(y), x.transpose(0, 2, 3, 1))
    dx, grads = pullback(y)
    np.testing.assert_array_equal(backend.to_numpy(dx), x)
    assert grads == {}
    assert layer.output_shape((3, 4, 5)) == (4, 5, 3)


@pytest.mark.parametrize("axes", [(1, 0), (0, 2), (0, 1, 1), ()])
def test_permute_refuses_other_axes(axes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Permute: axes must be 0 and then the others"):
        Permute(axes)


def test_permute_refuses_another_rank() -> None:
    with pytest.raises(ValueError, match=r"Permute: expected x with 4 dimensions, got \(N, 3\)"):
        Permute((0, 2, 3, 1)).output_shape((3,))


def test_stochastic_depth_drops_whole_images(backend: Backend) -> None:
    x = np.random.default_rng(0).standard_normal((16, 2, 3, 3))
    layer = StochasticDepth(0.25)
    y, pullback = layer.vjp(backend.asarray(x), key=dc.random.key(0))
    factors = backend.to_numpy(y) / x
    kept = factors[:, 0, 0, 0] != 0.0
    np.testing.assert_allclose(factors, kept[:, None, None, None] / 0.75 * np.ones_like(x))
    assert 0 < kept.sum() < 16
    dx, _ = pullback(backend.asarray(np.ones_like(x)))
    np.testing.assert_allclose(backend.to_numpy(dx), factors)


def test_stochastic_depth_of_a_pure_network_needs_a_key() -> None:
    model = tiny().build()
    x = np.ones((2, 3, 32, 32), dtype="float32")
    message = r"features.3.0.stochastic_depth \(StochasticDepth\): training needs a key"
    with pytest.raises(TypeError, match=message):
        dc.pure(model).vjp(model.parameters, model.buffers, x)


def test_stochastic_depth_leaves_inference_alone() -> None:
    x = np.ones((4, 2))
    assert StochasticDepth(0.5)(x) is x
    assert StochasticDepth(0.5).vjp(x, training=False)[0] is x
    assert StochasticDepth(0.0).vjp(x)[0] is x


def test_stochastic_depth_in_half_precision() -> None:
    backends.get("numpy")
    x = np.ones((8, 2), dtype="float16")
    y, _ = StochasticDepth(0.4).vjp(x, key=dc.random.key(1))
    assert y.dtype == x.dtype
    assert set(np.unique(y)) == {np.float16(0.0), np.float16(1 / 0.6)}


def test_stochastic_depth_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"StochasticDepth: p must be from 0 to 1, got 1.5"):
        StochasticDepth(1.5)
