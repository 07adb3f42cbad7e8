"""Every layer beside the PyTorch module of the same name, from one table.

The same constructor arguments, the same names and shapes in the state, the same results and
gradients, in inference and in training.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _array
from tests import backends
from tests.backends import Backend
from tests.toys import assert_close, place

Shape = tuple[int, ...]
SIZES = (7, 6, 5)


@dataclass(frozen=True)
class Entry:
    """A layer's name and arguments, an input without the batch, and how PyTorch says it."""

    kind: str
    arguments: tuple[Any, ...]
    shape: Shape
    options: Mapping[str, Any] = field(default_factory=dict)
    torch_kind: str = ""
    torch_options: Mapping[str, Any] | None = None
    draws: bool = False
    """Whether training draws random numbers, in each library its own."""
    tolerance: float = 1e-12

    def mine(self) -> Any:
        return getattr(dc, self.kind)(*self.arguments, **self.options)

    def theirs(self) -> Any:
        torch = pytest.importorskip("torch")
        options = self.options if self.torch_options is None else self.torch_options
        return getattr(torch.nn, self.torch_kind or self.kind)(*self.arguments, **options)

    def __str__(self) -> str:
        named = (f"{name}={value}" for name, value in self.options.items())
        return f"{self.kind}({', '.join([*map(str, self.arguments), *named])})"


def entry(kind: str, *arguments: Any, shape: Shape, **options: Any) -> Entry:
    return Entry(kind, arguments, shape, options)


def each_rank(
    kind: str, *arguments: Any, channels: int = 4, ranks: Shape = (1, 2, 3), **options: Any
) -> list[Entry]:
    """The layer in each rank: ``kind`` with a ``*`` where the number goes."""
    return [
        Entry(kind.replace("*", str(d)), arguments, (channels, *SIZES[:d]), options) for d in ranks
    ]


