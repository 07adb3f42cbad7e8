"""The only door to ``array-api-compat``: which library, which device, how to reach the host.

Everything else in the package asks here, so that no other room needs to know how a
library spells its devices, its half-precision types or its way to NumPy.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat as compat
import numpy as np
from array_api_extra import at

from devconv._check import InvalidType

Array: TypeAlias = Any
"""An array of any library that follows the Python array API standard."""
Namespace: TypeAlias = Any
"""The module whose functions compute on an array, ``xp`` by custom."""

NAMES = {
    "numpy": "NumPy",
    "cupy": "CuPy",
    "torch": "PyTorch",
    "jax": "JAX",
    "array_api_strict": "array-api-strict",
}
HALF = ("float16", "bfloat16")
FLOATING = frozenset(("float32", "float64", *HALF))

# Subclasses of numpy.ndarray whose arithmetic means something else.
_STRANGE = (np.ma.MaskedArray, np.matrix)


def is_plain(x: object) -> bool:
    """Whether ``x`` is a NumPy array and no subclass: the common case, told at once."""
    return type(x) is np.ndarray


def is_array(x: object) -> bool:
    """Whether ``x`` is an array of a library that follows the standard."""
    kind = type(x)
    if kind in _arrays:
        return True
    found = compat.is_array_api_obj(x) and not isinstance(x, (type, *_STRANGE))
    if found:
        _arrays.add(kind)
    return found


def array_namespace(x: Array) -> Namespace:
    """The namespace of the library that ``x`` belongs to."""
    xp = _namespaces.get(type(x))
    if xp is None:
        xp = compat.array_namespace(x)
        if is_array(x):
            _namespaces[type(x)] = xp
    return xp


def host() -> Namespace:
    """The namespace of the host's own library, NumPy."""
    return _HOST


# What the type of an array tells, remembered: every operation asks, several times.
_HOST = compat.array_namespace(np.empty(0))
_arrays: set[type] = {np.ndarray}
_namespaces: dict[type, Namespace] = {np.ndarray: _HOST}
_libraries: dict[type, str] = {}


@lru_cache(maxsize=64)
def _library_of_module(name: str) -> str:
    root, _, rest = name.partition(".")
    return rest.split(".")[0] if root == "array_api_compat" else root


def library(xp: Namespace) -> str:
    """The short name of a namespace's library: ``"numpy"``, ``"cupy"``, ``"torch"``, ..."""
    return _library_of_module(xp.__name__)


def library_of(x: Array) -> str:
    """The short name of the library that ``x`` belongs to."""
    name = _libraries.get(type(x))
    if name is None:
        name = _libraries[type(x)] = library(array_namespace(x))
    return name


def device(x: Array) -> Any:
    """The library's own device object of ``x``; ``None`` under ``jax.jit``."""
    if library_of(x) == "cupy":
        return x.device  # what array-api-compat finds after asking whether it is JAX's, Dask's, ...
    return compat.device(x)


def device_name(x: Array) -> str:
    """The device of ``x`` as this library names devices: ``"cpu"``, ``"cuda:0"``, ``"torch"``."""
    return spec_of(library_of(x), device(x))


def spec_of(name: str, native: Any) -> str:
    """The device string for the device object ``native`` of the library called ``name``."""
    if name == "numpy":
        return "cpu"
    if name == "cupy":
        return f"cuda:{native.id}"
    if name == "jax":
        return "jax" if native is None else _jax_spec(native)
    if name == "array_api_strict":
        label = str(native).partition("('")[2].rstrip("')") or str(native)
        return name if label == "CPU_DEVICE" else f"{name}:{label}"
    return name if str(native) == "cpu" else f"{name}:{native}"


def single_device(native: Any) -> Any:
    """``native`` itself, or the first device of a JAX array that is spread over several."""
    if hasattr(native, "device_set"):
        return min(native.device_set, key=lambda d: d.id)
    return native


def move(x: Array, native: Any) -> Array:
    """``x`` on another device of its own library."""
    if library_of(x) == "cupy":
        return _across(x, native)
    return compat.to_device(x, native)


def _across(x: Array, native: Any) -> Array:
    """A CuPy array on another GPU, in step with the streams that are current on the two.

    CuPy copies what has no gaps, on a stream of the GPU that it comes to, which knows nothing of
    the one that computes ``x``.
    """
    stream = _module("cupy").cuda.get_current_stream
    with x.device:
        if not (x.flags.c_contiguous or x.flags.f_contiguous):
            x = x.copy(order="C")
        computed = stream().record()
    with native:
        stream().wait_event(computed)
        y = compat.to_device(x, native)
        copied = stream().record()
    with x.device:
        stream().wait_event(copied)  # before the memory of x may be written again
    return y


