"""Who takes part on a GPU: the library each way it can be switched, and who is left out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import devconv as dc
from benchmarks.gpu.told import Told
from benchmarks.place import Place
from benchmarks.report import OURS
from benchmarks.switches import Switch, all_of, fast, written_once
from devconv import _fast
from devconv._detect import Unusable
from devconv._fast.cudnn import presence

TRIALS = {"kernels": ("kernels",), "cudnn": ("cudnn",), "kernels + cudnn": ("kernels", "cudnn")}
"""Contestants with routes on trial, and which."""
FAST = " fast"
"""How the label of a contestant ends that trades digits for speed."""
LABELS = (
    *("written once", *TRIALS, f"{OURS}{FAST}", f"cudnn{FAST}"),
    *("PyTorch", "PyTorch channels-last", "PyTorch TF32", "NumPy"),
)
"""Who may be left out: all but the library as it is, with which the others are compared."""
ASKED = "asked to be left out"

Found = TypeVar("Found")


def on_trial(*names: str) -> AbstractContextManager[Any]:
    """With these routes on trial, and no others."""
    return _fast.trial(*names)


def lacking(trial: str, place: Place) -> str:
    """Why routes on trial cannot be tried here; empty where they can."""
    library = dc.device(place.kind).library
    if not any(name == library for _, name in _fast.TRIALS[trial]):
        return f"no route of {trial} is on trial for {library} arrays"
    if trial == "cudnn":
        try:
            presence.find()
        except Unusable as problem:
            return problem.why
    return ""


@contextmanager
def overheard() -> Iterator[list[str]]:
    """What routes say inside when they leave the work to what is written once, each time anew."""
    said: list[str] = []
    presence._said.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", presence.NotTaken)
        yield said
    said += dict.fromkeys(
        str(each.message) for each in caught if issubclass(each.category, presence.NotTaken)
    )


def ours(told: Told, *, traded: bool = False) -> tuple[dict[str, Switch], dict[str, str]]:
    """The library's contestants by name, and why others cannot take part.

    Args:
        told: the place.
        traded: whether to have the library and cuDNN with TF32 allowed, too.
    """
    found: dict[str, Switch] = {OURS: on_trial, "written once": written_once}
    left_out = {}
    for label, trials in TRIALS.items():
        why = [said for trial in trials if (said := lacking(trial, told.place))]
        if why:
            left_out[label] = "; ".join(why)
        else:
            found[label] = partial(on_trial, *trials)
    for label in (OURS, "cudnn") if traded else ():
        if label in found:
            found[f"{label}{FAST}"] = partial(all_of, found[label], fast)
    return found, left_out


def wanted(
    found: Mapping[str, Found], without: Iterable[str]
) -> tuple[dict[str, Found], dict[str, str]]:
    """Those who take part, and those asked to be left out: by their label, or by their routes."""
    asked = {
        label: ASKED
        for label in found
        if {label, *TRIALS.get(label.removesuffix(FAST), ())} & set(without)
    }
    return {label: each for label, each in found.items() if label not in asked}, asked


def unknown(without: Iterable[str]) -> str:
    """What is wrong with a list of who is left out, in one line; empty where nothing is."""
    bad = [label for label in without if label not in LABELS]
    return f"--without {bad[0]!r} is nobody; there are {', '.join(LABELS)}" if bad else ""