IMAGE = (4, 7, 6)
ENTRIES = [
    # convolution
    *each_rank("Conv*d", 4, 8, 3),
    *each_rank("Conv*d", 4, 8, 3, 2, 1, 1, 2, False),
    *each_rank("Conv*d", 4, 4, 2, 1, "same", 2, 4),
    *(
        e
        for mode in ("reflect", "replicate", "circular")
        for e in each_rank("Conv*d", 4, 8, 3, padding=2, stride=2, padding_mode=mode)
    ),
    entry("Conv2d", 4, 8, (2, 3), padding="same", padding_mode="reflect", shape=IMAGE),
    entry("Conv2d", 4, 8, 3, 1, 1, 1, 2, True, "circular", shape=IMAGE),
    entry("Conv2d", 4, 8, (4, 3), padding=(0, 1), padding_mode="replicate", shape=IMAGE),
    entry("Conv2d", 4, 8, 3, padding="valid", padding_mode="reflect", shape=IMAGE),
    *each_rank("ConvTranspose*d", 4, 6, 3),
    *each_rank("ConvTranspose*d", 4, 6, 3, 2, 1, 1, 2, False, 2),
    entry("ConvTranspose2d", 4, 6, (2, 3), (3, 2), (0, 1), (2, 0), shape=IMAGE),
    entry("ConvTranspose2d", 4, 4, 3, padding=1, groups=4, dilation=(1, 2), shape=IMAGE),
    # dense
    Entry("Dense", (6, 3), (4, 7, 6), torch_kind="Linear"),
    Entry("Dense", (6, 3), (6,), {"bias": False}, torch_kind="Linear"),
    # pooling
    *each_rank("MaxPool*d", 3, 2, 1),
    *each_rank("MaxPool*d", 2, ceil_mode=True, dilation=2),
    *each_rank("AvgPool*d", 3, 2, 1),
    *each_rank("AvgPool*d", 3, 2, 1, True, False),
    entry("AvgPool2d", (2, 3), divisor_override=5, shape=IMAGE),
    *each_rank("LPPool*d", 2, 2),
    entry("LPPool2d", 2.0, (2, 3), 2, True, shape=IMAGE),
    *each_rank("AdaptiveAvgPool*d", 3),
    *each_rank("AdaptiveMaxPool*d", 4),
    entry("AdaptiveAvgPool2d", (None, 4), shape=IMAGE),
    entry("AdaptiveMaxPool3d", (2, None, 9), shape=(2, 5, 6, 5)),
    # activations
    entry("ReLU", shape=IMAGE),
    entry("ReLU6", shape=IMAGE),
    entry("LeakyReLU", shape=IMAGE),
    entry("LeakyReLU", 0.3, shape=IMAGE),
    entry("PReLU", shape=(5,)),
    entry("PReLU", 4, 0.1, shape=IMAGE),
    entry("ELU", shape=IMAGE),
    entry("ELU", alpha=0.7, shape=IMAGE),
    entry("CELU", shape=IMAGE),
    Entry("CELU", (0.7,), IMAGE, tolerance=1e-7),  # PyTorch's way back rounds to float32
    entry("SELU", shape=IMAGE),
    entry("GELU", shape=IMAGE),
    entry("GELU", "tanh", shape=IMAGE),
    entry("SiLU", shape=IMAGE),
    entry("Mish", shape=IMAGE),
    entry("Sigmoid", shape=IMAGE),
    Entry("Hardsigmoid", (), IMAGE, tolerance=1e-7),  # likewise
    entry("Hardswish", shape=IMAGE),
    entry("Tanh", shape=IMAGE),
    entry("Hardtanh", shape=IMAGE),
    entry("Hardtanh", -0.5, 0.7, shape=IMAGE),
    entry("Softplus", shape=IMAGE),
    entry("Softplus", 2.0, 1.0, shape=IMAGE),
    entry("Softsign", shape=IMAGE),
    entry("LogSigmoid", shape=IMAGE),
    entry("GLU", shape=(4, 7, 6)),
    entry("GLU", 1, shape=IMAGE),
    Entry("Softmax", (), IMAGE, torch_options={"dim": -1}),
    entry("Softmax", 1, shape=IMAGE),
    Entry("LogSoftmax", (), IMAGE, torch_options={"dim": -1}),
    entry("LogSoftmax", 1, shape=IMAGE),
    # normalisation
    *each_rank("BatchNorm*d", 4),
    *each_rank("BatchNorm*d", 4, 1e-3, 0.3, False),
    entry("BatchNorm1d", 4, shape=(4,)),
    entry("BatchNorm2d", 4, track_running_stats=False, shape=IMAGE),
    entry("BatchNorm2d", 4, momentum=0.0, shape=IMAGE),
    entry("LayerNorm", 6, shape=IMAGE),
    entry("LayerNorm", (7, 6), 1e-3, bias=False, shape=IMAGE),
    entry("LayerNorm", (4, 7, 6), elementwise_affine=False, shape=IMAGE),
    entry("RMSNorm", 6, shape=IMAGE),
    entry("RMSNorm", (7, 6), 1e-3, shape=IMAGE),
    entry("RMSNorm", [6], elementwise_affine=False, shape=IMAGE),
    entry("GroupNorm", 2, 4, shape=IMAGE),
    entry("GroupNorm", 4, 4, 1e-3, False, shape=(4, 7)),
    entry("GroupNorm", 1, 4, shape=(4,)),
    *each_rank("InstanceNorm*d", 4),
    *each_rank("InstanceNorm*d", 4, affine=True, eps=1e-3),
    entry("LocalResponseNorm", 3, shape=IMAGE),
    entry("LocalResponseNorm", 2, 0.5, 0.6, 2.0, shape=(4, 7)),
    # dropout: what training draws is tested in test_dropout.py
    *(Entry("Dropout", (p,), IMAGE, draws=0 < p < 1) for p in (0.0, 0.5, 1.0)),
    *(
        Entry(f"Dropout{d}d", (p,), (4, *SIZES[:d]), draws=0 < p < 1)
        for d in (1, 2, 3)
        for p in (0.5, 1.0)
    ),
    # shape
    entry("Flatten", shape=IMAGE),
    Entry("Flatten", (2,), IMAGE),
    entry("Identity", shape=IMAGE),
    entry("Unfold", 3, shape=IMAGE),
    entry("Unfold", (2, 3), 2, 1, (1, 2), shape=IMAGE),
    entry("Fold", (7, 6), 3, shape=(36, 20)),
    entry("Fold", (7, 6), (2, 3), 2, 1, (1, 2), shape=(24, 14)),
    entry("PixelShuffle", 2, shape=(8, 3, 5)),
    entry("PixelUnshuffle", 3, shape=(2, 6, 9)),
    *(
        e
        for kind in ("Zero", "Reflection", "Replication", "Circular")
        for e in each_rank(f"{kind}Pad*d", 2)
    ),
    entry("ReflectionPad1d", (1, 3), shape=(4, 7)),
    entry("ReplicationPad2d", (1, 0, 8, 2), shape=IMAGE),
    entry("CircularPad3d", (1, 2, 0, 3, 4, 5), shape=(2, 5, 3, 4)),
    entry("ZeroPad3d", (1, 2, 0, 3, 4, 5), shape=(2, 5, 3, 4)),
    *each_rank("ConstantPad*d", 2, 0.5),
    entry("ConstantPad2d", (1, 0, 3, 2), -1.0, shape=IMAGE),
    entry("Upsample", (9, 4), shape=IMAGE),
    entry("Upsample", scale_factor=2, shape=(4, 7)),
    entry("Upsample", None, 1.7, shape=(2, 3, 4, 5)),
    *(
        Entry(
            "Upsample",
            (),
            (4, *SIZES[:d]),
            {"scale_factor": 1.5, "mode": mode, "align_corners": corners},
            torch_options={"scale_factor": 1.5, "mode": theirs, "align_corners": corners},
        )
        for corners in (False, True)
        for d, mode, theirs in (
            (1, "linear", "linear"),
            (2, "linear", "bilinear"),
            (3, "linear", "trilinear"),
            (2, "cubic", "bicubic"),
        )
    ),
]

