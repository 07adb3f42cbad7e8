"""Does a device compute what the host computes? Layer by layer, forward and back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, brief, flag, located
from devconv._fast import generic, rounds_products
from devconv.device import Device, device, to_device
from devconv.functional import cross_entropy
from devconv.functional.operation import Operation
from devconv.layers import Layer
from devconv.layers.hints import no_layer
from devconv.precision import precision
from devconv.testing.report import REFERENCE, Parity, Row, largest
from devconv.testing.walk import Answer, Place, Visit, alone, drawn, quotients, visits

Spec = str | Device | Array

TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""How far a layer may be off, by dtype; half precision: two roundings."""
_FAST, _TF32 = 2e-4, 2e-3
_QUOTIENT = 1e-4
_WHOLE = "end to end"

# What an error looks like that no tolerance covers: fewer digits than the dtype has.
_LOOKS_LIKE = {
    "float64": ((1e-9, 1e-5, "float32?"), (1e-4, 2e-3, "TF32?")),
    "float32": ((1e-4, 2e-3, "TF32?"), (2e-3, 2e-2, "bfloat16?")),
    "float16": ((2e-3, 2e-2, "bfloat16?"),),
}


def parity(
    model: Layer,
    x: Array,
    target: Array,
    *,
    devices: Sequence[Spec] = ("auto",),
    dtypes: Sequence[str] | None = None,
    loss: Operation[Any] = cross_entropy,
    training: bool = True,
    differences: bool = True,
) -> Parity:
    """Compare a model on some devices with float64 on NumPy by the written-once routes.

    One pass on the host finds what reaches each layer. Then each layer runs *in place* and by
    itself: it gets that input, its own arrays and a random cotangent, all rounded to the dtype,
    on the device and on the host, where float64 computes with the same rounded numbers. So an
    error belongs to the layer that makes it, not to those before it, and what rounding the input
    does is nobody's error. A layer made of layers answers for its own lines alone: inside it
    stand-ins hand out given numbers. The loss is treated likewise. In a last row, "end to end",
    each layer feeds the next; it has no tolerance, since errors add up and a rounding may turn
    a maximum's choice.

    The host itself is held against difference quotients, which finds a pullback that is wrong
    everywhere alike, and a forward pass that is not the pullback's.

    Args:
        model: a layer; it is not changed.
        x: a batch, of any library; four or more examples, so that batch statistics say something.
        target: what the loss takes beside the prediction.
        devices: names as for :func:`devconv.device`, devices or arrays.
        dtypes: by name; by default those that each device has.
        loss: an operation whose result is one number.
        training: whether dropout drops (the same everywhere) and batch statistics are used.
        differences: whether to hold the host's pullbacks against difference quotients.

    Returns:
        The rows, and as text a table. Tolerances: float64 1e-12, float32 1e-5 (under
        ``dc.precision("fast")`` 2e-4, and 2e-3 where that means TF32, as a title then says),
        float16 2⁻¹⁰, bfloat16 2⁻⁷. A mark names the dtype that an error looks like: ``TF32?``
        is float32 that is off by 1e-4 to 2e-3.

    Raises:
        ValueError: a device that cannot be used, a loss that is not one number.
        TypeError: no layer, no operation, a batch that is no array, an unknown dtype.

    >>> import numpy as np
    >>> import devconv as dc
    >>> model = dc.Sequential(dc.Dense(3, 4), dc.ReLU(), dc.Dense(4, 2)).build(seed=0)
    >>> x = np.random.default_rng(0).standard_normal((5, 3))
    >>> report = parity(model, x, np.arange(5) % 2, devices=["cpu"], dtypes=["float32"])
    >>> report.ok
    True
    """
    with located("parity"):
        _check_arguments(model, x, target, devices, dtypes, loss)
        training, differences = flag("training", training), flag("differences", differences)
        places = [device(spec) for spec in devices]
        host = _array.to_numpy(x).astype("float64")
        seen = copy.deepcopy(model)
        if not seen.is_built:
            seen.build(tuple(host.shape[1:]))
        seen.to("cpu", dtype="float64")
        walked = visits(seen, host, training)
        rows = list(_reference(seen, walked, training)) if differences else []
        left_out: list[str] = []
        known: dict[tuple[str, str, str, int], Answer] = {}
        for place in places:
            for dtype in dtypes or ("float64", "float32", "float16", "bfloat16"):
                if place.has_dtype(dtype):
                    trial = _Trial(seen, place, _array.dtype_name(dtype), training, known)
                    rows += trial.rows(walked, loss, _array.to_numpy(target), host)
                elif dtypes is not None:
                    left_out.append(place._lack(dtype))
        return Parity(tuple(rows), tuple(left_out))


