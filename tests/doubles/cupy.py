"""CuPy's part played by NumPy: strict where CuPy is, with two GPUs that nobody needs to own.

What is as in CuPy: NumPy arrays are refused and nothing becomes one by itself; reductions give
0-d arrays; ``device=`` is ignored at creation, arrays land on the *current* device, which
``with x.device:`` sets; an array that is not on the current device is refused (CuPy does so
where one GPU cannot look into another's memory). What is stricter: a read by the host
is refused outside of :meth:`Watch.allowed`. What is counted: launches, one for each array function
that computes, none for views.

:func:`installed` puts it where ``import cupy`` and ``array_api_compat`` look, so that the library
takes every one of its CuPy branches.
"""

from __future__ import annotations

import operator
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import array_api_compat
import array_api_compat.numpy as host
import numpy as np
import pytest

from devconv import _detect

COUNT = 2
"""How many GPUs there are."""


class HostRead(AssertionError):
    """The host waited for the device to look at a value."""


class Watch:
    """What was asked of the devices."""

    def __init__(self) -> None:
        self.reset()
        self._allowed = 0

    def reset(self) -> None:
        self.launches: Counter[str] = Counter()
        self.reads: list[str] = []

    def launch(self, name: str) -> None:
        self.launches[name] += 1

    def read(self, name: str) -> None:
        self.reads.append(name)
        if not self._allowed:
            raise HostRead(f"{name} waits for the device")

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let the host read; it is still counted."""
        self._allowed += 1
        try:
            yield
        finally:
            self._allowed -= 1


watch = Watch()


class _Current(threading.local):
    def __init__(self) -> None:
        self.stack = [0]


_current = _Current()


class Device:
    """A GPU by its number; as a context, the current one."""

    def __init__(self, id: int | Device | None = None) -> None:
        self.id = _current.stack[-1] if id is None else int(getattr(id, "id", id))
        if not 0 <= self.id < COUNT:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self) -> Device:
        _current.stack.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        _current.stack.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        watch.read("synchronize")


class ndarray:
    """An array on one of the devices."""

    __array_ufunc__ = None  # NumPy leaves its operators to ours
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: Any, device: int) -> None:
        self._values, self._device = np.asarray(values), device

    device = property(lambda self: Device(self._device))
    dtype = property(lambda self: self._values.dtype)
    shape = property(lambda self: self._values.shape)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    nbytes = property(lambda self: self._values.nbytes)
    itemsize = property(lambda self: self._values.itemsize)
    strides = property(lambda self: self._values.strides)
    flags = property(lambda self: self._values.flags)
    T = property(lambda self: ndarray(self._values.T, self._device))
    mT = property(lambda self: ndarray(self._values.mT, self._device))

    def __array_namespace__(self, api_version: str | None = None) -> ModuleType:
        return namespace

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __repr__(self) -> str:
        return f"<array {self.shape} {self.dtype} on GPU {self._device}>"

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def get(self) -> np.ndarray:
        watch.read("get")
        return self._values.copy(order="K")

    def item(self) -> Any:
        watch.read("item")
        return self._values.item()

    def tolist(self) -> Any:
        watch.read("tolist")
        return self._values.tolist()

    def __getitem__(self, key: Any) -> ndarray:
        keys = key if isinstance(key, tuple) else (key,)
        arrays = [k for k in keys if isinstance(k, ndarray)]
        if any(k.dtype == bool for k in arrays):
            watch.read("an index of booleans")
        plain = tuple(k._values if isinstance(k, ndarray) else k for k in keys)
        if not arrays and not any(isinstance(k, list | np.ndarray) for k in keys):
            whole = plain if Ellipsis in plain else (*plain, ...)  # a view, 0-d ones included
            return ndarray(self._values[whole], self._device)
        return _computed("getitem", self._values[plain], self, *arrays)

    def __setitem__(self, key: Any, value: Any) -> None:
        keys = key if isinstance(key, tuple) else (key,)
        _refuse(value)
        _here("setitem", self, value, *keys)
        plain = tuple(k._values if isinstance(k, ndarray) else k for k in keys)
        self._values[plain] = value._values if isinstance(value, ndarray) else value

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        if not copy and self.dtype == dtype:
            return self
        return _computed("astype", self._values.astype(dtype), self)

    def copy(self) -> ndarray:
        return _moved(self, "copy")

    def reshape(self, *shape: Any) -> ndarray:
        return namespace.reshape(self, shape[0] if isinstance(shape[0], tuple) else shape)


def _binary(name: str) -> None:
    compute = getattr(operator, f"__{name}__")

    def forward(self: ndarray, other: Any) -> ndarray:
        return _calculated(name, compute, self, other)

    def backward(self: ndarray, other: Any) -> ndarray:
        return _calculated(name, compute, other, self)

    def in_place(self: ndarray, other: Any) -> ndarray:
        _refuse(other)
        _here(name, self, other)
        with np.errstate(all="ignore"):
            values = getattr(operator, f"__i{name}__")(
                self._values, other._values if isinstance(other, ndarray) else other
            )
        assert values is self._values or self.ndim == 0
        self._values = np.asarray(values)
        return self

    setattr(ndarray, f"__{name}__", forward)
    if name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(ndarray, f"__r{name}__", backward)
        setattr(ndarray, f"__i{name}__", in_place)


for _name in (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("and_", "or_", "xor", "lshift", "rshift"),
    *("lt", "le", "gt", "ge", "eq", "ne"),
):
    _binary(_name.rstrip("_"))


def _unary(name: str) -> None:
    compute = getattr(operator, f"__{name}__")
    setattr(ndarray, f"__{name}__", lambda self: _calculated(name, compute, self))


for _name in ("neg", "pos", "abs", "invert"):
    _unary(_name)


def _reader(name: str, convert: Callable[[Any], Any]) -> None:
    def read(self: ndarray) -> Any:
        watch.read(name)
        return convert(self._values)

    setattr(ndarray, name, read)


for _convert in (bool, int, float, complex, operator.index):
    _reader(f"__{_convert.__name__}__", _convert)


# --- computing ---


def _refuse(*values: Any) -> None:
    for value in values:
        if isinstance(value, np.ndarray):
            raise TypeError(f"Unsupported type {type(value)}")


def _here(name: str, *values: Any) -> None:
    """Count a launch on the current device, which is where all arrays must be."""
    now = _current.stack[-1]
    for value in values:
        if isinstance(value, ndarray) and value._device != now:
            raise ValueError(
                f"{name}: Array device must be same as the current device: "
                f"array device = {value._device} while current = {now}"
            )
    watch.launch(name)


def _computed(name: str, values: Any, *arguments: Any) -> ndarray:
    _here(name, *arguments)
    return ndarray(values, _current.stack[-1])


_OPERANDS = (ndarray, np.ndarray, np.generic, int, float, complex)


def _calculated(name: str, compute: Callable[..., Any], *arguments: Any) -> ndarray:
    """An operator on arrays and numbers."""
    if not all(isinstance(a, _OPERANDS) for a in arguments):
        return NotImplemented
    _refuse(*arguments)
    name = _batched(name, arguments)
    with np.errstate(all="ignore"):
        values = compute(*(a._values if isinstance(a, ndarray) else a for a in arguments))
    return _computed(name, values, *arguments)


def _batched(name: str, arguments: Any) -> str:
    """Products of stacks of matrices are counted apart: CuPy copies, widens and refuses some."""
    stacked = name == "matmul" and any(a.ndim > 2 for a in arguments if isinstance(a, ndarray))
    return "batched matmul" if stacked else name


def _moved(x: ndarray, name: str) -> ndarray:
    """A copy on the current device, wherever ``x`` is: that one may cross."""
    watch.launch(name)
    return ndarray(x._values.copy(order="K"), _current.stack[-1])


def _walk(value: Any, found: list[ndarray]) -> Any:
    """An argument with arrays replaced by their values, which ``found`` collects."""
    if isinstance(value, ndarray):
        found.append(value)
        return value._values
    _refuse(value)
    if isinstance(value, list | tuple):
        return type(value)([_walk(v, found) for v in value])
    return value


def _wrapped(result: Any, device: int) -> Any:
    if isinstance(result, np.ndarray | np.generic):
        return ndarray(result, device)
    if isinstance(result, tuple | list):
        kind: Any = type(result)
        items = [_wrapped(r, device) for r in result]
        return kind(*items) if hasattr(kind, "_fields") else kind(items)
    return result


VIEWS = {
    *("reshape", "permute_dims", "expand_dims", "squeeze", "broadcast_to", "broadcast_arrays"),
    *("moveaxis", "flip", "unstack", "matrix_transpose", "real", "imag", "diagonal", "astype"),
    "as_strided",
}
FACTS = {"isdtype", "result_type", "finfo", "iinfo", "can_cast", "broadcast_shapes"}
WAITS = {"nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values", "repeat"}


def _function(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        found: list[ndarray] = []
        kwargs.pop("device", None)  # ignored, as CuPy does
        if name in FACTS:
            return compute(*_walk(args, found), **kwargs)
        plain = _walk(args, found)
        named = {key: _walk(value, found) for key, value in kwargs.items()}
        if name in WAITS:
            watch.read(name)
        with np.errstate(all="ignore"):
            result = compute(*plain, **named)
        if name in VIEWS and _is_view(result, found[0]):
            return _wrapped(result, found[0]._device)
        _here(_batched(name, found), *found)
        return _wrapped(result, _current.stack[-1])

    call.__name__ = call.__qualname__ = name
    return call


def _is_view(result: Any, x: ndarray) -> bool:
    every = result if isinstance(result, tuple | list) else [result]
    return x.size == 0 or all(np.may_share_memory(r, x._values) for r in every)


def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None
) -> ndarray:
    """An array on the current device; from the host, and from another device, a copy."""
    if isinstance(obj, ndarray):
        if obj._device == _current.stack[-1] and not copy and dtype in (None, obj.dtype):
            return obj
        there = _moved(obj, "asarray")
        return there if dtype in (None, obj.dtype) else there.astype(dtype)
    if isinstance(obj, list | tuple) and any(isinstance(o, ndarray) for o in obj):
        raise TypeError("Unsupported type: a list of arrays")
    watch.launch("asarray")
    return ndarray(np.array(obj, dtype=dtype, order="C"), _current.stack[-1])


class _Info:
    """``xp.__array_namespace_info__()``, whatever the device."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def answer(*, device: Any = None, **how: Any) -> Any:
            return getattr(host.__array_namespace_info__(), name)(**how)

        return answer


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    return module


