"""The table of cases: one module per module of ``devconv.functional``."""

from __future__ import annotations

import importlib
import pkgutil

from tests.cases.case import Case


def collect() -> list[Case]:
    """Every case of every module here, in the order of the modules' names."""
    cases: list[Case] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        cases += getattr(importlib.import_module(f"{__name__}.{module}"), "CASES", [])
    return cases
