"""Measures that are watched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv._check import InvalidType
from devconv.training import accuracy
from tests.backends import Backend
from tests.toys import place


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", ["int64", "int32", "uint8"])
def test_accuracy(backend: Backend, dtype: str, labels: str) -> None:
    logits = [[0.1, 0.9, 0.0], [0.8, 0.2, 0.1], [0.3, 0.3, 0.2], [0.0, 0.1, 5.0]]
    right = accuracy(backend.asarray(logits, dtype), backend.asarray([1, 1, 0, 2], labels))
    assert tuple(right.shape) == ()
    assert dc.device_of(right) == place(backend)
    assert str(right.dtype).endswith("float32")
    assert float(right) == 0.75  # of equal logits the first counts


def test_accuracy_of_probabilities(backend: Backend) -> None:
    logits = backend.asarray([[0.1, 0.9], [0.8, 0.2]])
    assert float(accuracy(logits, backend.asarray([[0.3, 0.7], [0.4, 0.6]]))) == 0.5


def test_accuracy_of_every_pixel(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((2, 3, 4, 4)), rng.integers(0, 3, (2, 4, 4))
    found = float(accuracy(backend.asarray(logits), backend.asarray(target)))
    assert found == pytest.approx(np.mean(logits.argmax(axis=1) == target))


def test_accuracy_reads_nothing(host_reads: Any) -> None:
    xp = dc.device("array_api_strict:device1")
    logits, target = xp.asarray(np.ones((2, 3))), xp.asarray(np.asarray([0, 1]))
    with host_reads.forbidden():
        accuracy(logits, target)


def test_ignored_examples_do_not_count(backend: Backend) -> None:
    logits = backend.asarray([[0.1, 0.9], [0.8, 0.2], [0.1, 0.9]], "float32")
    assert float(accuracy(logits, backend.asarray([1, -100, 0]))) == 0.5
    assert float(accuracy(logits, backend.asarray([-100, -100, -100]))) == 0.0


def test_lists_are_refused() -> None:
    with pytest.raises(InvalidType, match=r"^accuracy: logits must be an array, got list$"):
        accuracy([[1.0, 2.0]], np.ones(1))
    with pytest.raises(InvalidType, match=r"^accuracy: target must be an array, got list$"):
        accuracy(np.ones((1, 2)), [1])


def test_a_target_of_another_library_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(
        InvalidType, match=r"^accuracy: logits is a NumPy array on cpu and target a PyTorch array"
    ):
        accuracy(np.ones((2, 3)), torch.zeros(2, dtype=torch.int64))
