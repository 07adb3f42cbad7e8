"""Kernels for CuPy arrays equal the written-once routes, on a GPU or translated for the processor.

Each check runs twice: on the double of CuPy, where a C++ compiler translates the kernels' text,
and on CuPy itself where there is a GPU. The double adds up in the order of the written-once route
and fuses nothing, so most results are the same to the last bit there; a GPU fuses products and
sums, and has its own ``erf``, ``exp`` and ``tanh``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _array, _fast
from devconv import functional as F
from devconv._fast import kernels
from devconv._fast.kernels import norm, source, windows
from devconv.functional.special import blend
from devconv.functional.windows import plan
from devconv.testing import generic
from tests import backends
from tests.cases import collect
from tests.cases.case import Case
from tests.doubles import cupy as double
from tests.doubles import kernels as translated
from tests.doubles import launches
from tests.doubles.cupy import watch

DIGITS = {"float64": 1e-13, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}


class Place:
    """Where arrays are: the double's second device, or CuPy's last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_double = name == "double"

    def __str__(self) -> str:
        return self.name

    def there(self, x: Any, dtype: Any = None) -> Any:
        x = np.array(x, dtype=dtype, order="C")
        if self.is_double:
            return double.ndarray(x, 1)
        cupy = importlib.import_module("cupy")
        with cupy.cuda.Device(cupy.cuda.runtime.getDeviceCount() - 1):
            return cupy.asarray(x)

    def back(self, x: Any) -> np.ndarray:
        if self.is_double:
            return x._values
        with x.device:  # whose current stream CuPy takes
            return x.get()

    def last(self, x: np.ndarray, dtype: Any = None) -> Any:
        """The same numbers in channels-last memory."""
        axes = (0, *range(2, x.ndim), 1)
        return self.permuted(
            self.there(x.transpose(axes), dtype), (0, x.ndim - 1, *range(1, x.ndim - 1))
        )

    def gaps(self, x: np.ndarray, dtype: Any = None) -> Any:
        """The same numbers, every other one of an array."""
        return self.there(np.repeat(x, 2, axis=-1), dtype)[..., ::2]

    @staticmethod
    def permuted(x: Any, axes: tuple[int, ...]) -> Any:
        return _array.array_namespace(x).permute_dims(x, axes)


