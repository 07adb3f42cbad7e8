"""CuPy's part played by NumPy: strict where CuPy is, with two GPUs that nobody needs to own.

What is as in CuPy: NumPy arrays are refused and nothing becomes one by itself; reductions give
0-d arrays; ``device=`` is ignored at creation (but for ``array_api_compat``'s ``asarray``), arrays
land on the *current* device, which ``with x.device:`` sets; an array that is not on the current
device is refused (CuPy does so where one GPU cannot look into another's memory). What is stricter:
a read by the host is refused outside of :meth:`Watch.allowed`, and memory that nobody has filled
holds NaN. What is counted: launches, one for each array function that computes, none for views;
how each product of matrices was computed, and on which stream each launch went.

:func:`installed` puts it where ``import cupy`` and ``array_api_compat`` look, so that the library
takes every one of its CuPy branches. :func:`backend` is what ``DEVCONV_TEST_DEVICES=double`` makes
of it: the CuPy of tests that know nothing of it.
"""

from __future__ import annotations

import ctypes
import operator
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

import array_api_compat
import array_api_compat.numpy as host
import numpy as np
import pytest

from devconv import _detect
from devconv._fast import tf32 as route_tf32
from tests.backends import Backend

COUNT = 2
"""How many GPUs there are."""
MEMORY = (80 * 2**30, 8 * 2**30)
"""How much each has."""
CAPABILITY = {0: "90", 1: "90"}

PRODUCTS = ("matmul", "batched matmul", "dot", "vecdot", "tensordot")


STEADY = tuple(f"devconv.{room}." for room in ("functional", "layers", "optim", "_fast"))
"""Where nothing may be read, whoever calls."""


class HostRead(AssertionError):
    """The host waited for the device to look at a value."""


class Watch:
    """What was asked of the devices."""

    def __init__(self) -> None:
        self.reset()
        self._allowed = 0
        self._outside = False

    def reset(self) -> None:
        self.launches: Counter[str] = Counter()
        self.products: Counter[str] = Counter()
        self.streams: Counter[int] = Counter()
        self.reads: list[str] = []
        self.addresses: dict[int, ndarray] = {}
        self.order: list[tuple[str, int, int]] = []
        """What streams were told of each other: of which device, and which stream."""

    def launch(self, name: str) -> None:
        self.launches[name] += 1
        self.streams[_stream()] += 1
        if name in PRODUCTS:
            self.products["exact"] += 1

    def read(self, name: str) -> None:
        self.reads.append(name)
        asked = name == "get" or not _reader_is_steady(sys._getframe(1))
        if not self._allowed and not (self._outside and asked):
            raise HostRead(f"{name} waits for the device")

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let the host read; it is still counted."""
        self._allowed += 1
        try:
            yield
        finally:
            self._allowed -= 1

    def allow_outside(self) -> None:
        """From now on let the host read where it says so, but not inside an operation."""
        self._outside = True


def _reader_is_steady(frame: FrameType | None) -> bool:
    """Whether it is an operation, a layer or an optimizer that looks, and not a test."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if f"{name}.".startswith(STEADY):
            return True
        if name.startswith("tests.") and not name.startswith("tests.doubles."):
            return False
        frame = frame.f_back
    return False


watch = Watch()


class _Current(threading.local):
    def __init__(self) -> None:
        self.stack = [0]
        self.streams: list[Stream] = []


_current = _Current()


def _stream() -> int:
    return _current.streams[-1].ptr if _current.streams else 0


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

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    @property
    def compute_capability(self) -> str:
        return CAPABILITY[self.id]

    def synchronize(self) -> None:
        watch.read("synchronize")


class Memory:
    """Where an array begins, as ``x.data``; who is given the address finds the array by it."""

    def __init__(self, x: ndarray) -> None:
        self.ptr: int = x._values.ctypes.data
        watch.addresses[self.ptr] = x


