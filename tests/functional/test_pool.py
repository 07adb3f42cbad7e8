"""Pooling: what is refused, ties, NaN, and what PyTorch says where systems differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from tests import backends
from tests.backends import Backend

X = np.ones((2, 4, 6, 5))
BOTH = pytest.mark.parametrize("op", [F.max_pool, F.avg_pool], ids=lambda op: op.__name__)
GLOBAL = pytest.mark.parametrize(
    "op", [F.global_max_pool, F.global_avg_pool], ids=lambda op: op.__name__
)
INF = float("inf")


def row(backend: Backend, *values: float, dtype: str = "float64") -> Any:
    """One image of one channel with one dimension."""
    return backend.asarray(np.asarray([[values]]), dtype)


# --- what is refused ---


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel_size": 0}, InvalidValue, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (2, -1)}, InvalidValue, r"kernel_size\[1\] must be at least 1, got -1"),
        ({"kernel_size": (2,)}, InvalidValue, "kernel_size needs one entry for each of 2 spatial"),
        ({"kernel_size": 2.0}, InvalidType, "kernel_size must be an int, got 2.0"),
        ({"kernel_size": True}, InvalidType, "kernel_size must be an int, got True"),
        ({"kernel_size": None}, InvalidType, "kernel_size must be an int, got None"),
        ({"kernel_size": 2, "stride": 0}, InvalidValue, "stride must be at least 1, got 0"),
        ({"kernel_size": 2, "stride": (1, -1)}, InvalidValue, r"stride\[1\] must be at least 1"),
        ({"kernel_size": 2, "stride": 1.5}, InvalidType, "stride must be an int, got 1.5"),
        ({"kernel_size": 2, "padding": -1}, InvalidValue, "padding must be at least 0, got -1"),
        ({"kernel_size": 2, "padding": True}, InvalidType, "padding must be an int, got True"),
        (
            {"kernel_size": 2, "padding": "same"},
            InvalidValue,
            r"padding must be an int, ints or \(before, after\) pairs for pooling, got 'same'",
        ),
        (
            {"kernel_size": 3, "padding": 2},
            InvalidValue,
            r"padding \(2, 2\) is more than half of the 3 pixels that kernel \(3, 3\) spans in "
            r"dimension 0; a window would see no pixel",
        ),
        (
            {"kernel_size": (4, 3), "padding": [2, (0, 2)]},
            InvalidValue,
            r"padding \(0, 2\) is more than half of the 3 pixels .* in dimension 1",
        ),
        (
            {"kernel_size": (7, 2)},
            InvalidValue,
            r"the output would be empty: kernel \(7, 2\) .* the padded input \(6, 5\)",
        ),
    ],
)
def test_options_out_of_range(op: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{op.__name__}: {message}"):
        op(X, **options)


def test_dilation_out_of_range() -> None:
    with pytest.raises(InvalidValue, match=r"^max_pool: dilation must be at least 1, got 0$"):
        F.max_pool(X, kernel_size=2, dilation=0)
    with pytest.raises(
        InvalidValue, match=r"kernel \(3, 3\) with dilation \(3, 3\) spans \(7, 7\)"
    ):
        F.max_pool(X, kernel_size=3, dilation=3)
    assert F.max_pool(X, kernel_size=3, dilation=2, padding=2).shape == (2, 4, 2, 2)


@pytest.mark.parametrize("divisor", [0, 0.0])
def test_a_divisor_of_nothing(divisor: Any) -> None:
    with pytest.raises((InvalidValue, InvalidType), match=r"^avg_pool: divisor_override must "):
        F.avg_pool(X, kernel_size=2, divisor_override=divisor)


@BOTH
@pytest.mark.parametrize("shape", [(4, 5), (4,), ()])
def test_windows_need_images(op: Any, shape: Any) -> None:
    with pytest.raises(InvalidValue, match=r"x must have shape \(N, C, \*spatial\), got "):
        op(np.ones(shape), kernel_size=2)


@GLOBAL
@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 4), (2, 3, 0)])
def test_global_pooling_needs_pixels(op: Any, shape: Any) -> None:
    with pytest.raises(InvalidValue, match=rf"^{op.__name__}: x (must have|.* has no channels or)"):
        op(np.ones(shape))


@BOTH
def test_only_the_batch_may_be_empty(op: Any) -> None:
    for shape in [(2, 0, 4, 4), (2, 3, 0, 4)]:
        with pytest.raises(InvalidValue, match=r"has no channels or no pixels; only the batch may"):
            op(np.ones(shape), kernel_size=1)


# --- ties and NaN ---


@pytest.mark.parametrize("tie", [7.0, -INF, INF, 0.0])
def test_the_first_maximum_gets_it_all(backend: Backend, tie: float) -> None:
    x, dy = row(backend, tie, tie, tie, tie), row(backend, 3.0, 5.0)
    (dx,) = F.max_pool.vjp(x, kernel_size=2)[1](dy)
    np.testing.assert_array_equal(backend.to_numpy(dx), [[[3.0, 0.0, 5.0, 0.0]]])
    (dx,) = F.global_max_pool.vjp(x)[1](backend.asarray([[2.0]]))
    np.testing.assert_array_equal(backend.to_numpy(dx), [[[2.0, 0.0, 0.0, 0.0]]])


def test_padding_is_never_the_maximum(backend: Backend) -> None:
    """Also where the image is minus infinity, as the padding is inside."""
    x = row(backend, -INF, -INF, -INF)
    options = {"kernel_size": 2, "stride": 2, "padding": 1, "return_indices": True}
    (y, indices), pullback = F.max_pool.vjp(x, **options)
    np.testing.assert_array_equal(backend.to_numpy(y), [[[-INF, -INF]]])
    np.testing.assert_array_equal(backend.to_numpy(indices), [[[0, 1]]])
    (dx,) = pullback(row(backend, 3.0, 5.0))
    np.testing.assert_array_equal(backend.to_numpy(dx), [[[3.0, 5.0, 0.0]]])


def test_nan_wins_and_the_first_gets_it(backend: Backend) -> None:
    nan = float("nan")
    x, dy = row(backend, 1.0, nan, nan, 9.0, 2.0, 1.0), row(backend, 3.0, 5.0)
    (y, indices), pullback = F.max_pool.vjp(x, kernel_size=3, return_indices=True)
    np.testing.assert_array_equal(backend.to_numpy(y), [[[nan, 9.0]]])
    np.testing.assert_array_equal(backend.to_numpy(indices), [[[1, 3]]])
    np.testing.assert_array_equal(backend.to_numpy(pullback(dy)[0]), [[[0.0, 3, 0, 5, 0, 0]]])
    (dx,) = F.global_max_pool.vjp(x)[1](backend.asarray([[2.0]]))
    np.testing.assert_array_equal(backend.to_numpy(dx), [[[0.0, 2, 0, 0, 0, 0]]])


def test_ties_go_where_pytorch_sends_them() -> None:
    backend = backends.get("torch")
    host = np.random.default_rng(0).integers(0, 3, (2, 3, 6, 5)).astype("float64")
    options = {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True}
    (y, indices), pullback = F.max_pool.vjp(backend.asarray(host), **options)
    x = backend.asarray(host).requires_grad_()
    from torch.nn.functional import max_pool2d

    wanted, places = max_pool2d(x, **options)
    wanted.backward(backend.xp.ones_like(wanted))
    (dx,) = pullback(backend.xp.ones_like(y))
    for ours, theirs in ((indices, places), (y, wanted), (dx, x.grad)):
        np.testing.assert_array_equal(backend.to_numpy(ours), backend.to_numpy(theirs))


def test_overlapping_windows_add_up(backend: Backend) -> None:
    x, dy = row(backend, 1.0, 9.0, 2.0, 3.0), row(backend, 3.0, 5.0, 7.0)
    (dx,) = F.max_pool.vjp(x, kernel_size=2, stride=1)[1](dy)
    np.testing.assert_array_equal(backend.to_numpy(dx), [[[0.0, 8.0, 0.0, 7.0]]])


# --- indices ---


def test_indices_count_within_one_channel_plane(backend: Backend) -> None:
    host = np.random.default_rng(0).standard_normal((2, 3, 6, 5))
    options = {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True}
    y, indices = F.max_pool(backend.asarray(host), return_indices=True, **options)
    places = backend.to_numpy(indices)
    assert places.dtype.kind == "i"
    flat = host.reshape(2, 3, 30)
    taken = np.take_along_axis(flat, places.reshape(2, 3, -1), axis=2).reshape(places.shape)
    np.testing.assert_array_equal(taken, backend.to_numpy(y))


def test_without_indices_there_is_one_output() -> None:
    assert isinstance(F.max_pool(X, kernel_size=2), np.ndarray)


# --- averages ---


def test_ceil_mode_never_counts_what_lies_beyond_the_padding(backend: Backend) -> None:
    x = row(backend, 1.0, 2.0, 3.0, 4.0, 5.0)
    y = F.avg_pool(x, kernel_size=2, ceil_mode=True)
    np.testing.assert_array_equal(backend.to_numpy(y), [[[1.5, 3.5, 5.0]]])
    y = F.avg_pool(x, kernel_size=4, stride=4, padding=1, ceil_mode=True)
    np.testing.assert_array_equal(backend.to_numpy(y), [[[1.5, 3.0]]])  # 6/4, then 9/3
    y = F.avg_pool(x, kernel_size=4, stride=4, padding=1, ceil_mode=True, count_include_pad=False)
    np.testing.assert_array_equal(backend.to_numpy(y), [[[2.0, 4.5]]])


def test_sums_of_half_precision_are_wide() -> None:
    """2048 + 1 is 2048 in float16: a narrow sum of ones would stop there."""
    x = np.ones((1, 1, 4096), dtype="float16")
    assert F.avg_pool(x, kernel_size=4096)[0, 0, 0] == 1.0
    assert F.global_avg_pool(x)[0, 0] == 1.0
    assert F.avg_pool(x, kernel_size=4096, divisor_override=2)[0, 0, 0] == 2048.0


@BOTH
def test_the_result_keeps_the_memory_order_of_the_images(op: Any) -> None:
    last = np.ones((2, 6, 5, 4))
    y = op(last.transpose(0, 3, 1, 2), kernel_size=2)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_a_mean_of_no_pixels_is_zero() -> None:
    """Taps two pixels apart step over an image of one; its padding does not count."""
    y, pullback = F.avg_pool.vjp(
        np.ones((1, 1, 1)), kernel_size=2, dilation=2, padding=1, count_include_pad=False
    )
    np.testing.assert_array_equal(y, [[[0.0]]])
    np.testing.assert_array_equal(pullback(np.ones_like(y))[0], [[[0.0]]])


def test_half_precision_shares_of_overlapping_windows_add_up_in_float32() -> None:
    x = np.zeros((1, 1, 1200), dtype="float16")
    x[0, 0, 600] = 1.0  # the maximum of hundreds of windows
    y, pullback = F.max_pool.vjp(x, kernel_size=501, stride=1, padding=250)
    dy = np.full(y.shape, 1.001, dtype="float16")
    (dx,) = pullback(dy)
    assert dx.dtype == "float16"
    assert float(dx[0, 0, 600]) == pytest.approx(501 * float(dy[0, 0, 0]), rel=1e-3)


def test_ceil_mode_lets_a_window_be_larger_than_the_image() -> None:
    x = np.arange(64.0).reshape(1, 1, 8, 8)
    assert F.max_pool(x, kernel_size=9, stride=3, ceil_mode=True).tolist() == [[[[63.0]]]]
    with pytest.raises(ValueError, match="the output would be empty"):
        F.max_pool(x, kernel_size=12, stride=3, ceil_mode=True)
