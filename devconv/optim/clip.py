"""Gradient clipping."""

from __future__ import annotations

from collections.abc import Mapping

from devconv import _array, _check
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, located
from devconv.functional.special import at_most


def clip_by_global_norm(
    grads: Mapping[str, Array], max_norm: float
) -> tuple[dict[str, Array], Array]:
    """Shrink all gradients by one factor if, taken as one vector, they are too long.

    ``g ← g · min(1, max_norm / (norm + 1e-6))``, with ``norm`` the root of the sum of all squares.

    Args:
        grads: gradients by name, as a pullback gives them.
        max_norm: the greatest length, at least 0.

    Returns:
        ``(grads, norm)``: new gradients, and their length before, a 0-d array (float32 for half
        precision). Nothing waits for it; where it is not finite, neither are the gradients.

    Raises:
        ValueError: no gradients, a negative ``max_norm``.
        TypeError: something that does not map names to arrays.

    Source: R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural
    networks", arXiv:1211.5063; as ``torch.nn.utils.clip_grad_norm_``.

    >>> import numpy as np
    >>> grads, norm = clip_by_global_norm({"a": np.asarray([3.0]), "b": np.asarray([4.0])}, 1.0)
    >>> norm, grads["a"].round(3)
    (array(5.), array([0.6]))
    """
    with located("clip_by_global_norm"):
        max_norm = _check.number("max_norm", max_norm, least=0.0)
        if not isinstance(grads, Mapping) or not all(map(_array.is_array, grads.values())):
            raise InvalidType(
                f"grads must map names to arrays, got {_check.brief(grads)}; a pullback returns "
                "(dx, grads)"
            )
        if not grads:
            raise InvalidValue("grads are empty; there is nothing to clip")
    first = next(iter(grads.values()))
    xp = _array.array_namespace(first)
    with _array.on_device(first):
        wide = [_array.widen(grad) for grad in grads.values()]
        squares = xp.stack([_array.cast(xp.sum(g * g), wide[0].dtype) for g in wide])
        norm = _array.as_array(xp.sqrt(xp.sum(squares)))
        factor = at_most(_array.as_array(max_norm / (norm + 1e-6)), 1.0)
        clipped = {
            name: _array.as_array(_array.cast(g * _array.cast(factor, g.dtype), grad.dtype))
            for g, (name, grad) in zip(wide, grads.items(), strict=True)
        }
    return clipped, norm
