"""The machine and the settings."""

from __future__ import annotations

import os

import pytest

import devconv as dc
from devconv.doctor.machine import has_avx512, look_at_machine, look_at_settings

FLAGS = "avx512f avx512dq avx512cd avx512bw avx512vl"


def test_this_machine() -> None:
    found = look_at_machine()
    assert found.devconv == dc.__version__
    assert found.processor.name
    assert 1 <= found.processor.count <= (os.cpu_count() or 1)
    assert found.findings == ()


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "expected"),
    [
        (f"model name\t: X\nflags\t\t: fpu {FLAGS} sse\n", "x86_64", True),
        ("flags\t\t: fpu avx2\n", "x86_64", False),
        ("flags\t\t: fpu avx512f avx512cd avx512er\n", "x86_64", False),  # Xeon Phi
        ("", "AMD64", None),
        ("Features : asimd\n", "aarch64", False),
        ("", "arm64", False),
    ],
)
def test_avx512(cpuinfo: str, machine: str, expected: bool | None) -> None:
    assert has_avx512(cpuinfo, machine) is expected


@pytest.mark.parametrize(
    ("environment", "device", "routes"),
    [
        ({}, '"auto" is the first usable CUDA GPU, else the CPU', "in use"),
        (
            {"DEVCONV_DEVICE": "auto", "DEVCONV_GENERIC": "0"},
            '"auto" is the first usable CUDA GPU, else the CPU',
            "in use",
        ),
        ({"DEVCONV_DEVICE": " cpu ", "DEVCONV_GENERIC": "1"}, '"auto" is "cpu"', "switched off"),
    ],
)
def test_settings(environment: dict[str, str], device: str, routes: str) -> None:
    first, second, *_ = look_at_settings(environment).settings
    assert (first.variable, first.value) == ("DEVCONV_DEVICE", environment.get("DEVCONV_DEVICE"))
    assert first.meaning == device
    assert second.value == environment.get("DEVCONV_GENERIC")
    assert second.meaning == f"the quicker routes are {routes}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "in use where Numba is installed"),
        ("1", "in use where Numba is installed"),
        ("0", "left out"),
    ],
)
def test_compiled_routes(value: str | None, expected: str) -> None:
    environment = {} if value is None else {"DEVCONV_NUMBA": value}
    setting = look_at_settings(environment).settings[2]
    assert setting.value == value
    assert setting.meaning == f"compiled routes are {expected}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "none"),
        ("", "none"),
        ("kernels", "kernels"),
        (" kernels,cudnn ", "kernels, cudnn"),
        ("kernel", "ignored, expected kernels, cudnn"),
    ],
)
def test_routes_on_trial(value: str | None, expected: str) -> None:
    environment = {} if value is None else {"DEVCONV_TRIAL": value}
    setting = look_at_settings(environment).settings[3]
    assert (setting.variable, setting.value) == ("DEVCONV_TRIAL", value)
    assert setting.meaning == f"routes on trial: {expected}"
