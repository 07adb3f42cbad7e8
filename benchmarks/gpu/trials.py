"""What each route on trial computes and buys: equality with the library without it, and gain.

An operation runs once with a trial's routes watched, which tells the primitives it reaches. Then
each of these routes runs alone, and all of the trial together, beside none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any

import devconv as dc
from benchmarks.agreement import TOLERANCE
from benchmarks.gpu import contestants
from benchmarks.gpu.clock import Dead, survived
from benchmarks.gpu.operations import OPERATIONS
from benchmarks.gpu.race import Racer, race
from benchmarks.gpu.tables import NOTE, absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.place import Place
from benchmarks.report import OURS, Row, markdown
from benchmarks.switches import Switch
from devconv import _fast

MINUTES = 4.0
ALL = "all of them"


def names(told: Told) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The primitives on trial here, by trial, and why other trials are left out."""
    found, left_out = {}, {}
    for trial in _fast.TRIALS:
        why = contestants.ASKED if trial in told.without else ""
        why = why or contestants.lacking(trial, told.place)
        if why:
            left_out[trial] = why
        else:
            found[trial] = sorted(_keys(trial, told.place))
    return found, left_out


def _keys(trial: str, place: Place) -> dict[str, tuple[str, str]]:
    library = dc.device(place.kind).library
    return {key[0]: key for key in _fast.TRIALS[trial] if key[1] == library}


def jobs(told: Told) -> Jobs:
    """A row for each trial, dtype and operation; one that says so where nothing is on trial."""
    on_trial, left_out = names(told)
    found: dict[str, Any] = {"on trial": lambda: {"on trial": on_trial, "left out": left_out}}
    for trial in on_trial:
        for dtype in told.kinds():
            for operation in OPERATIONS:
                found[f"{trial}, {dtype}: {operation}"] = partial(
                    row, trial, operation, dtype, told
                )
    return found


def row(trial: str, operation: str, dtype: str, told: Told) -> Row:
    """One operation with none, each and all of a trial's routes."""
    about: Row = {"trial": trial, "case": operation, "dtype": dtype}
    operated = OPERATIONS[operation](told.place, dtype, told.small)
    operated.check()  # by itself: what is shared by all comes to be
    reached: set[str] = set()
    try:
        with _traced(trial, told.place, reached):
            operated.check()
            told.place.synchronize()
    except Exception as problem:
        why = survived(f"{trial} in {operation}", problem, told.place)
        return {**about, "reached": sorted(reached), "seconds": {}, "failed": {trial: why}}
    about["reached"] = sorted(reached)
    if not reached:
        return {**about, "seconds": {}, "failed": {}}
    switches = {each: partial(_only, trial, told.place, {each}) for each in sorted(reached)}
    switches[ALL] = partial(_only, trial, told.place, reached)
    makers = {OURS: partial(_racer, operated, contestants.on_trial)}
    makers |= {label: partial(_racer, operated, switch) for label, switch in switches.items()}
    try:
        return {**about, **race(makers, told, lambda _: TOLERANCE[dtype], {})}
    except Dead as problem:
        if problem.label == OURS:
            raise
        raise Dead(f"{trial}: {problem.label}", problem.why) from None


def _racer(operated: Racer, switch: Switch) -> Racer:
    def switched(call: Callable[[], Any]) -> Any:
        with switch():
            return call()

    return Racer(partial(switched, operated.call), partial(switched, operated.check))


@contextmanager
def _exchanged(trial: str, routes: dict[tuple[str, str], Any]) -> Iterator[None]:
    before, _fast.TRIALS[trial] = _fast.TRIALS[trial], routes
    try:
        with _fast.trial(trial):
            yield
    finally:
        _fast.TRIALS[trial] = before


def _only(trial: str, place: Place, primitives: set[str]) -> AbstractContextManager[None]:
    """With some of a trial's routes alone."""
    keys = _keys(trial, place)
    return _exchanged(trial, {keys[name]: _fast.TRIALS[trial][keys[name]] for name in primitives})


def _traced(trial: str, place: Place, reached: set[str]) -> AbstractContextManager[None]:
    """With all of a trial's routes, noting those that compute."""

    def noting(name: str, route: Any) -> Any:
        @wraps(route)
        def noted(*given: Any, **options: Any) -> Any:
            result = route(*given, **options)
            if result is not None:  # which leaves it to what is written once
                reached.add(name)
            return result

        return noted

    keys = _keys(trial, place)
    return _exchanged(
        trial, {key: noting(name, _fast.TRIALS[trial][key]) for name, key in keys.items()}
    )


def table(rows: Mapping[str, Row]) -> str:
    """A line for each route in each operation that reaches it."""
    finished = complete(rows)
    on_trial: Mapping[str, list[str]] = finished.get("on trial", {}).get("on trial", {})
    lines, reached = [], set()
    for row in finished.values():
        if "case" not in row:
            continue
        reached |= {(row["trial"], name) for name in row["reached"]}
        ours = row["seconds"].get(OURS)
        for label, seconds in row["seconds"].items():
            if label != OURS and not (label == ALL and len(row["reached"]) == 1):
                far = row["differences"][label]
                lines.append(
                    [
                        f"{row['trial']}: {label}",
                        row["case"],
                        row["dtype"],
                        f"{far:.1e}" if isinstance(far, float) else far,
                        f"{1000 * seconds:.3f}",
                        f"{ours / seconds:.2f}" if ours else "–",
                    ]
                )
    head = ["route", "operation, forward and back", "dtype", "difference", "ms", "gain"]
    never = [
        f"- {trial}: {name} is reached by no operation here"
        for trial, primitives in on_trial.items()
        for name in primitives
        if (trial, name) not in reached
    ]
    about = (
        "Each route on trial alone, beside the library without routes on trial: the largest "
        "difference over the largest entry, milliseconds, and how many times quicker it is."
    )
    body = markdown(head, lines) if lines else "No route was timed."
    return joined(about, NOTE, body, "\n".join(never), absent(rows))
