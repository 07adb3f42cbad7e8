"""Normalisation: take away the mean, divide by the deviation, weigh and shift.

The kinds differ in the axes a mean runs over, and in the axes along which one weight is
shared; they say which, and :func:`devconv.functional.moments.normalized` carries them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue, Shape, flag, integer, number, rank_at_least
from devconv.functional.moments import Axes, Moments, normalized, spread
from devconv.functional.operation import Pullback, differentiable


@differentiable(
    constants=("running_mean", "running_var"),
    statistics=("weight", "bias", "running_mean", "running_var"),
)
def batch_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    /,
    *,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> tuple[Array, Pullback]:
    """Normalise each channel, by the batch's own statistics or by remembered ones.

    ``y[n, c, p] = (x[n, c, p] - mean[c]) / sqrt(var[c] + eps) · weight[c] + bias[c]``

    Args:
        x: images ``(N, C, *spatial)``, or features ``(N, C)``.
        weight: ``(C,)`` or ``None``.
        bias: ``(C,)`` or ``None``.
        running_mean: ``(C,)``, used when not training.
        running_var: ``(C,)``, likewise.
        training: whether mean and (biased) variance are those of ``x``. The running ones are
            left alone: the layer renews them.
        eps: added to the variance.

    Returns:
        ``y`` with the shape and the memory order of ``x``; statistics are float32 for half
        precision. The pullback gives ``(dx, dweight, dbias)``; in training ``dx`` also goes
        through the statistics.

    Raises:
        ValueError: shapes that do not fit together; not training without running statistics;
            training on an empty batch, on one value per channel or with ``eps`` 0.
        TypeError: integer arrays, mixed dtypes, arrays of two libraries.

    Source: S. Ioffe and C. Szegedy, "Batch normalization", arXiv:1502.03167; as
    ``torch.nn.functional.batch_norm``.

    >>> import numpy as np
    >>> x = np.asarray([[1.0, 5.0], [3.0, 9.0]])
    >>> batch_norm(x, training=True).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    shape, running = tuple(x.shape), {"running_mean": running_mean, "running_var": running_var}
    check_channels(shape, weight=weight, bias=bias, **running)
    if (running_mean is None) != (running_var is None):
        raise InvalidValue("running_mean and running_var go together: give both or neither")
    if flag("training", training):
        y, _, pullback = _over_batch(x, weight, bias, eps)
        return y, pullback
    if running_mean is None or running_var is None:
        raise InvalidValue(
            "not training needs running_mean and running_var, got None; "
            "give both, or say training=True"
        )
    axes = _all_but_channels(x)
    y, _, pullback = normalized(
        x,
        weight,
        bias,
        axes=axes,
        shared=axes,
        eps=number("eps", eps, least=0.0),
        moments=(spread(running_mean, x, axes), spread(running_var, x, axes)),
    )
    return y, pullback


@differentiable(statistics=("weight", "bias"))
def batch_norm_and_statistics(
    x: Array, weight: Array | None = None, bias: Array | None = None, /, *, eps: float = 1e-5
) -> tuple[tuple[Array, Array, Array], Pullback]:
    """Normalise as :func:`batch_norm` does in training, and return what it used.

    Args:
        x: as for :func:`batch_norm`; likewise the others.
        weight: ``(C,)`` or ``None``.
        bias: ``(C,)`` or ``None``.
        eps: added to the variance.

    Returns:
        ``(y, mean, var)``, the batch's mean and biased variance with shape ``(C,)``, float32
        for half precision; no gradient goes through these two. The pullback takes ``dy``.

    Raises:
        ValueError: as :func:`batch_norm`.
        TypeError: likewise.

    >>> import numpy as np
    >>> batch_norm_and_statistics(np.asarray([[1.0], [3.0]]))[1:]
    (array([2.]), array([1.]))
    """
    check_channels(tuple(x.shape), weight=weight, bias=bias)
    xp = _array.array_namespace(x)
    y, (mean, var), pullback = _over_batch(x, weight, bias, eps)
    channels = (x.shape[1],)
    return (y, xp.reshape(mean, channels), xp.reshape(var, channels)), pullback


batch_norm_and_statistics.__name__ = "batch_norm"  # in messages: the name a user knows


