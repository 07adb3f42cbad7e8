"""The documented capabilities are those that are tested."""

from __future__ import annotations

import pytest

from tests import backends, capabilities
from tests.cases import collect


def test_every_operation_has_cases() -> None:
    assert {case.op.__name__ for case in collect()} >= set(capabilities.operations())


def test_the_page_is_the_table() -> None:
    """If this fails: ``python -m tests.capabilities`` writes the page anew."""
    assert capabilities.PAGE.read_text() == capabilities.page()


@pytest.mark.parametrize("name", backends.usable())
def test_the_dtypes_are_those_the_library_has(name: str) -> None:
    backend = backends.get(name)
    floating = ("float64", "float32", "float16", "bfloat16")
    assert capabilities.DTYPES[name] == tuple(d for d in floating if backend.has(d))
