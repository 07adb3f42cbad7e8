"""What Numba compiles for NumPy arrays equals the written-once routes, whoever shares the work."""

from __future__ import annotations

import itertools
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import devconv as dc
from devconv import _fast
from devconv import functional as F
from devconv.functional.special import blend, blend_twice
from devconv.testing import generic

pytest.importorskip("numba")

from devconv._fast import compiled
from devconv._fast.compiled import block, memory, native, passes, spread, sweep, threads, windows
from devconv._fast.compiled.atomics import look, tell
from devconv._fast.compiled.native import Task, integers, numbers

Call = Callable[[], list[np.ndarray]]

IMAGES = [  # n, c, size, o, kernel, and options
    (3, 3, (9, 8), 5, (3, 2), {}),
    (2, 17, (6, 5), 33, (3, 3), {"padding": 1}),
    (2, 3, (13, 16), 3, (5, 5), {"padding": 2}),  # few outputs: several pixels at once
    (2, 4, (14, 12), 1, (3, 4), {"padding": ((2, 1), (0, 3))}),
    (3, 1, (8, 28), 8, (3, 3), {"padding": 1}),
    (2, 64, (9, 9), 70, (3, 3), {"stride": 2, "padding": 1}),
    (2, 5, (11, 12), 3, (4, 5), {"stride": (3, 2), "padding": (1, 4), "dilation": (1, 2)}),
    (2, 3, (16, 20), 4, (7, 7), {"stride": 2, "padding": 3}),
    (2, 3, (9, 7), 4, (2, 1), {"stride": 3}),  # pixels that no window reads
    (17, 40, (2, 2), 36, (3, 3), {"padding": 1}),  # images smaller than a block
    (3, 6, (4, 3), 90, (3, 2), {"padding": ((1, 0), (2, 1)), "stride": (2, 1)}),  # few windows
    (1, 5, (9,), 40, (3,), {"dilation": 2, "stride": 2}),
    (2, 6, (5, 7), 9, (1, 1), {}),
    (2, 6, (7, 7), 6, (1, 1), {"stride": 2}),
    (2, 12, (6, 7), 8, (3, 3), {"groups": 4, "padding": 1}),
    (2, 40, (6, 7), 40, (3, 3), {"groups": 40, "padding": 1, "dilation": 2}),  # depthwise
    (2, 5, (6, 7), 5, (3, 2), {"groups": 5, "stride": 2}),
    (2, 4, (6, 7), 8, (3, 3), {"groups": 4}),
    (2, 4, (90,), 5, (7,), {"stride": 2, "padding": 3, "dilation": 2}),
    (1, 2, (4000,), 3, (31,), {}),
    (2, 3, (4, 5, 6), 4, (2, 3, 3), {"padding": 1, "stride": (1, 2, 1)}),
    (2, 130, (40, 40), 4, (3, 3), {"padding": 1}),  # bands of an image
]


@pytest.fixture(autouse=True)
def _open_door(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_fast.numpy, "SMALL", 0)
    with generic(False), _fast.numba():
        yield


