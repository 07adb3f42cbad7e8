"""What ``devconv doctor`` looks at: probes that gather, and one file that prints.

Each probe returns a :class:`~devconv.doctor.report.Section` of plain data with what wants
mending; :mod:`devconv.doctor.text` sets it as text. A probe that breaks down is a line of
the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util

from devconv.doctor.agreement import look_at_agreement
from devconv.doctor.blas import look_at_blas
from devconv.doctor.devices import Devices, look_at_devices
from devconv.doctor.libraries import look_at_libraries
from devconv.doctor.machine import look_at_machine, look_at_settings
from devconv.doctor.report import Report, Section, guarded
from devconv.doctor.routes import look_at_routes
from devconv.doctor.speed import look_at_speed

__all__ = ["Report", "examine"]


def examine(*, quick: bool = False) -> Iterator[tuple[str, Section]]:
    """Each section as soon as it is known, by name.

    Args:
        quick: leave the speed check out.
    """
    yield "machine", guarded("machine", look_at_machine)
    yield "settings", guarded("settings", look_at_settings)
    blas = guarded("BLAS", look_at_blas)  # before other libraries bring a BLAS of their own
    devices = guarded("devices", look_at_devices)
    yield "devices", devices
    yield "libraries", guarded("libraries", look_at_libraries)
    yield "blas", blas
    yield "routes", guarded("routes", look_at_routes)
    yield "agreement", guarded("agreement", lambda: look_at_agreement(usable(devices)))
    if not quick:
        yield "speed", guarded("speed", look_at_speed)


def usable(devices: Section) -> list[str]:
    """The devices to compare: those found, and the standard's own arrays."""
    specs = ["cpu"]
    if isinstance(devices, Devices):
        specs = [place.spec for place in devices.places if place.usable]
    if util.find_spec("array_api_strict") is not None:
        specs.append("array_api_strict")
    return specs
