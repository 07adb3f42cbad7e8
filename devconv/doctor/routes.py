"""The quicker routes in force, by library."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import util

from devconv import _array, _fast
from devconv.doctor.cudnn import CuDNN, look_at_cudnn
from devconv.doctor.report import Finding, Section, told

COMPILED = "numba"


@dataclass(frozen=True, kw_only=True)
class Routes(Section):
    """Which primitives have a quicker route, and whether the routes are in use.

    Attributes:
        enabled: whether any is in use; ``DEVCONV_GENERIC=1`` switches all of them off.
        by_library: the primitives; under ``"numba"`` those it compiles for NumPy arrays.
        cudnn: how far cuDNN is there, where there is CuPy to use it.
    """

    enabled: bool
    by_library: dict[str, tuple[str, ...]]
    cudnn: CuDNN | None = None


def look_at_routes() -> Routes:
    """Read the table, and what Numba compiles where it is installed and wanted."""
    compiled, findings = _compiled()
    cudnn, more = look_at_cudnn()
    x = _array.host().zeros(1)
    plain = _fast.TABLE
    in_use = [p for p in compiled if _fast.route(p, x) not in (None, plain.get((p, "numpy")))]
    found: dict[str, list[str]] = {COMPILED: in_use} if in_use else {}
    for primitive, library in plain:
        found.setdefault(library, []).append(primitive)
    return Routes(
        enabled=any(_fast.route(primitive, x) is not None for primitive in found["numpy"]),
        by_library={library: tuple(primitives) for library, primitives in found.items()},
        cudnn=cudnn,
        findings=(*findings, *more),
    )


def _compiled() -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """The primitives that Numba compiles; why it does not, where it is installed."""
    try:
        found = util.find_spec(COMPILED) is not None
    except ValueError:  # half imported
        found = False
    if not found:
        return (), ()
    try:
        return tuple(importlib.import_module("devconv._fast.compiled").ROUTES), ()
    except Exception as error:
        text = f"is installed, but its routes do not load: {told(error)}"
        again = "pip install --upgrade --force-reinstall numba"
        return (), (Finding("Numba", text, (again,), wrong=True),)
