"""Pooling by a norm beyond the table: empty sums, odd and fractional powers, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devconv import functional as F


@pytest.mark.parametrize("norm_type", [1, 2, 1.5, 3])
def test_where_the_sum_is_zero_so_is_the_gradient(norm_type: float, backend: Any) -> None:
    x = np.asarray([[[0.0, 0.0, 0.0, 2.0]]])
    y, pullback = F.lp_pool.vjp(backend.asarray(x, "float64"), norm_type=norm_type, kernel_size=2)
    np.testing.assert_allclose(backend.to_numpy(y), [[[0.0, 2.0]]])
    (dx,) = pullback(backend.asarray([[[1.0, 1.0]]], "float64"))
    other = 1.0 if norm_type == 1 else 0.0
    np.testing.assert_allclose(backend.to_numpy(dx), [[[0.0, 0.0, other, 1.0]]])


@pytest.mark.parametrize("norm_type", [1, 2, 1.5, 3])
def test_pytorch_agrees_on_zeros_and_negative_numbers(norm_type: float, backend: Any) -> None:
    torch = pytest.importorskip("torch")
    values = np.asarray([[[0.0, 0.0, 1.0, -2.0, 3.0, 0.0, -1.0, 1.0, -1.0, -3.0]]])
    x = torch.from_numpy(values).requires_grad_()
    wanted = torch.nn.functional.lp_pool1d(x, norm_type, 2)
    wanted.backward(torch.ones_like(wanted))
    y, pullback = F.lp_pool.vjp(backend.asarray(values), norm_type=norm_type, kernel_size=2)
    np.testing.assert_allclose(backend.to_numpy(y), wanted.detach().numpy())
    (dx,) = pullback(backend.asarray(np.ones(y.shape)))
    np.testing.assert_allclose(backend.to_numpy(dx), x.grad.numpy())


def test_autograd_through_the_forward_pass_is_finite_where_the_sum_is_zero() -> None:
    torch = pytest.importorskip("torch")
    x = torch.zeros((1, 1, 2), dtype=torch.float64, requires_grad=True)
    F.lp_pool(x, norm_type=2, kernel_size=2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[[0.0, 0.0]]])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"norm_type": 0.5}, ValueError, "norm_type must be at least 1.0, got 0.5"),
        ({"norm_type": np.inf}, ValueError, "norm_type must be finite, got inf; .* max_pool"),
        ({"norm_type": np.nan}, ValueError, "norm_type must be a number, got nan"),
        ({"norm_type": "2"}, TypeError, "norm_type must be a number, got '2'"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"kernel_size": 5}, ValueError, "the output would be empty"),
    ],
)
def test_refused(options: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=f"lp_pool: {message}"):
        F.lp_pool(np.ones((1, 1, 4)), **{"norm_type": 2, "kernel_size": 2, **options})
