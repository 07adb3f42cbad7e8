"""The door for speed: every quicker route equals the written-once route, and can be closed."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _fast
from devconv import functional as F
from devconv._fast import budget
from devconv.functional.products import channel_sums
from devconv.functional.windows import cut, plan, take
from devconv.testing import generic
from tests import backends
from tests.backends import Backend

contraction = importlib.import_module("devconv.functional.contraction")
convolution = importlib.import_module("devconv.functional.direct")

GEOMETRIES = [
    ((6, 5), (3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ((6, 5), (3, 2), (2, 3), ((1, 2), (0, 1)), (1, 1)),
    ((6, 5), (2, 2), (1, 2), ((3, 3), (3, 3)), (3, 2)),
    ((6, 5), (1, 1), (4, 3), ((0, 0), (0, 0)), (1, 1)),
    ((9,), (4,), (2,), ((0, 0),), (2,)),
    ((4, 3, 4), (2, 1, 3), (1, 2, 1), ((0, 1), (0, 0), (2, 0)), (2, 1, 1)),
]


def check_take(backend: Backend) -> None:
    """The same windows, whatever the memory order of the slab."""
    rng = np.random.default_rng(0)
    for geometry in GEOMETRIES:
        w = plan(*geometry)
        channels_first = backend.asarray(rng.standard_normal((2, 3, *w.size)))
        back = backend.xp.permute_dims(channels_first, (0, *range(2, 2 + len(w.size)), 1))
        for x in (back, backend.asarray(backend.to_numpy(back)), back[:1, ...], back[:0, ...]):
            slab = cut(x, w)
            quick = backend.to_numpy(take(slab, w))
            with generic():
                plain = backend.to_numpy(take(slab, w))
            np.testing.assert_array_equal(quick, plain)


def check_convolution(backend: Backend) -> None:
    """One whole convolution and its two cotangents, for every geometry, with groups too."""
    rng = np.random.default_rng(0)
    few = backend.name == "jax"  # which compiles for each new shape
    for geometry in GEOMETRIES[1:3] if few else GEOMETRIES:
        w = plan(*geometry)
        for groups, c, o in ((1, 3, 4), (2, 4, 6), (3, 3, 6), (3, 3, 3))[: 2 if few else 4]:
            x = backend.asarray(rng.standard_normal((2, *w.size, c)))
            weight = backend.asarray(rng.standard_normal((o, c // groups, *w.kernel)))
            dy = backend.asarray(rng.standard_normal((2, *w.out, o)))
            for call in (
                lambda x=x, k=weight, w=w, g=groups: convolution.correlate(x, k, w, g),
                lambda dy=dy, k=weight, w=w, g=groups: convolution.input_cotangent(dy, k, w, g),
                lambda x=x, dy=dy, k=weight, w=w, g=groups: convolution.kernel_cotangent(
                    x, dy, k, w, g
                ),
            ):
                quick = backend.to_numpy(call())
                with generic():
                    plain = backend.to_numpy(call())
                assert quick.shape == plain.shape
                np.testing.assert_allclose(quick, plain, rtol=0, atol=1e-12 * np.abs(plain).max())


def test_a_plan_with_fewer_windows_than_fit_is_left_to_the_written_once_route() -> None:
    """As a transposed convolution with a large output_padding has."""
    x = np.ones((1, 6, 1))
    full = plan((6,), (2,), (1,), ((0, 0),), (1,))
    fewer = dataclasses.replace(full, out=(3,))
    for name in ("torch", "jax"):
        backend = backends.get(name)
        for primitive in ("correlate", "input_cotangent", "kernel_cotangent"):
            a = backend.asarray(x)
            with generic(False):
                assert _fast.convolution(primitive, a, full, 1) is not None
                assert _fast.convolution(primitive, a, fewer, 1) is None


def check_columns(backend: Backend) -> None:
    """The same rows as the written-once route lays out, in whatever memory."""
    rng = np.random.default_rng(0)
    for geometry in GEOMETRIES:
        w = plan(*geometry)
        for dtype in ("float64", "float32", "float16"):
            x = backend.asarray(rng.standard_normal((2, 3, *w.size)), dtype)
            slab = cut(backend.xp.permute_dims(x, (0, *range(2, 2 + len(w.size)), 1)), w)
            product = contraction.Product(backend.asarray(np.ones((4, 3, *w.kernel)), dtype), 1)
            quick = backend.to_numpy(product._columns(slab, w)).copy()
            with generic():
                plain = backend.to_numpy(product._columns(slab, w))
            assert quick.dtype == plain.dtype
            np.testing.assert_array_equal(quick, plain)


def check_multiply(backend: Backend) -> None:
    """Float32 matrices in every memory order; under "fast" with the digits that TF32 leaves."""
    rng = np.random.default_rng(0)
    for m, k, n in ((5, 64, 7), (1, 3, 1), (130, 200, 70)):
        host = rng.standard_normal((2 * m, 2 * k)), rng.standard_normal((2 * k, 2 * n))
        a, b = (backend.asarray(x, "float32") for x in host)
        lefts = (a[:m, :k], a[::2, ::2], backend.asarray(host[0][:m, :k].T.copy(), "float32").T)
        rights = (b[:k, :n], b[::2, ::2], backend.asarray(host[1][:k, :n].T.copy(), "float32").T)
        for left, right in itertools.product(lefts, rights):
            with generic():
                wanted = backend.to_numpy(_fast.multiplication(left, right)(left, right))
            for level, digits in (("exact", 1e-6), ("fast", 2e-3)):
                with dc.precision(level):
                    found = backend.to_numpy(_fast.multiplication(left, right)(left, right))
                assert found.dtype == wanted.dtype == np.float32
                close = digits * np.abs(wanted).max()
                np.testing.assert_allclose(found, wanted, rtol=0, atol=close)


def check_channel_sums(backend: Backend) -> None:
    """Rows of any length, few and many, in the dtypes that there are."""
    rng = np.random.default_rng(0)
    for shape in ((7, 3), (2, 5, 6, 4), (1000, 1), (1, 8)):
        host = rng.standard_normal(shape)
        for dtype, digits in (("float64", 1e-13), ("float32", 1e-5), ("float16", 2e-2)):
            x = backend.asarray(host, dtype)
            found = backend.to_numpy(channel_sums(x))
            wanted = host.sum(axis=tuple(range(len(shape) - 1)))
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=0, atol=digits * shape[0] ** 0.5)


CHECKS: dict[str, Callable[[Backend], None]] = {
    "take": check_take,
    "multiply": check_multiply,
    "channel_sums": check_channel_sums,
    "columns": check_columns,
    "weigh": check_convolution,
    "weigh_back": check_convolution,
    "correlate": check_convolution,
    "input_cotangent": check_convolution,
    "kernel_cotangent": check_convolution,
}


def test_scratch_memory_never_leaves_a_call() -> None:
    """Two results, two threads at once, a pullback after another call: nothing is shared."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3, 3, 3))
    images = [rng.standard_normal((6, 3, 20, 20)) for _ in range(8)]

    def use(x: np.ndarray) -> list[np.ndarray]:
        y, pullback = F.conv.vjp(x, weight)
        F.conv(2.0 * x, weight)
        return [y, *pullback(y)]

    alone = [use(x) for x in images]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(use, images))
    for a, b in zip(alone, together, strict=True):
        for first, second in zip(a, b, strict=True):
            np.testing.assert_array_equal(first, second)
    with generic():
        for a, x in zip(alone, images, strict=True):
            for first, second in zip(a, use(x), strict=True):
                np.testing.assert_allclose(first, second, rtol=0, atol=1e-12 * abs(first).max())


