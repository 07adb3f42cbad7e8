"""Passes in half precision over float32 arrays: what is cast, and what comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from devconv.layers.mixed import Mixed
from tests import backends
from tests.backends import Backend
from tests.toys import Centre, assert_equal, host, images, labels, place, unchanged

HALVES = [(b, d) for b in backends.usable().values() for d in ("float16", "bfloat16") if b.has(d)]
halves = pytest.mark.parametrize(("backend", "dtype"), HALVES, ids=str)
STEP = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The rounding error of a number."""


class Seen(dc.Layer):
    """Keep the dtypes that a pass brings: of the input and of the layer's arrays."""

    def __init__(self, inside: dc.Layer) -> None:
        self.inside, self.dtypes = inside, dict[str, str]()

    @property
    def children(self) -> dict[str, dc.Layer]:
        return {"inside": self.inside}

    def infer(self, trace: Any, shape: Any) -> Any:
        return trace.apply(self.inside, shape, "inside")

    def apply_vjp(self, scope: Any, x: Any) -> Any:
        within = scope._inside(self.inside)
        names = [*self.inside._arrays]
        self.dtypes = {"x": str(x.dtype), **{n: str(within[n].dtype) for n in names}}
        return scope.vjp("inside", self.inside, x)


def network() -> dc.Sequential:
    return dc.Sequential(
        dc.Conv2d(2, 4, 3, padding=1, bias=False),
        dc.BatchNorm2d(4),
        dc.ReLU(),
        dc.MaxPool2d(4),
        dc.Flatten(),
        dc.Dense(16, 3),
    )


def batch_of(backend: Backend) -> tuple[Any, Any]:
    return backend.asarray(images(), "float32"), backend.asarray(labels())


@halves
@pytest.mark.parametrize(
    ("layer", "shape", "kept"),
    [
        (lambda: dc.Dense(3, 2), (5, 3), ()),
        (lambda: dc.Conv2d(2, 3, 3, activation="relu"), (2, 2, 4, 4), ()),
        (
            lambda: dc.BatchNorm2d(2),
            (3, 2, 2, 2),
            ("weight", "bias", "running_mean", "running_var"),
        ),
        (lambda: dc.LayerNorm(4), (2, 4), ("weight", "bias")),
        (lambda: dc.GroupNorm(2, 4), (2, 4, 3), ("weight", "bias")),
        (lambda: dc.RMSNorm(4), (2, 4), ("weight",)),
        (lambda: dc.PReLU(), (2, 4), ()),
        (lambda: Centre(4), (2, 4), ()),
    ],
)
def test_what_is_cast(backend: Backend, dtype: str, layer: Any, shape: Any, kept: Any) -> None:
    seen = Seen(layer()).build(shape[1:]).to(place(backend))
    x = backend.asarray(np.random.default_rng(0).standard_normal(shape), "float32")
    (y, new_buffers), pullback = dc.pure(seen, precision=dtype).vjp(
        seen.parameters, seen.buffers, x
    )
    wide = {name for name, found in seen.dtypes.items() if found.endswith("float32")}
    assert wide == set(kept)
    assert all(seen.dtypes[name].endswith(dtype) for name in seen.dtypes.keys() - wide)
    dx, grads = pullback(y)
    for array in (y, dx, *grads.values(), *new_buffers.values()):
        assert str(array.dtype).endswith("float32")
    assert grads.keys() == seen.parameters.keys()


