"""Transposed convolution beyond the table: what it is the adjoint of, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devconv import functional as F

X, WEIGHT = np.ones((2, 4, 3, 3)), np.ones((4, 3, 2, 2))


@st.composite
def layouts(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """The size of an image, a kernel, and options of a convolution that fits."""
    sizes, kernel, stride, dilation, padding = [], [], [], [], []
    for _ in range(draw(st.integers(1, 3))):
        k, d = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        least = max(1, d * (k - 1) + 1 - before - after)
        sizes.append(draw(st.integers(least, least + 3)))
        kernel.append(k)
        stride.append(draw(st.integers(1, 3)))
        dilation.append(d)
        padding.append((before, after))
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    return tuple(sizes), tuple(kernel), options | {"groups": draw(st.sampled_from([1, 2]))}


@settings(derandomize=True, deadline=None, max_examples=60)
@given(layouts())
def test_it_is_the_adjoint_of_conv(layout: Any) -> None:
    size, kernel, options = layout
    rng, groups = np.random.default_rng(0), options["groups"]
    x = rng.standard_normal((2, 4, *size))
    weight = rng.standard_normal((6, 4 // groups, *kernel))
    y = F.conv(x, weight, **options)
    dy = rng.standard_normal(y.shape)
    natural = [
        (m - 1) * s - sum(pair) + d * (k - 1) + 1
        for m, s, pair, d, k in zip(
            y.shape[2:],
            options["stride"],
            options["padding"],
            options["dilation"],
            kernel,
            strict=True,
        )
    ]
    left = [n - m for n, m in zip(size, natural, strict=True)]  # what conv's rounding left unread
    back = F.conv_transpose(dy, weight, output_padding=left, **options)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.sum(y * dy), np.sum(x * back), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        (X, np.ones((4, 3)), {}, r"weight must have shape \(C_in, C_out // groups, \*kernel\)"),
        (X, np.ones((4, 3, 2)), {}, r"x must have 3 dimensions"),
        (X, np.ones((4, 0, 2, 2)), {}, r"weight \(4, 0, 2, 2\) has an empty dimension"),
        (
            X,
            np.ones((3, 4, 2, 2)),
            {},
            r"x \(2, 4, 3, 3\) has 4 channels, weight \(3, 4, 2, 2\) takes 3; give x 3 channels or "
            r"weight shape \(4, C_out // groups, \.\.\.\)",
        ),
        (X, WEIGHT, {"groups": 3}, r"groups=3 must divide the channels of x \(2, 4, 3, 3\) \(4\)"),
        (X, WEIGHT, {"groups": 0}, r"groups must be at least 1, got 0"),
        (X, WEIGHT, {"stride": 0}, r"stride must be at least 1, got 0"),
        (X, WEIGHT, {"dilation": (1, 2, 3)}, r"dilation needs one entry for each of 2"),
        (X, WEIGHT, {"padding": -1}, r"padding must be at least 0, got -1"),
        (X, WEIGHT, {"output_padding": -1}, r"output_padding must be at least 0, got -1"),
        (
            X,
            WEIGHT,
            {"output_padding": (0, 2), "stride": 2},
            r"output_padding \(0, 2\) must be smaller than the stride \(2, 2\) or the dilation "
            r"\(1, 1\) in each dimension",
        ),
        (
            X,
            WEIGHT,
            {"padding": 2},
            r"the output would be empty: x \(2, 4, 3, 3\) and kernel \(2, 2\) with stride \(1, 1\) "
            r"and padding \(\(2, 2\), \(2, 2\)\) leave \(0, 0\) pixels; use less padding",
        ),
    ],
)
def test_refused(x: Any, weight: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"conv_transpose: {message}"):
        F.conv_transpose(x, weight, **options)


def test_bias_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bias has shape \(3,\), expected \(6,\)"):
        F.conv_transpose(X, WEIGHT, np.ones(3), groups=2)


def test_padding_by_name_is_refused() -> None:
    with pytest.raises(TypeError, match="padding must be an int, got 'same'"):
        F.conv_transpose(X, WEIGHT, padding="same")  # type: ignore[arg-type]
