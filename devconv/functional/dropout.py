"""Dropout: silence numbers, or whole channels, at random while training."""

from __future__ import annotations

import math
from collections.abc import Callable

from devconv import _array, _fast, random
from devconv._array import Array
from devconv._check import InvalidType, Shape, flag, rank_at_least
from devconv.functional.operation import Pullback, check_together, differentiable
from devconv.functional.windows import channels_first, channels_last


@differentiable
def dropout(
    x: Array, /, *, p: float, key: Array | None = None, training: bool
) -> tuple[Array, Pullback]:
    """Set each number to 0 with probability ``p``, and scale up what is left.

    ``y = x / (1 - p)`` where kept, 0 where dropped: the expectation of ``y`` is ``x``.

    Args:
        x: any shape.
        p: the probability of a drop, from 0 to 1.
        key: a key of :mod:`devconv.random`, on the host or beside ``x``; needed only while
            training. The same key drops the same numbers in every library.
        training: whether anything is dropped at all.

    Returns:
        ``y`` with the shape of ``x``; ``x`` itself when not training or ``p`` is 0. The
        pullback drops and scales ``dy`` likewise.

    Raises:
        ValueError: ``p`` outside of [0, 1]; ``x`` and ``key`` on two devices.
        TypeError: training without a key; integer arrays.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15 (2014); as ``torch.nn.functional.dropout`` (also in that a dropped
    NaN is still NaN).

    >>> import numpy as np
    >>> from devconv import random
    >>> y, pullback = dropout.vjp(np.ones(4), p=0.5, key=random.key(0), training=True)
    >>> y, pullback(np.ones(4))
    (array([0., 2., 0., 2.]), (array([0., 2., 0., 2.]),))
    """

    def kept(key: Array, probability: float) -> Array:
        if x.ndim < 3:
            return random.bernoulli(key, probability, tuple(x.shape))
        # Drawn in the memory order of an operation's result: channels last.
        n, c, *spatial = x.shape
        return channels_first(random.bernoulli(key, probability, (n, *spatial, c)))

    return _dropped(x, p, key, training, kept, (1, math.prod(x.shape)))


@differentiable
def dropout_channels(
    x: Array, /, *, p: float, key: Array | None = None, training: bool
) -> tuple[Array, Pullback]:
    """Set each channel of each image to 0 with probability ``p``, and scale up what is left.

    ``y[n, c] = x[n, c] / (1 - p)`` where kept, 0 where dropped. Neighbouring pixels say
    nearly the same: dropping single ones would take away little.

    Args:
        x: images ``(N, C, *spatial)``, or features ``(N, C)``.
        p: the probability of a drop, from 0 to 1.
        key: a key of :mod:`devconv.random`, on the host or beside ``x``; needed only while
            training.
        training: whether anything is dropped at all.

    Returns:
        ``y`` with the shape of ``x``; ``x`` itself when not training or ``p`` is 0. The
        pullback drops and scales ``dy`` likewise.

    Raises:
        ValueError: ``p`` outside of [0, 1]; fewer than two dimensions; ``x`` and ``key``
            on two devices.
        TypeError: training without a key; integer arrays.

    Source: J. Tompson et al., "Efficient object localization using convolutional networks",
    CVPR 2015; as ``torch.nn.functional.dropout1d``, ``dropout2d`` and ``dropout3d`` with a
    batch.

    >>> import numpy as np
    >>> from devconv import random
    >>> dropout_channels(np.ones((1, 4, 2)), p=0.5, key=random.key(0), training=True)
    array([[[0., 0.],
            [2., 2.],
            [0., 0.],
            [2., 2.]]])
    """
    shape: Shape = tuple(x.shape)
    rank_at_least("x", shape, 2, "(N, C, *spatial)")

    def kept(key: Array, probability: float) -> Array:
        xp = _array.array_namespace(x)
        drawn = random.bernoulli(key, probability, shape[:2])
        return xp.reshape(drawn, (*shape[:2], *(1,) * (x.ndim - 2)))

    return _dropped(x, p, key, training, kept, (shape[0], shape[1]))


def _dropped(
    x: Array,
    p: float,
    key: Array | None,
    training: bool,
    kept: Callable[[Array, float], Array],
    words: tuple[int, int],
) -> tuple[Array, Pullback]:
    """Where not ``kept(key, 1 - p)``, 0; ``words`` are drawn, so many each for so many parts of x.

    Parts follow each other in memory order, channels last, and each repeats its words.
    """
    p = random.probability("p", p)
    if not flag("training", training) or p == 0.0:
        return x, lambda dy: (dy,)
    if key is None:
        raise InvalidType(
            "training needs a key to draw from, got key=None; give one, such as "
            "key=dc.random.key(seed), or say training=False"
        )
    key = random.beside(key, x)
    check_together([("x", x), ("key", key)])
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    route = _fast.passing("drop", x) if math.prod(words) < 2**32 - 1 else None
    if route is not None:
        below = random.threshold(1.0 - p)

        def dropped(values: Array) -> Array:
            if x.ndim < 3:
                return route(values, key, below, scale, words)
            return channels_first(route(channels_last(values), key, below, scale, words))

        return dropped(x), lambda dy: (dropped(dy),)
    mask = kept(key, 1.0 - p)

    def drop(values: Array) -> Array:
        wide = _array.widen(values)  # in half precision 1 / (1 - p) is off by too much
        return _array.cast(wide * (_array.cast(mask, wide.dtype) * scale), x.dtype)

    return drop(x), lambda dy: (drop(dy),)