class Stream:
    """A queue of work; as a context, the current one of this thread."""

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr

    def __enter__(self) -> Stream:
        _current.streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.streams.pop()

    def record(self) -> tuple[int, int]:
        event = (_current.stack[-1], self.ptr)
        watch.order.append(("done", *event))
        return event

    def wait_event(self, event: tuple[int, int]) -> None:
        watch.order.append((f"waits for {event}", _current.stack[-1], self.ptr))


def alloc(size: int) -> Memory:
    """Scratch memory of the current device."""
    return ndarray(garbage(np.empty(size, dtype=np.uint8)), _current.stack[-1]).data


def garbage(values: np.ndarray) -> np.ndarray:
    """An array whose memory nobody has filled: NaN in every floating dtype, -1 in integers."""
    flat = values if values.flags.c_contiguous else values.T
    if flat.flags.c_contiguous:
        flat.reshape(-1).view(np.uint8)[...] = 0xFF
    else:  # in the order of another array, without gaps
        values[...] = np.frombuffer(b"\xff" * values.itemsize, values.dtype)[0]
    return values


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
    data = property(lambda self: Memory(self))
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

    def copy(self, order: str = "C") -> ndarray:
        return _moved(self, "copy", order)

    def transpose(self, *axes: int) -> ndarray:
        return ndarray(self._values.transpose(*axes), self._device)

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
    """Products of stacks of matrices are counted apart: CuPy copies, widens and refuses some.

    So are sums over rows, which are products with a vector.
    """
    if name == "matmul" and isinstance(arguments[0], ndarray) and arguments[0].ndim == 1:
        return "sum of rows"
    stacked = name == "matmul" and any(a.ndim > 2 for a in arguments if isinstance(a, ndarray))
    return "batched matmul" if stacked else name


def _moved(x: ndarray, name: str, order: Any = "K") -> ndarray:
    """A copy on the current device, wherever ``x`` is: that one may cross, if it has no gaps."""
    if x._device != _current.stack[-1]:
        if not (x.flags.c_contiguous or x.flags.f_contiguous or order == "C"):
            raise NotImplementedError("CuPy cannot copy non-contiguous array between devices.")
        watch.order.append(("copy", _current.stack[-1], _stream()))
    watch.launch(name)
    return ndarray(x._values.copy(order=order), _current.stack[-1])


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
        if name in ("empty", "empty_like"):
            result = garbage(result)
        if name in VIEWS and _is_view(result, found[0]):
            return _wrapped(result, found[0]._device)
        _here(_batched(name, found), *found)
        return _wrapped(result, _current.stack[-1])

    call.__name__ = call.__qualname__ = name
    if isinstance(compute, np.ufunc):  # so are CuPy's
        call.nin = compute.nin  # type: ignore[attr-defined]
    return call


def _is_view(result: Any, x: ndarray) -> bool:
    every = result if isinstance(result, tuple | list) else [result]
    return x.size == 0 or all(np.may_share_memory(r, x._values) for r in every)


def asarray(obj: Any, /, *, dtype: Any = None, copy: bool | None = None) -> ndarray:
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


def _asarray_there(obj: Any, /, *, device: Any = None, **how: Any) -> ndarray:
    """``array_api_compat``'s, the one way of making arrays that heeds ``device=``."""
    with Device(device):
        return asarray(obj, **how)


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
    asarray=_asarray_there,
    linalg=_namespace("array_api_compat.cupy.linalg", host.linalg),
    fft=_namespace("array_api_compat.cupy.fft", host.fft),
    __array_namespace_info__=_Info,
)

# --- cuBLAS ---


def tf32(x: np.ndarray) -> np.ndarray:
    """float32 numbers rounded to the 10 bits of TF32's mantissa; ties to even."""
    bits = np.array(x, dtype=np.float32).view(np.uint32)
    return ((bits + (0xFFF + ((bits >> 13) & 1))) & 0xFFFFE000).astype(np.uint32).view(np.float32)


