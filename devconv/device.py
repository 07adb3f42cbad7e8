"""Find a device, say why it was chosen, and move arrays to it.

Operations need nothing from here: the arrays they are handed decide. This is for whoever
has to choose: ``device("auto")`` is the first CUDA GPU that works, else the CPU, and its
``reason`` says why. A GPU counts as *usable* when its library imports, finds it, **and** a
first kernel and matrix product gave the right numbers on it; that is asked once, when first
needed. A device asked for by name that cannot be used is an error saying what to install.

Inside the package always ``from devconv.device import ...``: the attribute ``devconv.device``
is the function.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from devconv import _array
from devconv._array import NAMES, Array, Namespace
from devconv._check import InvalidType, InvalidValue, located, show
from devconv._detect import FIND, FORMS, Unusable, cupy_install, line, look_for_cupy, once, unknown

VARIABLE = "DEVCONV_DEVICE"
"""The environment variable that overrides ``"auto"``."""

_KINDS = (
    _FLOATING := ("float16", "bfloat16", "float32", "float64"),
    _COMPLEX := ("complex64", "complex128"),
    ("int8", "int16", "int32", "int64"),
    ("uint8", "uint16", "uint32", "uint64"),
    ("bool",),
)
_X64 = ("float64", "int64", "uint64", "complex128")
_NAMESPACES = {
    "numpy": "array_api_compat.numpy",
    "cupy": "array_api_compat.cupy",
    "torch": "array_api_compat.torch",
    "jax": "jax.numpy",
    "array_api_strict": "array_api_strict",
}


@dataclass(frozen=True)
class Device:
    """Where arrays live: a library, and a device of it. Made by :func:`device`.

    Two are equal when their ``spec`` is; ``str(d)`` reads ``cuda:0 (cupy)``.

    Attributes:
        spec: the name :func:`device` knows it by: ``"cpu"``, ``"cuda:0"``, ``"torch:cuda:0"``.
        library: ``"numpy"``, ``"cupy"``, ``"torch"``, ``"jax"`` or ``"array_api_strict"``.
        native: the library's own device object, for its ``device=`` arguments; ``None`` for
            an array traced by ``jax.jit``, whose device is not known yet.
        reason: one line: why ``"auto"`` chose it, or that it was asked for.
    """

    spec: str
    library: str = field(compare=False)
    native: Any = field(compare=False, repr=False)
    reason: str = field(compare=False)

    @property
    def xp(self) -> Namespace:
        """The namespace whose functions compute here, as ``array_api_compat`` gives it."""
        return import_module(_NAMESPACES[self.library])

    @property
    def place(self) -> str:
        """The device without its library: ``"cpu"``, ``"cuda:0"``."""
        if self.library in ("numpy", "cupy"):
            return self.spec
        return self.spec.partition(":")[2] or "cpu"

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The names of the real floating dtypes that exist here.

        >>> device("cpu").dtypes
        ('float16', 'float32', 'float64')
        """
        return tuple(name for name in _FLOATING if self.has_dtype(name))

    def has_dtype(self, dtype: Any) -> bool:
        """Whether numbers of this dtype (a name, or a library's own) can live here."""
        name = _array.dtype_name(dtype)
        if not any(name in kind for kind in _KINDS) or _array.find_dtype(self.xp, name) is None:
            return False
        if self.library == "array_api_strict":
            return name in self.xp.__array_namespace_info__().dtypes(device=self.native)
        if self.library == "jax" and name in _X64:
            return bool(import_module("jax").config.jax_enable_x64)
        return not (self.place.startswith("mps") and name in ("float64", "complex128"))

    def dtype(self, dtype: Any) -> Any:
        """The library's own dtype for a name (or another library's dtype).

        Raises:
            TypeError: it does not exist here; nothing is replaced by something near it.
        """
        name = _array.dtype_name(dtype)
        if not self.has_dtype(name):
            raise InvalidType(self._lack(name))
        return _array.dtype_of(self.xp, name)

    def asarray(self, host: np.ndarray, dtype: Any = None) -> Array:
        """Put a NumPy array here: always a new array, which shares no memory with ``host``.

        The order of the axes in memory is kept where the library has such a thing.

        Args:
            host: a NumPy array, of any strides.
            dtype: the dtype it gets, a name or a library's own; by default its own.

        Raises:
            TypeError: ``host`` is not a NumPy array, or the dtype does not exist here.

        >>> import numpy as np
        >>> device("cpu").asarray(np.arange(3), "float32")
        array([0., 1., 2.], dtype=float32)
        """
        if not (isinstance(host, np.ndarray | np.generic) and _array.is_array(host)):
            raise InvalidType(
                f"asarray: expected a NumPy array, got {type(host).__name__}; move arrays of "
                "other libraries with dc.to_device, make one of a list with numpy.asarray"
            )
        name = _array.dtype_name(host.dtype if dtype is None else dtype)
        goal = self.dtype(name)
        if host.dtype.kind == "c" and name not in _COMPLEX:
            raise InvalidType(f"asarray: {host.dtype} would lose its imaginary part as {name}")
        # NumPy has no bfloat16: there it travels as float32, which holds the same values.
        copy = np.array(host, dtype="float32" if name == "bfloat16" else name)
        moved = self._receive(copy)
        return _cast(moved, goal) if name == "bfloat16" else moved

    def __str__(self) -> str:
        return f"{self.place} ({self.library})"

    def __reduce__(self) -> tuple[Callable[..., Device], tuple[str]]:
        return device, (self.spec,)  # neither a module nor a device object can be pickled

    def _receive(self, host: np.ndarray) -> Array:
        """Hand a private, writable host array over to the library, which may keep it."""
        if self.library == "cupy":
            # CuPy would make C order of it: send it as it lies, and turn it back there.
            order = sorted(range(host.ndim), key=lambda axis: -host.strides[axis])
            with self.native:  # CuPy ignores device= at creation
                there = self.xp.asarray(host.transpose(order))
                return self.xp.permute_dims(there, tuple(int(i) for i in np.argsort(order)))
        if self.library == "torch":
            return self.xp.from_numpy(host).to(self.native)
        if self.library == "jax" and self.native is not None:
            return import_module("jax").device_put(host, self.native)
        return self.xp.asarray(host, device=self.native)

    def _lack(self, name: str) -> str:
        kind = next((kind for kind in _KINDS if name in kind), _FLOATING)
        others = ", ".join(other for other in kind if self.has_dtype(other))
        fix = f"use one of {others}" if others else "use another dtype"
        if self.library == "jax" and name in _X64:
            fix = f'call jax.config.update("jax_enable_x64", True), or {fix}'
        return f"{self} has no {name}; {fix}"


