"""cuDNN, through NVIDIA's own front end: whole convolutions of CuPy arrays.

A convolution is a graph of one operation (:mod:`devconv._fast.cudnn.graph`), planned once for
its shapes and kept. Arrays are handed over channels-last and without gaps, as this library
keeps them.

Where cuDNN is not there (:mod:`devconv._fast.cudnn.presence`), has no plan, or fails for want of
memory, a route returns ``None`` and what is written once runs in its place; a :class:`NotTaken`
says so, each reason once.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

from devconv import _array, _detect
from devconv._array import Array
from devconv._check import Pair, Shape
from devconv._fast.cudnn.graph import DTYPES, Built, Problem, W, X, Y, build
from devconv._fast.cudnn.presence import NotTaken, find, is_usable, say
from devconv._fast.cupy import workspace
from devconv._fast.plan import Plan
from devconv.precision import precision

__all__ = ["ROUTES", "NotTaken", "suits"]

T = TypeVar("T")
P = ParamSpec("P")

ALIGNED = 16
"""Bytes: what a graph says of its tensors' addresses, unless told otherwise."""


def suits(x: Array, w: Plan, groups: int) -> bool:
    """Whether cuDNN is there and this is for it: up to float32, one to three dimensions."""
    known = _array.dtype_name(x.dtype) in DTYPES and len(w.kernel) <= 3 and x.shape[0] > 0
    return known and all(used > 0 for used in _read(w)[0]) and is_usable()


class _Failed(Exception):  # told in a warning, shown to nobody as it is
    """cuDNN could not do for once what it can do."""


def _tried(route: Callable[P, Array | None]) -> Callable[P, Array | None]:
    """The route, which leaves the work to what is written once where memory or cuDNN fails."""

    @wraps(route)
    def tried(*given: P.args, **named: P.kwargs) -> Array | None:
        try:
            return route(*given, **named)
        except (_Failed, MemoryError) as error:
            why = str(error) if isinstance(error, _Failed) else _detect.line(error)
            fix = "free memory, or take cudnn out of DEVCONV_TRIAL"
            say(f"{route.__name__} failed", f"cuDNN failed ({why})", fix)
            return None

    return tried


@_tried
def correlate(
    x: Array, weight: Array, w: Plan, groups: int, bias: Array | None = None
) -> Array | None:
    """``y (N, *out, O)`` for ``x (N, *size, C)``, plus the bias."""
    with _array.on_device(x):
        shape = (x.shape[0], *w.out, weight.shape[0])
        y = _computed("conv_fprop", w, _cut(x, w), _last(weight), shape)
        if y is not None and bias is not None:
            y += bias
        return y


@_tried
def input_cotangent(dy: Array, weight: Array, w: Plan, groups: int) -> Array | None:
    """``dx (N, *size, C)`` for ``dy (N, *out, O)``."""
    with _array.on_device(dy):
        size, _ = _read(w)
        shape = (dy.shape[0], *size, weight.shape[1] * groups)
        dx = _computed("conv_dgrad", w, shape, _last(weight), _filled(dy))
        if dx is None or size == w.size:
            return dx
        whole = (dy.shape[0], *w.size, shape[-1])
        xp = _array.array_namespace(dy)
        return _array.written(xp.zeros(whole, dtype=dx.dtype), _inside(size), dx)


@_tried
def kernel_cotangent(x: Array, dy: Array, weight: Array, w: Plan, groups: int) -> Array | None:
    """``dweight`` for ``x (N, *size, C)`` and ``dy (N, *out, O)``."""
    with _array.on_device(x):
        shape = (weight.shape[0], *w.kernel, weight.shape[1])
        dweight = _computed("conv_wgrad", w, _cut(x, w), shape, _filled(dy))
        return None if dweight is None else _filled(_first(dweight))


ROUTES: dict[tuple[str, str], Callable[..., Any]] = {
    ("correlate", "cupy"): correlate,
    ("input_cotangent", "cupy"): input_cotangent,
    ("kernel_cotangent", "cupy"): kernel_cotangent,
}


# --- arrays: (N, *spatial, C), filled ---


def _read(w: Plan) -> tuple[Shape, tuple[Pair, ...]]:
    """What of the image is read, and the zeros around it by which cuDNN counts the windows."""
    if w.is_whole:
        return w.size, w.padding
    edges = w.edges
    return tuple(used for _, used, _ in edges), tuple((a, b) for a, _, b in edges)


def _inside(size: Shape) -> tuple[slice, ...]:
    return (slice(None), *(slice(0, n) for n in size), slice(None))


def _cut(x: Array, w: Plan) -> Array:
    """What the windows read of the image."""
    size, _ = _read(w)
    return _filled(x if size == w.size else x[_inside(size)])


def _last(weight: Array) -> Array:
    """The weight ``(O, C/G, *kernel)`` as ``(O, *kernel, C/G)``."""
    xp = _array.array_namespace(weight)
    return _filled(xp.permute_dims(weight, (0, *range(2, weight.ndim), 1)))


