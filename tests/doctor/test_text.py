"""The report as text: the lines themselves, and the width."""

from __future__ import annotations

import dataclasses

import pytest

from devconv.doctor import text
from devconv.doctor.agreement import Agreement, Trial
from devconv.doctor.blas import Blas
from devconv.doctor.devices import Devices, Driver, Place
from devconv.doctor.libraries import Libraries, Library
from devconv.doctor.machine import Machine, Processor, Setting, Settings
from devconv.doctor.report import Failed, Finding, Report, Section
from devconv.doctor.routes import Routes
from devconv.doctor.speed import judged

CPU = Processor(name="AMD EPYC", count=2, avx512=True, l2=1024, memory=24 * 2**30)
DRIVER = Driver("570.1", "12.8", ("NVIDIA H200",))
BLAS = Blas(
    library="OpenBLAS",
    version="0.3.31",
    threading="pthreads",
    threads=2,
    cpus=2,
    kernel="Haswell",
    uses_avx512=False,
    path="/lib/libopenblas.so",
    environment={"OMP_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Haswell"},
)
SECTIONS: dict[str, tuple[Section, str]] = {
    "machine": (
        Machine(
            devconv="0.1.0",
            python="3.11.7 (CPython)",
            executable="/opt/bin/python",
            system="Linux 6.18, x86_64",
            processor=CPU,
        ),
        """\
Machine
  devconv             0.1.0
  Python              3.11.7 (CPython)
                      /opt/bin/python
  system              Linux 6.18, x86_64
  processor           AMD EPYC, 2 CPUs, AVX-512
  memory              24.0 GiB
""",
    ),
    "settings": (
        Settings(settings=(Setting("DEVCONV_DEVICE", None, "a"), Setting("B", " cpu", "b"))),
        """\
Settings
  DEVCONV_DEVICE      not set      a
  B                   ' cpu'       b
""",
    ),
    "devices": (
        Devices(
            driver=DRIVER,
            places=(
                Place("cpu", "numpy", True, "AMD EPYC", 24 * 2**30),
                Place("cuda:0", "cupy", True, "NVIDIA H200", 139 * 2**30),
                Place("jax:cuda:0", "jax", False, why="it is not", fix=("pip a", "pip b")),
            ),
            auto="cuda:0",
            reason="the first usable GPU",
        ),
        """\
Devices
  NVIDIA driver       570.1        for CUDA 12.8, sees 1 GPU
  cpu                 usable       NumPy on AMD EPYC, 24.0 GiB
  cuda:0              usable       CuPy on NVIDIA H200, 139.0 GiB
  jax:cuda:0          unusable     it is not
                                   pip a
                                   pip b
  "auto"              cuda:0       the first usable GPU
""",
    ),
    "libraries": (
        Libraries(
            libraries=(
                Library("numpy", "2.4.6", "arrays", "pip install numpy"),
                Library("numba", None, "compiled routes", 'pip install "devconv[fast]"'),
                Library("jax", "0.10.2", "arrays", "pip install jax", "ImportError: no"),
            )
        ),
        """\
Libraries
  numpy               2.4.6        arrays
  numba               -            compiled routes: pip install "devconv[fast]"
  jax                 0.10.2       does not import
""",
    ),
    "blas": (
        BLAS,
        """\
NumPy's BLAS
  library             OpenBLAS 0.3.31
  kernel              Haswell, without AVX-512
  threads             2 on 2 CPUs
  environment         OMP_NUM_THREADS=2
                      OPENBLAS_CORETYPE=Haswell
""",
    ),
    "routes": (
        Routes(enabled=False, by_library={"numpy": ("take", "columns")}),
        """\
Quicker routes
  NumPy               take, columns
  none is in use      DEVCONV_GENERIC is set
""",
    ),
    "agreement": (
        Agreement(
            reference="NumPy",
            trials=(
                Trial("cpu", "float64", 0.0, 1e-12, ok=True),
                Trial("torch", "float32", 1.234e-3, 1e-5, ok=False),
                Trial("jax", "float32", None, 1e-5, ok=False, problem="RuntimeError: no"),
            ),
        ),
        """\
Agreement of a small network's results and gradients with NumPy's in float64
  cpu                 float64      ok      equal
  torch               float32      NOT ok  off by 1.2e-03, allowed 1e-05
  jax                 float32      NOT ok  RuntimeError: no
""",
    ),
    "speed": (
        judged(400.0, 300.0, 600.0),
        """\
Speed
  NumPy product         400 GFLOP/s  1024 × 1024 by 1024 × 1024, float32
  NumPy convolution     300 GFLOP/s  64 to 64 channels, 3 × 3; 0.75 of the product
  PyTorch's             600 GFLOP/s  its own; NumPy's has 0.50 of its speed
  verdict             fine: a convolution keeps 75% of the speed of the products it is made of
""",
    ),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_each_section(name: str) -> None:
    section, expected = SECTIONS[name]
    assert text.section(name, section) == expected


def test_a_busy_machine_is_noted() -> None:
    speed = dataclasses.replace(judged(400.0, 300.0, None), busy=True)
    assert text.section("speed", speed).splitlines()[3:] == [
        "  note                other programs keep this machine busy: the figures are too low",
        "  verdict             fine: a convolution keeps 75% of the speed of the products it is "
        "made of",
    ]


def test_there_are_no_others() -> None:
    assert set(SECTIONS) == set(text._TITLES) == set(text._ROWS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_probe_that_broke_down(name: str) -> None:
    lines = text.section(name, Failed(problem="RuntimeError: oh")).splitlines()
    assert lines[1:] == ["  not known           RuntimeError: oh"]


def test_what_is_unknown_is_said_to_be() -> None:
    cpu = dataclasses.replace(CPU, avx512=None, memory=None)
    machine = dataclasses.replace(SECTIONS["machine"][0], processor=cpu)
    assert "AMD EPYC, 2 CPUs, AVX-512 unknown\n  memory              unknown\n" in text.section(
        "machine", machine
    )
    blas = dataclasses.replace(
        BLAS, version=None, threads=None, kernel=None, uses_avx512=None, environment={}
    )
    assert text.section("blas", blas).splitlines()[1:] == [
        "  library             OpenBLAS",
        "  kernel              unknown",
        "  threads             unknown",
    ]


@pytest.mark.parametrize(
    ("auto", "reason", "expected"),
    [
        ("cpu", "no usable GPU: CuPy is not installed; do", "cpu          no usable GPU"),
        ("", "oh", "unusable     DEVCONV_DEVICE asks for what cannot be used"),
        ("cpu", "set by DEVCONV_DEVICE=cpu", "cpu          set by DEVCONV_DEVICE=cpu"),
    ],
)
def test_what_auto_stands_for(auto: str, reason: str, expected: str) -> None:
    devices = Devices(driver=None, places=(), auto=auto, reason=reason)
    assert text.section("devices", devices).splitlines()[1:] == [
        f'  "auto"              {expected}'
    ]


def test_the_closing_lines() -> None:
    slow = Finding("BLAS", "it is slow", ("unset A",))
    wrong = Finding("CuPy", "it is broken " * 10 + "and that is it", ("pip a", "pip b"), wrong=True)
    report = Report({"one": Section(findings=(slow, wrong))})
    assert (
        text.closing(report)
        == """\
What is wrong
  1. CuPy: it is broken it is broken it is broken it is broken it is broken it is broken it is
     broken it is broken it is broken it is broken and that is it.
       pip a
       pip b

What would be better
  1. BLAS: it is slow.
       unset A

1 thing wrong, 1 to improve."""
    )


def test_verdicts() -> None:
    agreement = SECTIONS["agreement"][0]
    slow = Section(findings=(Finding("BLAS", "it is slow"),))
    assert text.verdict(Report({})) == "Nothing is wrong. All is well."
    assert text.verdict(Report({"agreement": agreement})) == "All 3 results agree. All is well."
    both = Report({"agreement": agreement, "blas": slow})
    assert text.verdict(both) == "All 3 results agree; 1 thing to improve."


def test_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes back from the libraries."""
    long = "word " * 60 + "/a/path/without/a/space" * 10
    failed = text.section("blas", Failed(problem=long))
    place = Place("cuda:0", "cupy", False, why=long, fix=(long,))
    devices = Devices(driver=DRIVER, places=(place,), auto="cpu", reason=long)
    for shown in (failed, text.section("devices", devices)):
        assert max(map(len, shown.splitlines())) <= text.WIDTH
