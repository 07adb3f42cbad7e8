"""The one sentence about linear operations: ``<A x, r> = <x, Aᵀ r>``."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_adjoint(op: Any, *shape: int, **options: Any) -> None:
    """Assert it for a linear operation on an array of a shape, and that it is linear."""
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal(shape), rng.standard_normal(shape)
    y, pullback = op.vjp(x, **options)
    r = rng.standard_normal(y.shape)
    (back,) = pullback(r)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.sum(y * r), np.sum(x * back), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(op(x + z, **options), y + op(z, **options), atol=1e-12)
