"""The questions the library started from, answered by running it, on every backend.

How can a filter have a gradient? What is the derivative of max pooling? What does a
1x1 convolution do, and how does a composite go back? The statements are those of a
question-and-answer thread and of a worked example whose published gradient is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devconv import functional as F
from tests.backends import Backend

IMAGE = [[1.0, 2.0, 1.0], [0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]
KERNEL = [[0.5, 0.2], [0.3, 0.7]]
TARGET = [[1.0, 2.0], [2.0, 1.0]]


def image(backend: Backend, rows: Any) -> Any:
    """One image of one channel, or one kernel over one channel."""
    return backend.asarray(np.asarray(rows, dtype="float64")[None, None])


def plane(backend: Backend, x: Any) -> np.ndarray:
    """The only channel of the only image, on the host."""
    return backend.to_numpy(x)[0, 0]


def draw(backend: Backend, *shapes: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [backend.asarray(rng.standard_normal(shape)) for shape in shapes]


def loss_of(kernel: Any, backend: Backend) -> tuple[float, np.ndarray]:
    """The worked example's loss and its gradient in the kernel."""
    y, back_conv = F.conv.vjp(image(backend, IMAGE), kernel)
    loss, back_loss = F.mse_loss.vjp(y, image(backend, TARGET))
    dy, _ = back_loss(backend.asarray(np.ones(())))
    _, dkernel = back_conv(dy)
    return float(backend.to_numpy(loss)), plane(backend, dkernel)


# --- the worked example ---


def test_worked_example_forward(backend: Backend) -> None:
    y = F.conv(image(backend, IMAGE), image(backend, KERNEL))
    np.testing.assert_allclose(plane(backend, y), [[1.6, 2.9], [1.5, 1.2]], rtol=1e-14)


def test_worked_example_loss_and_gradient(backend: Backend) -> None:
    loss, gradient = loss_of(image(backend, KERNEL), backend)
    assert loss == pytest.approx(0.365, rel=1e-14)
    np.testing.assert_allclose(gradient, [[1.3, 1.0], [0.05, 0.95]], rtol=1e-13)


def test_worked_example_gradient_is_the_sum_written_out(backend: Backend) -> None:
    pixels, target = np.asarray(IMAGE), np.asarray(TARGET)
    y = plane(backend, F.conv(image(backend, IMAGE), image(backend, KERNEL)))
    by_hand = np.zeros((2, 2))
    for i, j, p, q in np.ndindex(2, 2, 2, 2):  # all four output positions (p, q)
        by_hand[i, j] += 2.0 / 4.0 * (y[p, q] - target[p, q]) * pixels[p + i, q + j]
    _, gradient = loss_of(image(backend, KERNEL), backend)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-13)


def test_worked_example_gradient_is_the_change_of_one_weight(backend: Backend) -> None:
    _, gradient = loss_of(image(backend, KERNEL), backend)
    for i, j in np.ndindex(2, 2):
        nudge = np.zeros((2, 2))
        nudge[i, j] = 1e-6
        more, _ = loss_of(image(backend, np.asarray(KERNEL) + nudge), backend)
        less, _ = loss_of(image(backend, np.asarray(KERNEL) - nudge), backend)
        assert (more - less) / 2e-6 == pytest.approx(gradient[i, j], rel=1e-8)


def test_worked_example_step(backend: Backend) -> None:
    _, gradient = loss_of(image(backend, KERNEL), backend)
    updated = np.asarray(KERNEL) - 0.1 * gradient
    np.testing.assert_allclose(updated, [[0.37, 0.10], [0.295, 0.605]], rtol=1e-13)
    loss, _ = loss_of(image(backend, updated), backend)
    assert loss == pytest.approx(0.166225, rel=1e-12)


def test_published_step_is_worse(backend: Backend) -> None:
    """Its gradient sums two of the four output positions."""
    published = [[0.47, 0.165], [0.35, 0.695]]
    loss, _ = loss_of(image(backend, published), backend)
    assert loss == pytest.approx(0.2937875, rel=1e-12)  # 0.293788, rounded
    assert loss > 0.166225


def test_descent_ends_at_the_target(backend: Backend) -> None:
    kernel = np.asarray(KERNEL)
    for _ in range(400):
        loss, gradient = loss_of(image(backend, kernel), backend)
        if loss < 1e-6:
            break
        kernel = kernel - 0.1 * gradient
    assert loss < 1e-6


# --- a filter's gradient ---


def test_each_output_is_the_window_weighed_by_the_filter(backend: Backend) -> None:
    """``o11 = I11 W11 + I12 W12 + I21 W21 + I22 W22``, and so on for the other three."""
    i, w = np.random.default_rng(0).standard_normal((2, 3, 3))
    w = w[:2, :2]
    o = plane(backend, F.conv(image(backend, i), image(backend, w)))
    for p, q in np.ndindex(2, 2):
        expected = (
            i[p, q] * w[0, 0]
            + i[p, q + 1] * w[0, 1]
            + i[p + 1, q] * w[1, 0]
            + i[p + 1, q + 1] * w[1, 1]
        )
        assert o[p, q] == pytest.approx(expected, rel=1e-13)