@halves
def test_near_float32(backend: Backend, dtype: str) -> None:
    model = network().build(seed=1).to(place(backend))
    pure, mixed = dc.pure(model), dc.pure(model, precision=dtype)
    parameters, buffers, (x, target) = model.parameters, model.buffers, batch_of(backend)
    with unchanged(model):
        (loss, wanted_buffers), wanted = dc.value_and_grad(pure, F.cross_entropy)(
            parameters, buffers, x, target
        )
        (near, new_buffers), grads = dc.value_and_grad(mixed, F.cross_entropy)(
            parameters, buffers, x, target
        )
        y, near_y = pure(parameters, buffers, x), mixed(parameters, buffers, x)
    pairs = [({"y": near_y}, {"y": y}), (grads, wanted), (new_buffers, wanted_buffers)]
    for some, exact in pairs:
        for name, g in host(backend, exact).items():
            difference = np.linalg.norm(backend.to_numpy(some[name]) - g)
            assert difference <= 40 * STEP[dtype] * np.linalg.norm(g) + 1e-6, name
    assert np.any(backend.to_numpy(near_y) != backend.to_numpy(y))
    assert float(near) == pytest.approx(float(loss), rel=10 * STEP[dtype])


@halves
def test_the_scale_reaches_the_gradients_and_not_the_loss(backend: Backend, dtype: str) -> None:
    """A power of 2 moves no digit; a gradient that float16 cannot hold is there."""
    model = dc.Dense(3, 2, bias=False, weight_init="ones").build().to(place(backend))
    evaluate = dc.value_and_grad(dc.pure(model, precision=dtype), F.mse_loss)
    x = backend.asarray(np.full((2, 3), 2.0**-13), "float32")
    target = backend.asarray(np.zeros((2, 2)), "float32")
    arrays = (model.parameters, model.buffers, x, target)
    (loss, _), plain = evaluate(*arrays)
    scale = backend.asarray(np.asarray(2.0**16), "float32")
    (same, _), scaled = evaluate(*arrays, scale=scale)
    assert float(same) == float(loss)
    np.testing.assert_array_equal(backend.to_numpy(scaled["weight"]) / 2.0**16, 3 * 2.0**-26)
    exact = np.all(backend.to_numpy(plain["weight"]) == 3 * 2.0**-26)
    assert exact == (dtype == "bfloat16")


@halves
def test_an_overflow_is_infinite_and_silent(backend: Backend, dtype: str) -> None:
    model = dc.Dense(2, 1, weight_init="ones").build().to(place(backend))
    mixed = dc.pure(model, precision=dtype)
    x = backend.asarray(np.full((1, 2), 4e4), "float32")
    (y, _), pullback = mixed.vjp(model.parameters, model.buffers, x)
    _, grads = pullback(y)
    infinite = not np.isfinite(backend.to_numpy(y)).all()
    assert infinite == (dtype == "float16")
    assert np.isfinite(backend.to_numpy(grads["weight"])).all() != infinite


def test_a_batch_that_is_half_already() -> None:
    model = dc.Dense(2, 1).build()
    x = np.ones((3, 2), dtype="float16")
    (y, _), pullback = dc.pure(model, precision="float16").vjp(model.parameters, {}, x)
    assert y.dtype == "float32"
    assert pullback(y)[0].dtype == "float16"


def test_as_pytorch_with_the_same_casts() -> None:
    """PyTorch's own layers, on copies of float32 parameters in half precision."""
    torch, backend = pytest.importorskip("torch"), backends.get("torch")
    model = network().build(seed=1).to(place(backend))
    x, target = batch_of(backend)
    leaves = {n: p.detach().clone().requires_grad_() for n, p in model.parameters.items()}
    buffers = {n: b.clone() for n, b in model.buffers.items()}
    half = {n: p if n.startswith("1.") else p.to(torch.bfloat16) for n, p in leaves.items()}
    nn = torch.nn.functional
    y = nn.conv2d(x.bfloat16(), half["0.weight"], padding=1)
    y = nn.batch_norm(
        y,
        buffers["1.running_mean"],
        buffers["1.running_var"],
        half["1.weight"],
        half["1.bias"],
        True,
    )
    y = nn.max_pool2d(nn.relu(y), 4).flatten(1)
    loss = nn.cross_entropy(nn.linear(y, half["5.weight"], half["5.bias"]).float(), target)
    loss.backward()
    evaluate = dc.value_and_grad(dc.pure(model, precision="bfloat16"), F.cross_entropy)
    (found, renewed), grads = evaluate(model.parameters, model.buffers, x, target)
    assert float(found) == pytest.approx(loss.item(), rel=4 * STEP["bfloat16"])
    for name, leaf in leaves.items():
        assert leaf.grad.dtype == grads[name].dtype == torch.float32
        difference = torch.linalg.norm(leaf.grad - grads[name])
        assert (
            float(difference) <= 10 * STEP["bfloat16"] * float(torch.linalg.norm(leaf.grad)) + 1e-6
        )
    for name, buffer in buffers.items():
        torch.testing.assert_close(renewed[name], buffer, rtol=2e-2, atol=2e-3)