@pytest.fixture(scope="module", params=["double", "cupy"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "cupy":
        backends.get("cupy")
        yield Place("cupy")
        return
    if translated.COMPILER is None:
        pytest.skip("no C++ compiler here (g++, clang++ or c++) to translate kernels with")
    with translated.installed():
        yield Place("double")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The primitives whose kernels were asked for."""
    seen: set[str] = set()

    def watched(name: str, route: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            seen.add(name)
            return route(*args, **options)

        return call

    for (name, library), route in list(kernels.ROUTES.items()):
        monkeypatch.setitem(kernels.ROUTES, (name, library), watched(name, route))
    return seen


def equal(
    place: Place, call: Callable[[], list[Any]], *, digits: float, exact: bool = True
) -> list[np.ndarray]:
    """The results by kernels: those of the written-once routes, twice the same bits.

    ``exact`` where kernels add up in the same order as the written-once routes do.
    """
    with generic(False), _fast.trial("kernels"):
        quick, again = call(), call()
    with generic():
        plain = call()
    found = []
    for a, b, c in zip(quick, again, plain, strict=True):
        assert a.dtype == c.dtype
        assert a.device == c.device
        a, b, c = (place.back(v).astype(np.float64) for v in (a, b, c))
        np.testing.assert_array_equal(a, b)
        if exact and place.is_double:
            np.testing.assert_array_equal(a, c)
        size = np.abs(c[np.isfinite(c)]).max(initial=0) or 1.0
        np.testing.assert_allclose(a, c, rtol=0, atol=digits * size)
        found.append(a)
    return found


def learned(place: Place, op: Any, *args: Any, order: Any = None, **options: Any) -> list[Any]:
    """The result of an operation and its cotangents."""
    y, pullback = op.vjp(*args, **options)
    dy = np.cos(np.arange(np.prod(y.shape, dtype=int)).reshape(y.shape))
    dy = (order or place.there)(dy, args[0].dtype)
    return [y, *(d for d in pullback(dy) if d is not None)]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def half(name: str) -> Any:
    return pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name


def orders(place: Place) -> list[Callable[..., Any]]:
    return [place.last, place.there, place.gaps]


@pytest.mark.slow  # a compiler needs a minute for all of them, once
@pytest.mark.parametrize("case", collect(), ids=str)
def test_operation(place: Place, case: Case) -> None:
    """Every operation is what it is without kernels, whichever of them it meets."""

    def put(x: Any) -> Any:
        return place.there(x) if isinstance(x, np.ndarray | np.generic) else x

    args = [put(a) for a in case.draw()]
    options = {name: put(value) for name, value in case.options.items()}

    def call() -> list[Any]:
        y, pullback = case.op.vjp(*args, **options)
        every = y if isinstance(y, tuple) else (y,)
        dy = put(np.random.default_rng(1).standard_normal(every[0].shape))
        return [*every, *(d for d in pullback(dy) if d is not None)]

    equal(place, call, digits=1e-12, exact=False)


# --- convolution ---

IMAGES = [  # shape, weight, options, the primitives
    ((2, 3, 9, 8), (5, 3, 3, 2), {}, {"columns"}),
    ((2, 3, 9, 8), (5, 3, 3, 3), {"padding": 1}, {"columns", "cut"}),
    ((2, 3, 9, 8), (4, 3, 3, 3), {"padding": 1, "stride": 2}, {"columns", "cut", "put"}),
    ((2, 3, 11, 12), (4, 3, 4, 3), {"stride": (3, 2), "padding": (1, 3), "dilation": (2, 1)},
     {"columns", "cut", "put"}),
    ((2, 3, 13), (4, 3, 3), {"stride": 4, "dilation": 6}, {"columns", "put"}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 1), {"stride": (1, 2, 3), "padding": ((1, 0), (0, 2), (0, 0))},
     {"columns", "cut", "put"}),
    ((2, 4, 7, 6), (4, 1, 3, 3), {"groups": 4, "padding": 1}, {"cut", "weigh", "weigh_back"}),
    ((3, 4, 9, 8), (4, 1, 3, 2), {"groups": 4, "stride": (2, 3), "dilation": (3, 1)},
     {"weigh", "weigh_input", "weigh_back"}),
    ((1, 4, 30), (4, 1, 5), {"groups": 4, "stride": 2}, {"weigh", "weigh_input", "weigh_back"}),
    ((1, 2, 5, 4, 6), (2, 1, 2, 2, 2), {"groups": 2, "stride": 2},
     {"weigh", "weigh_input", "weigh_back"}),
]  # fmt: skip


@pytest.mark.parametrize("case", IMAGES, ids=lambda case: str(case[:-1]))
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_convolution(place: Place, taken: set[str], case: Any, dtype: str) -> None:
    shape, bank, options, primitives = case
    weight = place.there(numbers(*bank, seed=1), dtype)
    for order in orders(place):
        x = order(numbers(*shape), dtype)
        exact = "weigh_back" not in primitives
        equal(
            place,
            lambda x=x, order=order: learned(place, F.conv, x, weight, order=order, **options),
            digits=DIGITS[dtype],
            exact=exact,
        )
    assert primitives <= taken


def test_folding(place: Place, taken: set[str]) -> None:
    options = {"kernel_size": (3, 2), "padding": (1, 0), "stride": (2, 1)}
    cols = place.there(numbers(2, 18, 15))
    equal(place, lambda: learned(place, F.fold, cols, output_size=(6, 6), **options), digits=0.0)
    x = place.there(numbers(2, 3, 6, 6))
    equal(place, lambda: learned(place, F.unfold, x, **options), digits=0.0)
    assert {"put", "cut"} <= taken


def test_places_beyond_32_bits(place: Place) -> None:
    w = plan((6, 5), (3, 2), (2, 1), ((0, 0), (0, 0)), (1, 2))
    same = source.kind(w)
    assert same.place == "int32"
    assert source.kind(plan((2**31,), (3,), (2,), ((0, 0),), (1,))).place == "int64"
    shares = place.there(numbers(2, *w.out, 6, 3))
    with shares.device:
        small = windows.put(shares, w)
        large = source.empty(small.shape, shares.dtype)
        wide = source.made(windows._put, same._replace(place="int64"))
        wide(shares, *source.sizes(w), large)
    np.testing.assert_array_equal(place.back(small), place.back(large))


# --- pooling ---

POOLS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 9, 8), {"kernel_size": 2}),
    ((2, 3, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((1, 5, 7, 9), {"kernel_size": (2, 3), "stride": (1, 3), "padding": ((1, 0), (0, 1))}),
    ((2, 3, 11), {"kernel_size": 4, "stride": 3, "dilation": 2, "ceil_mode": True}),
    ((2, 3, 12), {"kernel_size": 3, "stride": 4, "dilation": 2, "padding": 2}),
    ((2, 2, 5, 6, 4), {"kernel_size": (2, 1, 3), "stride": 2, "padding": (1, 0, 1)}),
]


@pytest.mark.parametrize("case", POOLS, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_pooling(place: Place, taken: set[str], case: Any, dtype: str) -> None:
    """Rounded numbers have many ties: the first of them takes the gradient."""
    shape, options = case
    for order in orders(place):
        x = order(np.round(numbers(*shape)), dtype)
        for op in (F.max_pool, F.avg_pool):
            equal(
                place,
                lambda x=x, op=op, order=order: learned(place, op, x, order=order, **options),
                digits=DIGITS[dtype],
            )
    assert taken == {"largest", "largest_back", "total", "total_back"}


def test_nan_wins_a_window_and_takes_its_gradient(place: Place) -> None:
    nan = np.nan
    x = place.there([[[1.0, nan, 5.0, nan, nan, 2.0, -np.inf, -np.inf, -np.inf]]])
    with generic(False), _fast.trial("kernels"):
        y, pullback = F.max_pool.vjp(x, kernel_size=3)
        (dx,) = pullback(place.there([[[1.0, 2.0, 3.0]]]))
    np.testing.assert_array_equal(place.back(y), [[[nan, nan, -np.inf]]])
    np.testing.assert_array_equal(place.back(dx), [[[0, 1.0, 0, 2.0, 0, 0, 3.0, 0, 0]]])


def test_a_window_beyond_the_image_sees_nothing(place: Place) -> None:
    x = place.there(np.ones((1, 1, 4)))
    options = {"kernel_size": 2, "stride": 3, "dilation": 2, "ceil_mode": True}
    equal(place, lambda: learned(place, F.max_pool, x, **options), digits=0.0)


# --- normalisation ---


@pytest.mark.parametrize(
    "shape", [(70, 3), (3, 5, 9, 8), (2, 70, 4), (2, 1, 2, 3, 4), (40001, 2)], ids=str
)
@pytest.mark.parametrize("affine", ["both", "weight", "bias", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(
    place: Place, taken: set[str], shape: tuple[int, ...], affine: str, training: bool
) -> None:
    vectors = [place.there(numbers(shape[1], seed=s)) for s in (1, 2, 3)]
    options: dict[str, Any] = {"training": training}
    if not training:
        positive = place.there(np.abs(numbers(shape[1], seed=4)))
        options |= {"running_mean": vectors[2], "running_var": positive}
    given = {"both": vectors[:2], "weight": vectors[:1], "bias": [None, vectors[1]], "none": []}
    order = place.last if len(shape) > 2 else place.there
    x = order(3.0 * numbers(*shape) + 5.0)

    def call() -> list[Any]:
        return learned(place, F.batch_norm, x, *given[affine], order=order, **options)

    equal(place, call, digits=1e-12, exact=False)
    assert taken == {"channel_norm"}


@pytest.mark.parametrize("statistics", ["float16", "float32"])
def test_batch_norm_of_half_precision(place: Place, statistics: str) -> None:
    x = place.last(3.0 * numbers(4, 3, 6, 5) + 5.0, "float16")
    vectors = [place.there(numbers(3, seed=s), statistics) for s in (1, 2)]

    def call() -> list[Any]:
        return learned(place, F.batch_norm, x, *vectors, order=place.last, training=True)

    equal(place, call, digits=DIGITS["float16"], exact=False)
    with _fast.trial("kernels"):
        y, mean, var = F.norm.batch_norm_and_statistics(x)
    assert (y.dtype, mean.dtype, var.dtype) == (np.float16, np.float32, np.float32)


@pytest.mark.parametrize("mean", [100.0, 1e4])
def test_statistics_around_a_large_mean(place: Place, mean: float) -> None:
    """No cancellation: as good as written once, beside float64."""
    host = (numbers(512, 4, 3, 3) + mean).astype(np.float32)
    host[0, :, 0, 0] = 0.0  # the first number is no good guess of the mean
    dy = numbers(512, 4, 3, 3, seed=1).astype(np.float32)

    def of(dtype: str) -> list[np.ndarray]:
        y, pullback = F.batch_norm.vjp(place.last(host, dtype), training=True)
        return [place.back(y), place.back(pullback(place.last(dy, dtype))[0])]

    with generic():
        exact, plain = of("float64"), of("float32")
    with generic(False), _fast.trial("kernels"):
        quick = of("float32")
    for q, p, e in zip(quick, plain, exact, strict=True):
        assert np.abs(q - e).max() < 2 * np.abs(p - e).max() + 1e-6 * np.abs(e).max()


def test_a_constant_channel_becomes_0(place: Place) -> None:
    x = place.last(np.full((2, 3, 2, 2), 7.0))
    call = lambda: learned(place, F.batch_norm, x, order=place.last, training=True, eps=1e-300)  # noqa: E731
    equal(place, call, digits=1e-12, exact=False)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("shape", [(3, 5), (40001, 2), (33, 4, 3)], ids=str)
def test_channel_sums(place: Place, taken: set[str], shape: tuple[int, ...], dtype: str) -> None:
    conv = importlib.import_module("devconv.functional.conv")
    x = place.there(numbers(*shape), dtype)

    def call() -> list[Any]:
        with x.device:
            return [conv.channel_sums(x)]

    (sums,) = equal(place, call, digits=max(1e-5, DIGITS["float64"]), exact=False)
    wanted = x if dtype == "float64" else None
    if wanted is not None:
        exact = numbers(*shape).sum(axis=tuple(range(len(shape) - 1)))
        np.testing.assert_allclose(sums, exact, rtol=0, atol=1e-10)
    assert taken == {"channel_sums"}


def test_stretches_are_constants_of_the_number_of_rows() -> None:
    assert [norm.stretch(n) for n in (1, 1024, 32 * 1024, 32 * 1024 + 1)] == [32, 32, 32, 64]
    for rows in (1, 1000, 40001, 10**7, 2**33):
        assert -(-rows // norm.stretch(rows)) <= norm.STRETCHES


# --- numbers one by one ---

EXTREMES = [-1.0, 0.0, -0.0, 2.0, np.nan, -np.inf, np.inf, 1e-3, -60.0, 60.0]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_relu_tanh_and_gelu(place: Place, taken: set[str], dtype: str) -> None:
    kind = half(dtype)
    x = np.resize(EXTREMES, (6, 5, 4, 3))
    for order in orders(place):
        for op, options, exact in (
            (F.relu, {}, True),
            (F.tanh, {}, True),
            (F.gelu, {}, False),
            (F.gelu, {"approximate": "tanh"}, False),
        ):
            if dtype == "bfloat16" and op is F.tanh:
                continue
            equal(
                place,
                lambda op=op, order=order, options=options: learned(
                    place, op, order(x, kind), order=order, **options
                ),
                digits=DIGITS[dtype],
                exact=exact,
            )
    assert {"relu", "relu_back", "gelu"} <= taken


def test_memory_order_is_kept(place: Place) -> None:
    x = place.last(numbers(2, 3, 4, 5))
    with generic(False), _fast.trial("kernels"):
        for op, options in (
            (F.relu, {}),
            (F.gelu, {}),
            (F.dropout, {"p": 0.5, "key": dc.random.key(0), "training": True}),
            (F.batch_norm, {"training": True}),
            (F.max_pool, {"kernel_size": 1}),
        ):
            y, pullback = op.vjp(x, **options)
            for array in (y, pullback(x)[0]):
                assert array.strides == x.strides


@pytest.mark.parametrize("shape", [(), (7,), (4, 5), (3, 5, 4), (2, 3, 3, 5)], ids=str)
@pytest.mark.parametrize("p", [1e-12, 0.3, 0.999, 1.0])
def test_dropout_draws_the_bits_of_every_backend(
    place: Place, taken: set[str], shape: tuple[int, ...], p: float
) -> None:
    host, key = numbers(*shape), dc.random.key(2**40 + 7)
    options: dict[str, Any] = {"p": p, "key": key, "training": True}
    x = place.there(host)
    for op in (F.dropout, F.dropout_channels)[: 1 + (len(shape) > 1)]:
        y, dx = equal(place, lambda op=op: learned(place, op, x, **options), digits=0.0)
        wanted, pullback = op.vjp(host, **options)
        np.testing.assert_array_equal(y, wanted)
        dy = np.cos(np.arange(host.size).reshape(shape))
        np.testing.assert_array_equal(dx, pullback(dy)[0])
    assert taken == {"drop"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dropout_of_half_precision(place: Place, dtype: str) -> None:
    x = place.last(numbers(2, 3, 4, 4), half(dtype))
    options = {"p": 0.3, "key": dc.random.key(1), "training": True}
    equal(place, lambda: learned(place, F.dropout, x, order=place.last, **options), digits=0.0)


def test_a_dropped_nan_is_still_nan(place: Place) -> None:
    x = place.there(np.resize([np.nan, np.inf, -1.0], 64))
    options = {"p": 0.5, "key": dc.random.key(0), "training": True}
    equal(place, lambda: learned(place, F.dropout, x, **options), digits=0.0)


# --- optimizers ---


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_blend(place: Place, taken: set[str], dtype: str) -> None:
    x, y = (place.there(numbers(5, 6, seed=s), dtype) for s in (0, 1))
    flipped = place.permuted(place.there(numbers(6, 5), dtype), (1, 0))
    for a, b, c, d in ((1.0, x, -0.1, y), (0.9, x, 0.1, flipped)):

        def call(a: float = a, b: Any = b, c: float = c, d: Any = d) -> list[Any]:
            with x.device:
                return [blend(a, b, c, d)]

        equal(place, call, digits=DIGITS[dtype], exact=dtype != "float16")
    assert taken == {"blend"}


OPTIMIZERS = {
    "SGD": lambda m: dc.optim.SGD(m, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "SGD, momentum": lambda m: dc.optim.SGD(m, 0.1, momentum=0.9),
    "Adam": lambda m: dc.optim.Adam(m, 0.1),
    "Adam, decay": lambda m: dc.optim.Adam(m, 0.1, weight_decay=0.1, betas=(0.0, 0.5)),
    "AdamW": lambda m: dc.optim.AdamW(m, 0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("skipping", [False, True])
def test_optimizers(place: Place, taken: set[str], name: str, skipping: bool) -> None:
    """Also where the number of the step is an array on the device."""
    spec = "cuda:1" if place.is_double else _array.device_name(place.there([0.0]))

    def call() -> list[Any]:
        model = dc.Dense(4, 3).build(seed=0).to(spec)
        optimizer = OPTIMIZERS[name](model)
        for step in range(3):
            grads = {
                n: place.there(numbers(*p.shape, seed=step), "float32")
                for n, p in model.parameters.items()
            }
            some = {"when": place.there(step != 1), "skipped": place.there(np.int32(step // 2))}
            optimizer.step(grads, **(some if skipping else {}))
        return [*model.parameters.values(), *optimizer.state_dict().values()]

    equal(place, call, digits=1e-6)
    wanted = {"SGD": {"blend"}, "SGD, momentum": {"blend", "blend_twice"}}
    assert taken == wanted.get(name, {"scaled_step"})


# --- what is empty, what is refused, what is counted ---


def test_empty_batches(place: Place) -> None:
    x = place.there(np.zeros((0, 4, 6, 6)))
    key = dc.random.key(0)
    for op, args, options in (
        (F.conv, (numbers(3, 4, 3, 3),), {"padding": 1, "stride": 2}),
        (F.conv, (numbers(4, 1, 3, 3),), {"groups": 4, "stride": 2}),
        (F.conv, (numbers(3, 4, 3, 3), numbers(3)), {}),
        (F.max_pool, (), {"kernel_size": 2}),
        (F.avg_pool, (), {"kernel_size": 2}),
        (F.relu, (), {}),
        (F.gelu, (), {}),
        (F.tanh, (), {}),
        (F.dropout, (), {"p": 0.5, "key": key, "training": True}),
        (F.dropout_channels, (), {"p": 0.5, "key": key, "training": True}),
    ):
        rest = [place.there(a) for a in args]
        equal(
            place,
            lambda op=op, rest=rest, options=options: learned(place, op, x, *rest, **options),
            digits=0.0,
        )


def test_nobody_gets_them_by_default(place: Place) -> None:
    x = place.there(np.ones(3))
    with generic(False), _fast.trial():
        assert _fast.route("relu", x) is None
        assert _fast.passing("relu", x) is None
        with _fast.trial("kernels"):
            assert _fast.passing("relu", x) is not None
            assert _fast.passing("relu", x, x[:2]) is None
            with generic():
                assert _fast.passing("relu", x) is None
    with _fast.trial("kernels"):
        assert _fast.passing("relu", np.ones(3, "float16")) is None


LAUNCHES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    # the kernels of a forward pass, and of the way back; of a first step, and of a later one
    "Conv2d 3×3": ({"cut": 1, "columns": 1}, {"cut": 2, "columns": 2, "sums": 1, "sum": 1}),
    "Conv2d 3×3, stride 2": (
        {"cut": 1, "columns": 1},
        {"cut": 1, "columns": 1, "put": 1, "sums": 1, "sum": 1},
    ),
    "Conv2d 3×3, depthwise": (
        {"cut": 1, "weigh": 1},
        {"cut": 2, "weigh": 1, "weigh_back": 1, "sums": 1, "sum": 2},
    ),
    "BatchNorm2d": (
        {"parts": 1, "merged": 1, "scale": 1, "blend": 2},
        {"flows": 1, "gathered": 1, "combine": 1},
    ),
    "MaxPool2d 2×2": ({"largest": 1}, {"largest_back": 1}),
    "MaxPool2d 3×3, stride 2": ({"largest": 1}, {"largest_back": 1}),
    "AvgPool2d 2×2": ({"total": 1}, {"total_back": 1}),
    "ReLU": ({"relu": 1}, {"relu_back": 1}),
    "GELU": ({"gelu": 1}, {"gelu_back": 1}),
    "Dropout": ({"drop": 1}, {"drop": 1}),
}
TOTALS = {  # kernels and all else: what is left to the written-once route
    "BatchNorm2d": (6, 3),  # with the running statistics
    "MaxPool2d 2×2": (1, 1),
    "MaxPool2d 3×3, stride 2": (1, 1),
    "ReLU": (1, 1),
    "GELU": (1, 1),
    "SGD": (1, 1),
    "SGD, momentum and weight decay": (2, 2),
    "Adam": (1, 1),
    "AdamW": (1, 1),
}


def kernels_launched() -> dict[str, int]:
    prefix = "devconv_"
    return {
        name.removeprefix(prefix): count
        for name, count in watch.launches.items()
        if name.startswith(prefix)
    }


def on_the_double(place: Place) -> None:
    if not place.is_double:
        pytest.skip("only the double counts launches, and shows what it runs")


@pytest.mark.parametrize("name", LAUNCHES)
def test_kernels_of_a_layer(place: Place, name: str) -> None:
    on_the_double(place)
    make, shape = launches.LAYERS[name]
    layer = make().build(shape[1:]).to("cuda:1")
    x = place.last(numbers(*shape), "float32")
    with generic(False), _fast.trial("kernels"):
        watch.reset()
        y, pullback = layer.vjp(x)
        forward = kernels_launched()
        dy = place.last(numbers(*y.shape), "float32")
        total = sum(watch.launches.values())
        watch.reset()
        pullback(dy)
    assert watch.reads == []
    assert (forward, kernels_launched()) == LAUNCHES[name]
    if name in TOTALS:
        assert (total, sum(watch.launches.values())) == TOTALS[name]


@pytest.mark.parametrize("name", launches.OPTIMIZERS)
def test_kernels_of_a_step(place: Place, name: str) -> None:
    on_the_double(place)
    with generic(False), _fast.trial("kernels"):
        counted = launches.of_optimizer(name)
    assert tuple(counted.values()) == TOTALS[name]


# --- a check that cannot fail is none ---


def _pool(place: Place) -> None:
    x = place.there(np.round(numbers(2, 3, 9, 8)))
    options = {"kernel_size": 3, "stride": 2, "padding": 1}
    for op in (F.max_pool, F.avg_pool):
        equal(place, lambda op=op: learned(place, op, x, **options), digits=1e-13)


def _conv(place: Place) -> None:
    x, weight = place.there(numbers(2, 3, 9, 8)), place.there(numbers(4, 3, 3, 3))
    options = {"padding": 1, "stride": 2, "dilation": 3}
    equal(place, lambda: learned(place, F.conv, x, weight, **options), digits=1e-13)


def _depthwise(place: Place) -> None:
    x, weight = place.there(numbers(2, 4, 9, 8)), place.there(numbers(4, 1, 3, 3))
    options = {"groups": 4, "stride": 2}
    equal(place, lambda: learned(place, F.conv, x, weight, **options), digits=1e-13, exact=False)


def _norm(place: Place) -> None:
    x = place.last(numbers(3, 5, 9, 8) + 5.0)
    vectors = [place.there(numbers(5, seed=s)) for s in (1, 2)]
    equal(
        place,
        lambda: learned(place, F.batch_norm, x, *vectors, order=place.last, training=True),
        digits=1e-12,
        exact=False,
    )


def _single(place: Place) -> None:
    x = place.last(np.resize(EXTREMES, (2, 3, 4, 5)))
    for op in (F.relu, F.tanh):
        equal(place, lambda op=op: learned(place, op, x, order=place.last), digits=1e-13)


def _gelu(place: Place) -> None:
    x = place.there(3.0 * numbers(300))
    for approximate in ("none", "tanh"):
        equal(
            place,
            lambda approximate=approximate: learned(place, F.gelu, x, approximate=approximate),
            digits=1e-13,
            exact=False,
        )


def _drop(place: Place) -> None:
    x, key = place.there(numbers(3, 5, 4, 4)), dc.random.key(2**40 + 7)
    for op in (F.dropout, F.dropout_channels):
        options = {"p": 0.3, "key": key, "training": True}
        equal(place, lambda op=op, options=options: learned(place, op, x, **options), digits=0.0)


def _momentum(place: Place) -> None:
    test_optimizers(place, {"blend", "blend_twice"}, "SGD, momentum", False)


def _adam(place: Place) -> None:
    test_optimizers(place, {"scaled_step"}, "Adam, decay", False)


MUTATIONS = [  # a kernel, what is changed in its text, and the check that must see it
    ("cut", "at[2] >= 0", "at[2] >= 2", _conv),
    ("cut", "at[3] < size3", "at[3] < size3 - 1", _conv),
    ("columns", "rows = windows", "rows = -windows", _conv),
    ("put", "o0 -= back0", "o0 -= step0", _conv),
    ("put", "k1 += step1", "k1 += 1", _conv),
    ("put", "o1 >= out1", "o1 >= out1 - 1", _conv),
    ("put", "inverse0 % step0", "step0 % step0 + 1", _conv),
    ("weigh", "total += ", "total = ", _depthwise),
    ("weigh_input", "total += dy", "total -= dy", _depthwise),
    ("weigh_back", "x * dy", "x + dy", _depthwise),
    ("sum", "a + b", "a - b", _depthwise),
    ("largest", "pixel > best", "pixel >= best && best != best || pixel < best", _pool),
    ("largest_back", "other == best", "other > best", _pool),
    ("largest_back", ">= (k0) * kernel1 + k1", ">= 0", _pool),
    ("largest_back", "q[1 + 1] + before1", "q[1 + 1]", _pool),
    ("total", "p1 < 0", "p1 < 1", _pool),
    ("total_back", "o0 >= out0", "o0 >= out0 - 1", _pool),
    ("scale", "- mean", "", _norm),
    ("parts", "to - from", "stretch", _norm),
    ("parts", "far * far", "far", _norm),
    ("merged", "one.count * share", "share", _norm),
    ("flows", "- middle", "", _norm),
    ("gathered", "(1 / sqrt", "(sqrt", _norm),
    ("combine", "* (wide)share", "", _norm),
    ("relu", "v <= 0", "!(v > 0)", _single),
    ("relu_back", "!= 0", "> 0", _single),
    ("tanh_back", "v * v", "v", _single),
    ("gelu", "below =", "below = 1e-9 +", _gelu),
    ("gelu_back", "v * (", "(", _gelu),
    ("drop", "26, 6", "26, 7", _drop),
    ("drop", "word & 1", "!(word & 1)", _drop),
    ("drop", "i / run", "0", _drop),
    ("blend", "+ (wide)b", "- (wide)b", _momentum),
    ("blend_twice", "(wide)z + (wide)c", "(wide)z - (wide)c", _momentum),
    ("scaled_step", "slope * slope", "slope", _adam),
    ("scaled_step", "grad + decay * x", "grad", _adam),
]


@pytest.mark.parametrize(
    ("name", "old", "new", "check"), MUTATIONS, ids=[f"{m[0]}-{m[1]}" for m in MUTATIONS]
)
def test_a_change_of_a_kernel_is_seen(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    old: str,
    new: str,
    check: Callable[[Place], None],
) -> None:
    on_the_double(place)
    found = []

    class Changed:
        def __init__(self, kind: type) -> None:
            self.kind = kind

        def __call__(self, *args: Any, **options: Any) -> Any:
            if f"devconv_{name}" in args:

                def change(text: Any) -> Any:
                    if isinstance(text, str) and old in text:
                        found.append(name)
                        return text.replace(old, new)
                    return text

                args = tuple(map(change, args))
                options = {key: change(value) for key, value in options.items()}
            return self.kind(*args, **options)

    for kind in ("ElementwiseKernel", "ReductionKernel"):
        monkeypatch.setattr(double._cupy, kind, Changed(getattr(double._cupy, kind)))
    source._made.cache_clear()
    try:
        with pytest.raises(AssertionError):
            check(place)
    finally:
        source._made.cache_clear()
    assert found, f"{old!r} is not in {name}"


# --- the double's kernels ---


def _kernel(in_params: str, out_params: str, text: str, **options: Any) -> Any:
    return translated.ElementwiseKernel(in_params, out_params, text, "sample", **options)


def test_the_double_is_as_strict_as_cupy(place: Place) -> None:
    on_the_double(place)
    x, y = place.there(np.ones((2, 3))), place.there(np.ones((2, 3), "float32"))
    double_it = _kernel("T x", "T y", "y = x + x")
    with x.device:
        with pytest.raises(TypeError, match="Type is mismatched"):
            _kernel("T x, T z", "T y", "y = x + z")(x, y)
        with pytest.raises(TypeError, match="Type is mismatched"):
            double_it(x, y)
        with pytest.raises(TypeError, match="Type is mismatched"):
            _kernel("float32 x", "T y", "y = x")(x, x)
        with pytest.raises(KeyError):
            _kernel("T x", "W y", "y = x")(x)
        with pytest.raises(ValueError, match="Loop size is undecided"):
            _kernel("raw T x", "T y", "y = x[i]")(x)
        with pytest.raises(ValueError, match="Out shape is mismatched"):
            double_it(x, x[:1])
        with pytest.raises(TypeError, match="Wrong number of arguments"):
            double_it(x, x, x)
        with pytest.raises(TypeError, match="Unsupported type"):
            double_it(np.ones(3))
        with pytest.raises(RuntimeError, match="does not compile"):
            _kernel("T x", "T y", "z = x")(x)
        with pytest.raises(translated.OutOfBounds, match="sample reads beyond an array"):
            _kernel("raw T x, T z", "T y", "y = x[i + 1]")(x, x)
        with pytest.raises(translated.OutOfBounds):
            _kernel(
                "raw T x, T z", "T y", "const int at[] = {0, -1}; y = x[at]", reduce_dims=False
            )(x, x)
        with pytest.raises(AssertionError):
            _kernel("T x", "T y", "y = _ind.get()[0]")(x)  # CuPy merges axes unless told not to
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        double_it(x)
    with pytest.raises(Exception, match="Unknown keyword"):
        _kernel("const T x", "T y", "y = x")


def test_the_double_s_results_are_as_cupy_s(place: Place) -> None:
    on_the_double(place)
    x = place.permuted(place.there(numbers(3, 2)), (1, 0))
    wanted = place.back(x)
    with x.device:
        y = _kernel("T x, float64 a", "T y", "y = a * x")(x, 2)
        assert y.flags.c_contiguous  # whatever the order of x
        np.testing.assert_array_equal(place.back(y), 2.0 * wanted)
        z = _kernel("T x, T y", "T z", "z = x + y")(x, x[0])  # arrays broadcast
        np.testing.assert_array_equal(place.back(z), wanted + wanted[0])
        flat = _kernel("raw T x, T y", "T z", "z = x[i]")(x, x)  # an index runs in C order
        np.testing.assert_array_equal(place.back(flat), wanted)
        assert _kernel("T x", "T y", "y = x")(x[:0]).shape == (0, 3)
        for dtype in (np.float64, np.float32, np.float16):
            assert np.isnan(place.back(source.empty((2,), dtype))).all()  # nobody's zeros
        total = translated.ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "sample")
        for axis in (0, 1, (0, 1), None):
            np.testing.assert_allclose(place.back(total(x, axis=axis)), wanted.sum(axis=axis))
        kept = total(x, axis=1, keepdims=True)
        np.testing.assert_allclose(place.back(kept), wanted.sum(axis=1, keepdims=True))
        long = place.there(numbers(5000, 3))
        np.testing.assert_allclose(place.back(total(long, axis=0)), place.back(long).sum(axis=0))
        np.testing.assert_array_equal(place.back(total(long[:0], axis=0)), np.zeros(3))