def _columns(pointer: int, rows: int, columns: int, step: int) -> np.ndarray:
    """A matrix that lies in columns ``step`` numbers apart, as cuBLAS sees all matrices."""
    at = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
    flat = np.ctypeslib.as_array(at, shape=((columns - 1) * step + rows,))
    size = flat.itemsize
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (size, step * size))


def _number(pointer: int) -> float:
    return ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))[0]


def gemm_ex(
    handle: int, a_across: int, b_across: int, m: int, n: int, k: int,
    alpha: int, a: int, a_type: int, a_step: int, b: int, b_type: int, b_step: int,
    beta: int, c: int, c_type: int, c_step: int, kind: int, how: int,
) -> None:  # fmt: skip
    """``c = alpha · a b + beta · c`` in column order, by cuBLAS's documentation of cublasGemmEx."""
    assert handle == 1 + _current.stack[-1], "the handle of another device"
    assert (a_type, b_type, c_type, how) == (0, 0, 0, _cublas.CUBLAS_GEMM_DEFAULT)
    assert min(m, n, k) > 0
    left = _columns(a, k, m, a_step).T if a_across else _columns(a, m, k, a_step)
    right = _columns(b, n, k, b_step).T if b_across else _columns(b, k, n, b_step)
    assert a_step >= (k if a_across else m)
    assert b_step >= (n if b_across else k)
    assert c_step >= m
    watch.launch("gemmEx")
    watch.products["tf32" if kind == _cublas.CUBLAS_COMPUTE_32F_FAST_TF32 else "exact"] += 1
    y, before = _number(alpha) * (tf32(left) @ tf32(right)), _columns(c, m, n, c_step)
    before[...] = y + (_number(beta) * before if _number(beta) else 0.0)


as_strided = _function("as_strided", np.lib.stride_tricks.as_strided)
_stride_tricks = _module("cupy.lib.stride_tricks", as_strided=as_strided)
_runtime = _module(
    "cupy.cuda.runtime",
    getDeviceCount=lambda: COUNT,
    getDeviceProperties=lambda id: {"name": b"a double", "totalGlobalMem": MEMORY[id]},
    is_hip=False,
    driverGetVersion=lambda: 13000,
)
_cublas = _module(
    "cupy_backends.cuda.libs.cublas",
    gemmEx=gemm_ex,
    CUBLAS_OP_N=0,
    CUBLAS_OP_T=1,
    CUBLAS_GEMM_DEFAULT=-1,
    CUBLAS_COMPUTE_32F_FAST_TF32=77,
)
_cupy = _module(
    "cupy",
    __version__="14.2.0",
    ndarray=ndarray,
    asarray=asarray,
    empty=namespace.empty,
    ones=namespace.ones,
    is_available=lambda: True,
    cuda=_module(
        "cupy.cuda",
        Device=Device,
        Stream=Stream,
        runtime=_runtime,
        alloc=alloc,
        cublas=_cublas,
        get_cublas_handle=lambda: 1 + _current.stack[-1],
        get_current_stream=lambda: _current.streams[-1] if _current.streams else Stream(0),
    ),
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
        patch.setattr(route_tf32, "_verdicts", {})
        with watch.allowed():
            _try_out()
        watch.reset()
        yield


def _try_out() -> None:
    """Let devconv try the devices out now, while the host may read."""
    from devconv.device import device

    for index in range(COUNT):
        device(f"cuda:{index}")
        route_tf32.has_tf32(Device(index))


# --- in CuPy's place ---


@dataclass(frozen=True)
class _Double(Backend):
    def to_numpy(self, x: Any) -> np.ndarray:
        with watch.allowed():
            return super().to_numpy(x)


def backend() -> Backend:
    """The double's second GPU as the tests' CuPy, while the first is current; for good."""
    _for_good.enter_context(installed())
    watch.allow_outside()
    return _Double("cupy", namespace, Device(1))


_for_good = ExitStack()
