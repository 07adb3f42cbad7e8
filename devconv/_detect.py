"""Finding devices: each library's way to its own, and what to do where there is none.

Used by :mod:`devconv.device` and by the doctor, who reports it. Whether a library imports and what
it sees is asked when first needed, once, and the answer is kept, a refusal included.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TypeVar

from devconv import _array
from devconv._array import NAMES
from devconv._check import InvalidValue

T = TypeVar("T")

FORMS = (
    '"auto", "cpu", "cuda", "cuda:1", or a library by name: "numpy", "cupy:0", "torch", '
    '"torch:cuda:0", "jax", "jax:cuda:0", "array_api_strict"'
)

WHEELS = ("cupy-cuda12x", "cupy-cuda13x")
"""CuPy as pip brings it, for the CUDA of which there is an extra."""

CUPY_RECORDS = (
    *("cupy", "cupy-cuda11x", *WHEELS),
    *("cupy-rocm-4-3", "cupy-rocm-5-0", "cupy-rocm-7-0"),
)
"""Distributions that all install the module ``cupy``; the first is conda's, or a source's."""


class Unusable(Exception):  # an answer that is kept, shown to nobody as it is
    """Why a device cannot be used, what mends that, and how far it came.

    ``state`` is one of ``"missing"`` (not installed), ``"broken"`` (installed, does not
    import or run), ``"no device"`` (the library runs and sees none), ``"no kernel"`` and
    ``"wrong numbers"`` (a first computation on it failed, or came out wrong).
    """

    def __init__(self, why: str, fix: str, state: str) -> None:
        super().__init__(why, fix, state)
        self.why, self.fix, self.state = why, fix, state


def installed(*names: str) -> list[str]:
    """Those of these distributions that are recorded as installed."""
    found = []
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            metadata.distribution(name)
            found.append(name)
    return found


_answers: dict[str, Any] = {}
_asking = threading.RLock()


def once(question: str, ask: Callable[[], T]) -> T:
    """The answer of ``ask()``, asked the first time and kept, a refusal included."""
    with _asking:
        if question not in _answers:
            try:
                _answers[question] = ask()
            except Unusable as problem:
                _answers[question] = Unusable(*problem.args)  # without its frames
        answer = _answers[question]
    if isinstance(answer, Unusable):
        raise Unusable(*answer.args)
    return answer


def unknown(spec: str) -> InvalidValue:
    return InvalidValue(f'unknown device "{spec}", expected {FORMS}')


def _index(spec: str, text: str) -> int:
    if text and not (text.isascii() and text.isdecimal()):
        raise unknown(spec)
    return int(text or 0)


def _no_such_index(spec: str, count: int, library: str) -> InvalidValue:
    return InvalidValue(f'"{spec}" does not exist: {library} sees {count} of them, from 0 on')


def _find_numpy(spec: str, place: str) -> Any:
    if place:
        raise unknown(spec)
    return "cpu"


def _find_cupy(spec: str, place: str) -> Any:
    index = _index(spec, place)
    cupy, count = once("cupy", look_for_cupy)
    if index >= count:
        raise _no_such_index(spec, count, "CuPy")
    return cupy.cuda.Device(index)


def _find_torch(spec: str, place: str) -> Any:
    torch = import_library("torch", "pip install torch")
    kind, _, number = place.partition(":")
    index = _index(spec, number)
    try:
        native = torch.device(kind or "cpu", index)
    except RuntimeError:
        raise unknown(spec) from None
    if native.type == "cpu":
        return torch.device("cpu")
    count = getattr(getattr(torch, native.type, None), "device_count", lambda: 0)()
    if not count:
        why = f"PyTorch {torch.__version__} finds no {native.type} device"
        if native.type == "cuda" and torch.version.cuda is None:
            install = "install a build with CUDA: pip install torch"
            raise Unusable(f"{why} (built without CUDA)", install, "no device")
        raise Unusable(why, "install its driver, or use another device", "no device")
    if index >= count:
        raise _no_such_index(spec, count, "PyTorch")
    return native


def _find_jax(spec: str, place: str) -> Any:
    jax = import_library("jax", "pip install jax")
    kind, _, number = place.partition(":")
    index = _index(spec, number)
    platform = {"": "cpu", "cuda": "gpu"}.get(kind, kind)
    try:
        found = {native.id: native for native in jax.local_devices(backend=platform)}
    except Exception as error:
        cuda = 'pip install "jax[cuda12]" or "jax[cuda13]"'
        fix = cuda if platform == "gpu" else 'use "jax" or "jax:cuda:0"'
        why = f"JAX {jax.__version__} has no such device ({line(error)})"
        raise Unusable(why, fix, "no device") from None
    if not number:
        return found[min(found)]
    if index not in found:
        raise _no_such_index(spec, len(found), "JAX")
    return found[index]


def _find_strict(spec: str, place: str) -> Any:
    xp = import_library("array_api_strict", "pip install array-api-strict")
    natives = xp.__array_namespace_info__().devices()
    for native in natives:
        if _array.spec_of("array_api_strict", native).partition(":")[2] == place:
            return native
    names = ", ".join(f'"{_array.spec_of("array_api_strict", native)}"' for native in natives)
    raise InvalidValue(f'unknown device "{spec}", array-api-strict has {names}')


FIND: dict[str, Callable[[str, str], Any]] = {
    "numpy": _find_numpy,
    "cupy": _find_cupy,
    "torch": _find_torch,
    "jax": _find_jax,
    "array_api_strict": _find_strict,
}


def import_library(library: str, install: str, mend: str = "") -> Any:
    try:
        return import_module(library)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise Unusable(f"{NAMES[library]} is not installed", install, "missing") from None
        why = f"{NAMES[library]} is installed but cannot be imported ({line(error)})"
        raise Unusable(why, mend or f"mend that installation: {install}", "broken") from None


def look_for_cupy() -> tuple[Any, int]:
    """CuPy and the number of GPUs it sees, before anything has run on one."""
    records = installed(*CUPY_RECORDS)
    install, mend = cupy_install(records), ", then ".join(cupy_reinstall(records))
    if records:  # but not importable: another wheel took the files they share along
        install = f"only the record of {' and '.join(records)} is left: {mend}"
    cupy = import_library("cupy", install, mend)
    try:
        if cupy.is_available():
            return cupy, cupy.cuda.runtime.getDeviceCount()
        title, problem = f"CuPy {cupy.__version__}", _why_no_gpu(cupy.cuda.runtime)
    except Exception as error:
        raise Unusable(f"CuPy is installed but broken ({line(error)})", mend, "broken") from None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    fix = "install or update the NVIDIA driver (nvidia-smi lists the GPUs it sees)"
    if hidden is not None and problem.endswith(_SEES_NONE):
        fix = f"unset CUDA_VISIBLE_DEVICES, which is {hidden!r} and hides GPUs"
    raise Unusable(f"{title} is installed, but CUDA finds no GPU ({problem})", fix, "no device")


_SEES_NONE = ("cudaErrorNoDevice: no CUDA-capable device is detected", "the driver shows 0")


def _why_no_gpu(runtime: Any) -> str:
    try:
        if runtime.driverGetVersion() == 0:
            return "no NVIDIA driver"
        return f"the driver shows {runtime.getDeviceCount()}"
    except Exception as error:
        return line(error)


def cupy_install(records: Sequence[str] | None = None, cuda: str = "") -> str:
    """The command that installs CuPy with the CUDA libraries it needs.

    Args:
        records: the distributions of CuPy to stay with; by default those that are installed.
        cuda: the version of CUDA that the driver has, ``"12.8"``, where there are none. Where
            that is not known, both ways are told.
    """
    wheels = [r for r in (installed(*CUPY_RECORDS) if records is None else records) if r != "cupy"]
    if in_conda() and not wheels:
        return "conda install -c conda-forge cupy"
    stay = wheels and wheels[-1] in WHEELS
    major = wheels[-1][len("cupy-cuda") : -1] if stay else cuda.partition(".")[0]
    if f"cupy-cuda{major}x" in WHEELS:
        return f'pip install "devconv[cuda{major}]"'
    return (
        'pip install "devconv[cuda12]" or "devconv[cuda13]", as nvidia-smi shows the CUDA version'
    )


def cupy_reinstall(records: Sequence[str], cuda: str = "") -> tuple[str, ...]:
    """The commands that take CuPy out, all of it, and install it once.

    Args:
        records: the distributions of CuPy that are installed.
        cuda: the version of CUDA that the driver has.
    """
    by_pip = [record for record in records if record != "cupy" or not in_conda()]
    out = (f"pip uninstall -y {' '.join(by_pip)}",) if by_pip else ()
    if by_pip != list(records):
        return (*out, "conda install -c conda-forge --force-reinstall cupy")
    return (*out, cupy_install(records if len(records) == 1 and not cuda else (), cuda))


def in_conda() -> bool:
    """Whether this Python belongs to conda."""
    return (Path(sys.prefix) / "conda-meta").is_dir()


def line(error: Exception) -> str:
    """An exception in one line; of CuPy's page about a failed import only the cause."""
    text = str(error).rpartition("Original error:")[2]
    text = " ".join(text.replace("=" * 8, "").split())
    text = text if len(text) <= 160 else f"{text[:157]}..."
    return text if text.startswith(type(error).__name__) else f"{type(error).__name__}: {text}"
