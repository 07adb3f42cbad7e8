"""Devices in every half-installed state: what is said, and the command that mends it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from devconv import _array, _detect
from devconv._check import InvalidValue
from devconv.device import device
from devconv.doctor import devices as room
from devconv.doctor import libraries, mending
from devconv.doctor.devices import Driver, Place, look_at_cupy, look_at_devices
from devconv.doctor.report import Finding
from tests.test_device import INSTALL, FakeCuPy, wheels

H200 = Driver("570.1", "12.8", ("NVIDIA H200",))
NEWER = Driver("580.1", "13.0", ("NVIDIA H200",))
TWELVE = 'pip install "devconv[cuda12]"'
THIRTEEN = 'pip install "devconv[cuda13]"'


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_detect, "_answers", {})
    monkeypatch.setattr(_detect, "in_conda", lambda: False)
    for variable in ("DEVCONV_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCuPy:
    return FakeCuPy(monkeypatch)


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    _array.is_array("")  # array-api-compat does not expect a None among the modules, and keeps this
    monkeypatch.setitem(sys.modules, "cupy", None)
    wheels(monkeypatch)


def only(found: tuple[list[Place], list[Finding]]) -> tuple[Place, Finding | None]:
    places, findings = found
    assert len(places) == 1
    assert len(findings) <= 1
    return places[0], findings[0] if findings else None


def test_no_cupy_and_no_gpu(no_cupy: None) -> None:
    place, finding = only(look_at_cupy(None))
    assert (place.spec, place.usable) == ("cuda", False)
    assert place.why == "CuPy is not installed"
    assert place.fix == (f"for an NVIDIA GPU: {INSTALL}",)
    assert finding is None


@pytest.mark.parametrize(("driver", "fix"), [(H200, TWELVE), (NEWER, THIRTEEN)])
def test_a_gpu_and_no_cupy(no_cupy: None, driver: Driver, fix: str) -> None:
    place, finding = only(look_at_cupy(driver))
    assert place.fix == (fix,)
    text = "NVIDIA H200 is here, but CuPy, which computes on it, is not"
    assert finding == Finding("GPU", text, (fix,))


def test_a_gpu_and_no_cupy_in_conda(monkeypatch: pytest.MonkeyPatch, no_cupy: None) -> None:
    monkeypatch.setattr(_detect, "in_conda", lambda: True)
    assert only(look_at_cupy(H200))[0].fix == ("conda install -c conda-forge cupy",)


@pytest.mark.parametrize("conda", [False, True])
@pytest.mark.parametrize("records", [(), ("cupy",), ("cupy-cuda12x",)])
def test_the_doctor_says_what_the_error_says(
    monkeypatch: pytest.MonkeyPatch, no_cupy: None, conda: bool, records: tuple[str, ...]
) -> None:
    """One voice, whoever is asked; the doctor may know the driver besides."""
    monkeypatch.setattr(_detect, "in_conda", lambda: conda)
    wheels(monkeypatch, *records)
    place, _ = only(look_at_cupy(None))
    with pytest.raises(InvalidValue) as error:
        device("cuda")
    said = ", then ".join(place.fix).removeprefix("for an NVIDIA GPU: ")
    assert str(error.value).endswith(said)
    assert ("conda" in said) == (conda and records != ("cupy-cuda12x",))
    (cupy,) = (each for each in libraries._known() if each.module == "cupy")
    assert records or cupy.install == said


def test_a_wheel_without_a_driver(cupy: FakeCuPy) -> None:
    cupy.available, cupy.driver = False, 0
    place, finding = only(look_at_cupy(None))
    assert place.why == "CuPy 14.2.0 is installed, but CUDA finds no GPU (no NVIDIA driver)"
    assert place.fix == ("install the NVIDIA driver; without a GPU there is nothing to mend",)
    assert finding is None


def test_a_driver_too_old_for_the_wheel(monkeypatch: pytest.MonkeyPatch, cupy: FakeCuPy) -> None:
    cupy.available = False
    place, finding = only(look_at_cupy(H200))
    assert "cudaErrorInsufficientDriver" in place.why
    assert finding == Finding("GPU", place.why, ("update the NVIDIA driver",), wrong=True)
    wheels(monkeypatch, "cupy-cuda13x")
    place, finding = only(look_at_cupy(H200))
    assert finding is not None
    assert finding.fix == ("pip uninstall -y cupy-cuda13x", TWELVE)


def test_hidden_gpus(monkeypatch: pytest.MonkeyPatch, cupy: FakeCuPy) -> None:
    cupy.available = False
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, finding = only(look_at_cupy(H200))
    assert finding is not None
    assert (finding.fix, finding.wrong) == ((mending.unset("CUDA_VISIBLE_DEVICES"),), False)


@pytest.mark.parametrize(
    ("wheel", "driver", "fix"),
    [
        ("cupy-cuda12x", H200, TWELVE),
        ("cupy-cuda12x", None, TWELVE),
        ("cupy-cuda13x", NEWER, THIRTEEN),
        ("cupy", H200, TWELVE),
    ],
)
def test_a_driver_without_cuda_libraries(
    monkeypatch: pytest.MonkeyPatch,
    cupy: FakeCuPy,
    wheel: str,
    driver: Driver | None,
    fix: str,
) -> None:
    def fail(gpu: int, x: Any) -> Any:
        raise RuntimeError("CuPy failed to load libnvrtc.so.12")

    cupy.kernel, cupy.gpus = fail, 1
    wheels(monkeypatch, wheel)
    place, finding = only(look_at_cupy(driver))
    assert place.spec == "cuda:0"
    assert "failed to load libnvrtc.so.12" in place.why
    assert finding == Finding("GPU", place.why, (fix,), wrong=True)


def test_a_conda_package_without_cuda_libraries(
    monkeypatch: pytest.MonkeyPatch, cupy: FakeCuPy
) -> None:
    monkeypatch.setattr(_detect, "in_conda", lambda: True)
    wheels(monkeypatch, "cupy")
    cupy.kernel, cupy.gpus = lambda gpu, x: 1 / 0, 1
    assert only(look_at_cupy(H200))[0].fix == ("conda install -c conda-forge cupy",)


@pytest.mark.parametrize(
    ("driver", "again"),
    [
        (H200, (TWELVE,)),
        (NEWER, (THIRTEEN,)),
        (None, (INSTALL,)),
    ],
)
@pytest.mark.parametrize("works", [True, False])
def test_two_wheels(
    monkeypatch: pytest.MonkeyPatch,
    cupy: FakeCuPy,
    driver: Driver | None,
    again: tuple[str, ...],
    works: bool,
) -> None:
    cupy.available = works
    wheels(monkeypatch, "cupy-cuda12x", "cupy-cuda13x")
    _, findings = look_at_cupy(driver)
    text = "cupy-cuda12x and cupy-cuda13x are both installed and share their files"
    fix = ("pip uninstall -y cupy-cuda12x cupy-cuda13x", *again)
    assert findings == [Finding("GPU", text, fix, wrong=True)]


def test_two_wheels_one_of_them_conda_s(monkeypatch: pytest.MonkeyPatch, cupy: FakeCuPy) -> None:
    monkeypatch.setattr(_detect, "in_conda", lambda: True)
    wheels(monkeypatch, "cupy", "cupy-cuda12x")
    assert look_at_cupy(H200)[1][0].fix == (
        "pip uninstall -y cupy-cuda12x",
        "conda install -c conda-forge --force-reinstall cupy",
    )


def test_a_record_whose_files_are_gone(monkeypatch: pytest.MonkeyPatch, no_cupy: None) -> None:
    wheels(monkeypatch, "cupy-cuda13x")
    place, finding = only(look_at_cupy(None))
    assert place.why == "of cupy-cuda13x only the record is left"
    assert finding is not None
    assert finding.wrong
    assert finding.fix == ("pip uninstall -y cupy-cuda13x", THIRTEEN)


def test_half_of_cupy(monkeypatch: pytest.MonkeyPatch, cupy: FakeCuPy) -> None:
    del cupy.module.is_available
    place, finding = only(look_at_cupy(H200))
    assert place.why.startswith("CuPy is installed but broken (AttributeError")
    assert finding is not None
    assert finding.fix == ("pip uninstall -y cupy-cuda12x", TWELVE)


def test_wrong_numbers(cupy: FakeCuPy) -> None:
    cupy.kernel, cupy.gpus = lambda gpu, x: x + 1.0, 1
    place, finding = only(look_at_cupy(H200))
    fix = ("check the GPU and its driver (nvidia-smi)",)
    text = "a first computation on cuda:0 (cupy) gave wrong numbers"
    assert finding == Finding("GPU", text, fix, wrong=True)
    assert place.fix == fix


def test_gpus_that_work(cupy: FakeCuPy) -> None:
    gpu = {"name": b"Fake", "totalGlobalMem": 2**30}
    cupy.module.cuda.runtime.getDeviceProperties = lambda index: gpu
    places, findings = look_at_cupy(H200)
    assert places == [Place(f"cuda:{i}", "cupy", True, "Fake", 2**30) for i in (0, 1)]
    assert findings == []


def test_a_device_asked_for_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, no_cupy: None
) -> None:
    monkeypatch.setenv("DEVCONV_DEVICE", "cuda")
    monkeypatch.setattr(room, "look_for_driver", lambda: None)
    monkeypatch.setattr(room, "_look_at_library", lambda *a: [])
    found = look_at_devices()
    assert found.auto == ""
    (finding,) = found.findings
    assert finding.wrong
    assert finding.text.startswith('DEVCONV_DEVICE=cuda: "cuda" cannot be used: CuPy is not')
    assert finding.fix == (mending.unset("DEVCONV_DEVICE"),)


def test_the_cpu_is_always_there(monkeypatch: pytest.MonkeyPatch, no_cupy: None) -> None:
    monkeypatch.setattr(room, "look_for_driver", lambda: None)
    monkeypatch.setattr(room, "_look_at_library", lambda *a: [])
    found = look_at_devices()
    assert [(place.spec, place.usable) for place in found.places] == [
        ("cpu", True),
        ("cuda", False),
    ]
    assert found.auto == "cpu"
    assert found.reason.startswith("no usable GPU: CuPy is not installed")


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_other_libraries(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    pytest.importorskip(library)
    monkeypatch.setattr(room, f"_{library}_gpus", dict)
    assert room._look_at_library(library, None) == [Place(library, library, True, "the CPU")]

    def refuse(spec: str) -> None:
        if ":" in spec:
            raise _detect.Unusable("built without CUDA", "install another", "no device")

    monkeypatch.setattr(room, "look", refuse)  # with a driver a GPU is expected
    assert room._look_at_library(library, H200)[1] == Place(
        f"{library}:cuda:0", library, False, why="built without CUDA", fix=("install another",)
    )


@pytest.mark.parametrize("state", ["missing", "broken"])
def test_a_library_that_does_not_import(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    def refuse(spec: str) -> None:
        raise _detect.Unusable("no", "do", state)

    monkeypatch.setattr(room, "look", refuse)
    broken = [Place("torch", "torch", False, why="no", fix=("do",))]
    assert room._look_at_library("torch", None) == (broken if state == "broken" else [])


SMI = "| NVIDIA-SMI 570.1    Driver Version: 570.1    CUDA Version: 12.8     |\n"
LIST = "GPU 0: NVIDIA H200 (UUID: GPU-1)\nGPU 1: NVIDIA H200 (UUID: GPU-2)\n"


def test_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.shutil, "which", lambda name: None)
    assert room.look_for_driver() is None
    monkeypatch.setattr(room.shutil, "which", lambda name: f"/bin/{name}")
    done = {("/bin/nvidia-smi",): SMI, ("/bin/nvidia-smi", "-L"): LIST}

    def run(command: tuple[str, ...], **options: Any) -> Any:
        return SimpleNamespace(stdout=done[command])

    monkeypatch.setattr(subprocess, "run", run)
    assert room.look_for_driver() == Driver("570.1", "12.8", ("NVIDIA H200", "NVIDIA H200"))

    def hang(command: tuple[str, ...], **options: Any) -> Any:
        raise subprocess.TimeoutExpired(command, 20)

    monkeypatch.setattr(subprocess, "run", hang)
    assert room.look_for_driver() == Driver("", "", ())
