"""One pass through a model taken apart: what each layer was given, and each layer by itself.

A layer by itself runs its own lines only: for the layers inside it stand-ins answer, which
hand out numbers drawn beforehand and note what they were handed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from devconv import _array, random
from devconv._array import Array
from devconv._check import located
from devconv._fast import generic
from devconv.layers import Layer
from devconv.layers.scope import Grads, Pullback, Scope

Place = Callable[[np.ndarray], Array]
"""Puts numbers of the host where a layer is, in the dtype in question."""


@dataclass
class Visit:
    """What one layer saw in one pass: its path, its input and output, and what ran inside."""

    path: str
    kind: str
    x: Array
    y: Array = None
    grads: Mapping[str, Array] = field(default_factory=dict)
    inside: list[Visit] = field(default_factory=list)


class _Watched(Scope):
    """A scope that notes each visit, innermost first."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.visits: list[Visit] = []
        self._inner: list[Visit] = []

    def vjp(
        self, name: str, child: Layer, x: Array, *, wants_dx: bool = True
    ) -> tuple[Array, Pullback]:
        visit = Visit(self._paths[id(child)], type(child).__name__, x)
        self._inner.append(visit)
        within = self._inside(child)
        assert isinstance(within, _Watched)
        within._inner = visit.inside
        with located(type(child).__name__, name):
            visit.y, back = child.apply_vjp(within, x)
        self.visits.append(visit)

        def pullback(dy: Array) -> tuple[Array, Grads]:
            dx, visit.grads = back(dy)
            return dx, dict(visit.grads)

        return visit.y, pullback

    def apply(self, name: str, child: Layer, x: Array) -> Array:
        return self.vjp(name, child, x)[0]


class _StandIns(Scope):
    """A scope in which stand-ins answer for the layers inside, one after the other."""

    def answer(self, visits: Sequence[Visit], place: Place) -> None:
        self._waiting, self._place = iter(list(enumerate(visits))), place
        self.handed: dict[str, Array] = {}
        self.sent_back: dict[str, Array] = {}

    def vjp(
        self, name: str, child: Layer, x: Array, *, wants_dx: bool = True
    ) -> tuple[Array, Pullback]:
        number, visit = next(self._waiting)
        self.handed[f"the input of {visit.path}, {number}"] = x

        def pullback(dy: Array) -> tuple[Array, Grads]:
            self.sent_back[f"the cotangent for {visit.path}, {number}"] = dy
            dx = self._place(drawn(visit.x.shape, number))
            return dx, {n: self._place(drawn(g.shape, number)) for n, g in visit.grads.items()}

        return self._place(visit.y), pullback

    def apply(self, name: str, child: Layer, x: Array) -> Array:
        return self.vjp(name, child, x)[0]


@dataclass(frozen=True)
class Answer:
    """What a layer made of its input, and what it sent back for a cotangent."""

    forward: Mapping[str, Array]
    dx: Mapping[str, Array]
    parameters: Mapping[str, Array]


def drawn(shape: Sequence[int], number: int = 0) -> np.ndarray:
    """Normal numbers, the same for the same shape and number."""
    return np.random.default_rng(number).standard_normal(tuple(shape))


def visits(model: Layer, x: Array, training: bool) -> list[Visit]:
    """All that happens in one pass of a model on the host, there and back, innermost first."""
    scope = _scope(_Watched, model, x, training)
    with generic():
        y, pullback = scope.vjp("", model, x)
        pullback(drawn(y.shape))
    return scope.visits


def alone(model: Layer, visit: Visit, x: Array, dy: Array, place: Place, training: bool) -> Answer:
    """The layer that was visited by itself, in a model like the one that was watched."""
    scope = _scope(_StandIns, model, x, training)
    layer = dict(model._walk())[visit.path]
    scope._path = visit.path
    scope.answer(visit.inside, place)
    with _array.on_device(x):
        y, pullback = layer.apply_vjp(scope, x)
        dx, grads = pullback(dy)
    return Answer({"y": y, **scope.handed, **scope.renewed}, {"x": dx, **scope.sent_back}, grads)


def quotients(model: Layer, visit: Visit, training: bool) -> tuple[float, float | None]:
    """How far a pullback on the host is from difference quotients: in the input, in parameters.

    Near the input of the visit, not at it: there maxima do not tie. A kink in the way spoils a
    quotient, so the best of three directions counts.
    """
    layer, spread = dict(model._walk())[visit.path], float(np.std(visit.x)) or 1.0
    x = visit.x + 0.01 * spread * drawn(visit.x.shape)
    arrays = {**model.parameters, **model.buffers}

    def run(x: Array, arrays: Mapping[str, Array]) -> tuple[Array, Pullback]:
        scope = Scope(model, arrays, training=training, key=random.key(0))
        scope._path = visit.path
        return layer.apply_vjp(scope, x)

    def gap(number: int, moved: Sequence[str]) -> float:
        v = {name: _sized(at[name], number) for name in moved}
        ahead, behind = (
            run(
                x + sign * _STEP * v.get("", 0.0),
                {n: a + sign * _STEP * v[n] if n in v else a for n, a in arrays.items()},
            )[0]
            for sign in (1.0, -1.0)
        )
        dy = drawn(ahead.shape, number)
        forward = dy * (ahead - behind) / (2.0 * _STEP)
        backward = [back[name] * v[name] for name in moved]
        size = max(float(np.linalg.norm(np.ravel(s))) for s in (forward, *backward))
        both = abs(float(np.sum(forward)) - sum(float(np.sum(s)) for s in backward))
        return both / size if size else both

    at: dict[str, Array] = {**arrays, "": x}
    with generic():
        y, pullback = run(x, arrays)
        found = []
        for names in ([""], list(visit.grads)):
            best: float | None = None
            for number in range(3) if names else ():
                dx, grads = pullback(drawn(y.shape, number))
                back = {**grads, "": dx}
                best = min(gap(number, names), np.inf if best is None else best)
                if best < 1e-6:
                    break
            found.append(best)
    return found[0] or 0.0, found[1]


_STEP = 1e-7


def _sized(x: Array, number: int) -> np.ndarray:
    """A direction as large as ``x``."""
    return (float(np.mean(np.abs(x))) or 1.0) * drawn(x.shape, number + 10)


def _scope(kind: Any, model: Layer, x: Array, training: bool) -> Any:
    arrays = {**model.parameters, **model.buffers}
    return kind(model, arrays, training=training, key=random.key(0))