def _check_arguments(model: Any, x: Any, target: Any, devices: Any, dtypes: Any, loss: Any) -> None:
    if not isinstance(model, Layer):
        raise InvalidType(f"model must be a layer, got {no_layer(model)}")
    if not isinstance(loss, Operation):
        raise InvalidType(f"loss must be an operation, got {brief(loss)}")
    for name, array in (("x", x), ("target", target)):
        if not _array.is_array(array):
            raise InvalidType(f"{name} must be an array, got {type(array).__name__}")
    for name, given in (("devices", devices), ("dtypes", dtypes)):
        if given is not None and (isinstance(given, str) or not isinstance(given, Sequence)):
            raise InvalidType(f"{name} must be a list, got {brief(given)}")
    for dtype in dtypes or ():
        if _array.dtype_name(dtype) not in TOLERANCE:
            raise InvalidValue(f"dtypes may hold {', '.join(TOLERANCE)}, got {dtype!r}")


def _reference(model: Layer, walked: Sequence[Visit], training: bool) -> Iterator[Row]:
    """The host's pullbacks beside difference quotients; no layer around one that is wrong."""
    wrong: set[int] = set()
    for visit in walked:
        if wrong.intersection(map(id, visit.inside)):
            wrong.add(id(visit))
            continue
        dx, parameters = quotients(model, visit, training)
        fine = all(not e > _QUOTIENT and e == e for e in (dx, parameters or 0.0))
        if not fine:
            wrong.add(id(visit))
        mark = "ok" if fine else "pullback is not the forward's"
        about = (REFERENCE, "float64", visit.path, visit.kind)
        yield Row(*about, None, dx, parameters, _QUOTIENT, mark)


