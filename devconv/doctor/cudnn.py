"""cuDNN, which NVIDIA gives out in two halves: which are there, and what mends the pair."""

from __future__ import annotations

from dataclasses import dataclass

from devconv import _fast
from devconv._detect import CUPY_RECORDS, Unusable, installed
from devconv._fast.cudnn import presence
from devconv.doctor.report import Finding

LIBRARIES = {"12": "nvidia-cudnn-cu12", "13": "nvidia-cudnn-cu13"}
"""The distributions of the library, by the major version of CUDA."""


@dataclass(frozen=True)
class CuDNN:
    """cuDNN for CuPy arrays.

    Attributes:
        front_end: the version of its front end, ``""`` where that does not import.
        library: the version of the library itself, ``""`` where that does not load.
        asked_for: whether its routes are taken; they are on trial.
        problem: why they could not be.
        install: the command that brings both halves.
    """

    front_end: str
    library: str
    asked_for: bool
    problem: str = ""
    install: str = ""


def look_at_cudnn() -> tuple[CuDNN | None, tuple[Finding, ...]]:
    """Both halves; ``None`` where there is neither CuPy nor anything of cuDNN's front end."""
    asked, wheels = "cudnn" in _fast.trials(), installed(*CUPY_RECORDS)
    halves = presence.records()
    try:
        module = presence.find()
    except Unusable as problem:
        known = wheels or "nvidia-cudnn-frontend" in halves or problem.state == "broken"
        if not (known or asked):
            return None, ()
        state = CuDNN("", "", asked, problem.why, problem.fix)
        half = asked or "nvidia-cudnn-frontend" in halves or problem.state == "broken"
        finding = Finding("cuDNN", problem.why, (problem.fix,), wrong=problem.state == "broken")
        return state, (_library(wheels, halves) or ((finding,) if half else ()))
    state = CuDNN(str(module.__version__), presence.version(module), asked)
    return state, _library(wheels, halves)


def _library(wheels: list[str], halves: list[str]) -> tuple[Finding, ...]:
    """What is wrong with the distributions that bring the library."""
    here = [name for name in LIBRARIES.values() if name in halves]
    fitting = [name for major, name in LIBRARIES.items() if f"cupy-cuda{major}x" in wheels]
    if len(here) > 1:
        text = f"{' and '.join(here)} are both installed and share their files"
    elif here and fitting and here != fitting:
        text = f"{here[0]} is for another CUDA than {wheels[0]}"
    else:
        return ()
    keep = fitting[0] if len(fitting) == 1 else here[-1]
    fix = (f"pip uninstall -y {' '.join(here)}", f"pip install {keep}")
    return (Finding("cuDNN", text, fix, wrong=True),)