def test_every_route_has_a_check() -> None:
    assert {primitive for primitive, _ in _fast.TABLE} == set(CHECKS)


@pytest.mark.parametrize(
    ("primitive", "library"), [p for p in _fast.TABLE if p[1] in backends.usable()]
)
def test_route_equals_the_written_once_route(
    primitive: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    original = _fast.TABLE[primitive, library]

    def counted(*args: Any, **kwargs: Any) -> Any:
        taken.append(primitive)
        return original(*args, **kwargs)

    monkeypatch.setitem(_fast.TABLE, (primitive, library), counted)
    backend = backends.get(library)
    with _fast.numba(False), _fast.trial(), backend.here():
        CHECKS[primitive](backend)
    assert taken, "the route was never taken"


# --- closing the door ---


def test_the_door_is_open_and_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_fast.TABLE, ("sample", "numpy"), len)
    x = np.ones(3)
    with generic(False):
        assert _fast.route("sample", x) is len
        with generic():
            assert _fast.route("sample", x) is None
            with generic(False):
                assert _fast.route("sample", x) is len
            assert _fast.route("sample", x) is None
        assert _fast.route("sample", x) is len
        assert _fast.route("another", x) is None


def test_an_error_inside_opens_the_door_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_fast.TABLE, ("sample", "numpy"), len)
    with generic(False):
        with pytest.raises(KeyError), generic():
            raise KeyError
        assert _fast.route("sample", np.ones(1)) is len


