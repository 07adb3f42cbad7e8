"""Local response normalisation: a channel is weakened by strong neighbours."""

from __future__ import annotations

from devconv import _array
from devconv._array import Array
from devconv._check import integer, number
from devconv.functional.conv import check_image
from devconv.functional.operation import Pullback, differentiable


@differentiable
def local_response_norm(
    x: Array, /, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tuple[Array, Pullback]:
    """Divide each number by what its neighbours in the other channels hold.

    ``y[n, c, p] = x[n, c, p] · d[n, c, p]^-beta`` with ``d = k + alpha/size · sum of
    x[n, j, p]²`` over the channels ``c - size // 2`` to ``c + (size - 1) // 2``.

    Args:
        x: images ``(N, C, *spatial)``.
        size: how many channels are neighbours; those that do not exist count as 0.
        alpha: weight of the neighbours, at least 0.
        beta: exponent.
        k: above 0.

    Returns:
        ``y`` with the shape and the memory order of ``x``, computed in float32 for half
        precision; the pullback gives ``dx``.

    Raises:
        ValueError: fewer than three dimensions, options out of range.
        TypeError: integer images.

    Source: A. Krizhevsky, I. Sutskever and G. Hinton, "ImageNet classification with deep
    convolutional neural networks", NIPS 2012; as ``torch.nn.functional.local_response_norm``,
    which divides ``alpha`` by ``size`` where the paper does not, and takes a ``k`` of 0.

    >>> import numpy as np
    >>> x = np.asarray([[[1.0], [2.0]]])
    >>> local_response_norm(x, size=2, alpha=2.0, beta=1.0)
    array([[[0.5       ],
            [0.33333333]]])
    """
    check_image(x)
    size, alpha, beta, k = neighbourhood(size, alpha, beta, k)
    share = alpha / size
    before, after = size // 2, (size - 1) // 2
    wide = _array.widen(x)
    d = k + share * _neighbours(wide * wide, before, after)

    def pullback(dy: Array) -> tuple[Array]:
        dy, wide = _array.widen(dy), _array.widen(x)
        near = dy * d**-beta
        flow = _neighbours(near * wide / d, after, before)
        return (near - (2.0 * share * beta) * wide * flow,)

    return _array.cast(wide * d**-beta, x.dtype), pullback


def neighbourhood(
    size: int, alpha: float, beta: float, k: float
) -> tuple[int, float, float, float]:
    """The four options, checked."""
    return (
        integer("size", size, least=1),
        number("alpha", alpha, least=0.0),
        number("beta", beta),
        number("k", k, above=0.0),
    )


def _neighbours(x: Array, before: int, after: int) -> Array:
    """The sum of the channels from ``before`` below to ``after`` above each channel."""
    c, total = x.shape[1], x * 1.0  # a copy in the memory order of x
    for step in range(1, min(before, c - 1) + 1):
        total = _array.added(total, (slice(None), slice(step, None), ...), x[:, : c - step, ...])
    for step in range(1, min(after, c - 1) + 1):
        total = _array.added(total, (slice(None), slice(0, c - step), ...), x[:, step:, ...])
    return total