EXTRA = {"GlobalAvgPool", "GlobalMaxPool"}
"""Layers that PyTorch has no module for."""


def drawn(entry: Entry, batch: int = 3) -> tuple[Any, Any]:
    """PyTorch's module with arrays of no special values, and an input."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    module = entry.theirs().double()
    with torch.no_grad():
        for array in module.parameters():
            array.normal_()
        for name, array in module.named_buffers():
            if name != "num_batches_tracked":
                array.uniform_(0.5, 1.5)
    return module, torch.randn((batch, *entry.shape), dtype=torch.float64)


def state(module: Any) -> dict[str, Any]:
    names = {"num_batches_tracked"}
    return {n: a.detach().clone() for n, a in module.state_dict().items() if n not in names}


def check(entry: Entry, backend: Backend, training: bool) -> None:
    module, x = drawn(entry)
    layer = entry.mine().to(place(backend), dtype="float64")
    layer.load_state_dict(module.state_dict())

    x.requires_grad_(True)
    y = module.train(training)(x)
    dy = y.detach().cos()
    y.backward(dy)
    wanted = {"y": y.detach(), "dx": x.grad}
    wanted |= {name: array.grad for name, array in module.named_parameters()}

    z, pullback = layer.vjp(backend.asarray(x.detach().numpy()), training=training)
    dx, grads = pullback(backend.asarray(dy.numpy()))
    assert_close({"y": z, "dx": dx, **grads}, wanted, entry.tolerance)
    assert_close(layer.state_dict(), state(module), 1e-12)
    if not training:
        inferred = layer(backend.asarray(x.detach().numpy()))
        np.testing.assert_array_equal(backend.to_numpy(inferred), backend.to_numpy(z))


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "torch"])
@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_as_pytorch(entry: Entry, library: str, training: bool) -> None:
    if training and entry.draws:
        pytest.skip("random")
    check(entry, backends.get(library), training)


FEW = [
    next(e for e in ENTRIES if e.kind == kind)
    for kind in (
        "Conv2d",
        "ConvTranspose2d",
        "LPPool2d",
        "AdaptiveAvgPool2d",
        "AdaptiveMaxPool2d",
        "PReLU",
        "GLU",
        "BatchNorm2d",
        "LayerNorm",
        "RMSNorm",
        "GroupNorm",
        "InstanceNorm2d",
        "LocalResponseNorm",
        "Unfold",
        "Fold",
        "PixelShuffle",
        "ReflectionPad2d",
        "Upsample",
    )
]


@pytest.mark.parametrize("library", ["jax", "cupy"])
@pytest.mark.parametrize("entry", FEW, ids=str)
def test_as_pytorch_elsewhere(entry: Entry, library: str) -> None:
    check(entry, backends.get(library), training=True)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("library", ["jax", "cupy"])
@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_as_pytorch_everywhere(entry: Entry, library: str, training: bool) -> None:
    if training and entry.draws:
        pytest.skip("random")
    check(entry, backends.get(library), training)


def dtypes(entry: Entry, place: str, dtype: str) -> dict[str, str]:
    """The dtypes of all that a step of learning makes."""
    layer = entry.mine().to(place, dtype=dtype).build(seed=1)
    x = np.random.default_rng(0).standard_normal((3, *entry.shape))
    y, pullback = layer.vjp(dc.to_device(x.astype("float32"), place, dtype=dtype))
    dx, grads = pullback(y)
    made = {"y": y, "dx": dx, "inferred": layer(dx), **grads, **layer.buffers}
    return {name: _array.dtype_name(array.dtype) for name, array in made.items()}


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_float32_makes_no_float64(entry: Entry) -> None:
    """On a device that has none."""
    backends.get("array_api_strict")
    assert set(dtypes(entry, "array_api_strict:no_float64", "float32").values()) == {"float32"}


@pytest.mark.parametrize(("place", "dtype"), [("numpy", "float16"), ("torch", "bfloat16")])
@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_half_precision_stays_half(entry: Entry, place: str, dtype: str) -> None:
    """All but the running statistics."""
    backends.get(place)
    for name, found in dtypes(entry, place, dtype).items():
        assert found == ("float32" if name.startswith("running_") else dtype), name


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_names_and_shapes_as_pytorch(entry: Entry) -> None:
    """Also those of a layer that was built here, and of what comes out of it."""
    module, x = drawn(entry)
    layer = entry.mine().build()
    mine = {name: tuple(array.shape) for name, array in layer.state_dict().items()}
    theirs = {name: tuple(array.shape) for name, array in state(module).items()}
    assert mine == theirs
    assert list(mine) == list(theirs)
    assert list(layer.parameters) == [name for name, _ in module.named_parameters()]
    y = module.eval()(x)
    assert layer.output_shape(entry.shape) == tuple(y.shape[1:])
    assert tuple(layer(x.float().numpy()).shape) == tuple(y.shape)


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_the_text_makes_the_layer_again(entry: Entry) -> None:
    layer = entry.mine()
    text = repr(layer)
    again = eval(text, dict(vars(dc)))
    assert repr(again) == text
    assert vars(again).keys() == vars(layer).keys()


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_a_pickle_and_a_copy_are_the_layer_again(entry: Entry) -> None:
    x = np.ones((2, *entry.shape), dtype="float32")
    layer = entry.mine().build(seed=1)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert repr(again) == repr(layer)
        np.testing.assert_array_equal(again(x), layer(x))
    assert repr(copy.deepcopy(entry.mine())) == repr(entry.mine())  # not built


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_an_empty_batch(entry: Entry) -> None:
    """Nothing in, nothing out, in the right shape; gradients of nothing are zero."""
    layer = entry.mine().build()
    if entry.options.get("track_running_stats") is False:
        pytest.skip("there are no statistics of nothing")
    y, pullback = layer.vjp(np.zeros((0, *entry.shape), dtype="float32"), training=False)
    assert y.shape == (0, *layer.output_shape(entry.shape))
    dx, grads = pullback(y)
    assert dx.shape == (0, *entry.shape)
    assert not any(np.any(grad) for grad in grads.values())


ANY_SHAPE = dc.Activation | dc.Dropout | dc.Flatten | dc.Identity | dc.PReLU


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if not isinstance(e.mine(), ANY_SHAPE)], ids=str
)
def test_a_batch_of_single_numbers_is_refused_before_any_work(entry: Entry) -> None:
    with pytest.raises(dc.DevconvError, match=f"^{entry.kind}: "):
        entry.mine().output_shape(())


KINDS = (
    "activation",
    "batchnorm",
    "channelshuffle",
    "conv",
    "dropout",
    "flatten",
    "fold",
    "instancenorm",
    "linear",
    "loss",
    "normalization",
    "padding",
    "pixelshuffle",
    "pooling",
    "upsampling",
)
"""PyTorch's files of modules whose kinds this library has."""


