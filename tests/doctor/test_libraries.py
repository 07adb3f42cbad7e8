"""Which libraries there are, and which of them do not import."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest

from devconv._detect import installed
from devconv.doctor import libraries as room
from devconv.doctor.libraries import Library, look_at_libraries
from tests.test_device import wheels

NAMES = [
    *("numpy", "cupy", "torch", "jax", "array-api-compat", "array-api-extra"),
    *("array-api-strict", "numba", "safetensors"),
]


def by_name() -> dict[str, Library]:
    return {library.name: library for library in look_at_libraries().libraries}


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries that take long to import."""
    for name in ("torch", "jax", "numba", "cupy"):
        monkeypatch.setitem(sys.modules, name, None)
    metadata = room.metadata.version

    def version(name: str) -> str:
        if name in ("torch", "jax", "numba", *room.CUPY_RECORDS):
            raise room.metadata.PackageNotFoundError(name)
        return metadata(name)

    monkeypatch.setattr(room.metadata, "version", version)


def test_what_is_there_and_what_is_not() -> None:
    found = by_name()
    assert list(found) == NAMES
    assert found["numpy"].version == np.__version__
    assert found["array-api-compat"].version
    for name in ("torch", "jax", "cupy", "numba"):
        assert found[name].version is None
    assert found["torch"].install == "pip install torch"
    assert found["numba"].install == 'pip install "devconv[fast]"'
    assert found["numba"].purpose == "compiled routes on NumPy"
    assert look_at_libraries().findings == ()


def test_one_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    right = importlib.import_module

    def fail(name: str) -> Any:
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.3 or less. Got NumPy 2.4.")
        return right(name)

    monkeypatch.setattr(room.importlib, "import_module", fail)
    (finding,) = look_at_libraries().findings
    assert finding.about == "numba"
    assert finding.text == (
        "is installed but does not import: ImportError: Numba needs NumPy 2.3 or less. "
        "Got NumPy 2.4."
    )
    assert finding.fix == ('pip install "devconv[fast]" --force-reinstall',)
    assert finding.wrong


def test_one_that_is_needed_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        room,
        "_known",
        lambda: (room._Known("zork", ("zork",), "nothing", "pip install zork", needed=True),),
    )
    (finding,) = look_at_libraries().findings
    assert (finding.text, finding.fix) == ("is needed, and missing", ("pip install zork",))
    assert finding.wrong


def test_records(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels(monkeypatch, "cupy-cuda12x", "cupy")
    assert installed(*room.CUPY_RECORDS) == ["cupy", "cupy-cuda12x"]