def _jax_spec(native: Any) -> str:
    first = single_device(native)
    if first.platform == "cpu":
        return "jax" if first.id == 0 else f"jax:cpu:{first.id}"
    platform = "cuda" if first.platform == "gpu" else first.platform
    return f"jax:{platform}:{first.id}"


def dtype_name(dtype: Any) -> str:
    """The name of a dtype whatever the library: ``"float32"``."""
    key = (type(dtype), dtype)  # the type first: dtypes of two libraries dislike comparison
    name = _dtype_names.get(key)
    if name is None:
        name = _dtype_names[key] = _name_of_dtype(dtype)
    return name


_dtype_names: dict[tuple[type, Any], str] = {}


def _name_of_dtype(dtype: Any) -> str:
    if isinstance(dtype, str):
        return dtype
    if isinstance(dtype, np.dtype):
        return dtype.name
    if isinstance(dtype, type) and issubclass(dtype, np.generic):
        return np.dtype(dtype).name
    if hasattr(dtype, "_np_dtype"):  # array-api-strict
        return str(dtype._np_dtype)
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return str(name).rpartition(".")[2]


def dtype_of(xp: Namespace, name: str) -> Any:
    """The dtype called ``name`` in the namespace ``xp``."""
    dtype = find_dtype(xp, name)
    if dtype is None:
        raise InvalidType(f"{NAMES.get(library(xp), library(xp))} has no dtype {name!r}")
    return dtype


def find_dtype(xp: Namespace, name: str) -> Any:
    """The dtype called ``name`` in the namespace ``xp``; ``None`` where it has none.

    CuPy computes in bfloat16 from version 14 on, but the dtype itself is that of ``ml_dtypes``.
    """
    dtype = getattr(xp, name, None)
    if dtype is None and name == "bfloat16" and library(xp) == "cupy":
        return _bfloat16(_module("cupy").__version__)
    return dtype


@lru_cache(maxsize=8)
def _bfloat16(cupy_version: str) -> Any:
    if int(cupy_version.partition(".")[0]) < 14:
        return None
    try:
        return np.dtype(_module("ml_dtypes").bfloat16)
    except ImportError:
        return None


def is_floating(x: Array) -> bool:
    """Whether ``x`` holds real floating-point numbers (half precision included)."""
    return dtype_name(x.dtype) in FLOATING


def is_integer(x: Array) -> bool:
    """Whether ``x`` holds signed or unsigned integers."""
    return dtype_name(x.dtype).startswith(("int", "uint"))


def wide_dtype(x: Array) -> Any:
    """The dtype that long sums over ``x`` use: float32 for half precision, else its own."""
    return array_namespace(x).float32 if dtype_name(x.dtype) in HALF else x.dtype


def index_dtype(x: Array) -> Any:
    """The integer dtype in which the device of ``x`` counts."""
    info = array_namespace(x).__array_namespace_info__()
    return info.default_dtypes(device=device(x))["indexing"]


def word_dtype(xp: Namespace) -> Any:
    """The integers of 32 bits that wrap around and shift: uint32, but int32 in PyTorch.

    Its uint32 neither adds nor shifts.
    """
    return xp.int32 if library(xp) == "torch" else xp.uint32


def widen(x: Array) -> Array:
    """``x`` in :func:`wide_dtype`; ``x`` itself when it is that already."""
    return cast(x, wide_dtype(x))


def cast(x: Array, dtype: Any) -> Array:
    """``x`` with ``dtype``; ``x`` itself when it has it already."""
    return x if x.dtype == dtype else array_namespace(x).astype(x, dtype)


def how_to_cast(name: str, x: Array, dtype: str) -> str:
    """What its user writes to give the array ``x``, called ``name``, another dtype.

    >>> how_to_cast("x", np.ones(2), "float32")
    'x.astype("float32")'
    """
    kind = library_of(x)
    if kind == "torch":
        return f"{name}.to(dtype=torch.{dtype})"
    if kind == "array_api_strict":
        return f"xp.astype({name}, xp.{dtype})"
    return f'{name}.astype("{dtype}")'


def copied(x: Array) -> Array:
    """The same numbers in memory of their own."""
    return array_namespace(x).asarray(x, copy=True)


def written(x: Array, index: Any, value: Array) -> Array:
    """``x`` with ``value`` at ``index``; in place where the library's arrays can be written.

    ``torch.compile`` would lose its way in ``at``.
    """
    if _is_writable(x):
        x[index] = value
        return x
    return at(x)[index].set(value)


def added(x: Array, index: Any, value: Array) -> Array:
    """``x`` with ``value`` added at ``index``, slices; in place as in :func:`written`."""
    if _is_writable(x):
        part = x[index]  # a view: x[index] += value would write what is there already once more
        part += value
        return x
    return at(x)[index].add(value)