def arrays(seed: int, *shapes: tuple[int, ...], dtype: Any = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def equal(call: Call, *, digits: float = 1e-13) -> list[np.ndarray]:
    """The results by the routes, which equal the written-once ones."""
    quick = call()
    with generic():
        plain = call()
    for a, b in zip(quick, plain, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            a, b, rtol=0, atol=digits * max(np.abs(b).max(initial=0), 1e-300)
        )
    return quick


def conv_call(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray, options: dict[str, Any]
) -> list[np.ndarray]:
    y, pullback = F.conv.vjp(x, weight, **options)
    return [y, *pullback(dy)]


def conv_arrays(case: Any, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, c, size, o, kernel, options = case
    x, weight = arrays(0, (n, c, *size), (o, c // options.get("groups", 1), *kernel), dtype=dtype)
    with generic():
        shape = F.conv(x, weight, **options).shape
    return x, weight, arrays(1, shape, dtype=dtype)[0]


def last(x: np.ndarray) -> np.ndarray:
    """The same numbers in channels-last memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


@pytest.mark.parametrize("case", IMAGES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_convolution(case: Any, dtype: str) -> None:
    x, weight, dy = conv_arrays(case, dtype)
    for order in (last, np.asarray):
        a, b = order(x), order(dy)
        digits = 1e-13 if dtype == "float64" else 1e-5
        equal(lambda a=a, b=b: conv_call(a, weight, b, case[-1]), digits=digits)


SPREAD = [  # few channels, some images: what windows send back is added where it was read
    (4, 3, (9, 8), 20, (3, 3), {"padding": 1}),
    (5, 3, (20, 40), 16, (5, 4), {"padding": ((1, 4), (0, 3))}),
    (4, 3, (16, 20), 9, (7, 7), {"stride": 2, "padding": 3}),
    (4, 2, (11, 12), 3, (4, 5), {"stride": (3, 2), "padding": (1, 4), "dilation": (1, 2)}),
    (4, 3, (10, 7), 16, (2, 1), {"stride": 4}),  # pixels that no window reads
    (6, 3, (50,), 33, (7,), {"stride": 2, "padding": 3, "dilation": 2}),
    (4, 3, (4, 5, 6), 24, (2, 3, 3), {"padding": 1, "stride": (1, 2, 1)}),
]


@pytest.mark.parametrize("case", SPREAD, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_way_back_to_few_channels(
    case: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "WASTE", math.inf)
    taken, there = [], spread.input_cotangent
    monkeypatch.setattr(spread, "input_cotangent", lambda *a: taken.append(a) or there(*a))
    x, weight, dy = conv_arrays(case, dtype)
    for order in (last, np.asarray):
        a, b = order(x), order(dy)
        digits = 1e-13 if dtype == "float64" else 1e-5
        equal(lambda a=a, b=b: conv_call(a, weight, b, case[-1]), digits=digits)
    assert taken or x.shape[1] * x.itemsize > block.VECTOR_BYTES // 2


def misaligned(x: np.ndarray) -> np.ndarray:
    memory = np.empty(x.nbytes + 1, np.uint8)
    copy = np.frombuffer(memory[1:].data, x.dtype).reshape(x.shape)
    copy[...] = x
    assert not copy.flags.aligned
    return copy


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_columns_that_are_multiplied_by_compiled_products(dtype: str) -> None:
    """Where a convolution is not compiled and its product is: their memory is not the same."""
    digits = 1e-12 if dtype == "float64" else 1e-5
    case = (2, 8, (5, 5, 5, 5), 48, (2, 2, 2, 2), {})
    x, weight, dy = conv_arrays(case, dtype)
    equal(lambda: conv_call(x, weight, dy, {}), digits=digits)
    case = (4, 16, (12, 12), 48, (3, 3), {"stride": 2})
    x, weight, dy = conv_arrays(case, dtype)
    equal(lambda: conv_call(misaligned(x), weight, dy, case[-1]), digits=digits)


def test_the_routes_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = set()

    def watched(name: str, route: Any) -> Any:
        def call(*args: Any) -> Any:
            taken.add(name)
            return route(*args)

        return call

    for name, route in list(compiled.ROUTES.items()):
        monkeypatch.setitem(compiled.ROUTES, name, watched(name, route))
    x, weight, dy = conv_arrays(IMAGES[0])
    bias = np.ones(weight.shape[0])
    y, pullback = F.conv.vjp(x, weight, bias)
    pullback(last(dy))
    for op, options in (
        (F.max_pool, {"kernel_size": 2}),
        (F.avg_pool, {"kernel_size": 2}),
        (F.batch_norm, {"training": True}),
        (F.relu, {}),
        (F.tanh, {}),
    ):
        y, pullback = op.vjp(last(x), **options)
        pullback(y)
    F.dense(np.ones((2, 3)), np.ones((4, 3)))
    x, weight, dy = conv_arrays((2, 3, (9, 8), 5, (3, 3), {}), np.float32)
    F.conv.vjp(x, weight, algorithm="winograd")[1](dy)
    blend(1.0, x, 2.0, x)
    blend_twice(1.0, x, 2.0, x, 3.0, x)
    assert taken == set(compiled.ROUTES)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def per(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    kernel, stride, dilation = per(1, 4), per(1, 3), per(1, 2)
    padding = tuple((a, b) for a, b in zip(per(0, 3), per(0, 3), strict=True))
    size = tuple(
        max(1, d * (k - 1) + 1 - sum(p)) + extra
        for d, k, p, extra in zip(dilation, kernel, padding, per(0, 9), strict=True)
    )
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    c, o = (groups * data.draw(st.integers(1, 5)) for _ in range(2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    case = (data.draw(st.integers(1, 4)), c, size, o, kernel, options)
    x, weight, dy = conv_arrays(case)
    equal(lambda: conv_call(last(x), weight, last(dy), options), digits=1e-12)
    axes = zip(dy.shape[2:], kernel, stride, dilation, padding, strict=True)
    assume(all((n - 1) * s + d * (k - 1) + 1 > sum(p) for n, k, s, d, p in axes))
    equal(lambda: transposed_call(dy, weight, options), digits=1e-12)


def transposed_call(y: np.ndarray, weight: np.ndarray, options: dict[str, Any]) -> list[np.ndarray]:
    """The transposed convolution with the same options, which may leave pixels unread."""
    x, pullback = F.conv_transpose.vjp(y, weight, **options)
    return [x, *pullback(np.cos(x))]


PLANES = [  # n, c, size, o, padding
    (2, 3, (7, 9), 5, 1),
    (3, 17, (8, 12), 33, ((0, 0), (2, 1))),
    (2, 40, (9, 9), 70, 1),
    (1, 5, (3, 3), 4, 0),
    (2, 6, (5, 4), 3, 3),
    (40, 64, (8, 8), 64, 1),
]


@pytest.mark.parametrize("case", PLANES, ids=str)
@pytest.mark.parametrize(("precision", "most"), [("exact", 8e-6), ("fast", 4e-5)])
def test_winograd(case: Any, precision: str, most: float) -> None:
    """Beside the direct sum in float64, in units of the result's standard deviation."""
    n, c, size, o, padding = case
    options = {"padding": padding}
    x, weight, dy = conv_arrays((n, c, size, o, (3, 3), options), np.float32)
    wide = conv_call(*(a.astype(np.float64) for a in (x, weight, dy)), options)
    for order in (last, np.asarray):
        with dc.precision(precision):
            found = conv_call(order(x), weight, order(dy), {**options, "algorithm": "winograd"})
        for a, b in zip(found, wide, strict=True):
            assert np.abs(a - b).max() < most * b.std()


def test_winograd_is_chosen_where_it_is_quicker() -> None:
    def algorithm(*shapes: tuple[int, ...], **options: Any) -> str:
        return dc.explain_conv(*shapes, **options).algorithm

    many, weight = (8, 64, 32, 32), (64, 64, 3, 3)
    assert algorithm(many, weight) == "winograd"
    assert "F(2, 3)" in str(dc.explain_conv(many, weight))
    with dc.precision("fast"):
        assert "F(4, 3)" in str(dc.explain_conv(many, weight))
    assert algorithm(many, weight, dtype="float64") == "gemm"
    assert algorithm(many, weight, stride=2) == "gemm"
    assert algorithm((8, 16, 32, 32), (16, 16, 3, 3)) == "gemm"  # few channels
    assert algorithm((1, 512, 2, 2), (512, 512, 3, 3), padding=1) == "gemm"  # few windows
    with _fast.numba(False):
        assert algorithm(many, weight) == "gemm"


def test_a_bias_is_where_the_sums_start() -> None:
    for case in (IMAGES[0], IMAGES[3], IMAGES[10], IMAGES[12], IMAGES[13]):
        x, weight, _ = conv_arrays(case)
        (bias,) = arrays(3, (weight.shape[0],))
        equal(lambda x=x, k=weight, b=bias, c=case: [F.conv(last(x), k, b, **c[-1])])
    x, weight, _ = conv_arrays((3, 64, (9, 9), 70, (3, 3), {}), np.float32)
    (bias,) = arrays(3, (70,), dtype=np.float32)
    plain = F.conv(x, weight, algorithm="winograd") + bias[:, None, None]
    np.testing.assert_allclose(
        F.conv(x, weight, bias, algorithm="winograd"), plain, rtol=0, atol=1e-4
    )


def test_arrays_read_backwards() -> None:
    x, weight, dy = conv_arrays(IMAGES[2])
    back = tuple(slice(None, None, -1) for _ in range(4))
    for a, b, c in ((x[back], weight, dy), (x, weight[back], dy), (x, weight, dy[back])):
        equal(lambda a=a, b=b, c=c: conv_call(a, b, c, IMAGES[2][-1]))


def test_a_window_that_meets_nan_gives_nan_and_no_other() -> None:
    """Also where neighbouring pixels are computed together and share their reads."""
    x = np.zeros((1, 1, 3, 16))
    x[0, 0, 1, 5] = np.nan
    for weight in (np.zeros((1, 1, 3, 3)), np.zeros((8, 1, 3, 3))):
        y, pullback = F.conv.vjp(x, weight, padding=1)
        assert np.isnan(y).any(axis=(0, 1, 2)).nonzero()[0].tolist() == [4, 5, 6]
        dy = np.zeros_like(y)
        dy[0, 0, 1, 9] = np.inf
        with np.errstate(invalid="ignore"):
            dx = pullback(dy)[0]
        assert np.isnan(dx).any(axis=(0, 1, 2)).nonzero()[0].tolist() == [8, 9, 10]


def test_no_pixel_is_written_twice_or_left_out() -> None:
    """The sweeps of the map back cover each pixel of the image once."""
    axes = itertools.product(range(1, 9), range(1, 5), range(1, 4), range(1, 3), range(3))
    for size, kernel, stride, dilation, before in axes:
        pixels = [
            pixel
            for each in sweep.phases(size, kernel, stride, dilation, (before, 0))
            for pixel in range(size)[slice(each.pixels[0], None, each.pixels[1])]
        ]
        assert sorted(pixels) == list(range(size))


def test_arrays_of_another_byte_order_or_out_of_place() -> None:
    x, weight, dy = conv_arrays(IMAGES[0], np.float32)
    plain = conv_call(last(x), weight, last(dy), {})

    def shifted(a: np.ndarray) -> np.ndarray:
        room = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        room[...] = a
        return room

    for other in (lambda a: a.astype(">f4"), shifted):
        for arrays_ in ((other(x), weight, dy), (x, other(weight), dy), (x, weight, other(dy))):
            for a, b in zip(conv_call(*arrays_, {}), plain, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        for op in (F.max_pool, F.avg_pool):
            y, pullback = op.vjp(x, kernel_size=2)
            np.testing.assert_array_equal(pullback(other(y))[0], pullback(y)[0])
        y, pullback = F.batch_norm.vjp(last(x), training=True)
        np.testing.assert_array_equal(pullback(other(y))[0], pullback(np.ascontiguousarray(y))[0])


POOLS = [
    ((2, 3, 9, 8), {"kernel_size": 2}),
    ((2, 3, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((1, 5, 7, 9), {"kernel_size": (2, 3), "stride": (1, 3), "padding": ((1, 0), (0, 1))}),
    ((2, 3, 11), {"kernel_size": 4, "stride": 3, "dilation": 2, "ceil_mode": True}),
    ((2, 2, 5, 6, 4), {"kernel_size": (2, 1, 3), "stride": 2, "padding": (1, 0, 1)}),
]


@pytest.mark.parametrize(("shape", "options"), POOLS, ids=str)
@pytest.mark.parametrize("op", [F.max_pool, F.avg_pool], ids=["max_pool", "avg_pool"])
def test_pooling(op: Any, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    (x,) = arrays(0, shape)
    x = np.round(x)  # ties

    def call(x: np.ndarray) -> list[np.ndarray]:
        y, pullback = op.vjp(x, **options)
        return [y, *pullback(np.cos(y))]

    for order in (last, np.asarray):
        equal(lambda order=order: call(order(x)))


def test_nan_wins_a_window_and_takes_its_gradient() -> None:
    x = np.asarray([[[1.0, np.nan, 5.0, np.nan, np.nan, 2.0]]])
    for door in (False, True):
        with generic(door):
            y, pullback = F.max_pool.vjp(x, kernel_size=3)
            np.testing.assert_array_equal(y, [[[np.nan, np.nan]]])
            dx = pullback(np.asarray([[[1.0, 2.0]]]))[0]
            np.testing.assert_array_equal(dx, [[[0, 1.0, 0, 2.0, 0, 0]]])


@pytest.mark.parametrize("shape", [(700, 3), (3, 5, 9, 8), (2, 70, 4), (2, 3, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape: tuple[int, ...], affine: bool, training: bool) -> None:
    x, dy, weight, bias, mean, var = arrays(0, shape, shape, *[(shape[1],)] * 4)
    options: dict[str, Any] = {"training": training}
    if not training:
        options |= {"running_mean": mean, "running_var": np.abs(var)}
    given = (weight, bias) if affine else ()

    def call(order: Any) -> list[np.ndarray]:
        y, pullback = F.batch_norm.vjp(order(3.0 * x + 5.0), *given, **options)
        return [y, *pullback(order(dy))]

    for order in (last, np.asarray):
        equal(lambda order=order: call(order), digits=1e-12)


@pytest.mark.parametrize("mean", [100.0, 1e4])
def test_batch_norm_around_a_large_mean_is_as_good_as_written_once(mean: float) -> None:
    x, dy = arrays(0, (512, 4, 3, 3), (512, 4, 3, 3), dtype=np.float32)
    x = last(x + np.float32(mean))

    def errors() -> list[float]:
        y, pullback = F.batch_norm.vjp(x, training=True)
        exact, back = F.batch_norm.vjp(x.astype(np.float64), training=True)
        pairs = ((y, exact), (pullback(dy)[0], back(dy.astype(np.float64))[0]))
        return [float(np.abs(a - b).max()) for a, b in pairs]

    quick = errors()
    with generic():
        plain = errors()
    assert all(q < 2 * p + 1e-6 for q, p in zip(quick, plain, strict=True)), (quick, plain)


def test_relu_tanh_and_blend() -> None:
    x = np.asarray([[-1.0, 0.0, 2.0, np.nan, -np.inf, np.inf] * 100] * 9)
    for order in (x, x.T, np.moveaxis(x.reshape(3, 3, 600), 0, 1), x[:, ::2], x[:0]):
        y, pullback = F.relu.vjp(order)
        dx = pullback(np.ones_like(y))[0]
        with generic():
            plain, back = F.relu.vjp(order)
            np.testing.assert_array_equal(y, plain)
            np.testing.assert_array_equal(dx, back(np.ones_like(y))[0])
    a, b = arrays(0, (300, 7), (300, 7), dtype="float32")
    y, pullback = F.tanh.vjp(a)
    equal(lambda: [*pullback(b), *pullback(b.T.copy().T)], digits=1e-6)
    equal(lambda: [blend(0.9, a, -0.1, b)], digits=1e-6)
    equal(lambda: [blend(1.0, a, -0.1, b.T.copy().T)], digits=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (40, 9, 65), (200, 300, 33)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dense(shape: tuple[int, int, int], dtype: str) -> None:
    n, i, o = shape
    x, weight, dy = arrays(0, (n, i), (o, i), (n, o), dtype=dtype)

    def call(order: Any) -> list[np.ndarray]:
        y, pullback = F.dense.vjp(order(x), order(weight))
        return [y, *pullback(order(dy))]

    for order in (np.ascontiguousarray, np.asfortranarray, lambda a: np.repeat(a, 2, 1)[:, ::2]):
        digits = 1e-13 if dtype == "float64" else 1e-5
        equal(lambda order=order: call(order), digits=digits)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 7, 8, 16, 33, 1000, 70_001, 400_000])
def test_blend_twice(size: int, dtype: str) -> None:
    """Also where it writes past the caches, and the last line is not full."""
    x, y, z = arrays(0, (size,), (size,), (size,), dtype=dtype)

    def call() -> list[np.ndarray]:
        return [*blend_twice(0.9, x, 1.0, y, -0.1, z)]

    equal(call, digits=1e-15 if dtype == "float64" else 1e-6)
    kept = x.copy(), y.copy(), z.copy()
    call()
    for before, after in zip(kept, (x, y, z), strict=True):
        np.testing.assert_array_equal(before, after)


def test_small_arrays_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    small, large = np.ones(100, np.float32), np.ones(10_000, np.float32)
    assert _fast.passing("relu", small) is None
    assert _fast.passing("relu", large) is compiled.ROUTES["relu"]


def test_blend_twice_keeps_the_order_of_memory() -> None:
    x = last(arrays(0, (4, 32, 30, 30), dtype=np.float32)[0])
    for made in blend_twice(0.9, x, 1.0, x, -0.1, x):
        assert made.strides == x.strides
    equal(lambda: [*blend_twice(0.9, x, 1.0, x.copy(), -0.1, x)], digits=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("m", "k", "n"), [(30, 20, 70), (5, 64, 900), (3, 65, 900), (32, 100, 700), (300, 70, 40)]
)
def test_products_of_every_form(m: int, k: int, n: int, dtype: str) -> None:
    """Short sums, thin matrices that read stripes of the other, and all else."""
    a, b = arrays(0, (m, k), (k, n), dtype=dtype)
    wide = a.astype(np.float64) @ b.astype(np.float64)
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b), b[:, ::-1][:, ::-1]):
            made = compiled.ROUTES["multiply"](left, right)
            assert made.dtype == a.dtype
            np.testing.assert_allclose(made, wide, atol=1e-12 if dtype == "float64" else 1e-4)


# --- threads ---


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, weight, dy = conv_arrays((40, 24, (20, 20), 40, (3, 3), {"padding": 1}), np.float32)
    big = arrays(0, (4, 128, 12, 12), (128, 128, 3, 3), (4, 128, 10, 10), dtype=np.float32)

    def call() -> list[np.ndarray]:
        y, pullback = F.batch_norm.vjp(last(x), training=True)
        z, back = F.max_pool.vjp(last(x), kernel_size=3, stride=2)
        return [
            *conv_call(last(x), weight, last(dy), {"padding": 1}),
            *conv_call(*(last(a) for a in big), {}),
            y,
            *pullback(y),
            *back(z),
        ]

    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        alone = call()
    monkey = pytest.MonkeyPatch()
    for number in (2, 3, 16):
        monkey.setattr(threads, "count", lambda number=number: number)
        for one, other in zip(alone, call(), strict=True):
            np.testing.assert_array_equal(one, other)
    monkey.undo()


def test_two_users_at_once() -> None:
    cases = [conv_arrays(case) for case in IMAGES[:6]]

    def use(index: int) -> list[np.ndarray]:
        x, weight, dy = cases[index % 6]
        return conv_call(last(x), weight, last(dy), IMAGES[index % 6][-1])

    alone = [use(index) for index in range(6)]
    before = threads.count()
    with ThreadPoolExecutor(4) as users:
        for index, result in enumerate(users.map(use, range(60))):
            for one, other in zip(alone[index % 6], result, strict=True):
                np.testing.assert_array_equal(one, other)
    assert threads.count() == before


@Task
def tally(zero, who, lo, hi, room, counts, takers, needs_company):
    """Count pieces, say who took them; the caller's first waits until somebody else has come."""
    counts, takers, company = integers(counts, hi), integers(takers, hi), needs_company
    for i in range(lo, hi):
        counts[i] += 1
        takers[i] = who
    if who != 0 and company != 0:
        tell(company, 1)
    for _ in range(100_000_000):
        if company == 0 or who != 0 or look(company) == 1:
            break


def tallied(pieces: int, effort: int, company: np.ndarray | int = 0) -> tuple[Any, Any]:
    counts, takers = np.zeros(pieces, np.int64), np.full(pieces, -1, np.int64)
    threads.share(tally, np.dtype("float32"), pieces, effort, counts, takers, company)
    return counts, takers


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A crew of its own, of three with the caller."""
    monkeypatch.setattr(threads, "count", lambda: 3)
    monkeypatch.setattr(threads, "_crew", threads._Crew())
    return threads._crew


def test_every_piece_is_done_once(crew: Any) -> None:
    rng = np.random.default_rng(0)
    for pieces in rng.integers(1, 200, 300):
        counts, takers = tallied(int(pieces), 10 * threads.ALONE)
        assert (counts == 1).all()
        assert set(takers) <= {0, 1, 2}


def test_others_take_part_also_when_they_have_slept(crew: Any) -> None:
    company = np.zeros(1, np.int64)
    for _ in range(3):
        company[0] = 0
        counts, takers = tallied(100, 10 * threads.ALONE, company)
        assert (counts == 1).all()
        assert set(takers) - {0}
        while not all(worker.is_asleep for worker in crew._workers):
            time.sleep(0.001)


def test_without_more_threads_the_caller_does_it_all(
    crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads._Worker, "start", refuse)
    counts, takers = tallied(100, 10 * threads.ALONE)
    assert (counts == 1).all()
    assert set(takers) == {0}


def test_little_work_stays_in_the_calling_thread(crew: Any) -> None:
    assert set(tallied(8, threads.ALONE - 1)[1]) == {0}
    assert not crew._workers


def test_while_the_workers_have_another_job_the_caller_does_it_all(crew: Any) -> None:
    assert threads._seize(crew.board, 2**40)
    assert not threads._seize(crew.board, 2**40 + 1)
    counts, takers = tallied(100, 10 * threads.ALONE)
    assert (counts == 1).all()
    assert set(takers) == {0}
    threads._leave(crew.board, 2**40 + 1)  # not its owner
    assert not threads._seize(crew.board, 2**40 + 2)
    threads._leave(crew.board, 2**40)
    assert threads._seize(crew.board, 2**40 + 3)


@pytest.mark.parametrize("posts", [True, False])
def test_an_interrupted_caller_leaves_when_nobody_writes_any_more(
    crew: Any, monkeypatch: pytest.MonkeyPatch, posts: bool
) -> None:
    tallied(100, 10 * threads.ALONE)
    post, counts = threads._post, np.zeros(100, np.int64)

    def interrupted(*args: Any) -> None:
        if posts:
            post(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "_post", interrupted)
    told = counts, np.zeros(100, np.int64), 0
    with pytest.raises(KeyboardInterrupt):
        threads.share(tally, np.dtype("float32"), 100, 10 * threads.ALONE, *told)
    assert (counts == (1 if posts else 0)).all()
    monkeypatch.setattr(threads, "_post", post)
    assert (tallied(100, 10 * threads.ALONE)[0] == 1).all()


class Alarm(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_a_signal_at_any_moment_leaves_nothing_behind(crew: Any) -> None:
    """Its handler may raise whatever it likes; what stood on the board is done by then."""

    def ring(*_: Any) -> None:
        raise Alarm

    tallied(
        64, 10 * threads.ALONE
    )  # a thread of Python's own that is interrupted as it starts dies
    before = signal.signal(signal.SIGALRM, ring)
    counts, takers = np.zeros(64, np.int64), np.zeros(64, np.int64)
    kind, rung, rng = np.dtype("float32"), 0, np.random.default_rng(0)
    try:
        for _ in range(300):
            counts[:] = 0
            try:
                signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-5, 3e-4)))
                while True:
                    threads.share(tally, kind, 64, 10 * threads.ALONE, counts, takers, 0)
            except Alarm:
                rung += 1
            assert counts.min() == counts.max()  # whole jobs, however many
            assert not native_look(crew.board + threads.OWNER)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung == 300
    numbers_of_workers = [worker._who for worker in crew._workers]
    assert len(numbers_of_workers) == len(set(numbers_of_workers))


@native.compiled
def native_look(address):
    return look(address)


def test_a_worker_whose_start_was_interrupted_keeps_its_number(
    crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threads._Worker.start

    def interrupted(self: Any) -> None:
        start(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threads._Worker, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tallied(100, 10 * threads.ALONE)
    assert (tallied(100, 10 * threads.ALONE)[0] == 1).all()
    assert [worker._who for worker in crew._workers] == [1, 2]


@Task
def remember_room(zero, who, lo, hi, room, rooms):
    """Say where a worker's room is, and wait until another one has said it, too."""
    tell(rooms + 8 * who, room)
    numbers(zero, room, 10)[9] = who
    for _ in range(100_000_000):
        if (look(rooms) != 0) + (look(rooms + 8) != 0) + (look(rooms + 16) != 0) > 1:
            break


def test_each_worker_has_a_room_of_its_own(crew: Any) -> None:
    rooms = np.zeros(3, np.int64)
    threads.share(remember_room, np.dtype("float64"), 100, 10 * threads.ALONE, rooms, room=80)
    mine, *others = (int(room) for room in rooms if room)
    assert others
    assert all(abs(mine - other) >= 128 for other in others)


def test_addresses_are_those_that_numpy_says() -> None:
    whole = np.zeros((4, 6), np.float32)
    read_only = np.arange(3)
    read_only.flags.writeable = False
    for x in (whole, whole[1:, ::-2], whole[:0], read_only, np.asarray(1.0), np.empty((2, 0))):
        assert memory.address(x) == memory._asked(x) == x.ctypes.data


def test_a_broken_numba_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise OSError("Could not find/load shared object file")

    monkeypatch.setattr(_fast.numpy.importlib, "import_module", broken)
    assert _fast.numpy.compiled.__wrapped__() == {}
    monkeypatch.undo()
    monkeypatch.setattr(_fast.numpy.platform, "machine", lambda: "arm64")
    assert _fast.numpy.compiled.__wrapped__() == {}


def test_threads_are_as_many_as_blas_may_use() -> None:
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert threads.count() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_too() -> None:
    script = """
import os, numpy as np
import devconv.functional as F
x, w = np.ones((16, 16, 32, 32)), np.ones((16, 16, 3, 3))
before = F.conv(x, w)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(F.conv(x, w), before) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "0", done.stderr


def test_scratch_memory_that_is_too_large_to_keep_lives_as_long_as_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from devconv._fast import scratch

    monkeypatch.setattr(scratch, "KEPT", 0)
    x, weight, dy = conv_arrays((2, 40, (9, 9), 70, (3, 3), {"padding": 1}), np.float32)
    plain = conv_call(last(x), weight, last(dy), {"padding": 1})
    made: list[np.ndarray] = []
    empty = np.empty

    def poisoned(*args: Any, **options: Any) -> np.ndarray:
        """What is freed too early is soon somebody else's."""
        made.append(np.full(100_000, np.nan, np.float32))
        return empty(*args, **options)

    monkeypatch.setattr(scratch.np, "empty", poisoned)
    for algorithm in ("gemm", "winograd"):
        options = {"padding": 1, "algorithm": algorithm}
        for a, b in zip(conv_call(last(x), weight, last(dy), options), plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_without_a_folder_for_its_cache_numba_compiles_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strict(original: Any) -> Any:
        def compile_only(*args: Any, cache: bool = False, **how: Any) -> Any:
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return original(*args, **how)

        return compile_only

    monkeypatch.setattr(native, "njit", strict(native.njit))
    monkeypatch.setattr(native, "cfunc", strict(native.cfunc))
    assert native.compiled(lambda a: a + 1)(2) == 3
    assert Task(tally.function).entry(np.dtype("float32"))


# --- the switch ---


def test_numba_can_be_left_out() -> None:
    x = np.ones((1, 1, 3))
    assert _fast.route("largest", x) is not None
    with _fast.numba(False):
        assert _fast.route("largest", x) is None
    assert _fast.route("largest", x) is not None


@pytest.mark.parametrize(("value", "enabled"), [("0", False), ("1", True), ("", True)])
def test_the_environment_leaves_numba_out(value: str, enabled: bool) -> None:
    script = "from devconv import _fast; print(_fast._door.compiling)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DEVCONV_NUMBA": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(enabled)


def test_importing_the_library_does_not_import_numba() -> None:
    script = "import sys, devconv; print('numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_block_fits_into_registers_and_stretches_are_constants() -> None:
    """What decides the order of sums is a constant, not a setting."""
    assert str(block.VECTOR_BYTES) == os.environ.get(
        "DEVCONV_TEST_VECTOR_BYTES", str(block.VECTOR_BYTES)
    )
    assert (
        32 if block.VECTOR_BYTES == 64 else 16
    ) >= block.ROWS * block.VECTORS + block.VECTORS + 1
    assert windows.panel_width(4) * 4 == block.VECTORS * block.VECTOR_BYTES
    assert math.log2(passes.STRETCH).is_integer()


# --- another processor ---


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiled on x86 alone")
def test_vectors_of_32_bytes(tmp_path: Path) -> None:
    """All of this file once more, as on a processor without AVX-512."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.doubles.narrow", "-q", __file__]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-m", "not slow"],
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "NUMBA_CPU_NAME": "haswell",
            "NUMBA_CACHE_DIR": str(tmp_path),
            "DEVCONV_REQUIRE": "numpy",
            "DEVCONV_TEST_VECTOR_BYTES": "32",
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