def torch_modules() -> list[str]:
    """PyTorch's modules of the kinds that this library has."""
    torch = pytest.importorskip("torch")
    return sorted(
        name
        for name, kind in vars(torch.nn).items()
        if isinstance(kind, type)
        and issubclass(kind, torch.nn.Module)
        and kind.__module__.removeprefix("torch.nn.modules.") in KINDS
        and not name.startswith("Lazy")
    )


def test_no_module_was_forgotten() -> None:
    """PyTorch's modules of these kinds are layers here, or listed among the differences."""
    page = Path(__file__).parents[2].joinpath("docs", "differences.md").read_text("utf-8")
    modules = torch_modules()
    assert len(modules) > 90
    missing = [name for name in modules if not hasattr(dc, name)]
    table = page[page.index("## Not offered") :]
    refused = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    }
    assert refused == set(missing)


def test_every_layer_is_in_the_table() -> None:
    """What the table leaves out is a container, a base or has a test of its own."""
    layers = {
        name
        for name in dc.layers.__all__
        if isinstance(getattr(dc, name), type) and issubclass(getattr(dc, name), dc.Layer)
    }
    bases = {"Activation", "Layer", "OperationLayer"}
    containers = {"Concatenate", "Parallel", "Residual", "Sequential", "Lambda"}
    assert layers - {e.kind for e in ENTRIES} == bases | containers | EXTRA


