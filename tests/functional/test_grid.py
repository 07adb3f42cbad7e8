"""All windows in one array: as tap by tap, on a device where a view of them is to be had."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv.functional import grid
from devconv.functional.windows import Windows, plan, tap
from tests.doubles import cupy as double
from tests.doubles.cupy import watch


@pytest.fixture
def there() -> Iterator[Any]:
    with double.installed():
        yield lambda x: dc.to_device(x, "cuda:1")


def laid(n: int, kernel: int, stride: int, dilation: int = 1) -> Windows:
    return plan((n, n), (kernel, kernel), (stride,) * 2, ((0, 0),) * 2, (dilation,) * 2)


@pytest.mark.parametrize("w", [laid(6, 2, 2), laid(7, 3, 2), laid(6, 2, 1, 2), laid(5, 2, 3)])
def test_windows_and_their_adjoint(w: Windows) -> None:
    rng = np.random.default_rng(0)
    slab = rng.standard_normal((2, *w.reach, 3))
    windows = grid.windows(slab, w)
    for i, j in itertools.product(*map(range, w.kernel)):
        np.testing.assert_array_equal(windows[:, :, i, :, j], tap(slab, w, (i, j)))
    shares = rng.standard_normal(windows.shape)
    back = grid.put_back(shares, w)
    assert back.shape == slab.shape
    np.testing.assert_allclose(np.sum(back * slab), np.sum(shares * windows))


def test_the_adjoint_of_a_sum_repeats() -> None:
    w, y = laid(6, 2, 2), np.arange(18.0).reshape(1, 3, 3, 2)
    assert np.sum(grid.repeated(y, w), axis=grid.taps(w)).tolist() == (4.0 * y).tolist()


def images() -> np.ndarray:
    """With ties, infinite and missing pixels in one window."""
    x = np.random.default_rng(0).integers(0, 3, (2, 3, 7, 7)).astype("float32")
    x[0, 0, 0, :3] = [np.inf, np.nan, np.nan]
    x[1, 1] = -np.inf
    return x


@pytest.mark.parametrize("kernel", [2, 3, (1, 3)])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": (0, 1)}, {"ceil_mode": True}])
@pytest.mark.parametrize("op", [dc.functional.max_pool, dc.functional.avg_pool], ids=["max", "avg"])
def test_a_few_launches_say_the_same(there: Any, op: Any, kernel: Any, options: Any) -> None:
    x = images() if op is dc.functional.max_pool else np.nan_to_num(images(), posinf=1, neginf=0)
    found = {}
    for small in (0, grid.SMALL):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grid, "SMALL", small)
            watch.reset()
            y, pullback = op.vjp(there(x), kernel_size=kernel, **options)
            dy = np.random.default_rng(1).standard_normal(y.shape).astype("float32")
            (dx,) = pullback(there(dy))
        found[small] = y._values, dx._values, sum(watch.launches.values())
    (y, dx, many), (z, dz, few) = found.values()
    np.testing.assert_allclose(z, y, rtol=1e-6)
    np.testing.assert_array_equal(dz, dx)
    assert few < many
