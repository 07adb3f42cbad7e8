"""The plan of one dimension: read one way it gathers, read the other way it hands back."""

from __future__ import annotations

import numpy as np

from devconv.functional.separable import Reads, outer, weigh_all, weigh_back


def matrix(reads: Reads) -> np.ndarray:
    """The plan as the matrix ``(out, size)`` it stands for."""
    dense = np.zeros((reads.out, reads.size))
    weights = reads.weights or [[1.0] * len(pixels) for pixels in reads.pixels]
    for o, (pixels, counted) in enumerate(zip(reads.pixels, weights, strict=True)):
        for pixel, weight in zip(pixels, counted, strict=True):
            dense[o, pixel] += weight
    return dense


PLANS = [
    Reads(3, ((0,), (1,), (2,))),
    Reads(3, ((2,), (0,), (2,), (2,))),
    Reads(4, ((0, 1), (1, 2, 3))),
    Reads(4, ((0, 0), (1, 3)), ((0.25, 0.5), (1.5, 0.0))),
    Reads(5, ((0, 1, 2), (4,), (1, 4)), ((1.0, 2.0, 3.0), (4.0,), (5.0, -5.0))),
]


def test_it_is_the_matrix_it_stands_for() -> None:
    rng = np.random.default_rng(0)
    for along in PLANS:
        x = rng.standard_normal((2, along.size, 3))
        dy = rng.standard_normal((2, along.out, 3))
        y = weigh_all(x, [along])
        np.testing.assert_allclose(y, np.einsum("oi,nic->noc", matrix(along), x), atol=1e-14)
        dx = weigh_back(dy, [along])
        np.testing.assert_allclose(dx, np.einsum("oi,noc->nic", matrix(along), dy), atol=1e-14)
        np.testing.assert_array_equal(matrix(along.transposed), matrix(along).T)


def test_each_dimension_in_turn() -> None:
    a, b = PLANS[2], PLANS[4]
    x = np.random.default_rng(0).standard_normal((2, a.size, b.size, 3))
    expected = np.einsum("oi,pj,nijc->nopc", matrix(a), matrix(b), x)
    np.testing.assert_allclose(weigh_all(x, [a, b]), expected, atol=1e-13)


def test_only_a_plan_without_weights_is_the_identity() -> None:
    assert [along.is_identity for along in PLANS] == [True, False, False, False, False]
    assert not Reads(1, ((0,),), ((2.0,),)).is_identity
    assert not Reads(2, ((0,),)).is_identity


def test_one_number_for_each_place() -> None:
    x = np.ones(1, dtype="float32")
    product = outer([(1, 2), (3, 5, 7)], dtype=x.dtype, like=x)
    assert product.dtype == np.float32
    np.testing.assert_array_equal(product[..., 0], [[3, 5, 7], [6, 10, 14]])
