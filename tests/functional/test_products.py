"""Stacks of products where a library has no good way of its own: the same numbers, few launches."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _fast
from devconv import functional as F
from devconv.functional import products
from devconv.functional.products import itemsize, stacked
from tests.backends import Backend

SHAPES = [
    ((3, 2, 4), (3, 4, 5)),
    ((3, 2, 1), (3, 1, 5)),
    ((2, 3, 4, 2), (2, 3, 2, 1)),
    ((4, 3), (5, 3, 2)),
    ((3, 0, 4), (3, 4, 2)),
]


def drawn(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if "complex" in dtype else x).astype(dtype)


@pytest.fixture(params=["all terms", "some pairs at a time", "pair by pair"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """No stacks of the library's own, and room for everything, for some pairs, or for none."""
    monkeypatch.setattr(_fast, "multiplies_stacks", lambda x: False)
    if request.param == "some pairs at a time":
        monkeypatch.setattr(_fast, "workspace", lambda x: 700)
    if request.param == "pair by pair":
        monkeypatch.setattr(products, "SMALL", 0)
    return request.param


@pytest.mark.usefixtures("on_its_device")
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_every_way_gives_the_products(way: str, dtype: str, backend: Backend) -> None:
    shapes = SHAPES[:1] if backend.name == "jax" else SHAPES  # it compiles for each new shape
    for left, right in shapes:
        a, b = drawn(left, dtype), drawn(right, dtype)
        found = stacked(backend.asarray(a), backend.asarray(b))
        assert tuple(found.shape) == (a @ b).shape
        np.testing.assert_allclose(backend.to_numpy(found), a @ b, rtol=0, atol=1e-13)


def test_views_in_any_order(way: str) -> None:
    a, b = drawn((3, 4, 2), "float64"), drawn((5, 4, 3), "float64")
    left, right = a.swapaxes(1, 2), b.transpose(2, 1, 0)
    np.testing.assert_allclose(stacked(left, right), left @ right, rtol=0, atol=1e-13)


def test_which_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[int, ...]] = []
    blocks: list[int] = []
    added_up = products._added_up

    def counted(a: Any, b: Any) -> Any:
        blocks.append(b.shape[0])
        return added_up(a, b)

    def multiplication(a: Any, b: Any) -> Any:
        pairs.append(a.shape)
        return operator.matmul

    monkeypatch.setattr(products, "_added_up", counted)
    monkeypatch.setattr(_fast, "multiplication", multiplication)
    stacked(drawn((5, 2, 4), "float64"), drawn((5, 4, 5), "float64"))
    expected: dict[str, tuple[list[Any], list[int]]] = {
        "all terms": ([], [5]),
        "some pairs at a time": ([], [2, 2, 1]),  # 320 bytes of terms each
        "pair by pair": ([(2, 4)] * 5, []),
    }
    assert (pairs, blocks) == expected[way]


def test_a_library_that_multiplies_stacks_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = drawn((3, 2, 4), "float32"), drawn((3, 4, 5), "float32")
    monkeypatch.setattr(products, "_added_up", lambda *_: pytest.fail("not asked"))
    assert stacked(a, b).tobytes() == (a @ b).tobytes()


def precisions(jaxpr: Any) -> list[str]:
    """What JAX's products are told of their digits, convolutions' and those inside calls too."""
    told = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            told.append(str(equation.params["precision"]))
        for inner in equation.params.values():
            told += precisions(inner.jaxpr) if hasattr(inner, "jaxpr") else []
    return told


@pytest.mark.parametrize("level", ["exact", "fast"])
@pytest.mark.parametrize("groups", [1, 2, 0], ids=["conv", "conv in groups", "dense"])
def test_jax_is_told_to_keep_all_digits(groups: int, level: str) -> None:
    """On a GPU it rounds float32 to TF32 unless each product says otherwise."""
    jax = pytest.importorskip("jax")
    op = F.conv.with_options(groups=groups) if groups else F.dense
    shapes = ((2, 4, 5, 5), (4, 4 // groups, 3, 3)) if groups else ((2, 3), (4, 3))

    def there_and_back(x: Any, weight: Any) -> Any:
        y, pullback = op.vjp(x, weight)
        return pullback(y)

    with dc.precision(level), _fast.generic(False):
        traced = jax.make_jaxpr(there_and_back)(*(jax.numpy.ones(s, "float32") for s in shapes))
    told = precisions(traced.jaxpr)
    assert ["HIGHEST" in words for words in told] == [True] * 3


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float16", 2), ("bfloat16", 2), ("float32", 4), ("float64", 8), ("complex128", 16)],
)
def test_the_bytes_of_a_number(dtype: str, size: int) -> None:
    class Like:
        pass

    like = Like()
    like.dtype = dtype  # type: ignore[attr-defined]
    assert itemsize(like) == size
