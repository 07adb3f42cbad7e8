"""The generator: published answers, equal bits on every backend, and statistics."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from devconv import _array, random
from devconv._check import InvalidType, InvalidValue
from tests import backends
from tests.backends import Backend

# Random123, kat_vectors, "threefry2x32 20": counter, key, answer.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]
SEED = 2**40 + 17


def words(*values: int) -> np.ndarray:
    return np.array(values, dtype="uint32").view("int32")


def on(backend: Backend, seed: int = SEED) -> Any:
    return random.key(seed, like=backend.asarray([0.0]))


def run(backend: Backend, function: Any) -> Any:
    """``function`` of a key on the backend; on JAX compiled as one, not op by op and shape."""
    if backend.name != "jax":
        return function(on(backend))
    import jax

    return jax.jit(function)(on(backend))


# --- the cipher ---


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_published_answers(backend: Backend, counter: Any, key: Any, answer: Any) -> None:
    first, second = (backend.asarray(words(word)) for word in counter)
    with backend.here():
        a, b = random.threefry(backend.asarray(words(*key)), first, second)
    found = np.concatenate([backend.to_numpy(a), backend.to_numpy(b)])
    assert found.tolist() == words(*answer).tolist()


@pytest.mark.parametrize("seed", [0, 42, 2**63 + 12345])
def test_jax_scrambles_alike(seed: int) -> None:
    backends.get("jax")
    import jax
    from jax.extend.random import threefry_2x32

    theirs = jax.random.PRNGKey(np.uint64(seed))
    assert np.asarray(theirs).view("int32").tolist() == random.key(seed).tolist()
    counters = np.arange(2000, dtype="uint32")
    wanted = np.asarray(threefry_2x32(theirs, jax.numpy.asarray(counters)))
    ours = random.threefry(random.key(seed), *counters.view("int32").reshape(2, 1000))
    assert (np.concatenate(ours).view("uint32") == wanted).all()


# --- the same on every backend ---


def draws(key: Any) -> list[Any]:
    return [
        random.bits(key, (3, 5)),
        random.bits(key, ()),
        random.bits(key, 0),
        random.bits(key, (2, 0, 3)),
        random.bits(key, 2 * random._BLOCK + 3),
        random.uniform(key, (2, 3)),
        random.uniform(key, 7, "float64"),
        random.bernoulli(key, 0.3, (4, 5)),
        random.bernoulli(key, 0.0, 9),
        random.bernoulli(key, 1.0, 9),
        random.permutation(key, 50),
        random.permutation(key, 0),
        random.fold_in(key, 2**32 - 1),
        random.fold_in(key, "features.0.drop"),
        *random.split(key, 3),
    ]


def test_a_remembered_text_makes_the_same_key() -> None:
    text = "features.0.remembered"
    before = random.fold_in(random.key(SEED), text)
    random.remember(text)
    assert text in random._remembered
    np.testing.assert_array_equal(random.fold_in(random.key(SEED), text), before)


def test_same_bits_everywhere(backend: Backend) -> None:
    for found, wanted in zip(run(backend, draws), draws(random.key(SEED)), strict=True):
        host = backend.to_numpy(found)
        assert host.shape == wanted.shape
        assert host.tobytes() == wanted.astype(host.dtype).tobytes()


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [(b, d) for b in backends.usable().values() for d in ("float16", "bfloat16") if b.has(d)],
    ids=str,
)
def test_same_halves_everywhere(backend: Backend, dtype: str) -> None:
    drawn = run(backend, lambda key: random.uniform(key, 1000, dtype))
    found = backend.to_numpy(drawn).astype("float64")
    digits = {"float16": 11, "bfloat16": 8}[dtype]
    leading = random.bits(random.key(SEED), 1000).view("uint32") >> (32 - digits)
    assert (found == leading * 2.0**-digits).all()


def test_results_stay_where_the_key_is(backend: Backend) -> None:
    def drawn(key: Any) -> Any:
        number = random.uniform(key, 3), random.uniform(key, 3, "float64")
        return random.bits(key, 3), *number, random.bernoulli(key, 0.5, 3)

    key = on(backend)
    dtypes = ["int32", "float32", "float64", "bool"]
    for result, dtype in zip(run(backend, drawn), dtypes, strict=True):
        assert type(result) is type(key)
        assert _array.device(result) == _array.device(key)
        assert _array.dtype_name(result.dtype) == dtype


def test_normals_differ_in_the_last_bits_only(backend: Backend) -> None:
    def drawn(key: Any) -> Any:
        return random.normal(key, (500,), "float64"), random.normal(key, (500,))

    for found, wanted, least in zip(
        run(backend, drawn), drawn(random.key(SEED)), (1e-12, 1e-5), strict=True
    ):
        host = backend.to_numpy(found)
        assert host.dtype == wanted.dtype
        np.testing.assert_allclose(host, wanted, rtol=0, atol=least)


def test_compiled_and_eager_agree() -> None:
    backend = backends.get("jax")
    import jax

    @jax.jit
    def compiled(key: Any, x: Any) -> Any:
        constant = random.beside(random.key(SEED), x)
        return random.bits(random.fold_in(key, 3), (3, 5)), random.uniform(constant, 4)

    bits, numbers = compiled(on(backend), backend.asarray([1.0]))
    assert (np.asarray(bits) == random.bits(random.fold_in(random.key(SEED), 3), (3, 5))).all()
    assert (np.asarray(numbers) == random.uniform(random.key(SEED), 4)).all()


def test_the_device_is_never_waited_for(host_reads: Any) -> None:
    key = on(backends.get("array_api_strict"))
    with host_reads.forbidden():
        draws(key)
        random.normal(key, 3)


@pytest.mark.parametrize("name", ["no_float64", "no_x64"])
def test_devices_without_64_bits(name: str) -> None:
    strict = backends.get("array_api_strict")
    place = strict.xp.Device(name)
    key = random.key(SEED, like=strict.xp.ones(1, dtype=strict.xp.float32, device=place))
    assert random.uniform(key, 3).dtype == strict.xp.float32
    assert random.bits(random.fold_in(key, "a"), 3).device == place
    with pytest.raises(InvalidType, match="has no float64; draw float32"):
        random.uniform(key, 3, "float64")


# --- keys ---


def test_a_draw_does_not_change_the_key() -> None:
    key = random.key(3)
    assert random.bits(key, 100).tolist() == random.bits(key, 100).tolist()
    assert key.tolist() == [0, 3]


def test_a_shorter_draw_begins_a_longer_one() -> None:
    whole = random.uniform(random.key(1), 70_001)
    for n in (1, 2, 3, 70_000):
        assert (random.uniform(random.key(1), n) == whole[:n]).all()


def test_derived_keys_meet_neither_each_other_nor_the_draws() -> None:
    key = random.key(5)
    derived = [random.fold_in(key, n) for n in range(200)]
    derived += [random.fold_in(key, str(n)) for n in range(200)]
    derived += random.split(key, 200)
    drawn = random.bits(key, (200, 2))
    pairs = {tuple(k.tolist()) for k in [*derived, *drawn, key]}
    assert len(pairs) == 801


def test_the_first_of_more_keys_are_the_same() -> None:
    few, many = random.split(random.key(0), 2), random.split(random.key(0), 5)
    assert [k.tolist() for k in few] == [k.tolist() for k in many[:2]]


def test_a_key_on_the_host_goes_along(backend: Backend) -> None:
    x = backend.asarray([1.0])
    moved = random.beside(random.key(SEED), x)
    assert type(moved) is type(x)
    assert backend.to_numpy(moved).tolist() == random.key(SEED).tolist()
    assert random.beside(moved, x) is moved


# --- statistics, with a fixed seed: these cannot fail by chance, only by a change ---

COUNT = 2**18


def test_bytes_are_uniform() -> None:
    """Chi-square over the 256 values of each of the four bytes, within 4.5 deviations."""
    drawn = random.bits(random.key(11), COUNT).view("uint8").reshape(COUNT, 4)
    for place in range(4):
        seen = np.bincount(drawn[:, place], minlength=256)
        chi_square = ((seen - COUNT / 256) ** 2 / (COUNT / 256)).sum()
        assert abs(chi_square - 255) < 4.5 * np.sqrt(2 * 255)


def test_each_bit_is_a_fair_coin() -> None:
    drawn = np.unpackbits(random.bits(random.key(12), COUNT).view("uint8"), bitorder="little")
    means = drawn.reshape(COUNT, 32).mean(axis=0)
    assert np.abs(means - 0.5).max() < 4.5 * 0.5 / np.sqrt(COUNT)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniforms_have_mean_and_variance_of_their_kind(dtype: str) -> None:
    u = random.uniform(random.key(13), COUNT, dtype).astype("float64")
    assert u.min() >= 0.0
    assert u.max() < 1.0
    assert abs(u.mean() - 1 / 2) < 4.5 * np.sqrt(1 / 12 / COUNT)
    assert abs(u.var() - 1 / 12) < 4.5 * np.sqrt(1 / 180 / COUNT)
    seen = np.histogram(u, bins=1000, range=(0, 1))[0]
    chi_square = ((seen - COUNT / 1000) ** 2 / (COUNT / 1000)).sum()
    assert abs(chi_square - 999) < 4.5 * np.sqrt(2 * 999)


def test_float64_fills_its_last_bits() -> None:
    u = random.uniform(random.key(14), 1000, "float64") * 2.0**53
    assert (u == np.floor(u)).all()
    assert 350 < (u % 2 == 1).sum() < 650


def test_neighbours_are_not_correlated() -> None:
    """The serial correlation of n numbers has the deviation 1/sqrt(n)."""
    u = random.uniform(random.key(15), COUNT).astype("float64") - 0.5
    for lag in (1, 2, 3, 64, 2 * random._BLOCK):
        r = (u[:-lag] * u[lag:]).mean() * 12
        assert abs(r) < 4.5 / np.sqrt(COUNT - lag)


def test_folded_keys_are_not_correlated() -> None:
    base, n = random.key(16), 4096
    rows = [random.uniform(random.fold_in(base, i), n) for i in range(40)]
    rows += [random.uniform(random.fold_in(base, f"{i}.drop"), n) for i in range(40)]
    rows += [random.uniform(random.key(i), n) for i in range(40)]
    r = np.corrcoef(np.stack(rows).astype("float64"))
    np.fill_diagonal(r, 0.0)
    assert np.abs(r).max() < 5.5 / np.sqrt(n)  # of 7140 pairs


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9])
def test_bernoulli_is_true_as_often_as_it_should(p: float) -> None:
    mean = random.bernoulli(random.key(17), p, COUNT).mean()
    assert abs(mean - p) < 4.5 * np.sqrt(p * (1 - p) / COUNT)


def test_normals_are_normal() -> None:
    z = random.normal(random.key(18), COUNT, "float64")
    assert abs(z.mean()) < 4.5 / np.sqrt(COUNT)
    assert abs(z.var() - 1) < 4.5 * np.sqrt(2 / COUNT)
    for bound, inside in [(1, 0.682689492), (2, 0.954499736), (3, 0.997300204)]:
        share = (np.abs(z) < bound).mean()
        assert abs(share - inside) < 4.5 * np.sqrt(inside * (1 - inside) / COUNT)


def test_permutations_are_permutations_and_all_as_likely() -> None:
    assert sorted(random.permutation(random.key(19), 1000).tolist()) == list(range(1000))
    orders: dict[tuple[int, ...], int] = {}
    for i in range(4800):
        order = tuple(random.permutation(random.fold_in(random.key(20), i), 4).tolist())
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 24
    chi_square = sum((seen - 200) ** 2 / 200 for seen in orders.values())
    assert abs(chi_square - 23) < 4.5 * np.sqrt(2 * 23)


def test_the_second_word_orders_equal_first_words(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.array([[1, 3], [1, 1], [0, 5], [1, 2]], dtype="int32")
    monkeypatch.setattr(random, "bits", lambda key, shape: drawn)
    assert random.permutation(random.key(0), 4).tolist() == [2, 1, 3, 0]


# --- what is refused ---

KEY = random.key(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random.key(-1), "seed must be at least 0, got -1"),
        (lambda: random.key(2**64), "seed must be less than 2**64"),
        (lambda: random.fold_in(KEY, -1), "data must be at least 0, got -1"),
        (lambda: random.fold_in(KEY, 2**32), "data must be less than 2**32, got 4294967296"),
        (lambda: random.split(KEY, 0), "n must be at least 1, got 0"),
        (lambda: random.bits(KEY, -1), "shape must be at least 0, got -1"),
        (lambda: random.bits(KEY, (2, -1)), "shape[1] must be at least 0, got -1"),
        (lambda: random.bits(KEY, 2**32), "(4294967296,) has 4294967296 entries, more than a key"),
        (lambda: random.bernoulli(KEY, 1.5, 3), "p must be from 0 to 1, got 1.5"),
        (lambda: random.bernoulli(KEY, -0.1, 3), "p must be from 0 to 1, got -0.1"),
        (lambda: random.permutation(KEY, -1), "n must be at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random.key(0.5), "seed must be an int, got 0.5"),
        (lambda: random.fold_in(KEY, 0.5), "data must be an int, got 0.5"),
        (lambda: random.bits(KEY, 1.5), "shape must be an int, got 1.5"),
        (lambda: random.bernoulli(KEY, "half", 3), "p must be a number, got 'half'"),
        (lambda: random.uniform(KEY, 3, "int32"), "float16, bfloat16, float32, float64, got int32"),
        (lambda: random.uniform(KEY, 3, "bfloat16"), "NumPy has no dtype 'bfloat16'"),
        (lambda: random.bits(0, 3), "a key made by devconv.random.key(seed), got int"),
        (lambda: random.bits(np.zeros(2), 3), "int32 of shape (2,), got float64 of shape (2,)"),
        (lambda: random.bits(np.zeros(3, "int32"), 3), "got int32 of shape (3,)"),
        (lambda: random.beside(None, np.ones(1)), "got NoneType"),
    ],
)
def test_other_kinds_are_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidType, match=re.escape(message)):
        call()


def test_the_room_shows_what_it_offers() -> None:
    assert dir(random) == sorted(random.__all__)
    assert {"key", "fold_in", "split", "uniform", "normal"} < set(dir(random))
    assert all(getattr(random, name).__module__ == random.__name__ for name in dir(random))


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_words_with_and_without_a_sign(dtype: str) -> None:
    """The same bits; PyTorch, whose uint32 cannot add, is handed int32."""
    key, counters = random.key(2**40 + 5), np.arange(2000, dtype="int32")
    wanted = random.threefry(key, counters, -counters)
    found = random.threefry(*(a.view(dtype) for a in (key, counters, -counters)))
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a.view("int32"), b)