def device(spec: str | Device | Array = "auto") -> Device:
    """Find the device called ``spec``.

    Args:
        spec: ``"auto"`` (the first usable CUDA GPU through CuPy, else NumPy; the environment
            variable ``DEVCONV_DEVICE`` overrides it), ``"cpu"`` (NumPy), ``"cuda"`` or
            ``"cuda:1"`` (CuPy), or a library by name: ``"numpy"``, ``"cupy:0"``, ``"torch"``
            (its CPU), ``"torch:cuda:0"``, ``"torch:mps"``, ``"jax"`` (its CPU),
            ``"jax:cuda:0"``, ``"array_api_strict"``, ``"array_api_strict:device1"``.
            A :class:`Device` is returned as it is; an array stands for its own device.

    Returns:
        A :class:`Device`, with ``.spec``, ``.xp`` and ``.reason``.

    Raises:
        ValueError: no such device, or it cannot be used; the message says what to install.
        TypeError: ``spec`` is neither a string, a device nor an array.

    >>> print(device("cpu"))
    cpu (numpy)
    >>> device("numpy") == device("cpu")
    True
    """
    if isinstance(spec, Device):
        return spec
    if _array.is_array(spec):
        return device_of(spec)
    if not isinstance(spec, str):
        raise InvalidType(f"device must be a string such as {FORMS}, got {spec!r}")
    return _automatic() if spec == "auto" else _named(spec, "asked for by name")


def device_of(x: Array) -> Device:
    """The device an array is on.

    Raises:
        TypeError: ``x`` is not an array of a library that has devices here.

    >>> import numpy as np
    >>> device_of(np.ones(3)).spec
    'cpu'
    """
    name = _array.library_of(x) if _array.is_array(x) else ""
    if name not in NAMES:
        raise InvalidType(
            f"device_of: expected an array of {', '.join(NAMES.values())}, got {type(x).__name__}"
        )
    return _describe(name, _array.single_device(_array.device(x)), "the array's own device")


def to_device(x: Array, spec: str | Device | Array, *, dtype: Any = None) -> Array:
    """Move an array to a device, of its own library or another one.

    Within a library this is the library's own move, and an array that is there already is
    returned as it is. Between libraries it goes through the host and gives a new array,
    which shares no memory with ``x``. The values and the dtype stay what they are; only
    64-bit integers arrive as 32-bit ones where a device has no others (JAX without x64) and
    every value fits.

    Args:
        x: an array of any library, of any strides.
        spec: where to: a name as for :func:`device`, a device, or an array that is there.
        dtype: cast to it on the way (a name, or a library's own dtype).

    Raises:
        TypeError: ``x`` is not an array, or the device has no such dtype. (JAX has float64
            only with ``jax_enable_x64``, a switch this library never touches.)
        ValueError: as :func:`device`.

    >>> import numpy as np
    >>> to_device(np.ones(2, dtype="float32"), "cpu")
    array([1., 1.], dtype=float32)
    """
    with located("to_device"):
        if not _array.is_array(x):
            raise InvalidType(
                f"expected an array, got {type(x).__name__}; make one with numpy.asarray(x)"
            )
        goal = device(spec)
        here = _array.library_of(x)
        if dtype is None and here == goal.library and _is_there(x, goal):
            return _array.as_array(x)
        source = _array.dtype_name(x.dtype)
        name = source if dtype is None else _array.dtype_name(dtype)
        if dtype is None and name in ("int64", "uint64") and not goal.has_dtype(name):
            name = _narrowed(x, name)
        if not goal.has_dtype(name):
            raise InvalidType(
                f"x {show(x.shape)} cannot arrive as {name}: {goal._lack(name)} "
                "(dtype= of to_device casts on the way)"
            )
        if source in _COMPLEX and name not in _COMPLEX:
            raise InvalidType(f"x {show(x.shape)} is {source} and would lose its imaginary part")
        if here != goal.library:
            return goal.asarray(_array.to_numpy(x), name)
        if not goal.has_dtype(source):
            x = _cast(x, goal.dtype(name))
        return _cast(_move(x, goal), goal.dtype(name))