def flags() -> dict[tuple[str, str], Entry]:
    """Each kind's arguments that are true or false, with an entry of that kind."""
    return {
        (entry.kind, each.name): entry
        for entry in ENTRIES
        if is_dataclass(entry.mine())
        for each in fields(entry.mine())
        if each.type == "bool"
    }


@pytest.mark.parametrize("value", ["no", 0, None], ids=repr)
@pytest.mark.parametrize(("kind", "name"), flags())
def test_flags_are_checked_when_it_is_made(kind: str, name: str, value: Any) -> None:
    entry = flags()[kind, name]
    names = [each.name for each in fields(entry.mine())]
    given = {**dict(zip(names, entry.arguments, strict=False)), **entry.options, name: value}
    with pytest.raises(TypeError, match=f"^{kind}: {name} must be True or False, got {value!r}$"):
        getattr(dc, kind)(**given)


def test_numpy_s_booleans_are_flags() -> None:
    layer = dc.Conv2d(2, 4, 3, bias=np.False_)  # type: ignore[arg-type]
    assert repr(layer) == "Conv2d(2, 4, 3, bias=False)  # 72"


@pytest.mark.parametrize("kind", sorted({entry.kind for entry in ENTRIES} | EXTRA))
def test_wrong_arguments_name_the_class(kind: str) -> None:
    """Not a private one that it inherits its constructor from."""
    for arguments, options in (((), {"such_a_thing": 1}), (range(20), {})):
        with pytest.raises(TypeError, match=rf"^{kind}(\.__init__)?\(\) (got an unexp|takes )"):
            getattr(dc, kind)(*arguments, **options)
