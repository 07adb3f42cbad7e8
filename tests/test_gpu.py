"""What needs a GPU to be seen: streams of the user's own, several devices, the same bits again.

Without CuPy and a GPU these tests are skipped, and ``DEVCONV_REQUIRE=cupy`` makes that an error.
Those that hold on every backend run on every backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _array
from tests import backends
from tests.backends import Backend
from tests.cases import collect
from tests.cases.case import Case
from tests.toys import images, labels, place


@pytest.fixture(params=[0, 1], ids=["cuda:0", "cuda:1"])
def gpu(request: pytest.FixtureRequest) -> Backend:
    """CuPy on each of two GPUs, while the first is the current one."""
    return backends.gpu(request.param)


@contextmanager
def own_stream(backend: Backend) -> Iterator[Any]:
    """A stream that does not wait for the default one, which has work for a while."""
    cupy = pytest.importorskip("cupy")
    with backend.device:
        x = cupy.ones((3000, 3000), dtype="float32")
        for _ in range(4):
            x = x @ x * 1e-4
        stream = cupy.cuda.Stream(non_blocking=True)
    with backend.device, stream:
        yield stream
        stream.synchronize()


def there_and_back(case: Case, backend: Backend) -> list[np.ndarray | None]:
    """What an operation gives for a case's arrays, and its pullback, on the host."""
    args = [None if x is None else backend.asarray(x) for x in case.draw()]
    options = {
        name: backend.asarray(value) if isinstance(value, np.ndarray) else value
        for name, value in case.options.items()
    }
    y, pullback = case.op.vjp(*args, **options)
    lead = y[0] if isinstance(y, tuple) else y
    dy = backend.asarray(np.random.default_rng(1).standard_normal(tuple(lead.shape)))
    results = [*(y if isinstance(y, tuple) else [y]), *pullback(dy)]
    for x in results:
        assert x is None or _array.device(x) == backend.device
    return [None if x is None else backend.to_numpy(x) for x in results]


def assert_same_bits(found: Any, wanted: Any) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


@pytest.mark.parametrize("case", collect(), ids=str)
def test_an_operation_on_a_stream_of_one_s_own(case: Case, gpu: Backend) -> None:
    wanted = there_and_back(case, gpu)
    with own_stream(gpu):
        found = there_and_back(case, gpu)
    assert_same_bits(found, wanted)


def network(seed: int = 0) -> dc.Sequential:
    return dc.Sequential(
        dc.Conv2d(2, 8, 3, padding=1, bias=False),
        dc.BatchNorm2d(8),
        dc.ReLU(),
        dc.MaxPool2d(3, 2, 1),
        dc.Conv2d(8, 8, 3, padding=1, groups=2),
        dc.GELU(),
        dc.Dropout(0.2),
        dc.Flatten(),
        dc.Dense(None, 3),
    ).build((2, 8, 8), seed=seed)


def trained(device: Any, precision: str = "float32") -> list[np.ndarray]:
    """All that a short run leaves behind: parameters, buffers, moments, losses, predictions."""
    model = network().to(device)
    optimizer = dc.optim.Adam(model, lr=1e-2)
    made = dc.Trainer(model, dc.functional.cross_entropy, optimizer, precision=precision)
    x, target = images(12, dtype="float32"), labels(12)
    batches = dc.data.Batches(x, target, batch_size=4, seed=0)
    history = made.fit(batches, epochs=2, progress=False)
    arrays = {**model.state_dict(), **optimizer.state_dict()}.values()
    return [*map(dc.to_numpy, arrays), np.asarray(history["loss"]), made.predict(x)]


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
def test_one_seed_gives_the_same_bits_again(precision: str, backend: Backend) -> None:
    if precision == "float16" and not backend.has(precision):
        pytest.skip(f"{backend} has no {precision}")
    if precision != "float32" and backend.name == "jax":
        pytest.skip("compiling takes minutes")
    assert_same_bits(trained(place(backend), precision), trained(place(backend), precision))


def test_a_run_has_the_same_bits_on_every_stream(gpu: Backend) -> None:
    wanted = trained(place(gpu))
    for _ in range(2):
        with own_stream(gpu):
            found = trained(place(gpu))
        assert_same_bits(found, wanted)


def test_arrays_are_made_where_they_belong(gpu: Backend) -> None:
    """Whatever the current device is."""
    cupy = pytest.importorskip("cupy")
    for current in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(current):
            model = network().to(place(gpu))
            optimizer = dc.optim.Adam(model)
            x, target = (dc.to_device(a, model.device) for a in (images(dtype="float32"), labels()))
            loss, grads = dc.value_and_grad(model, dc.functional.cross_entropy)(x, target)
            optimizer.step(grads)
            key = dc.random.key(0, like=x)
            made = [*model.state_dict().values(), *optimizer.state_dict().values()]
            made += [x, target, loss, *grads.values(), dc.random.normal(key, 3), model(x)]
            assert {a.device.id for a in made} == {gpu.device.id}
            assert cupy.cuda.Device().id == current


def test_another_gpu_s_arrays_are_read_beside_a_stream_of_one_s_own(gpu: Backend) -> None:
    """CuPy's ``get`` refuses the stream of the device that is current by chance."""
    host = np.arange(6.0).reshape(2, 3)
    x = dc.to_device(host, place(gpu))
    halves = dc.to_device(host, place(gpu), dtype="float16")
    with own_stream(backends.gpu(0)):
        assert_same_bits([dc.to_numpy(x), dc.to_numpy(x.T)], [host, host.T])
        assert_same_bits([dc.to_numpy(halves)], [host.astype("float16")])
        assert_same_bits([dc.to_numpy(dc.to_device(x, "cpu"))], [host])


def test_moves_on_a_stream_of_one_s_own(gpu: Backend, tmp_path: Path) -> None:
    host = np.random.default_rng(0).standard_normal((400, 300)).astype("float32")
    first, model = backends.gpu(0), network(seed=1)
    with own_stream(gpu):
        x = dc.to_device(host, place(gpu))
        assert_same_bits([dc.to_numpy(x), dc.to_numpy(x.T)], [host, host.T])
        y = dc.to_device(x + 1.0, place(first))
        with first.device:
            assert_same_bits([dc.to_numpy(y)], [host + np.float32(1.0)])
        wanted = [dc.to_numpy(a) for a in model.state_dict().values()]
        dc.save(model.to(place(gpu)), tmp_path / "model.safetensors")
        again = network(seed=2).to(place(gpu))
        dc.load(again, tmp_path / "model.safetensors")
        assert_same_bits([dc.to_numpy(a) for a in again.state_dict().values()], wanted)
