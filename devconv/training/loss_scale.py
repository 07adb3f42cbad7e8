"""Loss scaling: what keeps small gradients of float16 from becoming 0.

float16 has no number below 6e-8. The loss's cotangent is multiplied by a large power of 2,
and the gradients, once they are float32, divided by it. Where one of them overflowed, the
step is left out and the factor halved; after many good steps it grows. Whether it overflowed
is known on the device alone: nothing waits for it, all is chosen by ``where``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from devconv import _array, _check
from devconv._array import Array
from devconv._check import located
from devconv.device import Device, device
from devconv.functional.special import at_least

Arrays: TypeAlias = Mapping[str, Array]


class LossScale:
    """The rules of a dynamic loss scale; pure functions of a state, for ``jax.jit`` too.

    The state is three 0-d arrays: ``scale`` (float32), ``good`` steps since it last changed
    and ``skipped`` steps in all (both int32).

    Args:
        init_scale: where it starts.
        growth_factor: multiplies it after ``growth_interval`` good steps in a row.
        backoff_factor: multiplies it after a step whose gradients are not finite.
        growth_interval: how many.

    Raises:
        ValueError: an option out of range.

    Source: P. Micikevicius et al., "Mixed precision training", arXiv:1710.03740; as
    ``torch.amp.GradScaler``.

    >>> import numpy as np
    >>> scaling = LossScale()
    >>> state = scaling.start()
    >>> grads, finite = scaling.unscale(state, {"weight": np.asarray([65536.0, np.inf])})
    >>> bool(finite), scaling.advance(state, finite)["scale"]
    (False, array(32768., dtype=float32))
    """

    def __init__(
        self,
        *,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        with located("LossScale"):
            self.init_scale = _check.number("init_scale", init_scale, above=0.0)
            self.growth_factor = _check.number("growth_factor", growth_factor, above=1.0)
            self.backoff_factor = _check.number("backoff_factor", backoff_factor, above=0.0)
            if self.backoff_factor >= 1.0:
                raise _check.InvalidValue(f"backoff_factor must be below 1, got {backoff_factor!r}")
            self.growth_interval = _check.integer("growth_interval", growth_interval, least=1)

    def __repr__(self) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"LossScale({words})"

    def start(
        self, place: str | Device | Array = "cpu", *, scale: float | None = None, **counts: int
    ) -> dict[str, Array]:
        """The state at the beginning of a run, or with numbers of an earlier one.

        Args:
            place: the device it is for, as for :func:`devconv.device`, or an array there.
            scale: instead of ``init_scale``.
            counts: ``good`` and ``skipped`` instead of 0.
        """
        xp, goal = _array.host(), device(place)
        numbers = {"good": 0, "skipped": 0, **counts}
        return {
            "scale": goal.asarray(
                xp.asarray(self.init_scale if scale is None else scale), "float32"
            ),
            "good": goal.asarray(xp.asarray(numbers["good"]), "int32"),
            "skipped": goal.asarray(xp.asarray(numbers["skipped"]), "int32"),
        }

    def unscale(self, state: Arrays, grads: Arrays) -> tuple[dict[str, Array], Array]:
        """The gradients divided by the scale, and whether all of them are finite.

        Args:
            state: what :meth:`start` or :meth:`advance` returned.
            grads: float32 gradients by name, as a pass with ``scale=state["scale"]`` gives them.

        Returns:
            ``(grads, finite)``, ``finite`` a 0-d array of bools.
        """
        scale = state["scale"]
        xp = _array.array_namespace(scale)
        with _array.on_device(scale), _array.overflowing():
            inverse = 1.0 / scale
            unscaled = {
                name: _array.as_array(grad * _array.cast(inverse, grad.dtype))
                for name, grad in grads.items()
            }
            largest = [
                _array.cast(xp.max(xp.abs(grad)), scale.dtype)
                for grad in unscaled.values()
                if math.prod(grad.shape)
            ]
            finite = xp.all(xp.isfinite(xp.stack([scale, *largest])))
        return unscaled, _array.as_array(finite)

    def advance(self, state: Arrays, finite: Array) -> dict[str, Array]:
        """The state after a step."""
        scale, good, skipped = state["scale"], state["good"], state["skipped"]
        xp = _array.array_namespace(scale)
        with _array.on_device(scale), _array.overflowing():
            nothing, more = xp.zeros_like(good), good + 1
            grows = more == self.growth_interval
            grown = scale * self.growth_factor
            grown = xp.where(grows & xp.isfinite(grown), grown, scale)
            smaller = at_least(
                _array.as_array(scale * self.backoff_factor),
                float(xp.finfo(scale.dtype).smallest_normal),
            )
            after = {
                "scale": xp.where(finite, grown, smaller),
                "good": xp.where(finite & ~grows, more, nothing),
                "skipped": skipped + xp.astype(~finite, skipped.dtype),
            }
        return {name: _array.as_array(x) for name, x in after.items()}


def chosen(finite: Array, new: Arrays, old: Arrays) -> dict[str, Array]:
    """The new arrays where a step counts, the old ones where it is skipped; nothing waits.

    Args:
        finite: whether the step counts, a 0-d array of bools.
        new: arrays by name.
        old: arrays with the same names, shapes and dtypes.

    >>> import numpy as np
    >>> chosen(np.asarray(False), {"mean": np.ones(2)}, {"mean": np.zeros(2)})
    {'mean': array([0., 0.])}
    """
    kept: dict[str, Any] = {}
    with _array.on_device(finite):
        xp = _array.array_namespace(finite)
        for name, x in new.items():
            kept[name] = x if x is old[name] else xp.where(finite, x, old[name])
    return kept
