"""The devices: which there are, and why one that should be there cannot be used."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from devconv import _detect
from devconv._check import DevconvError
from devconv._detect import CUPY_RECORDS, Unusable, cupy_install, cupy_reinstall, installed
from devconv.device import VARIABLE, device, look
from devconv.doctor.machine import processor
from devconv.doctor.mending import unset
from devconv.doctor.report import Finding, Section, told


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver, as ``nvidia-smi`` tells: versions, and the GPUs it sees."""

    version: str
    cuda: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A device: its name and memory in bytes, or why it cannot be used and how that is mended."""

    spec: str
    library: str
    usable: bool
    name: str = ""
    memory: int | None = None
    why: str = ""
    fix: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Devices(Section):
    """All devices, the driver's version, and what ``"auto"`` stands for."""

    driver: Driver | None
    places: tuple[Place, ...]
    auto: str
    reason: str


def look_at_devices() -> Devices:
    """Look for every device; GPUs compute something first."""
    driver = look_for_driver()
    cpu = processor()
    gpus, findings = look_at_cupy(driver)
    places = [Place("cpu", "numpy", True, cpu.name, cpu.memory), *gpus]
    for library in ("torch", "jax"):
        places += _look_at_library(library, driver)
    chosen, reason, problem = _auto()
    return Devices(
        driver=driver,
        places=tuple(places),
        auto=chosen,
        reason=reason,
        findings=(*findings, *problem),
    )


def _auto() -> tuple[str, str, tuple[Finding, ...]]:
    """What ``"auto"`` stands for, and why."""
    try:
        chosen = device("auto")
    except DevconvError as error:  # DEVCONV_DEVICE asks for what is not there
        return "", str(error), (Finding("settings", str(error), (unset(VARIABLE),), wrong=True),)
    return chosen.spec, chosen.reason, ()


# CuPy, in every state.


def look_at_cupy(driver: Driver | None) -> tuple[list[Place], list[Finding]]:
    """CuPy's GPUs; where there are none, how far it came and the way on."""
    wheels = installed(*CUPY_RECORDS)
    findings = _two_wheels(wheels, driver)
    try:
        cupy, count = _detect.once("cupy", _detect.look_for_cupy)
    except Unusable as problem:
        place, finding = judge(problem, "cuda", wheels, driver)
        return [place], findings or finding
    places = []
    for index in range(count):
        spec = f"cuda:{index}"
        try:
            look(spec)
        except Unusable as problem:
            place, finding = judge(problem, spec, wheels, driver)
            findings = findings or finding
        else:
            name, memory = _cupy_properties(cupy, index)
            place = Place(spec, "cupy", True, name, memory)
        places.append(place)
    return places, findings


def judge(
    problem: Unusable, spec: str, wheels: Sequence[str], driver: Driver | None
) -> tuple[Place, list[Finding]]:
    """What a state of CuPy means, and the commands that lead out of it."""
    state, why = problem.state, problem.why
    fix: tuple[str, ...] = (problem.fix,)
    gpus, cuda = (driver.gpus, driver.cuda) if driver else ((), "")
    wrong, text = True, why
    if state == "missing" and not wheels:
        install = cupy_install((), cuda)
        fix, wrong = (install if gpus else f"for an NVIDIA GPU: {install}",), False
        text = f"{gpus[0]} is here, but CuPy, which computes on it, is not" if gpus else ""
    elif state in ("missing", "broken"):
        if state == "missing":
            text = why = f"of {' and '.join(wheels)} only the record is left"
        fix = cupy_reinstall(wheels, cuda)
    elif state == "no device":
        fix, wrong = _no_device(wheels, driver)
        text = why if gpus else ""
    elif state == "no kernel":  # CUDA's own libraries are missing: [ctk] brings them
        fix = (cupy_install(wheels, cuda),)
    place = Place(spec, "cupy", False, why=why, fix=fix)
    return place, [Finding("GPU", text, fix, wrong)] if text else []


def _no_device(wheels: Sequence[str], driver: Driver | None) -> tuple[tuple[str, ...], bool]:
    """What mends a CuPy that runs and sees no GPU, and whether there is one it should see."""
    if driver is None or not driver.gpus:
        return ("install the NVIDIA driver; without a GPU there is nothing to mend",), False
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return (unset("CUDA_VISIBLE_DEVICES"),), False
    major = driver.cuda.partition(".")[0]
    if wheels and major == "12" and wheels[-1] == "cupy-cuda13x":  # newer than the driver
        return cupy_reinstall(wheels, driver.cuda), True
    return ("update the NVIDIA driver",), True


def _two_wheels(wheels: Sequence[str], driver: Driver | None) -> list[Finding]:
    """Two distributions of one module: the last one installed wins, removing one breaks both."""
    if len(wheels) < 2:
        return []
    text = f"{' and '.join(wheels)} are both installed and share their files"
    fix = cupy_reinstall(wheels, driver.cuda if driver else "")
    return [Finding("GPU", text, fix, wrong=True)]


def _cupy_properties(cupy: Any, index: int) -> tuple[str, int | None]:
    name, memory = "", None
    with suppress(Exception):
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        name = properties["name"].decode()
        memory = int(properties["totalGlobalMem"])
    return name, memory


# PyTorch and JAX.


def _look_at_library(library: str, driver: Driver | None) -> list[Place]:
    """A library's CPU and GPUs; nothing where it is not installed."""
    try:
        look(library)
    except Unusable as problem:
        if problem.state == "missing":
            return []
        return [Place(library, library, False, why=problem.why, fix=(problem.fix,))]
    try:
        specs = {"torch": _torch_gpus, "jax": _jax_gpus}[library]()
    except Exception as error:
        return [
            Place(library, library, True, "the CPU"),
            Place(f"{library}:cuda", library, False, why=told(error)),
        ]
    if driver and driver.gpus and not any(":cuda" in spec for spec in specs):
        specs[f"{library}:cuda:0"] = ("", None)  # it should be there: say why it is not
    places = [Place(library, library, True, "the CPU")]
    for spec, (name, memory) in specs.items():
        try:
            look(spec)
        except Unusable as problem:
            places.append(Place(spec, library, False, why=problem.why, fix=(problem.fix,)))
        else:
            places.append(Place(spec, library, True, name, memory))
    return places


def _torch_gpus() -> dict[str, tuple[str, int | None]]:
    torch = importlib.import_module("torch")
    found: dict[str, tuple[str, int | None]] = {}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"torch:cuda:{index}"] = (properties.name, int(properties.total_memory))
    if torch.backends.mps.is_available():
        found["torch:mps"] = ("Apple GPU", None)
    return found


def _jax_gpus() -> dict[str, tuple[str, int | None]]:
    jax = importlib.import_module("jax")
    try:
        natives = jax.local_devices(backend="gpu")
    except RuntimeError:  # no such backend
        return {}
    return {f"jax:cuda:{native.id}": (str(native.device_kind), None) for native in natives}


# The driver.


def look_for_driver() -> Driver | None:
    """Ask ``nvidia-smi``, which comes with NVIDIA's driver; ``None`` where it is not there."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    header = re.search(r"Driver Version:\s*(\S+).*?CUDA Version:\s*([\d.]+)", _output(command))
    gpus = re.findall(r"^GPU \d+: (.+?) \(UUID", _output(command, "-L"), re.MULTILINE)
    return Driver(header[1] if header else "", header[2] if header else "", tuple(gpus))


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
