"""cuDNN in every half-installed state: what is said, and the command that mends it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from devconv import _detect, _fast
from devconv._fast.cudnn import presence
from devconv.doctor import text
from devconv.doctor.cudnn import CuDNN, look_at_cudnn
from devconv.doctor.report import Finding
from devconv.doctor.routes import Routes, look_at_routes

FRONT_END = "nvidia-cudnn-frontend"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_detect, "_answers", {})
    with _fast.trial():
        yield


def records(monkeypatch: pytest.MonkeyPatch, *there: str, module: Any = None) -> None:
    """Let these distributions be installed, and ``import cudnn`` give this."""
    for room in (presence, importlib.import_module("devconv.doctor.cudnn")):
        monkeypatch.setattr(room, "installed", lambda *names: [n for n in names if n in there])
    monkeypatch.setitem(sys.modules, "cudnn", module)


def front_end(version: Any = 92800) -> ModuleType:
    """The front end; the library's version, or why there is none."""

    def backend_version() -> int:
        if isinstance(version, Exception):
            raise version
        return version

    made = ModuleType("cudnn")
    vars(made).update(__version__="1.28.0", pygraph=object, backend_version=backend_version)
    return made


NO_SYMBOL = RuntimeError("Unable to find symbol cudnnGetVersion")
FINDS_NONE = (
    "cuDNN's front end is here and finds no cuDNN "
    "(RuntimeError: Unable to find symbol cudnnGetVersion)"
)


def test_nothing_of_it_and_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    records(monkeypatch)
    assert look_at_cudnn() == (None, ())


@pytest.mark.parametrize(("cuda", "extra"), [("12", "cudnn12"), ("13", "cudnn")])
def test_cupy_alone(monkeypatch: pytest.MonkeyPatch, cuda: str, extra: str) -> None:
    """It is told how to get it; nothing wants mending, unless its routes are asked for."""
    records(monkeypatch, f"cupy-cuda{cuda}x")
    why, fix = "cuDNN's front end is not installed", f'pip install "devconv[{extra}]"'
    assert look_at_cudnn() == (CuDNN("", "", False, why, fix), ())
    with _fast.trial("cudnn"):
        state, findings = look_at_cudnn()
    assert state == CuDNN("", "", True, why, fix)
    assert findings == (Finding("cuDNN", why, (fix,)),)


def test_the_front_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    records(monkeypatch, FRONT_END, "cupy-cuda12x", module=front_end(NO_SYMBOL))
    fix = 'pip install "devconv[cudnn12]"'
    state, findings = look_at_cudnn()
    assert state == CuDNN("", "", False, FINDS_NONE, fix)
    assert findings == (Finding("cuDNN", FINDS_NONE, (fix,)),)


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    there = (FRONT_END, "nvidia-cudnn-cu13", "cupy-cuda13x")
    records(monkeypatch, *there, module=front_end(NO_SYMBOL))
    (finding,) = look_at_cudnn()[1]
    fix = f"pip install --force-reinstall {FRONT_END} nvidia-cudnn-cu13"
    assert finding == Finding("cuDNN", FINDS_NONE, (fix,), wrong=True)


def test_another_module_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    records(monkeypatch, module=ModuleType("cudnn"))
    (finding,) = look_at_cudnn()[1]
    assert finding.wrong
    assert finding.fix == ('pip uninstall cudnn, then pip install "devconv[cudnn]"',)


def test_the_library_for_another_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    records(monkeypatch, FRONT_END, "nvidia-cudnn-cu13", "cupy-cuda12x", module=front_end())
    state, (finding,) = look_at_cudnn()
    assert state == CuDNN("1.28.0", "9.28.0", False)
    assert finding == Finding(
        "cuDNN",
        "nvidia-cudnn-cu13 is for another CUDA than cupy-cuda12x",
        ("pip uninstall -y nvidia-cudnn-cu13", "pip install nvidia-cudnn-cu12"),
        wrong=True,
    )


@pytest.mark.parametrize("module", [front_end(), front_end(NO_SYMBOL)])
def test_two_libraries(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    both = ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
    records(monkeypatch, FRONT_END, *both, "cupy-cuda13x", module=module)
    (finding,) = look_at_cudnn()[1]
    assert finding == Finding(
        "cuDNN",
        "nvidia-cudnn-cu12 and nvidia-cudnn-cu13 are both installed and share their files",
        ("pip uninstall -y nvidia-cudnn-cu12 nvidia-cudnn-cu13", "pip install nvidia-cudnn-cu13"),
        wrong=True,
    )


@pytest.mark.parametrize("wheels", [("cupy-cuda13x",), ("cupy",)])  # conda's has no number
def test_all_is_well(monkeypatch: pytest.MonkeyPatch, wheels: tuple[str, ...]) -> None:
    records(monkeypatch, FRONT_END, "nvidia-cudnn-cu13", *wheels, module=front_end(91002))
    assert look_at_cudnn() == (CuDNN("1.28.0", "9.10.2", False), ())
    with _fast.trial("cudnn"):
        assert look_at_cudnn() == (CuDNN("1.28.0", "9.10.2", True), ())


def test_it_is_a_line_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    records(monkeypatch, FRONT_END, module=front_end(NO_SYMBOL))
    found = look_at_routes()
    assert found.cudnn == look_at_cudnn()[0]
    assert [finding.about for finding in found.findings] == ["cuDNN"]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (
            CuDNN("1.28.0", "9.28.0", False),
            "cuDNN 9.28.0 by front end 1.28.0; on trial, not asked for, by DEVCONV_TRIAL=cudnn",
        ),
        (CuDNN("1.28.0", "9.28.0", True), "cuDNN 9.28.0 by front end 1.28.0; on trial, taken"),
        (CuDNN("", "", False, "it is missing", "pip install it"), "it is missing: pip install it"),
    ],
)
def test_as_text(state: CuDNN, line: str) -> None:
    found = Routes(enabled=True, by_library={"cupy": ("take",)}, cudnn=state)
    whole = f"Quicker routes\n  CuPy                take\n  CuPy, by cuDNN      {line}\n"
    assert " ".join(text.section("routes", found).split()) == " ".join(whole.split())
    assert max(map(len, text.section("routes", found).splitlines())) <= 100
