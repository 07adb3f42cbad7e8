"""The choice of an algorithm: what can run, what is chosen, why, and that all say the same."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import devconv as dc
from devconv import _fast
from devconv import functional as F
from devconv.functional.algorithm import Choice, choose
from devconv.functional.windows import Windows, plan
from devconv.testing import generic

X, W = np.ones((2, 4, 6, 5), dtype="float32"), np.ones((6, 4, 3, 3), dtype="float32")
LONG = {"x_shape": (4, 16, 16384), "weight_shape": (16, 16, 255), "padding": 127}


def small(kernel: int = 3, **steps: int) -> Windows:
    step, apart = steps.get("stride", 1), steps.get("dilation", 1)
    return plan((12, 12), (kernel, kernel), (step, step), ((1, 1), (1, 1)), (apart, apart))


def decide(algorithm: str, w: Windows, **told: Any) -> Choice:
    told = {"dtype": "float32", "precision": "exact", "fft_below": 0.5, "quick": False, **told}
    told.setdefault("winograd_from", None)
    return choose(algorithm, (2, 16, 16), w, 1, **told)


# --- what is asked for by name ---


@pytest.mark.parametrize(
    ("weight", "options", "lack"),
    [
        (np.ones((6, 4, 5, 3), dtype="float32"), {}, "a kernel of 3 in every dimension, not 5x3"),
        (W, {"stride": (1, 2)}, "stride 1, not 1x2"),
        (W, {"dilation": 2}, "dilation 1, not 2x2"),
    ],
)
def test_winograd_refuses_what_it_cannot_compute(weight: Any, options: Any, lack: str) -> None:
    message = f'algorithm="winograd" needs {lack}; use algorithm="auto", "gemm" or "fft"$'
    with pytest.raises(dc.InvalidValue, match=f"^conv: {message}"):
        F.conv(X, weight, algorithm="winograd", **options)
    with pytest.raises(dc.InvalidValue, match=f"^conv_transpose: {message}"):
        F.conv_transpose(
            np.swapaxes(X, 1, 2), np.ascontiguousarray(weight), algorithm="winograd", **options
        )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_winograd_is_for_float32(dtype: str) -> None:
    with pytest.raises(dc.InvalidValue, match=f'"winograd" needs float32, not {dtype}; use'):
        F.conv(X.astype(dtype), W.astype(dtype), algorithm="winograd")


def test_other_names_are_refused() -> None:
    message = "algorithm must be one of 'auto', 'gemm', 'winograd', 'fft', got 'direct'$"
    with pytest.raises(dc.InvalidValue, match=f"^conv: {message}"):
        F.conv(X, W, algorithm="direct")
    with pytest.raises(dc.InvalidValue, match=f"^conv_transpose: {message}"):
        F.conv_transpose(X, np.ones((4, 2, 3, 3), dtype="float32"), algorithm="direct")
    with pytest.raises(dc.InvalidValue, match=f"^Conv2d: {message}"):
        dc.Conv2d(4, 6, 3, algorithm="direct")


def test_winograd_gives_four_by_four_only_where_digits_may_go() -> None:
    assert decide("winograd", small()).tile == 2
    assert decide("winograd", small(), precision="fast").tile == 4


# --- what "auto" chooses ---


def test_long_kernels_go_through_fourier_transforms_where_that_was_measured() -> None:
    long = plan((16384,), (511,), (1,), ((0, 0),), (1,))
    assert decide("auto", long).name == "fft"
    assert decide("auto", long, quick=True).name == "fft"
    assert decide("auto", long, fft_below=0.0).name == "gemm"
    assert decide("auto", plan((4096,), (9,), (1,), ((0, 0),), (1,))).name == "gemm"
    assert decide("auto", plan((4096,), (255,), (64,), ((0, 0),), (1,))).name == "gemm"
    assert (
        choose(
            "auto",
            (0, 16, 16),
            long,
            1,
            dtype="float32",
            precision="exact",
            fft_below=0.5,
            winograd_from=None,
            quick=False,
        ).name
        == "gemm"
    )  # no images, no work


def test_winograd_is_chosen_unasked_only_where_it_is_measured_to_be_quicker() -> None:
    for precision, tile in (("exact", 2), ("fast", 4)):
        assert decide("auto", small(), precision=precision).name == "gemm"
        choice = decide("auto", small(), precision=precision, winograd_from=1)
        assert (choice.name, choice.tile) == ("winograd", tile)
        assert decide("auto", small(), precision=precision, winograd_from=64).name == "gemm"


@pytest.mark.parametrize("kind", ["conv", "conv_transpose"])
def test_auto_is_the_algorithm_it_names(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 16, 6000)), rng.standard_normal((16, 16, 801))
    op = getattr(F, kind)
    one, two = (op.vjp(x, weight, algorithm=name) for name in ("auto", "fft"))
    assert dc.explain_conv(x.shape, weight.shape, dtype="float64").algorithm == "fft"
    assert one[0].tobytes() == two[0].tobytes()
    for a, b in zip(one[1](one[0]), two[1](one[0]), strict=True):
        assert a.tobytes() == b.tobytes()


def test_gemm_is_the_direct_sum_by_whichever_route(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def route(x: Any, weight: Any, w: Windows, groups: int, bias: Any = None) -> Any:
        taken.append(w.kernel)
        return np.zeros((x.shape[0], *w.out, weight.shape[0]), dtype=x.dtype)

    monkeypatch.setitem(_fast.TABLE, ("correlate", "numpy"), route)
    monkeypatch.setattr(_fast.numpy, "suits", lambda x, w, groups: True)
    with generic(False), _fast.numba(False):
        for name in ("auto", "gemm"):
            F.conv(X, W, algorithm=name)
        assert taken == [(3, 3), (3, 3)]
        for name in ("winograd", "fft"):
            F.conv(X, W, algorithm=name)
        assert len(taken) == 2


def test_layers_hand_it_on() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 9, 8)).astype("float32")
    for kind, options in ((dc.Conv2d, {"padding": 1}), (dc.ConvTranspose2d, {"padding": 1})):
        layer = kind(4, 6, 3, algorithm="winograd", **options).build(seed=0)
        weight, bias = layer.parameters["weight"], layer.parameters["bias"]
        op = F.conv if kind is dc.Conv2d else F.conv_transpose
        assert "algorithm='winograd'" in repr(layer)
        wanted = op(x, weight, bias, algorithm="winograd", **options)
        assert layer(x).tobytes() == wanted.tobytes()
        assert layer.output_shape((4, 9, 8)) == (6, 9, 8)


# --- explain_conv ---


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (LONG, r"fft \(numpy, written once\): kernel 255; \d+% of the direct sum's work"),
        (
            {"x_shape": (8, 3, 32, 32), "weight_shape": (16, 3, 3, 3), "stride": 2},
            r"gemm \(numpy, written once\): kernel 3x3 at stride 2x2; winograd needs stride 1, "
            "not 2x2",
        ),
        (
            {"x_shape": (8, 3, 32, 32), "weight_shape": (16, 3, 3, 3)},
            r"gemm \(numpy, written once\): kernel 3x3; winograd only by name",
        ),
        (
            {"x_shape": (8, 3, 32), "weight_shape": (16, 3, 3), "algorithm": "winograd"},
            r"winograd \(numpy, written once\): asked for by name; F\(2, 3\) under 'exact'",
        ),
        (
            {"x_shape": (8, 3, 32), "weight_shape": (16, 3, 3), "dtype": "float64", "dilation": 2},
            r"gemm \(numpy, written once\): kernel 3 at dilation 2; winograd needs dilation 1, "
            "not 2",
        ),
        (LONG | {"algorithm": "gemm"}, r"gemm \(numpy, written once\): asked for by name"),
        (LONG | {"device": "torch"}, r"gemm \(torch, quick route\): kernel 255; winograd needs a "),
        (LONG | {"device": "jax"}, r"gemm \(jax, quick route\): kernel 255; winograd needs a "),
    ],
)
def test_an_explanation_reads_as_one_line(call: Any, said: str) -> None:
    pytest.importorskip(call.get("device", "numpy"))
    with generic(False), _fast.numba(False):
        explained = dc.explain_conv(**call)
    assert isinstance(explained, dc.Explanation)
    assert re.match(said, str(explained)), str(explained)
    assert "\n" not in str(explained)


def test_an_explanation_refuses_what_the_operation_refuses() -> None:
    for call, message in (
        ({"x_shape": (8, 3, 32), "weight_shape": (16, 4, 3)}, "x .* has 3 channels, weight"),
        ({"x_shape": (8, 3.0, 32), "weight_shape": (16, 3, 3)}, r"x_shape\[1\] must be an int"),
        ({"x_shape": (8, 3, 32), "weight_shape": (16, 3, -3)}, r"weight_shape\[2\] must be at le"),
        (LONG | {"algorithm": "winograd"}, '"winograd" needs a kernel of 3'),
        (LONG | {"dtype": "bfloat16"}, "has no bfloat16"),
        (LONG | {"stride": 0}, "stride must be at least 1"),
    ):
        with pytest.raises(dc.DevconvError, match=f"^explain_conv: .*{message}"):
            dc.explain_conv(**call)


def test_an_explanation_costs_no_memory_and_looks_at_the_precision() -> None:
    shape = {"x_shape": (10**6, 3, 4096, 4096), "weight_shape": (64, 3, 3, 3)}
    with dc.precision("fast"):
        assert "F(4, 3) under 'fast'" in str(dc.explain_conv(**shape, algorithm="winograd"))
    seen: list[str] = []
    thread = threading.Thread(
        target=lambda: seen.append(str(dc.explain_conv(**shape, algorithm="winograd")))
    )
    with dc.precision("fast"):
        thread.start()
        thread.join()
    assert "F(2, 3) under 'exact'" in seen[0]


# --- they all compute the same ---


@st.composite
def layouts(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """The size of an image, a kernel, and options of a convolution that fits."""
    simple = draw(st.booleans())
    sizes, kernel, stride, dilation, padding = [], [], [], [], []
    for _ in range(draw(st.integers(1, 3))):
        k = 3 if simple else draw(st.integers(1, 4))
        d = 1 if simple else draw(st.integers(1, 3))
        before, after = draw(st.integers(0, 5)), draw(st.integers(0, 3))
        least = max(1, d * (k - 1) + 1 - before - after)
        sizes.append(draw(st.integers(least, least + 5)))
        kernel.append(k)
        stride.append(1 if simple else draw(st.integers(1, 3)))
        dilation.append(d)
        padding.append((before, after))
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    return tuple(sizes), tuple(kernel), options | {"groups": draw(st.sampled_from([1, 2, 4]))}


@settings(derandomize=True, deadline=None, max_examples=60)
@given(layouts(), st.sampled_from(["exact", "fast"]))
def test_the_same_convolution_and_the_same_cotangents(layout: Any, level: str) -> None:
    size, kernel, options = layout
    rng, groups = np.random.default_rng(0), options["groups"]
    x = rng.standard_normal((2, 4, *size))
    weight = rng.standard_normal((4, 4 // groups, *kernel))
    wanted, back = F.conv.vjp(x, weight, algorithm="gemm", **options)
    dy = rng.standard_normal(wanted.shape)
    cotangents = back(dy)
    runs = [("fft", "float64", 1e-13)]
    if set(kernel) == {3} and {*options["stride"], *options["dilation"]} == {1}:
        runs.append(("winograd", "float32", 3e-6 if level == "exact" else 2e-5))
    for algorithm, dtype, tolerance in runs:
        with dc.precision(level):
            y, pullback = F.conv.vjp(
                x.astype(dtype), weight.astype(dtype), algorithm=algorithm, **options
            )
        for a, b in zip((y, *pullback(dy.astype(dtype))), (wanted, *cotangents), strict=True):
            assert a.shape == b.shape
            # on the scale of the sums, which may cancel
            scale = np.sqrt(weight[0].size) + np.abs(b).max()
            assert np.abs(a - b).max() <= tolerance * scale


@settings(derandomize=True, deadline=None, max_examples=40)
@given(layouts())
def test_the_transpose_is_the_adjoint(layout: Any) -> None:
    """``<conv(x), dy> = <x, conv_transpose(dy)>``, each by another algorithm."""
    size, kernel, options = layout
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 4, *size))
    weight = rng.standard_normal((4, 4 // options["groups"], *kernel))
    y = F.conv(x, weight, algorithm="fft", **options)
    dy = rng.standard_normal(y.shape)
    _, pullback = F.conv.vjp(x, weight, algorithm="gemm", **options)
    _, fourier = F.conv.vjp(x, weight, algorithm="fft", **options)
    for one, other in ((pullback(dy), fourier(dy)), (fourier(dy), pullback(dy))):
        assert np.sum(x * one[0]) == pytest.approx(np.sum(y * dy), rel=1e-9, abs=1e-9)
        assert np.sum(weight * other[1]) == pytest.approx(np.sum(y * dy), rel=1e-9, abs=1e-9)