def test_a_closed_door_is_the_thread_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_fast.TABLE, ("sample", "numpy"), len)
    monkeypatch.delenv("DEVCONV_GENERIC", raising=False)
    seen: list[Any] = []
    with generic():
        other = threading.Thread(target=lambda: seen.append(_fast._door.closed))
        other.start()
        other.join()
    assert seen == [os.environ.get("DEVCONV_GENERIC", "") not in ("", "0")]


@pytest.mark.parametrize(("value", "closed"), [("1", True), ("0", False), ("", False)])
def test_the_environment_closes_the_door(value: str, closed: bool) -> None:
    script = "from devconv import _fast; import numpy; print(_fast._door.closed)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DEVCONV_GENERIC": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(closed)


# --- views ---


def test_windows_on_numpy_are_a_read_only_view() -> None:
    w = plan(*GEOMETRIES[0])
    slab = np.ones((2, 6, 5, 3))
    with generic(False):
        taken = take(slab, w)
    assert np.shares_memory(taken, slab)
    assert not taken.flags.writeable


# --- the workspace ---


def test_the_workspace_is_a_constant_of_library_and_device(backend: Backend) -> None:
    small, large = backend.asarray(np.ones(1)), backend.asarray(np.ones((64, 64)), "float32")
    assert _fast.workspace(small) == _fast.workspace(large)
    assert (_fast.workspace(small) is None) == (backend.name == "jax")


def test_a_gpu_gets_a_workspace_by_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    asked = []

    def properties(device: Any) -> Any:
        asked.append(device)
        return SimpleNamespace(total_memory=8 * budget.GIB)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    gpu = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    assert _fast.torch.workspace(gpu) == budget.budget(8 * budget.GIB)
    assert asked == [gpu.device]
    assert _fast.workspace(torch.ones(1, device="meta")) == 256 * budget.MIB
    assert _fast.workspace(torch.ones(1)) == 4 * budget.MIB


def test_trials_are_asked_for_by_names_that_exist() -> None:
    with _fast.trial("kernels", "cudnn"):
        assert _fast.trials() == ("cudnn", "kernels")
        with _fast.trial():
            assert _fast.trials() == ()
    message = "trial must be one of 'kernels', 'cudnn', got 'cuddn'"
    with pytest.raises(ValueError, match=message), _fast.trial("cuddn"):
        pass


@pytest.mark.parametrize(
    ("value", "taken", "warns"),
    [
        ("", "()", False),
        ("kernels, cudnn", "('cudnn', 'kernels')", False),
        ("kernel", "()", True),
    ],
)
def test_the_environment_asks_for_trials(value: str, taken: str, warns: bool) -> None:
    script = "from devconv import _fast; print(_fast.trials())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DEVCONV_TRIAL": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == taken
    assert ("DEVCONV_TRIAL='kernel' is ignored" in done.stderr) == warns