def _namespace(name: str, source: Any) -> ModuleType:
    """A namespace with every public function of NumPy's, and its dtypes and constants."""
    found = {}
    for public in dir(source):
        value = getattr(source, public)
        if isinstance(value, type | float | None):
            found[public] = value
        elif callable(value) and not public.startswith("_"):
            found[public] = _function(public, value)
    return _module(name, **found)


namespace = _namespace("array_api_compat.cupy", host)
vars(namespace).update(
    asarray=asarray,
    linalg=_namespace("array_api_compat.cupy.linalg", host.linalg),
    fft=_namespace("array_api_compat.cupy.fft", host.fft),
    __array_namespace_info__=_Info,
)

as_strided = _function("as_strided", np.lib.stride_tricks.as_strided)
_stride_tricks = _module("cupy.lib.stride_tricks", as_strided=as_strided)
_runtime = _module(
    "cupy.cuda.runtime",
    getDeviceCount=lambda: COUNT,
    getDeviceProperties=lambda id: {"name": b"a double"},
    driverGetVersion=lambda: 13000,
)
_cupy = _module(
    "cupy",
    __version__="14.2.0",
    ndarray=ndarray,
    asarray=asarray,
    is_available=lambda: True,
    cuda=_module("cupy.cuda", Device=Device, runtime=_runtime),
    lib=_module("cupy.lib", stride_tricks=_stride_tricks),
)


@contextmanager
def installed() -> Iterator[None]:
    """Let ``import cupy`` find the double, and devconv look for devices anew."""
    with pytest.MonkeyPatch.context() as patch:
        modules = {"cupy": _cupy, "cupy.cuda": _cupy.cuda, "cupy.lib": _cupy.lib}
        modules |= {"cupy.lib.stride_tricks": _stride_tricks, "array_api_compat.cupy": namespace}
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(array_api_compat, "cupy", namespace, raising=False)
        patch.setattr(_detect, "_answers", {})
        with watch.allowed():
            _try_out()
        watch.reset()
        yield


def _try_out() -> None:
    """Let devconv try the devices out now, while the host may read."""
    from devconv.device import device

    for index in range(COUNT):
        device(f"cuda:{index}")
