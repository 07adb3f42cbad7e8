"""Whether cuDNN is there, in both its halves, and saying so where it is not."""

from __future__ import annotations

import importlib
import threading
import warnings
from typing import Any

from devconv import _detect
from devconv._detect import Unusable, installed

OLDEST = 90000
"""The version of the library that the front end needs, as the library tells it: 9.0.0."""


class NotTaken(UserWarning):
    """A quicker route was asked for, and what is written once runs in its place."""


def find() -> Any:
    """The front end, with the library behind it; asked once.

    Raises:
        Unusable: one of the two is missing or does not load; with the command that mends it.
    """
    return _detect.once("cudnn", _look)


def version(cudnn: Any) -> str:
    """The version of the library behind the front end: ``"9.10.2"``."""
    number = cudnn.backend_version()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _look() -> Any:
    install = f"pip install {_extra()}"
    found = records()
    again = f"pip install --force-reinstall {' '.join(found)}" if found else install
    try:
        cudnn = importlib.import_module("cudnn")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cudnn":
            raise Unusable("cuDNN's front end is not installed", install, "missing") from None
        why = f"cuDNN's front end does not import ({_detect.line(error)})"
        raise Unusable(why, again, "broken") from None
    if not hasattr(cudnn, "pygraph"):
        why = "the module cudnn is not nvidia-cudnn-frontend's"
        raise Unusable(why, f"pip uninstall cudnn, then {install}", "broken")
    try:
        number = cudnn.backend_version()
    except Exception as error:
        state = "broken" if len(found) > 1 else "missing"
        why = f"cuDNN's front end is here and finds no cuDNN ({_detect.line(error)})"
        raise Unusable(why, again if state == "broken" else install, state) from None
    if number < OLDEST:
        raise Unusable(f"cuDNN is {number}, older than 9", f"{install} --upgrade", "broken")
    return cudnn


def records() -> list[str]:
    """The distributions that bring cuDNN, as far as they are installed; its front end first."""
    return installed("nvidia-cudnn-frontend", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")


def _extra() -> str:
    """The extra that brings both, for the CUDA that CuPy is for."""
    return '"devconv[cudnn12]"' if installed("cupy-cuda12x") else '"devconv[cudnn]"'


def is_usable() -> bool:
    """Whether it is there; if it is not, that is said."""
    try:
        find()
    except Unusable as problem:
        say("not there", problem.why, problem.fix)
        return False
    return True


_said: set[str] = set()
_saying = threading.Lock()


def say(reason: str, why: str, fix: str) -> None:
    """Warn, once for each reason."""
    with _saying:
        if reason in _said:
            return
        _said.add(reason)
    text = f"{why}; such convolutions of CuPy arrays run as they are written once: {fix}"
    warnings.warn(text, NotTaken, stacklevel=2)