def masked(x: Array, kept: Array) -> Array:
    """``x`` where ``kept``, else 0 times ``x``: NaN and infinity are not hidden.

    A product, because NumPy takes longer to choose by a mask than to multiply; ``jax.jit`` makes
    a choice of it, which does hide them.
    """
    return x * (kept if library_of(x) == "cupy" else array_namespace(x).astype(kept, x.dtype))


def _is_writable(x: Array) -> bool:
    """Whether ``x`` itself may be written into."""
    name = library_of(x)
    return name in ("torch", "cupy") or (name == "numpy" and x.flags.writeable)


def detached(x: Array) -> Array:
    """``x`` without the graph that PyTorch's own autograd may have tied to it."""
    return x.detach() if getattr(x, "requires_grad", False) else x


def is_traced(x: Array) -> bool:
    """Whether ``x`` stands for an array that ``jax.jit`` will know later."""
    return library_of(x) == "jax" and device(x) is None


def on_device(x: Array) -> AbstractContextManager[Any]:
    """Make the device of ``x`` the current one where a library has such a thing (CuPy).

    CuPy ignores ``device=`` at creation and creates on the current device instead.
    """
    if library_of(x) == "cupy":
        return x.device
    return nullcontext()


def overflowing() -> AbstractContextManager[Any]:
    """Where an overflow is expected and looked for: NumPy says nothing of it inside.

    >>> with overflowing():
    ...     np.asarray(1e6, dtype="float32").astype("float16")
    array(inf, dtype=float16)
    """
    return np.errstate(over="ignore", invalid="ignore")


def is_readable(x: Array) -> bool:
    """Whether reading values of ``x`` costs nothing: no device to wait for, nothing traced."""
    name = library_of(x)
    if name == "numpy":
        return True
    if name == "array_api_strict":
        return device_name(x) == name
    if name == "torch":
        import torch

        traced = torch.compiler.is_compiling() or type(x) is not torch.Tensor
        return x.device.type == "cpu" and not traced
    return False


def to_numpy(x: Array) -> np.ndarray:
    """Bring an array to the host as a NumPy array (PyTorch and JAX on a CPU: no copy).

    ``bfloat16``, which NumPy does not have, arrives as float32 with the same values.

    >>> import numpy as np
    >>> to_numpy(np.ones(2))
    array([1., 1.])
    """
    if isinstance(x, np.ndarray | np.generic):
        return np.asarray(x)
    if not is_array(x):
        raise InvalidType(
            f"to_numpy: expected an array, got {type(x).__name__}; make one with numpy.asarray(x)"
        )
    xp = array_namespace(x)
    if dtype_name(x.dtype) == "bfloat16":
        with on_device(x):
            x = xp.astype(x, xp.float32)
    name = library(xp)
    if name == "cupy":
        with on_device(x):
            return x.get()
    if name == "torch":
        return x.numpy(force=True)  # detached, and lazy conjugates and minus signs carried out
    if name == "jax" and device(x) is None:
        raise InvalidType("to_numpy: x is traced by jax.jit and has no values yet")
    if name == "array_api_strict":
        return np.asarray(x.to_device(xp.Device("CPU_DEVICE")))
    return np.asarray(x)


def as_array(x: Array) -> Array:
    """A 0-d array where NumPy's reductions hand back a scalar; everything else unchanged."""
    return np.asarray(x) if isinstance(x, np.generic) else x


class ReadOnly(Mapping[str, Array]):
    """A mapping of arrays by name that cannot be changed; ``jax.jit`` takes it as it is.

    >>> ReadOnly({"weight": 1})
    ReadOnly({'weight': 1})
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)
        _tell_jax()

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"ReadOnly({self._arrays!r})"

    def __or__(self, other: Mapping[str, Array]) -> dict[str, Array]:
        return {**self._arrays, **other}


def _tell_jax() -> None:
    """Register :class:`ReadOnly` as a container with JAX, if JAX is in use."""
    if "jax" not in sys.modules or _told:
        return
    with _telling:
        if _told or not hasattr(sys.modules["jax"], "tree_util"):
            return  # told by another thread, or still being imported: the next time, then
        _module("jax").tree_util.register_pytree_with_keys(
            ReadOnly,
            lambda m: ([(_module("jax").tree_util.DictKey(n), m[n]) for n in m], tuple(m)),
            lambda names, arrays: ReadOnly(dict(zip(names, arrays, strict=True))),
        )
        _told.append("jax")


_told: list[str] = []
_telling = threading.Lock()


def _module(name: str) -> ModuleType:
    import importlib

    return importlib.import_module(name)
