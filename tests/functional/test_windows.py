"""Where windows lie, taking them, and going back: properties over all geometries."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from devconv import _fast
from devconv import functional as F
from devconv._check import InvalidType, InvalidValue
from devconv.functional import windows
from devconv.functional.windows import Windows, cut, plan, put, take, tiles
from devconv.testing import generic
from tests import backends
from tests.backends import Backend

quick = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


@st.composite
def geometries(draw: Any, rank: int | None = None) -> tuple[Any, ...]:
    """``(size, kernel, stride, padding, dilation)`` with windows that fit."""
    rank = draw(st.integers(1, 3)) if rank is None else rank
    several = lambda low, high: st.tuples(*[st.integers(low, high)] * rank)  # noqa: E731
    size, kernel = draw(several(1, 7)), draw(several(1, 4))
    stride, dilation = draw(several(1, 4)), draw(several(1, 3))
    # padding above the kernel and strides above the kernel are both among these
    padding = tuple(zip(draw(several(0, 5)), draw(several(0, 5)), strict=True))
    assume(all(room(*g) >= 0 for g in zip(size, kernel, stride, padding, dilation, strict=True)))
    return size, kernel, stride, padding, dilation


def room(n: int, k: int, s: int, padding: tuple[int, int], d: int) -> int:
    return n + sum(padding) - d * (k - 1) - 1


def slab_for(w: Windows, x: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """``x`` padded in plain words and cut to what the windows read."""
    around = [(0, 0), *((before, after + 9) for before, after in w.padding), (0, 0)]
    padded = np.pad(x, around, constant_values=fill)
    return padded[(slice(None), *(slice(0, r) for r in w.reach))]


def image(w: Windows, n: int = 2, c: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *w.size, c))


# --- the plan ---


@quick
@given(geometries(), st.booleans())
def test_output_size_counts_the_windows_that_fit(geometry: Any, ceil_mode: bool) -> None:
    w = plan(*geometry, ceil_mode)
    for out, n, k, s, (before, after), d in zip(w.out, *geometry, strict=True):
        last_read = d * (k - 1)
        starts = [p for p in range(-before, n + after, s) if p + last_read < n + after]
        if ceil_mode and starts[-1] + last_read != n + after - 1 and starts[-1] + s < n:
            starts.append(starts[-1] + s)
        assert out == len(starts)


@quick
@given(geometries())
def test_edges_add_up_to_the_reach(geometry: Any) -> None:
    w = plan(*geometry)
    for (before, used, after), reach, n, around in zip(
        w.edges, w.reach, w.size, w.padding, strict=True
    ):
        assert before + used + after == reach
        assert 0 <= used <= n
        assert 0 <= before <= around[0]
        assert after >= 0


@quick
@given(geometries())
def test_transposed_windows_cover_the_image(geometry: Any) -> None:
    w = plan(*geometry)
    back = w.transposed()
    stretched = any(s != 1 for s in w.stride)
    spans = [d * (k - 1) for d, k in zip(w.dilation, w.kernel, strict=True)]
    beyond = any(max(pair) > span for pair, span in zip(w.padding, spans, strict=True))
    assert (back is None) == (stretched or beyond)
    if back is not None:
        assert plan(back.size, back.kernel, back.stride, back.padding, back.dilation) == back
        assert back.out == w.size


def test_empty_output_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"the output would be empty: kernel \(3, 2\)"):
        plan((2, 5), (3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1))
    with pytest.raises(InvalidValue, match=r"spans \(5,\) pixels, the padded input \(4,\)"):
        plan((2,), (3,), (1,), ((1, 1),), (2,))


# --- taking windows, and the adjoint ---


@quick
@given(geometries())
@pytest.mark.parametrize("fill", [0.0, -math.inf])
def test_cut_is_padding_in_plain_words(fill: float, geometry: Any) -> None:
    w = plan(*geometry, True)
    x = image(w)
    np.testing.assert_array_equal(cut(x, w, fill), slab_for(w, x, fill))


@quick
@given(geometries())
def test_take_reads_what_the_plan_says(geometry: Any) -> None:
    w = plan(*geometry)
    x = image(w)
    taken = take(cut(x, w), w)
    assert taken.shape == (2, *w.out, *w.kernel, 3)
    for o in itertools.product(*map(range, w.out)):
        for k in itertools.product(*map(range, w.kernel)):
            at = tuple(
                a * s + b * d - p[0]
                for a, s, b, d, p in zip(o, w.stride, k, w.dilation, w.padding, strict=True)
            )
            inside = all(0 <= i < n for i, n in zip(at, w.size, strict=True))
            expected = x[(slice(None), *at)] if inside else np.zeros((2, 3))
            np.testing.assert_array_equal(taken[(slice(None), *o, *k)], expected)


@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch"])
@settings(quick, max_examples=60)
@given(geometries())
def test_put_is_the_adjoint_of_take(name: str, geometry: Any) -> None:
    backend, w = backends.get(name), plan(*geometry)
    rng = np.random.default_rng(1)
    slab = rng.standard_normal((2, *w.reach, 3))
    y = rng.standard_normal((2, *w.out, *w.kernel, 3))
    taken = backend.to_numpy(take(backend.asarray(slab), w))
    shares = [backend.asarray(y[(..., *k, slice(None))]) for k in w.offsets()]
    returned = backend.to_numpy(put(shares, w, like=shares[0]))
    assert np.sum(taken * y) == pytest.approx(np.sum(slab * returned), rel=1e-12, abs=1e-12)


def test_put_is_the_adjoint_of_take_on_jax() -> None:
    backend = backends.get("jax")
    w = plan((4, 5), (2, 3), (2, 1), ((1, 0), (2, 3)), (1, 2))
    rng = np.random.default_rng(1)
    slab = rng.standard_normal((2, *w.reach, 3))
    y = rng.standard_normal((2, *w.out, *w.kernel, 3))
    taken = backend.to_numpy(take(backend.asarray(slab), w))
    shares = [backend.asarray(y[(..., *k, slice(None))]) for k in w.offsets()]
    returned = backend.to_numpy(put(shares, w, like=shares[0]))
    assert np.sum(taken * y) == pytest.approx(np.sum(slab * returned), rel=1e-12)


# --- tiles ---


@quick
@given(geometries(), st.data())
def test_a_part_reads_the_same_windows(geometry: Any, data: Any) -> None:
    w = plan(*geometry, data.draw(st.booleans()))
    starts = [data.draw(st.integers(0, out - 1)) for out in w.out]
    stops = [data.draw(st.integers(a + 1, out)) for a, out in zip(starts, w.out, strict=True)]
    box = tuple(map(slice, starts, stops))
    read, part = w.part(box)
    assert all(0 <= r.start <= r.stop <= n for r, n in zip(read, w.size, strict=True))
    assert part.out == tuple(b - a for a, b in zip(starts, stops, strict=True))
    assert part.size == tuple(r.stop - r.start for r in read)
    x = image(w)
    whole = take(cut(x, w, 7.0), w)[(slice(None), *box)]
    np.testing.assert_array_equal(take(cut(x[(slice(None), *read)], part, 7.0), part), whole)


@quick
@given(geometries(), st.integers(0, 4), st.integers(1, 64), st.integers(1, 4000))
def test_tiles_cover_every_window_once(geometry: Any, n: int, each: int, budget: int) -> None:
    w = plan(*geometry)
    seen = np.zeros((n, *w.out), dtype=int)
    for tile in tiles(n, w, each, budget):
        seen[tile.of_y] += 1
        windows_in_it = seen[tile.of_y].size
        assert windows_in_it * each <= budget or windows_in_it == 1
        assert (tile.read, tile.windows) == w.part(tile.box)
        assert windows_in_it == seen[tile.images].shape[0] * math.prod(tile.windows.out)
    assert np.all(seen == 1)


@quick
@given(geometries(), st.integers(1, 4), st.integers(1, 64), st.integers(1, 4000))
def test_tiles_are_as_large_as_the_budget_lets_them(
    geometry: Any, n: int, each: int, budget: int
) -> None:
    """One more image, row or window, whichever a tile is made of, would be too much."""
    w = plan(*geometry)
    first = tiles(n, w, each, budget)[0]
    counts, limits = (first.images.stop, *first.windows.out), (n, *w.out)
    for d, (count, limit) in enumerate(zip(counts, limits, strict=True)):
        if count < limit:  # what lies further in is whole, what lies further out is single
            assert counts[d + 1 :] == limits[d + 1 :] or count == 1
            assert (count + 1) * math.prod(counts[d + 1 :]) * each > budget


def test_no_budget_is_one_tile() -> None:
    w = plan((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    (tile,) = tiles(4, w, 1000, None)
    assert tile.images == slice(0, 4)
    assert tile.box == tile.read == (slice(0, 6), slice(0, 5))


def test_nothing_has_no_tiles() -> None:
    assert tiles(0, plan((3,), (2,), (1,), ((0, 0),), (1,)), 8, 100) == ()


def test_large_images_are_cut_into_rows() -> None:
    w = plan((6, 5), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))
    cut_up = tiles(2, w, 10, 60)  # a row is 3 windows of 10 bytes
    assert [(t.images, t.box) for t in cut_up] == [
        (slice(i, i + 1), (slice(j, j + 2), slice(0, 3))) for i in (0, 1) for j in (0, 2)
    ]


def test_a_row_that_is_too_large_is_cut_as_well() -> None:
    w = plan((3, 4, 5), (1, 1, 2), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1))
    assert w.out == (3, 4, 4)
    assert [t.box for t in tiles(1, w, 10, 90)] == [  # a row is 4 · 4 windows of 10 bytes
        (slice(i, i + 1), slice(j, j + 2), slice(0, 4)) for i in range(3) for j in (0, 2)
    ]
    assert [t.box for t in tiles(1, w, 10, 30)][:3] == [
        (slice(0, 1), slice(0, 1), slice(0, 3)),
        (slice(0, 1), slice(0, 1), slice(3, 4)),
        (slice(0, 1), slice(1, 2), slice(0, 3)),
    ]


BUDGETS = [1, 700, 5000, 10**9]  # a window at a time, some rows, some images, everything


@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch"])
@pytest.mark.parametrize("budget", BUDGETS)
@settings(quick, max_examples=25)
@given(geometries())
def test_tiles_reproduce_the_whole(name: str, budget: int, geometry: Any) -> None:
    """Assembled forward, spread back and summed up, tile by tile and in one piece."""
    backend, w = backends.get(name), plan(*geometry)
    x = backend.asarray(image(w, n=5))
    dy = backend.asarray(np.random.default_rng(1).standard_normal((5, *w.out, 3)))
    whole, pieces = three_ways(x, dy, w, None), three_ways(x, dy, w, budget)
    for one, many in zip(whole, pieces, strict=True):
        a, b = backend.to_numpy(one), backend.to_numpy(many)
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=1e-13, atol=1e-13 * max(np.abs(a).max(), 1.0))


def three_ways(x: Any, dy: Any, w: Windows, budget: int | None) -> tuple[Any, Any, Any]:
    """A window sum, its adjoint, and the inner products of windows and ``dy``."""
    with pytest.MonkeyPatch.context() as patch, generic():
        patch.setattr(_fast, "workspace", lambda x: budget)
        cost = 8 * w.taps
        xp = windows._array.array_namespace(x)

        def total(slab: Any, w: Windows) -> Any:
            kernel_axes = tuple(range(1 + len(w.out), 1 + 2 * len(w.out)))
            return xp.sum(take(slab, w), axis=kernel_axes)

        def share(tile: Any) -> Any:
            part = dy[tile.of_y]
            return put((part for _ in range(w.taps)), tile.windows, part)

        def products(tile: Any, slab: Any) -> Any:
            part = dy[tile.of_y]
            axes = tuple(range(part.ndim))
            taps = (windows.tap(slab, tile.windows, o) for o in tile.windows.offsets())
            return xp.stack([xp.sum(tap * part, axis=axes) for tap in taps])

        y = windows.assemble(total, x, w, channels=3, bytes_per_window=cost)
        shape = (x.shape[0], *w.size, 3)
        dx = windows.spread(share, shape, w, bytes_per_window=cost, like=dy)
        return y, dx, windows.accumulate(products, x, w, bytes_per_window=cost)


def test_tiles_do_not_depend_on_the_run() -> None:
    w = plan((64, 64), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    assert tiles(8, w, 1152, _fast.workspace(np.ones(1))) == tiles(8, w, 1152, 4 * 2**20)


def test_jax_gets_one_tile() -> None:
    assert _fast.workspace(backends.get("jax").asarray(np.ones(1))) is None


# --- options as a user wrote them ---


def laid_out(shape: Any = (2, 3, 6, 5), kernel: Any = (3, 2), **options: Any) -> Windows:
    options = {"stride": 1, "padding": 0, "dilation": 1, **options}
    return windows.checked_plan(shape, kernel, **options)


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([(0, 1), (2, 3)], ((0, 1), (2, 3))),
        ((1, (0, 2)), ((1, 1), (0, 2))),
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 1), (0, 1))),
    ],
)
def test_padding_forms(padding: Any, pairs: Any) -> None:
    assert laid_out(padding=padding).padding == pairs


def test_same_puts_the_surplus_at_the_end() -> None:
    w = laid_out(kernel=(4, 2), padding="same", dilation=(1, 3))
    assert w.padding == ((1, 2), (1, 2))
    assert w.out == (6, 5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stride": 0}, InvalidValue, "stride must be at least 1, got 0"),
        ({"stride": (1, -2)}, InvalidValue, r"stride\[1\] must be at least 1, got -2"),
        ({"stride": (1, 1, 1)}, InvalidValue, r"one entry for each of 2 spatial dimensions"),
        ({"stride": 1.5}, InvalidType, "stride must be an int, got 1.5"),
        ({"stride": True}, InvalidType, "stride must be an int, got True"),
        ({"stride": "same"}, InvalidType, "stride must be an int, got 'same'"),
        ({"dilation": 0}, InvalidValue, "dilation must be at least 1, got 0"),
        ({"padding": -1}, InvalidValue, "padding must be at least 0, got -1"),
        ({"padding": (1, -1)}, InvalidValue, r"padding\[1\] must be at least 0, got -1"),
        ({"padding": [(0, -1), 1]}, InvalidValue, r"padding\[0\] must be at least 0, got -1"),
        ({"padding": (1, 2, 3)}, InvalidValue, r"padding needs one entry .* got \(1, 2, 3\)"),
        ({"padding": [(1, 2, 3), 0]}, InvalidValue, r"padding\[0\] must be an int or a \(before"),
        ({"padding": "full"}, InvalidValue, "padding must be one of 'valid', 'same', got 'full'"),
        ({"padding": 1.0}, InvalidType, "padding must be an int, got 1.0"),
        ({"padding": False}, InvalidType, "padding must be an int, got False"),
        ({"padding": "same", "stride": 2}, InvalidValue, r'"same" needs stride 1, got .* \(2, 2\)'),
    ],
)
def test_options_are_refused(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        laid_out(**options)


# --- through the operations ---

PLANE, VOLUME = (2, 4, 6, 9), (2, 4, 3, 4, 9)
TILED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("conv", (PLANE, (6, 4, 3, 2)), {"padding": 1}),
    ("conv", (PLANE, (6, 4, 2, 3)), {"padding": 1, "stride": 2}),
    ("conv", (PLANE, (4, 2, 3, 3)), {"stride": (3, 2), "groups": 2}),
    ("conv", (PLANE, (4, 1, 2, 2)), {"stride": 2, "padding": 1, "groups": 4}),
    ("conv", (VOLUME, (6, 4, 2, 2, 3)), {"padding": (0, 1, 2)}),
    ("conv", (VOLUME, (6, 4, 2, 2, 3)), {"padding": 1, "stride": (1, 2, 2), "dilation": (1, 1, 2)}),
    ("fold", ((2, 24, 35),), {"output_size": (6, 9), "kernel_size": (2, 3)}),
    ("max_pool", (PLANE,), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("max_pool", (PLANE,), {"kernel_size": (2, 4), "ceil_mode": True}),
    ("max_pool", (VOLUME,), {"kernel_size": 2, "stride": 1, "padding": 1}),
    ("avg_pool", (PLANE,), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ("avg_pool", (PLANE,), {"kernel_size": 4, "padding": 2, "count_include_pad": False}),
    ("avg_pool", (VOLUME,), {"kernel_size": 2, "stride": (1, 2, 1), "ceil_mode": True}),
]


@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch"])
@pytest.mark.parametrize("room", [3, 8])
@pytest.mark.parametrize(("kind", "shapes", "options"), TILED)
def test_a_tiny_workspace_gives_the_same(
    name: str, room: int, kind: str, shapes: Any, options: Any
) -> None:
    """With room for so many windows of 2-D and 3-D images, fewer than a row has or more."""
    backend, rng = backends.get(name), np.random.default_rng(0)
    arrays = [backend.asarray(np.round(2.0 * rng.standard_normal(shape))) for shape in shapes]
    seen: list[int] = []

    def run(limit: int | None) -> list[np.ndarray]:
        def watched(n: int, w: Windows, each: int, budget: int | None) -> Any:
            found = tiles(n, w, each, None if limit is None else limit * each)
            for tile in found if limit else ():
                count = (tile.images.stop - tile.images.start) * math.prod(tile.windows.out)
                assert count <= (limit or 0)
                seen.append(count)
            return found

        with pytest.MonkeyPatch.context() as patch, generic():
            patch.setattr(windows, "tiles", watched)
            y, pullback = getattr(F, kind).vjp(*arrays, **options)
            dy = np.random.default_rng(1).standard_normal(tuple(y.shape))
            return [backend.to_numpy(a) for a in (y, *pullback(backend.asarray(dy)))]

    for tiled, whole in zip(run(room), run(None), strict=True):
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-13 * np.abs(whole).max())
    assert len(seen) >= 4  # two tiles on the way there, and on each way back


@pytest.mark.parametrize("name", ["numpy", "torch"])
@settings(quick, max_examples=60)
@given(geometries(), st.integers(1, 2), st.booleans())
def test_convolution_is_bilinear_and_its_pullbacks_adjoint(
    name: str, geometry: Any, groups: int, tiny: bool
) -> None:
    """<y(x, k), dy> = <x, dx> = <k, dk> for every geometry, in one tile and in many."""
    backend: Backend = backends.get(name)
    size, kernel, stride, padding, dilation = geometry
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((3, 4, *size)), rng.standard_normal((2, 4 // groups, *kernel))
    with pytest.MonkeyPatch.context() as patch:
        if tiny:
            patch.setattr(_fast, "workspace", lambda x: 1)
        y, pullback = F.conv.vjp(
            backend.asarray(x),
            backend.asarray(weight),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        dy = rng.standard_normal(tuple(y.shape))
        dx, dweight = map(backend.to_numpy, pullback(backend.asarray(dy)))
    product = np.sum(backend.to_numpy(y) * dy)
    scale = 1e-12 * max(1.0, np.sqrt(dy.size))
    assert np.sum(x * dx) == pytest.approx(product, rel=1e-11, abs=scale)
    assert np.sum(weight * dweight) == pytest.approx(product, rel=1e-11, abs=scale)
