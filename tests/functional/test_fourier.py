"""Convolution through Fourier transforms: how blocks are cut, and what rounding and NaN do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from devconv import _fast
from devconv import functional as F
from devconv.functional.fourier import apart, every, lengths, smooth, unit, work
from devconv.functional.windows import plan


def long(n: int = 16384, taps: int = 255) -> Any:
    return plan((n,), (taps,), (1,), ((0, 0),), (1,))


@pytest.mark.parametrize("n", range(1, 200))
def test_smooth_numbers(n: int) -> None:
    found = smooth(n)
    rest = found
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
    assert n <= found < 2 * n or n == 1 == found


def test_long_signals_are_cut_into_blocks_short_ones_are_not() -> None:
    (block,) = lengths(4, 16, 16, 1, long())
    assert 2 * 255 <= block <= 8 * 256
    assert lengths(4, 16, 16, 1, long(300)) == (smooth(300),)
    two = plan((12, 4000), (5, 5), (1, 1), ((0, 0), (0, 0)), (1, 1))
    rows, columns = lengths(1, 4, 4, 1, two)
    assert rows <= 12 < columns < 200


def test_work_grows_with_everything() -> None:
    least = work(1, 4, 4, 1, long(1000))
    for more in (
        work(2, 4, 4, 1, long(1000)),
        work(1, 8, 4, 1, long(1000)),
        work(1, 4, 8, 1, long(1000)),
        work(1, 4, 4, 1, long(4000)),
    ):
        assert more > least
    assert work(1, 4, 4, 4, long(1000)) < least


def test_strides_and_dilations_are_zeros_between() -> None:
    w = unit(plan((9, 8), (2, 3), (3, 2), ((1, 2), (0, 0)), (2, 1)))
    assert (w.kernel, w.stride, w.dilation, w.out) == ((3, 3), (1, 1), (1, 1), (10, 5))
    x = np.arange(6.0).reshape(1, 2, 3)
    spread = apart(x, (3, 2), 1)
    assert spread.shape == (1, 4, 5)
    assert spread.sum() == x.sum()
    np.testing.assert_array_equal(every(spread, (3, 2), 1), x)
    assert apart(x, (1, 1), 1) is x is every(x, (1, 1), 1)


@pytest.mark.parametrize("budget", [1, 2**16, None])
@pytest.mark.parametrize("taps", [2, 30, 200])
def test_blocks_of_any_number_at_a_time(
    taps: int, budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((3, 4, 700)), rng.standard_normal((6, 4, taps))
    wanted, back = F.conv.vjp(x, weight, padding=taps // 2, algorithm="gemm")
    dy = rng.standard_normal(wanted.shape)
    cotangents = back(dy)
    monkeypatch.setattr(_fast, "workspace", lambda x: budget)
    y, pullback = F.conv.vjp(x, weight, padding=taps // 2, algorithm="fft")
    for a, b in zip((y, *pullback(dy)), (wanted, *cotangents), strict=True):
        assert np.abs(a - b).max() <= 1e-14 * math.sqrt(taps) * np.abs(b).max()


def test_float32_is_as_good_as_the_direct_sum() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 16, 3000)), rng.standard_normal((16, 16, 255))
    x, weight = x.astype("float32"), weight.astype("float32")
    wanted = F.conv(x.astype("float64"), weight.astype("float64"), algorithm="gemm")
    y = F.conv(x, weight, algorithm="fft")
    assert y.dtype == np.float32
    assert np.abs(y - wanted).max() <= 4e-6 * wanted.std()


def test_nan_fills_its_block_and_no_more() -> None:
    x, weight = np.ones((2, 1, 2000)), np.ones((1, 1, 20))
    x[0, 0, 0] = np.nan
    y = F.conv(x, weight, algorithm="fft")
    assert np.isnan(y[0, 0, 0])
    assert 1 < np.isnan(y[0]).sum() <= 160
    assert not np.isnan(y[1]).any()


def test_half_precision_is_computed_in_float32() -> None:
    x, weight = np.ones((1, 4096, 3), dtype="float16"), np.ones((1, 4096, 2), dtype="float16")
    y = F.conv(x, weight, algorithm="fft")
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, np.full((1, 1, 2), 8192.0))
