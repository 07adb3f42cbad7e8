"""Batches: every example once, in an order that the seed and the epoch alone decide."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType, InvalidValue
from devconv.data import Batches
from tests.backends import Backend


def numbers(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count, dtype="float32")[:, None] * np.ones((1, 2), "float32"), np.arange(count)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("count", "size"), [(10, 3), (10, 5), (3, 10), (1, 1)])
def test_every_example_once(count: int, size: int, shuffle: bool) -> None:
    batches = Batches(*numbers(count), batch_size=size, shuffle=shuffle)
    parts = list(batches)
    assert len(parts) == len(batches) == -(-count // size)
    assert batches.examples == count
    assert [len(x) for x, _ in parts[:-1]] == [size] * (len(parts) - 1)
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    assert sorted(y.tolist()) == list(range(count))
    np.testing.assert_array_equal(x, numbers(count)[0][y])  # images stay with their labels
    if not shuffle:
        np.testing.assert_array_equal(y, np.arange(count))


def test_drop_last() -> None:
    batches = Batches(*numbers(10), batch_size=3, drop_last=True)
    assert (len(batches), batches.examples) == (3, 9)
    assert [len(y) for _, y in batches] == [3, 3, 3]
    assert len(Batches(*numbers(9), batch_size=3, drop_last=True)) == 3
    none = Batches(*numbers(2), batch_size=3, drop_last=True)
    assert (len(none), none.examples, list(none)) == (0, 0, [])


def order(batches: Batches, epoch: int) -> list[int]:
    return [int(i) for _, y in batches.for_epoch(epoch) for i in y]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    one, two = (Batches(*numbers(50), batch_size=size, seed=4) for size in (7, 50))
    assert order(one, 2) == order(one, 2) == order(two, 2)
    assert order(one, 2) != order(one, 3)
    assert order(one, 0) != order(Batches(*numbers(50), batch_size=7, seed=5), 0)
    assert order(Batches(*numbers(8), batch_size=3, seed=0), 0) == [6, 2, 1, 7, 0, 5, 3, 4]


def test_iterating_counts_epochs() -> None:
    batches = Batches(*numbers(20), batch_size=6)
    seen = [[int(i) for _, y in batches for i in y] for _ in range(3)]
    assert seen == [order(batches, epoch) for epoch in range(3)]
    assert seen[0] != seen[1] != seen[2]
    assert batches.epoch == 3


def test_two_epochs_at_once_do_not_disturb_each_other() -> None:
    batches = Batches(*numbers(20), batch_size=6)
    pairs = zip(batches.for_epoch(0), batches.for_epoch(1), strict=True)
    first, second = zip(*((a[1].tolist(), b[1].tolist()) for a, b in pairs), strict=True)
    assert list(itertools.chain(*first)) == order(batches, 0)
    assert list(itertools.chain(*second)) == order(batches, 1)


def test_any_number_of_arrays() -> None:
    (alone,) = Batches(np.arange(3), batch_size=3, shuffle=False)
    assert len(alone) == 1
    (three,) = Batches(*numbers(3), np.arange(3) * 2, batch_size=3, shuffle=False)
    assert len(three) == 3


def test_arrays_of_any_library_come_to_the_host(backend: Backend) -> None:
    x, y = numbers(5)
    batches = Batches(backend.asarray(x), backend.asarray(y), batch_size=2, shuffle=False)
    parts = list(batches)
    assert all(type(each) is np.ndarray for part in parts for each in part)
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), x)
    assert parts[0][0].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ((), {}, InvalidValue, "^Batches: expected arrays of examples, got none"),
        (
            (np.ones((3, 2)), np.ones(4)),
            {},
            InvalidValue,
            r"^Batches: arrays must have the same first dimension, got shapes \[\(3, 2\), \(4,\)\]",
        ),
        ((np.asarray(1.0),), {}, InvalidValue, r"same first dimension, got shapes \[\(\)\]"),
        (([1, 2],), {}, InvalidType, "expected an array, got list"),
        (numbers(3), {"batch_size": 0}, InvalidValue, "batch_size must be at least 1, got 0"),
        (numbers(3), {"batch_size": 2.0}, InvalidType, r"batch_size must be an int, got 2\.0"),
        (
            numbers(3),
            {"shuffle": "no"},
            InvalidType,
            "^Batches: shuffle must be True or False, got 'no'",
        ),
        (numbers(3), {"drop_last": 1}, InvalidType, "drop_last must be True or False, got 1"),
        (numbers(3), {"seed": -1}, InvalidValue, "seed must be at least 0, got -1"),
        (numbers(3), {"seed": None}, InvalidType, "seed must be an int, got None"),
    ],
)
def test_arguments_are_checked(arrays: Any, options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Batches(*arrays, **{"batch_size": 2, **options})


def test_the_front_door() -> None:
    assert dc.data.Batches is Batches
