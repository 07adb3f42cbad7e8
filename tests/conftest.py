"""What every test may ask for: a backend, and a count of the host's looks at a device."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests import backends


def pytest_configure(config: pytest.Config) -> None:
    backends.check()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the product of all operations with JAX, which compiles each, every third is slow.

    The others are long. Which is which is told by their names, so it stays.
    """
    for item in items:
        product = item.path.name == "test_operations.py" and item.get_closest_marker("slow")
        if product and zlib.crc32(item.name.encode()) % 3:
            item.own_markers = [mark for mark in item.own_markers if mark.name != "slow"]
            item.add_marker("long")


def pytest_report_header(config: pytest.Config) -> str:
    return f"backends: {', '.join(backends.told())}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("backends")
    terminalreporter.line(f"tested: {', '.join(backends.told())}")
    for name, reason in backends.missing().items():
        terminalreporter.line(f"NOT TESTED: {name} ({reason})")


@pytest.fixture(autouse=True)
def _streams() -> Iterator[None]:
    """Streams of the tests' own, where ``DEVCONV_TEST_STREAM`` asks for them."""
    with backends.on_streams():
        yield


@pytest.fixture(params=list(backends.usable().values()), ids=str)
def backend(request: pytest.FixtureRequest) -> backends.Backend:
    """Each usable backend in turn."""
    return request.param


@pytest.fixture
def on_its_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """The backend's GPU is the current one, as it is inside of an operation."""
    with ExitStack() as stack:
        if "backend" in request.fixturenames:
            stack.enter_context(request.getfixturevalue("backend").here())
        yield


class HostReads:
    """How often the host looked at values on a device that is not its own."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @property
    def count(self) -> int:
        return len(self.names)

    @contextmanager
    def forbidden(self) -> Iterator[None]:
        """Fail when the host reads a value inside."""
        before = self.count
        yield
        assert self.names[before:] == [], "the operation waited for its device"


@pytest.fixture
def host_reads(monkeypatch: pytest.MonkeyPatch) -> HostReads:
    """Counts reads of array_api_strict's fake devices, which it allows without a word."""
    xp = backends.get("array_api_strict").xp
    kind, cpu = type(xp.ones(1)), xp.Device("CPU_DEVICE")
    reads = HostReads()

    def watch(name: str) -> None:
        original = getattr(kind, name)

        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            leaving = name != "to_device" or args[:1] == (cpu,) or kwargs.get("device") == cpu
            if self.device != cpu and leaving:
                reads.names.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(kind, name, counted)

    for name in (
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "__complex__",
        "__array__",
        "__buffer__",
        "__dlpack__",
        "to_device",
    ):
        watch(name)
    return reads
