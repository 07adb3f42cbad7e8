"""The checker is checked: right pullbacks pass it, every kind of wrong one does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from devconv.functional import differentiable
from devconv.testing import check_vjp
from tests.backends import Backend

X, Y = np.asarray([[0.5, -1.5, 2.0]]), np.asarray([[1.0, 3.0, -0.5]])


def product(back: Any) -> Any:
    """``x · y`` with a pullback made by ``back(x, y, dy)``."""

    @differentiable
    def times(x: Any, y: Any = None, /) -> Any:
        return x * y, lambda dy: back(x, y, dy)

    return times


def right(x: Any, y: Any, dy: Any) -> tuple[Any, ...]:
    return y * dy, x * dy


def test_a_right_pullback_passes(backend: Backend) -> None:
    check_vjp(product(right), backend.asarray(X), backend.asarray(Y))


def test_options_and_labels_go_along(backend: Backend) -> None:
    logits, labels = backend.asarray(X), backend.asarray(np.asarray([2]))
    check_vjp(F.cross_entropy, logits, labels, label_smoothing=0.1)


def test_arguments_left_out_go_along() -> None:
    check_vjp(F.dense, X, np.ones((2, 3)), None)


def test_the_differentiable_output_of_several() -> None:
    x = np.arange(8.0).reshape(1, 1, 8)
    check_vjp(F.max_pool, x, kernel_size=2, return_indices=True)


@pytest.mark.parametrize(
    ("back", "named"),
    [
        (lambda x, y, dy: (1.001 * y * dy, x * dy), "x"),
        (lambda x, y, dy: (y * dy, 0.999 * x * dy), "y"),
        (lambda x, y, dy: (x * dy, y * dy), "x"),
        (lambda x, y, dy: (y * dy * [[1, 1, 0]], x * dy), "x"),
        (lambda x, y, dy: (y * dy * np.nan, x * dy), "x"),
        (lambda x, y, dy: (-y * dy, -x * dy), "x"),
    ],
)
def test_a_wrong_pullback_does_not(back: Any, named: str) -> None:
    with pytest.raises(AssertionError, match=f"^times: cotangent of {named} is wrong: <pullback"):
        check_vjp(product(back), X, Y)


SIZES = (1e-8, 1.0, 1e8)


@pytest.mark.parametrize("of_x", SIZES)
@pytest.mark.parametrize("of_y", SIZES)
def test_right_and_wrong_at_every_size(backend: Backend, of_x: float, of_y: float) -> None:
    """Of each argument, and so of the result."""
    x, y = backend.asarray(X * of_x), backend.asarray(Y * of_y)
    check_vjp(product(right), x, y)
    for wrong, named in (
        (lambda x, y, dy: (y * dy, 1.00001 * x * dy), "y"),
        (lambda x, y, dy: (0.99999 * y * dy, x * dy), "x"),
        (lambda x, y, dy: (0.0 * dy, x * dy), "x"),
    ):
        with pytest.raises(AssertionError, match=f"^times: cotangent of {named} is wrong"):
            check_vjp(product(wrong), x, y)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", SIZES)
def test_the_size_of_the_function_alone(backend: Backend, size: float, factor: float) -> None:
    """``factor · tanh(x / size)``, which is curved wherever ``x`` is."""

    def curve(error: float) -> Any:
        @differentiable
        def tanh(x: Any, /) -> Any:
            y, pullback = F.tanh.vjp(x / size)
            return factor * y, lambda dy: (pullback(dy * (factor * error / size))[0],)

        return tanh

    x = backend.asarray(X * size)
    check_vjp(curve(1.0), x)
    with pytest.raises(AssertionError, match=r"^tanh: cotangent of x is wrong"):
        check_vjp(curve(1.00001), x)


@pytest.mark.parametrize("size", [0.0, 1e-8, 1e-4])
def test_small_arguments_of_a_large_result(backend: Backend, size: float) -> None:
    """A step in proportion to them would be lost in the result's rounding."""

    @differentiable
    def wrong(logits: Any, target: Any, /) -> Any:
        loss, pullback = F.cross_entropy.vjp(logits, target)
        return loss, lambda dy: (1.0001 * pullback(dy)[0], pullback(dy)[1])

    logits, share = backend.asarray(X * size), backend.asarray(np.asarray([[0.2, 0.7, 0.1]]))
    check_vjp(F.cross_entropy, logits, share)
    with pytest.raises(AssertionError, match=r"^wrong: cotangent of logits is wrong"):
        check_vjp(wrong, logits, share)


def test_what_never_changes_may_be_of_any_size() -> None:
    @differentiable
    def constant(x: Any, /) -> Any:
        return 0.0 * x + 1e8, lambda dy: (0.0 * dy,)

    check_vjp(constant, X)
    check_vjp(F.softmax.with_options(axis=0), 1e8 * X)
    check_vjp(F.relu, -(X**2))


def test_a_wrong_convolution_is_found_out() -> None:
    @differentiable
    def conv(x: Any, weight: Any, /) -> Any:
        y, pullback = F.conv.vjp(x, weight)
        return y, lambda dy: pullback(np.ascontiguousarray(dy[..., ::-1]))

    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match=r"conv: cotangent of x is wrong"):
        check_vjp(conv, rng.standard_normal((1, 2, 4, 5)), rng.standard_normal((2, 2, 2, 2)))


def test_every_argument_must_be_answered() -> None:
    with pytest.raises(TypeError, match=r"one cotangent for each of 2 arguments .*, got 1 of them"):
        check_vjp(product(lambda x, y, dy: (y * dy,)), X, Y)


def test_a_cotangent_of_another_shape_is_found_out() -> None:
    wrong = product(lambda x, y, dy: ((y * dy)[0], x * dy))
    with pytest.raises(
        ValueError, match=r"cotangent of shape \(3,\) for argument 0, whose shape is \(1, 3\)"
    ):
        check_vjp(wrong, X, Y)


def test_float32_has_too_few_digits() -> None:
    message = "^check_vjp: argument 0 is float32, expected float64; a difference quotient needs"
    with pytest.raises(TypeError, match=message):
        check_vjp(F.relu, X.astype("float32"))


def test_the_seed_decides_the_directions() -> None:
    seen: list[Any] = []

    @differentiable
    def watched(x: Any, /) -> Any:
        seen.append(x.copy())
        return 2.0 * x, lambda dy: (2.0 * dy,)

    for seed in (0, 0, 1):
        check_vjp(watched, X, seed=seed, directions=1)
    a, b, c = np.split(np.stack(seen), 3)
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
