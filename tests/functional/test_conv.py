"""What convolution refuses, and what the table of cases cannot say about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from devconv.testing import generic
from tests.backends import Backend

X, W, B = np.ones((2, 4, 6, 5)), np.ones((6, 4, 3, 3)), np.ones(6)


def images(*shape: int) -> np.ndarray:
    return np.ones(shape)


# --- shapes ---


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        (
            images(2, 3, 6, 5),
            W,
            r"x \(2, 3, 6, 5\) has 3 channels, weight \(6, 4, 3, 3\) with groups=1 takes 4; give x "
            r"4 channels or weight shape \(6, 3, ...\)",
        ),
        (
            images(4, 6, 5),
            W,
            r"x must have 4 dimensions \(N, C, 2 spatial\), got shape \(4, 6, 5\); a single image "
            r"needs a batch dimension: x\[None, ...\]",
        ),
        (images(2, 4, 6, 5, 5), W, r"x must have 4 dimensions .*, got shape \(2, 4, 6, 5, 5\)"),
        (X, images(6, 4, 3), r"x must have 3 dimensions \(N, C, 1 spatial\)"),
        (X, images(6, 4), r"weight must have shape \(C_out, C // groups, \*kernel\), got \(6, 4\)"),
        (images(2, 4), images(6, 4), r"x must have shape \(N, C, \*spatial\), got \(2, 4\)"),
        (images(), W, r"x must have 4 dimensions .*, got shape \(\)"),
        (X, images(), r"weight must have shape .*, got \(\) for x \(2, 4, 6, 5\)"),
        (images(2, 0, 6, 5), W, r"x \(2, 0, 6, 5\) has no channels or no pixels; only the batch"),
        (images(2, 4, 0, 5), W, r"x \(2, 4, 0, 5\) has no channels or no pixels; only the batch"),
        (X, images(0, 4, 3, 3), r"weight \(0, 4, 3, 3\) has an empty dimension"),
        (X, images(6, 4, 0, 3), r"weight \(6, 4, 0, 3\) has an empty dimension"),
        (X, images(6, 0, 3, 3), r"weight \(6, 0, 3, 3\) has an empty dimension"),
        (
            X,
            images(6, 4, 7, 3),
            r"the output would be empty: kernel \(7, 3\) with dilation \(1, 1\) spans \(7, 3\) "
            r"pixels, the padded input \(6, 5\); use a smaller kernel or more padding",
        ),
    ],
)
def test_shapes_that_do_not_fit(x: Any, weight: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=f"^conv: {message}"):
        F.conv(x, weight)


@pytest.mark.parametrize("shape", [(4,), (6, 1), (1,), (), (1, 6, 1, 1)])
def test_a_bias_of_another_shape(shape: Any) -> None:
    with pytest.raises(
        InvalidValue, match=r"^conv: bias has shape .*, expected \(6,\): one per out"
    ):
        F.conv(X, W, np.ones(shape))


def test_an_empty_output_by_dilation_or_less_padding() -> None:
    with pytest.raises(InvalidValue, match=r"dilation \(1, 3\) spans \(3, 7\) pixels"):
        F.conv(X, W, dilation=(1, 3))
    assert F.conv(X, W, dilation=(1, 3), padding=(0, 1)).shape == (2, 6, 4, 1)
    with pytest.raises(InvalidValue, match=r"the padded input \(6, 5\)"):
        F.conv(images(0, 4, 6, 5), images(6, 4, 7, 3))  # an empty batch excuses nothing


# --- options ---


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stride": 0}, InvalidValue, "stride must be at least 1, got 0"),
        ({"stride": -1}, InvalidValue, "stride must be at least 1, got -1"),
        ({"stride": (2, 0)}, InvalidValue, r"stride\[1\] must be at least 1, got 0"),
        ({"stride": (2, 2, 2)}, InvalidValue, "stride needs one entry for each of 2 spatial"),
        ({"stride": 2.0}, InvalidType, "stride must be an int, got 2.0"),
        ({"stride": True}, InvalidType, "stride must be an int, got True"),
        ({"stride": None}, InvalidType, "stride must be an int, got None"),
        ({"dilation": 0}, InvalidValue, "dilation must be at least 1, got 0"),
        ({"dilation": (1,)}, InvalidValue, "dilation needs one entry for each of 2 spatial"),
        ({"padding": -1}, InvalidValue, "padding must be at least 0, got -1"),
        ({"padding": [(1, -1), 0]}, InvalidValue, r"padding\[0\] must be at least 0, got -1"),
        ({"padding": (1, 1, 1, 1)}, InvalidValue, "padding needs one entry"),
        ({"padding": 0.5}, InvalidType, "padding must be an int, got 0.5"),
        ({"padding": None}, InvalidType, "padding must be an int, got None"),
        ({"padding": "SAME"}, InvalidValue, "padding must be one of 'valid', 'same', got 'SAME'"),
        (
            {"padding": "same", "stride": 2},
            InvalidValue,
            r'padding="same" needs stride 1, got stride \(2, 2\); give the padding as numbers',
        ),
        ({"padding": "same", "stride": (1, 2)}, InvalidValue, r'padding="same" needs stride 1'),
        ({"groups": 0}, InvalidValue, "groups must be at least 1, got 0"),
        ({"groups": -2}, InvalidValue, "groups must be at least 1, got -2"),
        ({"groups": 2.0}, InvalidType, "groups must be an int, got 2.0"),
        ({"groups": True}, InvalidType, "groups must be an int, got True"),
        (
            {"groups": 3},
            InvalidValue,
            r"groups=3 must divide the channels of x \(2, 4, 6, 5\) \(4\) and of weight "
            r"\(6, 4, 3, 3\) \(6\)",
        ),
        ({"groups": 4}, InvalidValue, r"groups=4 must divide .* of weight \(6, 4, 3, 3\) \(6\)"),
        ({"groups": 2}, InvalidValue, r"x \(2, 4, 6, 5\) has 4 channels, .* groups=2 takes 8"),
    ],
)
def test_options_out_of_range(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^conv: {message}"):
        F.conv(X, W, B, **options)


def test_a_pair_is_not_two_dimensions() -> None:
    with pytest.raises(InvalidValue, match=r"each of 1 spatial dimensions, got \(1, 2\)"):
        F.conv(images(2, 4, 9), images(6, 4, 3), padding=(1, 2))
    assert F.conv(images(2, 4, 9), images(6, 4, 3), padding=[(1, 2)]).shape == (2, 6, 10)


def test_ints_of_other_kinds_are_ints() -> None:
    y = F.conv(X, W, stride=np.int64(2), padding=[np.int32(1), (np.uint8(0), 1)])
    assert y.shape == (2, 6, 3, 2)


# --- what the table cannot say ---


def test_the_result_is_channels_last_in_memory(backend: Backend) -> None:
    """So that the next windows are contiguous runs; PyTorch's own route does as it likes."""
    with generic(backend.name == "torch"):
        y = F.conv(backend.asarray(X), backend.asarray(W), backend.asarray(B))
    assert tuple(y.shape) == (2, 6, 4, 3)
    if backend.name == "torch":
        assert y.permute(0, 2, 3, 1).is_contiguous()
    if backend.name in ("numpy", "cupy"):
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_the_pullback_keeps_its_arguments_of_that_time() -> None:
    """An optimizer binds new arrays; what the pullback holds is what was handed in."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(X.shape), rng.standard_normal(W.shape)
    y, pullback = F.conv.vjp(x, w)
    before = pullback(np.ones_like(y))
    w = w - 0.1 * before[1]
    after = pullback(np.ones_like(y))
    np.testing.assert_array_equal(before[0], after[0])


def test_nan_stays_where_a_window_meets_it() -> None:
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 0, 0] = np.nan
    y = F.conv(x, np.ones((1, 1, 2, 2)))
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isnan(y).sum() == 1


def test_sums_of_half_precision_are_wide() -> None:
    """2048 + 1 is 2048 in float16: a narrow sum of ones would stop there."""
    x, w = np.ones((1, 4096, 1), dtype="float16"), np.ones((1, 4096, 1), dtype="float16")
    assert F.conv(x, w)[0, 0, 0] == 4096.0
    one = np.ones((1, 1, 4096), dtype="float16")
    _, pullback = F.conv.vjp(one, one[:, :, :1], one[0, 0, :1])
    _, dweight, dbias = pullback(one)
    assert dweight[0, 0, 0] == 4096.0
    assert dbias[0] == 4096.0


def test_large_images_run_in_several_tiles() -> None:
    """At the library's own budget, against one tap at a time."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 8, 70, 60)), rng.standard_normal((5, 8, 3, 3))
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    expected = sum(
        np.einsum("nchw,oc->nohw", padded[:, :, i : i + 70, j : j + 60], w[:, :, i, j])
        for i, j in np.ndindex(3, 3)
    )
    y, pullback = F.conv.vjp(x, w, padding=1)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-11)
    dy = rng.standard_normal(y.shape)
    dx, dweight = pullback(dy)
    assert np.sum(x * dx) == pytest.approx(np.sum(y * dy), rel=1e-10)
    assert np.sum(w * dweight) == pytest.approx(np.sum(y * dy), rel=1e-10)


def test_same_call_same_bits() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 8, 40, 40)), rng.standard_normal((16, 8, 3, 3))
    y, pullback = F.conv.vjp(x, w, padding=1)
    again, back = F.conv.vjp(x.copy(), w.copy(), padding=1)
    assert y.tobytes() == again.tobytes()
    for a, b in zip(pullback(y), back(again), strict=True):
        assert a.tobytes() == b.tobytes()