def _first(weight: Array) -> Array:
    xp = _array.array_namespace(weight)
    return xp.permute_dims(weight, (0, weight.ndim - 1, *range(1, weight.ndim - 1)))


def _filled(x: Array) -> Array:
    """``x`` in memory without gaps, in the order of its axes, that begins where cuDNN may read."""
    if not x.flags.c_contiguous:
        return _array.array_namespace(x).ascontiguousarray(x)
    return _array.copied(x) if x.data.ptr % ALIGNED else x


def _planar(values: tuple[T, ...], unit: T) -> tuple[T, ...]:
    """One entry per spatial dimension, of which cuDNN needs two."""
    return values if len(values) > 1 else (unit, *values)


def _described(x: Array | Shape) -> Shape:
    """The shape of ``(N, *spatial, C)`` as cuDNN lists it: ``(N, C, *spatial)``."""
    n, *spatial, c = x if isinstance(x, tuple) else x.shape
    return (n, c, *_planar(tuple(spatial), 1))


# --- running a plan ---


def _computed(
    operation: str, w: Plan, image: Array | Shape, weight: Array | Shape, y: Array | Shape
) -> Array | None:
    """The one of the three arrays that is given as a shape; ``None`` where there is no plan."""
    operands = {X: image, W: weight, Y: y}
    like = next(x for x in operands.values() if not isinstance(x, tuple))
    dtype = _array.dtype_name(like.dtype)
    cupy = importlib.import_module("cupy")
    problem = Problem(
        operation,
        image=_described(image),
        weight=_described(weight),
        y=_described(y),
        padding=_planar(_read(w)[1], (0, 0)),
        stride=_planar(w.stride, 1),
        dilation=_planar(w.dilation, 1),
        dtype=dtype,
        tf32=dtype == "float32" and precision() == "fast",
        device=like.device.id,
        scratch=workspace(like),
    )
    xp = _array.array_namespace(like)
    try:
        built = _own.plan(problem)
        if built is None:
            return None
        arrays = {
            uid: xp.empty(x, dtype=like.dtype) if isinstance(x, tuple) else x
            for uid, x in operands.items()
        }
        scratch = cupy.cuda.alloc(built.workspace)  # of the stream's own pool
        pointers = {uid: x.data.ptr for uid, x in arrays.items()}
        built.graph.execute(pointers, scratch.ptr, handle=_handle(problem.device))
    except Exception as error:  # it may do the next time
        raise _Failed(f"{problem}: {_detect.line(error)}") from None
    return next(arrays[uid] for uid, x in operands.items() if isinstance(x, tuple))


class _Kept:
    """Handles by device, the plans made with them, and how often one could not be made."""

    def __init__(self) -> None:
        self.handles: dict[int, Any] = {}
        self.plan = lru_cache(maxsize=1024)(_plan)
        self.failures: Counter[Problem] = Counter()


_spare: list[_Kept] = []
"""Of threads that have ended: there are as many in all as threads ran at one time."""


class _Lease:
    """Gone with the thread that has it."""


class _Own(threading.local):
    """Handles and plans: one thread's at a time, as cuDNN asks of handles.

    What a thread leaves behind the next one has. Nothing is destroyed: at the end of the process
    CUDA may be gone before.
    """

    def __init__(self) -> None:
        try:
            kept = _spare.pop()
        except IndexError:
            kept = _Kept()
        self.handles, self.plan, self.failures = kept.handles, kept.plan, kept.failures
        self.lease = _Lease()
        weakref.finalize(self.lease, _spare.append, kept).atexit = False


def _handle(device: int) -> Any:
    """This thread's handle of the device, which is the current one, on the current stream."""
    cudnn, cupy = find(), importlib.import_module("cupy")
    if device not in _own.handles:
        _own.handles[device] = cudnn.create_handle()
    cudnn.set_stream(handle=_own.handles[device], stream=cupy.cuda.get_current_stream().ptr)
    return _own.handles[device]


TRIES = 8
"""How often a plan is tried for that something else than cuDNN's no kept from being made."""


def _plan(problem: Problem) -> Built | None:
    """The plan for a problem; ``None``, which is kept, where there is none.

    Raises, which is not kept, what may pass: whatever does not say that cuDNN cannot do it.
    """
    cudnn = find()
    try:
        return build(cudnn, problem, handle=_handle(problem.device))
    except Exception as error:  # what is not supported, and a library in whatever way broken
        _own.failures[problem] += 1
        says_no = isinstance(error, cudnn.cudnnGraphNotSupportedError)
        lacks_memory = isinstance(error, MemoryError) or "ALLOC" in str(error)
        if lacks_memory or (not says_no and _own.failures[problem] < TRIES):
            raise
        say(
            f"{problem.operation} {problem.dtype} {problem.tf32}",
            f"cuDNN has no plan for {problem} ({_detect.line(error)})",
            "take cudnn out of DEVCONV_TRIAL",
        )
        return None


_own = _Own()
