"""The libraries that matter here: which are installed, and whether they import."""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

from devconv._detect import CUPY_RECORDS, cupy_install
from devconv.doctor.report import Finding, Section, told


@dataclass(frozen=True)
class Library:
    """A library: its version, ``None`` where it is not installed, and what it is good for."""

    name: str
    version: str | None
    purpose: str
    install: str
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Libraries(Section):
    """All of them."""

    libraries: tuple[Library, ...]


@dataclass(frozen=True)
class _Known:
    module: str
    records: tuple[str, ...]
    purpose: str
    install: str
    needed: bool = False


def _known() -> tuple[_Known, ...]:
    compiled = "compiled routes on NumPy"
    return (
        _Known("numpy", ("numpy",), "arrays on the CPU", "pip install numpy", True),
        _Known("cupy", CUPY_RECORDS, "arrays on NVIDIA GPUs", cupy_install()),
        _Known("torch", ("torch",), "PyTorch's arrays", "pip install torch"),
        _Known("jax", ("jax",), "JAX's arrays", "pip install jax"),
        *(
            _Known(name.replace("-", "_"), (name,), purpose, f"pip install {name}", needed)
            for name, purpose, needed in (
                ("array-api-compat", "one namespace for all of them", True),
                ("array-api-extra", "assignment for all of them", True),
                ("array-api-strict", "the standard's own arrays, for tests", False),
            )
        ),
        _Known("numba", ("numba",), compiled, 'pip install "devconv[fast]"'),
        _Known("safetensors", ("safetensors",), "checkpoints", "pip install safetensors", True),
    )


def look_at_libraries() -> Libraries:
    """Import each library and ask its version."""
    found, findings = [], []
    for known in _known():
        library = _look(known)
        found.append(library)
        if library.problem and known.module != "cupy":  # the section on devices says it better
            text = f"is installed but does not import: {library.problem}"
            again = f"{known.install} --force-reinstall"
            findings.append(Finding(library.name, text, (again,), wrong=True))
        elif library.version is None and known.needed:
            finding = Finding(library.name, "is needed, and missing", (known.install,), wrong=True)
            findings.append(finding)
    return Libraries(libraries=tuple(found), findings=tuple(findings))


def _look(known: _Known) -> Library:
    name = known.records[0]
    version = None
    for record in known.records:
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(record)
    try:
        module = importlib.import_module(known.module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == known.module
        if missing and version is None:
            return Library(name, None, known.purpose, known.install)
        return Library(name, version or "unknown", known.purpose, known.install, told(error))
    stated = getattr(module, "__version__", None) or version or "unknown"
    return Library(name, str(stated), known.purpose, known.install)
