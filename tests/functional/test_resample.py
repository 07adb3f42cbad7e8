"""Resampling beyond the table: adjointness, PyTorch's places to the pixel, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devconv import functional as F
from tests.functional.adjoint import assert_adjoint

X = np.ones((2, 3, 4, 5))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=3),
    st.sampled_from([("nearest", False), *((m, c) for m in ("linear", "cubic") for c in (0, 1))]),
)
def test_the_pullback_is_the_adjoint(sizes: list[tuple[int, int]], mode: tuple[str, bool]) -> None:
    options = {"mode": mode[0], "align_corners": bool(mode[1])}
    shape = (2, 3, *(n for n, _ in sizes))
    assert_adjoint(F.upsample, *shape, size=[m for _, m in sizes], **options)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.integers(1, 5),
    st.floats(0.5, 4.0),
    st.sampled_from(["nearest", "linear", "cubic"]),
)
def test_the_pullback_is_the_adjoint_by_factors(n: int, factor: float, mode: str) -> None:
    if n * factor >= 1:
        assert_adjoint(F.upsample, 2, 3, n, scale_factor=factor, mode=mode)


@pytest.mark.parametrize(("n", "m"), [(2, 82), (3, 123), (4, 94), (49, 7), (7, 49), (13, 61)])
def test_nearest_is_pytorch_s_pixel(n: int, m: int) -> None:
    """It counts in single precision, and so misses a pixel that exact fractions would hit."""
    torch = pytest.importorskip("torch")
    x = np.arange(float(n), dtype="float32").reshape(1, 1, n)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(x), size=m)
    np.testing.assert_array_equal(F.upsample(x, size=m), theirs.numpy())
    theirs = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=m / n + 0.01)
    np.testing.assert_array_equal(F.upsample(x, scale_factor=m / n + 0.01), theirs.numpy())


@pytest.mark.parametrize(
    ("mode", "reached"),
    [("nearest", {4, 5}), ("linear", {3, 4, 5, 6}), ("cubic", set(range(1, 9)))],
)
def test_a_nan_shows_only_where_it_is_read(mode: str, reached: set[int]) -> None:
    x = np.ones((1, 1, 5))
    x[0, 0, 2] = np.nan
    y = F.upsample(x, scale_factor=2, mode=mode)
    assert set(np.flatnonzero(np.isnan(y))) == reached


def test_cubic_in_three_dimensions_is_one_dimension_after_the_other() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 4, 2))
    y = F.upsample(x, size=(5, 3, 6), mode="cubic")
    by_turns = x
    for size in ((5, 4, 2), (5, 3, 2), (5, 3, 6)):
        by_turns = F.upsample(by_turns, size=size, mode="cubic")
    np.testing.assert_allclose(y, by_turns, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, ValueError, "exactly one of size and scale_factor must be given, got neither"),
        ({"size": 2, "scale_factor": 2}, ValueError, "exactly one of .* got both"),
        ({"size": 0}, ValueError, "size must be at least 1, got 0"),
        ({"size": (1, 2, 3)}, ValueError, "size needs one entry for each of 2"),
        ({"size": 2.0}, TypeError, "size must be an int, got 2.0"),
        ({"scale_factor": 0}, ValueError, "scale_factor must be greater than 0.0, got 0"),
        ({"scale_factor": "2"}, TypeError, "scale_factor must be a number, got '2'"),
        ({"scale_factor": np.inf}, ValueError, "scale_factor must be finite, got inf"),
        ({"scale_factor": (2.0,)}, ValueError, "scale_factor needs one entry for each of 2"),
        (
            {"scale_factor": 0.2},
            ValueError,
            r"the output would be empty: x \(2, 3, 4, 5\) with scale_factor 0.2 leaves \(0, 1\) "
            "pixels; use a larger factor",
        ),
        ({"size": 2, "mode": "bilinear"}, ValueError, "mode must be one of 'nearest', 'linear'"),
        (
            {"size": 2, "align_corners": True},
            ValueError,
            'align_corners is for modes "linear" and "cubic", got mode="nearest"',
        ),
    ],
)
def test_refused(options: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=f"upsample: {message}"):
        F.upsample(X, **options)


def test_a_nan_goes_to_the_pixels_that_were_read_and_to_no_other() -> None:
    _, pullback = F.upsample.vjp(np.ones((1, 1, 9)), size=3, mode="linear")
    (dx,) = pullback(np.asarray([[[np.nan, 1.0, 1.0]]]))
    assert np.isnan(dx[0, 0]).tolist() == [False, True, False, *[False] * 6]