@differentiable(statistics=("weight", "bias"))
def layer_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    /,
    *,
    normalized_shape: int | Sequence[int],
    eps: float = 1e-5,
) -> tuple[Array, Pullback]:
    """Normalise each example over its last dimensions.

    ``y = (x - mean) / sqrt(var + eps) · weight + bias``, mean and biased variance over the
    last ``len(normalized_shape)`` dimensions.

    Args:
        x: ``(..., *normalized_shape)``.
        weight: ``normalized_shape`` or ``None``.
        bias: ``normalized_shape`` or ``None``.
        normalized_shape: the last dimensions of ``x``; an int for one.
        eps: added to the variance.

    Returns:
        ``y`` with the shape and the memory order of ``x``; statistics are float32 for half
        precision. The pullback gives ``(dx, dweight, dbias)``.

    Raises:
        ValueError: shapes that do not fit together, a negative ``eps``.
        TypeError: integer arrays, mixed dtypes, arrays of two libraries.

    Source: J. Ba, J. Kiros and G. Hinton, "Layer normalization", arXiv:1607.06450; as
    ``torch.nn.functional.layer_norm``.

    >>> import numpy as np
    >>> layer_norm(np.asarray([[1.0, 3.0], [7.0, 5.0]]), normalized_shape=2).round(3)
    array([[-1.,  1.],
           [ 1., -1.]])
    """
    last = last_axes(tuple(x.shape), normalized_shape, weight=weight, bias=bias)
    y, _, pullback = normalized(
        x,
        weight,
        bias,
        axes=last,
        shared=tuple(range(x.ndim - len(last))),
        eps=number("eps", eps, least=0.0),
    )
    return y, pullback


@differentiable(statistics=("weight",))
def rms_norm(
    x: Array,
    weight: Array | None = None,
    /,
    *,
    normalized_shape: int | Sequence[int],
    eps: float | None = None,
) -> tuple[Array, Pullback]:
    """Divide each example by its root mean square over its last dimensions.

    ``y = x / sqrt(mean(x²) + eps) · weight``

    Args:
        x: ``(..., *normalized_shape)``.
        weight: ``normalized_shape`` or ``None``.
        normalized_shape: the last dimensions of ``x``; an int for one.
        eps: added to the mean square; ``None`` for the distance from 1 to the next number
            of the dtype it is computed in (float32 for half precision).

    Returns:
        ``y`` with the shape and the memory order of ``x``; the pullback gives
        ``(dx, dweight)``.

    Raises:
        ValueError: shapes that do not fit together, a negative ``eps``.
        TypeError: integer arrays, mixed dtypes, arrays of two libraries.

    Source: B. Zhang and R. Sennrich, "Root mean square layer normalization",
    arXiv:1910.07467; as ``torch.nn.functional.rms_norm``.

    >>> import numpy as np
    >>> rms_norm(np.asarray([[1.0, 7.0]]), normalized_shape=2)
    array([[0.2, 1.4]])
    """
    last = last_axes(tuple(x.shape), normalized_shape, weight=weight)
    if eps is None:
        eps = float(_array.array_namespace(x).finfo(_array.wide_dtype(x)).eps)
    y, _, pullback = normalized(
        x,
        weight,
        None,
        axes=last,
        shared=tuple(range(x.ndim - len(last))),
        eps=number("eps", eps, least=0.0),
        centred=False,
    )
    return y, pullback


@differentiable(statistics=("weight", "bias"))
def group_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    /,
    *,
    num_groups: int,
    eps: float = 1e-5,
) -> tuple[Array, Pullback]:
    """Normalise each image over groups of its channels.

    ``y[n, c, p] = (x[n, c, p] - mean[n, g]) / sqrt(var[n, g] + eps) · weight[c] + bias[c]``,
    mean and biased variance over all pixels of the channels in the group ``g`` of ``c``.

    Args:
        x: images ``(N, C, *spatial)``, or features ``(N, C)``.
        weight: ``(C,)`` or ``None``.
        bias: ``(C,)`` or ``None``.
        num_groups: parts of ``C // num_groups`` neighbouring channels.
        eps: added to the variance.

    Returns:
        ``y`` with the shape and the memory order of ``x``; statistics are float32 for half
        precision. The pullback gives ``(dx, dweight, dbias)``.

    Raises:
        ValueError: shapes that do not fit together, groups that do not divide the channels,
            a single value to normalise, a negative ``eps``.
        TypeError: integer arrays, mixed dtypes, arrays of two libraries.

    Source: Y. Wu and K. He, "Group normalization", arXiv:1803.08494; as
    ``torch.nn.functional.group_norm``.

    >>> import numpy as np
    >>> group_norm(np.asarray([[1.0, 3.0, 7.0, 5.0]]), num_groups=2).round(3)
    array([[-1.,  1.,  1., -1.]])
    """
    shape = tuple(x.shape)
    check_channels(shape, weight=weight, bias=bias)
    groups = check_groups(shape, num_groups)
    pixels = tuple(range(2, len(shape)))
    y, _, pullback = normalized(
        x,
        weight,
        bias,
        axes=pixels,
        groups=groups,
        shared=(0, *pixels),
        eps=number("eps", eps, least=0.0),
    )
    return y, pullback


