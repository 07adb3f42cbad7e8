"""Who takes part on a GPU: the library each way it can be switched, and who is left out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

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
    """The library's contestants by name, and why others are left out.

    Args:
        told: the place, and who is not wanted.
        traded: whether to have cuDNN with TF32 allowed, too.
    """
    found: dict[str, Switch] = {OURS: on_trial, "written once": written_once}
    left_out = {}
    for label, trials in TRIALS.items():
        why = [said for trial in trials if (said := lacking(trial, told.place))]
        if why:
            left_out[label] = "; ".join(why)
        elif set(told.without) & {label, *trials}:
            left_out[label] = "asked to be left out"
        else:
            found[label] = partial(on_trial, *trials)
    if traded and "cudnn" in found:
        found["cudnn fast"] = partial(all_of, found["cudnn"], fast)
    return found, left_out
