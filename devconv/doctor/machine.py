"""The machine, its Python, and the settings devconv listens to."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devconv import _fast
from devconv.doctor.report import Section

# What OpenBLAS's and BLIS's AVX-512 kernels need: the server kind, not the first (Xeon Phi).
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


@dataclass(frozen=True, kw_only=True)
class Processor:
    """The CPU as far as it matters here."""

    name: str
    count: int
    avx512: bool | None
    l2: int | None
    memory: int | None

    @property
    def kernels(self) -> str:
        """Whether it has AVX-512, in words."""
        return {True: "AVX-512", False: "no AVX-512", None: "AVX-512 unknown"}[self.avx512]


@dataclass(frozen=True, kw_only=True)
class Machine(Section):
    """Versions and platform."""

    devconv: str
    python: str
    executable: str
    system: str
    processor: Processor


@dataclass(frozen=True)
class Setting:
    """An environment variable: its value, ``None`` where it is not set, and what follows."""

    variable: str
    value: str | None
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """The environment variables devconv listens to."""

    settings: tuple[Setting, ...]


def look_at_machine() -> Machine:
    """Versions, platform and processor."""
    return Machine(
        devconv=sys.modules["devconv"].__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        executable=sys.executable,
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        processor=processor(),
    )


def look_at_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The variables whose names begin with ``DEVCONV_``."""
    wish = environment.get("DEVCONV_DEVICE")
    if (wish or "").strip() in ("", "auto"):
        auto = '"auto" is the first usable CUDA GPU, else the CPU'
    else:
        auto = f'"auto" is "{(wish or "").strip()}"'
    switch = environment.get("DEVCONV_GENERIC")
    routes = "in use" if (switch or "") in ("", "0") else "switched off"
    numba = environment.get("DEVCONV_NUMBA")
    compiled = "left out" if numba == "0" else "in use where Numba is installed"
    trial = environment.get("DEVCONV_TRIAL")
    asked = [name for name in map(str.strip, (trial or "").split(",")) if name]
    known = set(asked) <= set(_fast.TRIALS)
    trials = ", ".join(asked) or "none" if known else f"ignored, expected {', '.join(_fast.TRIALS)}"
    return Settings(
        settings=(
            Setting("DEVCONV_DEVICE", wish, auto),
            Setting("DEVCONV_GENERIC", switch, f"the quicker routes are {routes}"),
            Setting("DEVCONV_NUMBA", numba, f"compiled routes are {compiled}"),
            Setting("DEVCONV_TRIAL", trial, f"routes on trial: {trials}"),
        )
    )


def processor() -> Processor:
    """The CPU; what cannot be found out is unknown."""
    text = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return Processor(
        name=name[1].strip() if name else platform.processor() or platform.machine() or "unknown",
        count=available_cpus(),
        avx512=has_avx512(text, platform.machine()),
        l2=_l2(),
        memory=_memory(),
    )


def has_avx512(cpuinfo: str, machine: str) -> bool | None:
    """Whether the CPU has AVX-512; ``None`` where ``/proc/cpuinfo`` does not say.

    >>> has_avx512("", "arm64"), has_avx512("", "x86_64")
    (False, None)
    """
    if machine.lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return set(flags[1].split()) >= _AVX512 if flags else None


def available_cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _l2() -> int | None:
    """The second-level cache in KiB."""
    with suppress(OSError, ValueError):
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text(encoding="ascii")
        return int(text.strip().removesuffix("K"))
    return None


def _memory() -> int | None:
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