@differentiable(statistics=("weight", "bias"))
def instance_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    /,
    *,
    eps: float = 1e-5,
) -> tuple[Array, Pullback]:
    """Normalise each channel of each image by itself.

    ``y[n, c, p] = (x[n, c, p] - mean[n, c]) / sqrt(var[n, c] + eps) · weight[c] + bias[c]``

    Args:
        x: images ``(N, C, *spatial)`` of more than one pixel.
        weight: ``(C,)`` or ``None``.
        bias: ``(C,)`` or ``None``.
        eps: added to the biased variance.

    Returns:
        ``y`` with the shape and the memory order of ``x``; statistics are float32 for half
        precision. The pullback gives ``(dx, dweight, dbias)``.

    Raises:
        ValueError: shapes that do not fit together, a single pixel, a negative ``eps``.
        TypeError: integer arrays, mixed dtypes, arrays of two libraries.

    Source: D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance normalization",
    arXiv:1607.08022; as ``torch.nn.functional.instance_norm``.

    >>> import numpy as np
    >>> instance_norm(np.asarray([[[1.0, 3.0], [7.0, 5.0]]])).round(3)
    array([[[-1.,  1.],
            [ 1., -1.]]])
    """
    shape = tuple(x.shape)
    check_channels(shape, weight=weight, bias=bias)
    check_pixels(shape)
    pixels = tuple(range(2, len(shape)))
    y, _, pullback = normalized(
        x,
        weight,
        bias,
        axes=pixels,
        shared=(0, *pixels),
        eps=number("eps", eps, least=0.0),
    )
    return y, pullback


def _over_batch(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Moments, Pullback]:
    """A training step of :func:`batch_norm`, with the batch's moments."""
    shape, axes = tuple(x.shape), _all_but_channels(x)
    values = math.prod([shape[a] for a in axes])
    if values < 2:
        raise InvalidValue(
            f"x {shape} has {values} values per channel, training needs at least 2; "
            "give a larger batch, or say training=False"
        )
    eps = number("eps", eps, above=0.0)
    return normalized(x, weight, bias, axes=axes, shared=axes, eps=eps)


def _all_but_channels(x: Array) -> Axes:
    return (0, *range(2, x.ndim))


def check_channels(shape: Shape, **vectors: Array | None) -> None:
    """Refuse what is not ``(N, C, *spatial)``, or vectors without one entry per channel."""
    rank_at_least("x", shape, 2, "(N, C, *spatial)")
    if 0 in shape[1:]:
        raise InvalidValue(f"x {shape} has no channels or no pixels; only the batch may be empty")
    for name, v in vectors.items():
        if v is not None and tuple(v.shape) != shape[1:2]:
            raise InvalidValue(
                f"{name} has shape {tuple(v.shape)}, expected {shape[1:2]}: one per channel "
                f"of x {shape}"
            )


def check_groups(shape: Shape, num_groups: int) -> int:
    """How many groups there are of the channels of ``shape`` (N, C, *spatial)."""
    groups, (n, c, *spatial) = integer("num_groups", num_groups, least=1), shape
    if c % groups:
        raise InvalidValue(f"num_groups={groups} must divide the {c} channels of x {shape}")
    if n * (c // groups) * math.prod(spatial) == 1:
        raise InvalidValue(
            f"x {shape} has one value per group, which is its own mean; use fewer groups"
        )
    return groups


def check_pixels(shape: Shape) -> None:
    """Refuse images of a single pixel."""
    if math.prod(shape[2:]) == 1:
        raise InvalidValue(
            f"x {shape} has one pixel per channel, which is its own mean; "
            "instance_norm needs more than one"
        )


def normalized_sizes(normalized_shape: int | Sequence[int]) -> Shape:
    """The sizes that ``normalized_shape`` names."""
    if isinstance(normalized_shape, Sequence) and not isinstance(normalized_shape, str):
        sizes = tuple(integer("normalized_shape", n, least=1) for n in normalized_shape)
        if not sizes:
            raise InvalidValue("normalized_shape must name at least one dimension, got ()")
        return sizes
    return (integer("normalized_shape", normalized_shape, least=1),)


def last_axes(shape: Shape, normalized_shape: int | Sequence[int], **weights: Array | None) -> Axes:
    """The axes of ``x`` that ``normalized_shape`` names, which the weights must have too."""
    last = normalized_sizes(normalized_shape)
    first = len(shape) - len(last)
    if first < 0 or shape[first:] != last:
        raise InvalidValue(
            f"x {shape} must end with normalized_shape {last}; "
            f"give normalized_shape={shape[-len(last) :]} or x (..., {', '.join(map(str, last))})"
        )
    for name, v in weights.items():
        if v is not None and tuple(v.shape) != last:
            raise InvalidValue(
                f"{name} has shape {tuple(v.shape)}, expected normalized_shape {last}"
            )
    return tuple(range(first, len(shape)))