def test_inference_of_the_stateful_face() -> None:
    model = network().build(seed=1)
    x = images(dtype="float32")
    with unchanged(model):
        y = Mixed(model, "float16")(x)
    wanted = dc.pure(model, precision="float16")(model.parameters, model.buffers, x)
    assert_equal({"y": y}, {"y": wanted})


def test_nothing_waits(host_reads: Any) -> None:
    """float64 stands for half precision, which the strict library does not have."""
    model = dc.Sequential(dc.Dense(3, 4), dc.ReLU(), Centre(4), dc.Dense(4, 2)).build()
    model.to("array_api_strict:device1")
    pure = dc.pure(model)
    pure._mixed = object.__new__(Mixed)
    vars(pure._mixed).update(layer=model, dtype="float64", kept=frozenset())
    x = model.device.asarray(np.ones((5, 3)), "float32")
    with host_reads.forbidden():
        (y, _), pullback = pure.vjp(model.parameters, model.buffers, x)
        _, grads = pullback(y)
    assert str(y.dtype).endswith("float64")
    assert all(str(g.dtype).endswith("float32") for g in grads.values())


@pytest.mark.parametrize(
    ("spec", "dtype", "precision", "error", "message"),
    [
        (
            "cpu",
            "float32",
            "double",
            InvalidValue,
            "precision must be one of 'float32', 'tf32', 'float16'",
        ),
        (
            "cpu",
            "float32",
            "bfloat16",
            InvalidType,
            r'precision="bfloat16": cpu \(numpy\) has no bfloat16; use "float16" or "float32", or',
        ),
        (
            "array_api_strict:device1",
            "float32",
            "float16",
            InvalidType,
            r'device1 \(array_api_strict\) has no float16; use "float32", or move the model to a',
        ),
        (
            "cpu",
            "float16",
            "float16",
            InvalidType,
            r"expected a model with float32 parameters, .* got float16; say model\.to\(dtype=\"flo",
        ),
    ],
)
def test_what_is_refused(spec: str, dtype: str, precision: str, error: type, message: str) -> None:
    model = dc.Dense(2, 1).build().to(spec, dtype=dtype)
    with pytest.raises(error, match=f"^pure: .*{message}" if error is InvalidValue else message):
        dc.pure(model, precision=precision)


def test_tf32_is_no_dtype() -> None:
    """float32 arrays under "fast": nothing is cast, and the precision around is back afterwards."""
    model = dc.Sequential(dc.Conv2d(2, 3, 3), dc.Flatten(), dc.Dense(None, 2)).build((2, 5, 5))
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 5)).astype("float32")
    pure = dc.pure(model, precision="tf32")
    with dc.precision("fast"):
        wanted, back = dc.pure(model).vjp(model.parameters, model.buffers, x)
    found, pullback = pure.vjp(model.parameters, model.buffers, x)
    assert dc.precision() == "exact"
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(pure(model.parameters, model.buffers, x), wanted[0])
    for one, other in zip(pullback(found[0])[1].values(), back(wanted[0])[1].values(), strict=True):
        np.testing.assert_array_equal(one, other)
    wide = dc.Dense(2, 2).build().to(dtype="float64")
    with pytest.raises(
        InvalidType, match=r'^precision="tf32": expected a model with float32 param'
    ):
        dc.pure(wide, precision="tf32")