def _narrowed(x: Array, name: str) -> str:
    """The 32-bit kind of an integer dtype if it holds every value of ``x``, else ``name``."""
    host, narrow = _array.to_numpy(x), name.replace("64", "32")
    return narrow if np.array_equal(host.astype(narrow), host) else name


def _cast(x: Array, dtype: Any) -> Array:
    with _array.on_device(x):
        return _array.cast(x, dtype)


def _is_there(x: Array, goal: Device) -> bool:
    place = _array.device(x)
    return place is None or goal.native is None or place == goal.native


def _move(x: Array, goal: Device) -> Array:
    return x if _is_there(x, goal) else _array.move(x, goal.native)


def _describe(library: str, native: Any, reason: str) -> Device:
    return Device(_array.spec_of(library, native), library, native, reason)


def _automatic() -> Device:
    wish = os.environ.get(VARIABLE, "").strip()
    if wish not in ("", "auto"):
        with located(f"{VARIABLE}={wish}"):
            return _named(wish, f"set by {VARIABLE}={wish}")
    try:
        return _first_gpu()
    except Unusable as problem:
        return _describe("numpy", "cpu", f"no usable GPU: {problem.why}; {problem.fix}")


def _first_gpu() -> Device:
    cupy, count = once("cupy", look_for_cupy)
    problems: list[Unusable] = []
    for index in range(count):
        try:
            name = _try_out(_describe("cupy", cupy.cuda.Device(index), "on trial"))
        except Unusable as problem:
            problems.append(problem)
            continue
        reason = f"the first usable GPU: {name}, through CuPy {cupy.__version__}"
        return _describe("cupy", cupy.cuda.Device(index), reason)
    raise problems[0]


def _named(spec: str, reason: str) -> Device:
    try:
        return look(spec, reason)
    except Unusable as problem:
        raise InvalidValue(f'"{spec}" cannot be used: {problem.why}; {problem.fix}') from None


def look(spec: str, reason: str = "asked for by name") -> Device:
    """The device called ``spec``, or :class:`Unusable`, which keeps why and the fix apart."""
    head, _, place = spec.partition(":")
    library = {"cpu": "numpy", "cuda": "cupy"}.get(head, head)
    if library not in FIND or (":" in spec and not place):
        raise unknown(spec)
    found = _describe(library, FIND[library](spec, place), reason)
    if library != "array_api_strict" and not found.place.startswith("cpu"):
        _try_out(found)
    return found


def _try_out(candidate: Device) -> str:
    """The name of a GPU on which a first kernel and a matrix product came out right."""
    return once(candidate.spec, lambda: _compute_on(candidate))


_CHECK = "check the GPU and its driver (nvidia-smi)"


def _compute_on(candidate: Device) -> str:
    host = np.reshape(np.arange(64.0, dtype=np.float32), (8, 8))  # whole numbers: exact sums
    try:
        x = candidate.asarray(host)
        with _array.on_device(x):
            y = x * 2.0 + 1.0
            z = candidate.xp.matmul(x, y)
        first, second = _array.to_numpy(y), _array.to_numpy(z)
        name = _name_of(candidate)
    except Exception as error:
        why = f"a first computation on {candidate} failed ({line(error)})"
        libraries = f"install the CUDA libraries with it: {cupy_install()}"
        fix = libraries if candidate.library == "cupy" else _CHECK
        raise Unusable(why, fix, "no kernel") from None
    expected = host * 2.0 + 1.0
    if not (np.array_equal(first, expected) and np.array_equal(second, host @ expected)):
        raise Unusable(
            f"a first computation on {candidate} gave wrong numbers", _CHECK, "wrong numbers"
        )
    return name


def _name_of(candidate: Device) -> str:
    if candidate.library != "cupy":
        return str(candidate)
    properties = import_module("cupy").cuda.runtime.getDeviceProperties(candidate.native.id)
    return str(properties["name"].decode())
