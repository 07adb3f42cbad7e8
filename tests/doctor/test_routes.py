"""The quicker routes, and whether they are in use."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from devconv import _fast, testing
from devconv.doctor import routes as room
from devconv.doctor.routes import look_at_routes


def test_the_table_by_library() -> None:
    found = dict(look_at_routes().by_library)
    found.pop("numba", None)
    assert {(p, library) for library, names in found.items() for p in names} == set(_fast.TABLE)
    assert "take" in found["numpy"]


def test_whether_they_are_in_use() -> None:
    with testing.generic(False):
        assert look_at_routes().enabled
    with testing.generic():
        found = look_at_routes()
        assert not found.enabled
        assert "numba" not in found.by_library


def test_what_numba_compiles() -> None:
    pytest.importorskip("numba")
    with testing.generic(False), _fast.numba():
        assert "correlate" in look_at_routes().by_library["numba"]
    with testing.generic(False), _fast.numba(False):
        assert "numba" not in look_at_routes().by_library


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    found = look_at_routes()
    assert "numba" not in found.by_library
    assert found.findings == ()


def test_a_numba_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.util, "find_spec", lambda name: ModuleType(name))
    monkeypatch.setitem(sys.modules, "devconv._fast.compiled", None)
    (finding,) = look_at_routes().findings
    assert (finding.about, finding.wrong) == ("Numba", True)
    assert finding.text.startswith("is installed, but its routes do not load: ModuleNotFoundError")