def test_kernel_gradient_is_a_convolution_of_input_and_dy(backend: Backend) -> None:
    x, weight, dy = draw(backend, (2, 3, 6, 5), (4, 3, 3, 2), (2, 4, 4, 4))
    _, pullback = F.conv.vjp(x, weight)
    _, dweight = pullback(dy)
    xp = backend.xp
    # images become channels: x (C, N, H, W) convolved with dy (O, N, *out)
    swapped = F.conv(xp.permute_dims(x, (1, 0, 2, 3)), xp.permute_dims(dy, (1, 0, 2, 3)))
    expected = backend.to_numpy(swapped).swapaxes(0, 1)
    np.testing.assert_allclose(backend.to_numpy(dweight), expected, rtol=1e-11, atol=1e-13)


def test_input_gradient_is_a_convolution_with_the_flipped_kernel(backend: Backend) -> None:
    x, weight, dy = draw(backend, (2, 3, 6, 5), (4, 3, 3, 2), (2, 4, 4, 4))
    _, pullback = F.conv.vjp(x, weight)
    dx, _ = pullback(dy)
    back = backend.xp.permute_dims(backend.xp.flip(weight, axis=(2, 3)), (1, 0, 2, 3))
    expected = backend.to_numpy(F.conv(dy, back, padding=(2, 1)))
    np.testing.assert_allclose(backend.to_numpy(dx), expected, rtol=1e-11, atol=1e-13)


def test_bias_gradient_is_the_sum_over_all_its_outputs(backend: Backend) -> None:
    x, weight, bias, dy = draw(backend, (2, 3, 5, 5), (4, 3, 3, 3), (4,), (2, 4, 3, 3))
    y, pullback = F.conv.vjp(x, weight, bias)
    without = F.conv(x, weight)
    added = backend.to_numpy(y) - backend.to_numpy(without)
    np.testing.assert_allclose(
        added, np.broadcast_to(backend.to_numpy(bias)[:, None, None], added.shape), rtol=1e-11
    )
    _, _, dbias = pullback(dy)
    expected = backend.to_numpy(dy).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(backend.to_numpy(dbias), expected, rtol=1e-12)


def test_dense_bias_works_in_the_same_way(backend: Backend) -> None:
    x, weight, bias, dy = draw(backend, (5, 3), (4, 3), (4,), (5, 4))
    _, pullback = F.dense.vjp(x, weight, bias)
    _, _, dbias = pullback(dy)
    expected = backend.to_numpy(dy).sum(axis=0)
    np.testing.assert_allclose(backend.to_numpy(dbias), expected, rtol=1e-12)


def test_the_bank_is_one_filter_for_each_output_channel(backend: Backend) -> None:
    x, weight = draw(backend, (2, 3, 5, 5), (4, 3, 3, 3))
    y = backend.to_numpy(F.conv(x, weight))
    for o in range(4):
        alone = backend.to_numpy(F.conv(x, weight[o : o + 1, ...]))
        np.testing.assert_allclose(y[:, o : o + 1], alone, rtol=1e-12, atol=1e-14)


# --- pooling ---


def test_derivative_of_max_pooling_is_the_indicator_of_the_maximum(backend: Backend) -> None:
    x = image(backend, [[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 8.0, 6.0]])
    y, pullback = F.max_pool.vjp(x, kernel_size=2)
    np.testing.assert_array_equal(plane(backend, y), [[5.0, 8.0]])
    (dx,) = pullback(image(backend, [[10.0, 20.0]]))
    np.testing.assert_array_equal(plane(backend, dx), [[0.0, 10, 0, 0], [0, 0, 20, 0]])


def test_pixels_below_the_maximum_do_not_change_the_output(backend: Backend) -> None:
    lower = [[1.5, 5.0, 2.5, 0.5], [3.5, 4.5, 8.0, 6.5]]
    y = F.max_pool(image(backend, lower), kernel_size=2)
    np.testing.assert_array_equal(plane(backend, y), [[5.0, 8.0]])


def test_of_equal_maxima_the_first_gets_it(backend: Backend) -> None:
    x = image(backend, [[7.0, 7.0], [7.0, 7.0]])
    for op, dy in (
        (F.max_pool, image(backend, [[3.0]])),
        (F.global_max_pool, backend.asarray([[3.0]])),
    ):
        options = {"kernel_size": 2} if op is F.max_pool else {}
        (dx,) = op.vjp(x, **options)[1](dy)
        np.testing.assert_array_equal(plane(backend, dx), [[3.0, 0.0], [0.0, 0.0]])