class _Trial:
    """One device and one dtype beside the host."""

    def __init__(
        self,
        model: Layer,
        place: Device,
        dtype: str,
        training: bool,
        known: dict[tuple[str, str, str, int], Answer],
    ) -> None:
        self.place, self.dtype, self.training = place, dtype, training
        self.known, self.asked = known, 0  # the host's answers serve all devices
        self.tolerance, self.tf32 = TOLERANCE[dtype], False
        if dtype == "float32" and precision() == "fast":
            self.tf32 = rounds_products(place.asarray(np.zeros(1), dtype))
            self.tolerance = _TF32 if self.tf32 else _FAST
        self.there = copy.deepcopy(model).to(place, dtype=dtype)
        self.here = copy.deepcopy(self.there).to("cpu", dtype="float64")

    def send(self, host: np.ndarray) -> Array:
        """Numbers of the host on the device, rounded."""
        if host.dtype.kind == "f":
            return self.place.asarray(host, self.dtype)
        return to_device(host, self.place)

    def rounded(self, host: np.ndarray) -> np.ndarray:
        """The numbers that the device gets, on the host."""
        if host.dtype.kind != "f":
            return host
        return _array.to_numpy(self.send(host)).astype("float64")

    def rows(
        self, walked: Sequence[Visit], loss: Operation[Any], target: np.ndarray, x: np.ndarray
    ) -> Iterator[Row]:
        for visit in walked:
            yield self.row(visit.path, visit.kind, lambda *how, v=visit: self._layer(v, *how))
        y = walked[-1].y
        yield self.row("", loss.__name__, lambda *how: self._loss(loss, y, target, *how))
        yield self.row("", _WHOLE, lambda *how: self._whole(loss, x, target, *how))

    def row(self, path: str, kind: str, answer: Callable[..., Answer]) -> Row:
        """What comes of asking the host and the device the same."""
        limit = None if kind == _WHOLE else self.tolerance
        about = (self.place.spec, self.dtype, path, kind)
        self.asked += 1
        question = (self.dtype, path, kind, self.asked)
        if question not in self.known:
            with generic():
                self.known[question] = answer(self.here, self.rounded)
        wanted = self.known[question]
        try:
            found = answer(self.there, self.send)
            together = kind == _WHOLE  # a bias before a norm has no gradient but rounding
            errors = [
                _error(found.forward, wanted.forward),
                _error(found.dx, wanted.dx),
                _error(found.parameters, wanted.parameters, together=together),
            ]
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return Row(*about, None, None, None, limit, f"failed: {text}", self.tf32)
        mark = self._mark(found, largest(e for e in errors if e is not None), limit)
        return Row(*about, errors[0], errors[1], errors[2], limit, mark, self.tf32)

    def _mark(self, found: Answer, error: float, limit: float | None) -> str:
        for name, array in (("y", found.forward.get("y")), ("dx", found.dx.get("x"))):
            if array is not None and _array.dtype_name(array.dtype) != self.dtype:
                return f"{name} is {_array.dtype_name(array.dtype)}"
        if not math.isfinite(error):
            return "no finite numbers"
        if limit is None:
            return ""
        if error <= limit:
            return "ok"
        for low, high, name in _LOOKS_LIKE.get(self.dtype, ()):
            if low <= error <= high:
                return name
        return "outside"

    def _layer(self, visit: Visit, model: Layer, place: Place) -> Answer:
        x, dy = place(visit.x), place(drawn(visit.y.shape))
        return alone(model, visit, x, dy, place, self.training)

    def _loss(
        self, loss: Operation[Any], y: np.ndarray, target: np.ndarray, _: Layer, place: Place
    ) -> Answer:
        value, dy = _loss_and_cotangent(loss, place(y), place(target))
        return Answer({"loss": value}, {"x": dy}, {})

    def _whole(
        self, loss: Operation[Any], x: np.ndarray, target: np.ndarray, model: Layer, place: Place
    ) -> Answer:
        y, pullback = model.vjp(place(x), training=self.training)
        value, dy = _loss_and_cotangent(loss, y, place(target))
        dx, grads = pullback(dy)
        return Answer({"y": y, "loss": value, **model.buffers}, {"x": dx}, grads)


def _loss_and_cotangent(loss: Operation[Any], y: Array, target: Array) -> tuple[Array, Array]:
    value, pullback = loss.vjp(y, target)
    if value.ndim:
        raise InvalidValue(f"the loss has shape {tuple(value.shape)}, expected one number")
    with _array.on_device(value):
        return value, pullback(_array.array_namespace(value).ones_like(value))[0]


def _error(
    found: Mapping[str, Array], wanted: Mapping[str, Array], *, together: bool = False
) -> float | None:
    """The largest ``max|difference| / max|reference|``, of each array or of all together."""
    if found.keys() != wanted.keys():
        raise InvalidValue(f"gradients of {sorted(found)}, expected {sorted(wanted)}")
    if not wanted:
        return None
    sizes = {name: float(np.max(np.abs(x), initial=0.0)) for name, x in wanted.items()}
    if together:
        sizes = dict.fromkeys(sizes, largest(sizes.values()))
    return largest(_gap(name, found[name], x) / (sizes[name] or 1.0) for name, x in wanted.items())


def _gap(name: str, found: Array, wanted: Array) -> float:
    """``max|difference|``; infinite where numbers are not finite on one side alone."""
    a, b = (_array.to_numpy(v).astype("float64") for v in (found, wanted))
    if a.shape != b.shape:
        raise InvalidValue(f"{name} has shape {a.shape}, expected {b.shape}")
    if not np.isfinite(a).all():
        return 0.0 if np.array_equal(a, b, equal_nan=True) else math.inf
    return float(np.max(np.abs(a - b), initial=0.0))
