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