def test_average_pooling_is_the_mean_and_shares_alike(backend: Backend) -> None:
    """``o = (o11 + o12 + o21 + o22) / 4``."""
    x = image(backend, [[1.0, 3.0], [5.0, 6.0]])
    y, pullback = F.avg_pool.vjp(x, kernel_size=2)
    assert plane(backend, y)[0, 0] == 3.75
    (dx,) = pullback(image(backend, [[2.0]]))
    np.testing.assert_array_equal(plane(backend, dx), np.full((2, 2), 0.5))
    assert backend.to_numpy(F.global_avg_pool(x))[0, 0] == 3.75


def test_average_pooling_then_flatten_then_dense(backend: Backend) -> None:
    """From the loss back to the filter through all of them, against a central difference."""
    x, weight, matrix = draw(backend, (2, 1, 5, 5), (3, 1, 2, 2), (2, 12))
    target = backend.asarray(np.asarray([0, 1]))

    def evaluate(weight: Any) -> tuple[float, Any]:
        y, back_conv = F.conv.vjp(x, weight)
        pooled, back_pool = F.avg_pool.vjp(y, kernel_size=2)
        flat, back_flat = F.flatten.vjp(pooled)
        logits, back_dense = F.dense.vjp(flat, matrix)
        loss, back_loss = F.cross_entropy.vjp(logits, target)
        (dlogits, _) = back_loss(backend.asarray(np.ones(())))
        (dpooled,) = back_flat(back_dense(dlogits)[0])
        return float(backend.to_numpy(loss)), back_conv(back_pool(dpooled)[0])[1]

    _, gradient = evaluate(weight)
    host = backend.to_numpy(weight)
    for place in [(0, 0, 0, 0), (1, 0, 1, 0), (2, 0, 1, 1)]:
        nudge = np.zeros_like(host)
        nudge[place] = 1e-5
        more, _ = evaluate(backend.asarray(host + nudge))
        less, _ = evaluate(backend.asarray(host - nudge))
        wanted = backend.to_numpy(gradient)[place]
        assert (more - less) / 2e-5 == pytest.approx(wanted, rel=1e-6, abs=1e-9)


# --- channels and composites ---


def test_pointwise_convolution_is_dense_over_channels(backend: Backend) -> None:
    x, weight, bias, dy = draw(backend, (2, 3, 4, 5), (6, 3, 1, 1), (6,), (2, 6, 4, 5))
    xp = backend.xp
    matrix = weight[:, :, 0, 0]
    y, back_conv = F.conv.vjp(x, weight, bias)
    z, back_dense = F.dense.vjp(xp.permute_dims(x, (0, 2, 3, 1)), matrix, bias)
    same = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(
        backend.to_numpy(y), backend.to_numpy(z).transpose(0, 3, 1, 2), **same
    )
    dx, dweight, dbias = map(backend.to_numpy, back_conv(dy))
    ex, ematrix, ebias = map(backend.to_numpy, back_dense(xp.permute_dims(dy, (0, 2, 3, 1))))
    np.testing.assert_allclose(dx, ex.transpose(0, 3, 1, 2), **same)
    np.testing.assert_allclose(dweight[:, :, 0, 0], ematrix, **same)
    np.testing.assert_allclose(dbias, ebias, **same)


def test_composite_goes_back_through_the_activation_first(backend: Backend) -> None:
    """``g(k, x) = relu(k * x)``: where the activation is flat, nothing reaches the kernel."""
    x, weight = draw(backend, (2, 3, 5, 5), (4, 3, 3, 3))
    y, back_conv = F.conv.vjp(x, weight)
    z, back_relu = F.relu.vjp(y)
    (dz,) = draw(backend, z.shape)
    (dy,) = back_relu(dz)
    np.testing.assert_array_equal(
        backend.to_numpy(dy), np.where(backend.to_numpy(y) > 0, backend.to_numpy(dz), 0.0)
    )
    dx, dweight = back_conv(dy)

    host_x, host_weight = backend.to_numpy(x), backend.to_numpy(weight)
    rng, upstream = np.random.default_rng(3), backend.to_numpy(dz)
    for moves_x in (True, False):
        v = rng.standard_normal(host_x.shape if moves_x else host_weight.shape)

        def along(t: float, v: np.ndarray = v, moves_x: bool = moves_x) -> np.ndarray:
            a = backend.asarray(host_x + t * v if moves_x else host_x)
            k = backend.asarray(host_weight if moves_x else host_weight + t * v)
            return backend.to_numpy(F.relu(F.conv(a, k)))

        numeric = np.sum(upstream * (along(1e-6) - along(-1e-6))) / 2e-6
        exact = np.sum(v * backend.to_numpy(dx if moves_x else dweight))
        assert numeric == pytest.approx(exact, rel=1e-6)
