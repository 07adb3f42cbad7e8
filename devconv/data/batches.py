"""A seeded, shuffling iterator over arrays on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from devconv import _array, _check
from devconv._check import InvalidValue, located
from devconv.initializers import generator


class Batches:
    """Cut arrays into batches, in an order that depends on the seed and the epoch alone.

    Args:
        arrays: images, targets, ...: arrays of any library with the same first dimension;
            they are brought to the host.
        batch_size: examples in a batch; the last one may have fewer.
        shuffle: whether each epoch has an order of its own.
        seed: of the order.
        drop_last: leave out a last batch that is smaller.

    Iterating runs through one epoch and counts it; :meth:`for_epoch` asks for a given one,
    which makes a stopped run continue where it was.

    Raises:
        ValueError: arrays of different lengths, none, or a batch size below 1.

    >>> import numpy as np
    >>> for x, y in Batches(np.arange(5.0), np.arange(5), batch_size=2, shuffle=False):
    ...     print(x, y)
    [0. 1.] [0 1]
    [2. 3.] [2 3]
    [4.] [4]
    """

    def __init__(
        self,
        *arrays: Any,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        with located("Batches"):
            if not arrays:
                raise InvalidValue("expected arrays of examples, got none")
            self.arrays = tuple(_array.to_numpy(x) for x in arrays)
            shapes = [x.shape for x in self.arrays]
            if any(not s for s in shapes) or len({s[0] for s in shapes}) != 1:
                raise InvalidValue(
                    f"arrays must have the same first dimension, got shapes {shapes}"
                )
            self.batch_size = _check.integer("batch_size", batch_size, least=1)
            self.seed = _check.integer("seed", seed, least=0)
            self.shuffle = _check.flag("shuffle", shuffle)
            self.drop_last = _check.flag("drop_last", drop_last)
        self.epoch = 0

    @property
    def examples(self) -> int:
        """How many examples an epoch has."""
        count = int(self.arrays[0].shape[0])
        return count - count % self.batch_size if self.drop_last else count

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return -(-self.examples // self.batch_size)

    def for_epoch(self, epoch: int) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches of one epoch, counted from 0."""
        total = int(self.arrays[0].shape[0])
        order = np.arange(total)
        if self.shuffle:
            order = generator(self.seed, f"epoch {epoch}").permutation(total)
        for start in range(0, self.examples, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield tuple(x[chosen] for x in self.arrays)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """One epoch, and then the next."""
        self.epoch += 1
        return self.for_epoch(self.epoch - 1)
