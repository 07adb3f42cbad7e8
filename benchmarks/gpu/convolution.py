"""The convolutions of an ImageNet ResNet-50, forward and both gradients.

Each distinct shape is a row and counts once in the geometric mean; how often it occurs in the
network is on record beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks import ours, peers
from benchmarks.agreement import TOLERANCE, TRADED
from benchmarks.gpu import contestants
from benchmarks.gpu.race import Makers, Racer, race
from benchmarks.gpu.tables import NOTE, absent, joined, raced
from benchmarks.gpu.told import Jobs, Told
from benchmarks.report import Row
from benchmarks.shapes import Shape, resnet50

MINUTES = 8.0
IMAGES = 64


def shapes(small: bool) -> dict[Shape, int]:
    """The distinct shapes, and how often each occurs; for a rehearsal a few, small."""
    if not small:
        return resnet50(IMAGES)
    few = list(resnet50(2, 16).items())
    return dict([few[0], few[2], few[6]])


def jobs(told: Told) -> Jobs:
    """A row for each dtype and shape."""
    return {
        f"{dtype}: {shape}": partial(row, shape, times, dtype, told)
        for dtype in told.kinds()
        for shape, times in shapes(told.small).items()
    }


def row(shape: Shape, times: int, dtype: str, told: Told) -> Row:
    """One shape."""
    makers, left_out = entrants(shape, dtype, told)

    def tolerance(label: str) -> float:
        traded = any(word in label for word in TRADED)
        return max(TOLERANCE[dtype], TRADED["TF32"] if traded else 0.0)

    measured = race(makers, told, tolerance, left_out)
    return {"case": str(shape), "dtype": dtype, "times": times, **measured}


def entrants(shape: Shape, dtype: str, told: Told) -> tuple[Makers, dict[str, str]]:
    """Who takes part; the library's contestants share their arrays, which none of them changes.

    Cotangents of images are compared for the first and the last image, the kernel's whole.
    """
    switches, left_out = contestants.ours(told, traded=dtype == "float32")
    switches.pop("kernels + cudnn", None)  # either computes the whole convolution
    given: list[Any] = []

    def mine(switch: Any) -> Racer:
        if not given:
            given.append(ours.placed(shape, told.place, dtype))
        return _racer(ours.on(shape, given[0], switch))

    makers = {label: partial(mine, switch) for label, switch in switches.items()}
    if lacks := told.place.lacks_torch:
        return makers, {**left_out, "PyTorch": lacks}
    formats = {"PyTorch": (False, False), "PyTorch channels-last": (True, False)}
    if dtype == "float32":
        formats["PyTorch TF32"] = (True, True)

    def theirs(last: bool, tf32: bool) -> Racer:
        return _racer(peers.torch(shape, told.place, dtype, last=last, tf32=tf32))

    return {**makers, **{name: partial(theirs, *how) for name, how in formats.items()}}, left_out


def _racer(contestant: ours.Contestant) -> Racer:
    def check() -> Sequence[Any]:
        y, dx, dweight = contestant.both()
        ends = max(1, y.shape[0] - 1)
        return y[::ends], dx[::ends], dweight

    return Racer(contestant.both, check)


def table(rows: Mapping[str, Row]) -> str:
    """A table for each dtype."""
    parts = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows.values() if "dtype" in row):
        of_dtype = {name: row for name, row in rows.items() if row.get("dtype") == dtype}
        parts.append(f"{dtype}:\n\n{raced(of_dtype, 'geometric mean, distinct shapes')}")
    about = (
        f"The distinct convolutions of ResNet-50 (N, C, size, O, kernel) at batch {IMAGES}, each "
        "counted once in the mean, forward and both gradients."
    )
    return joined(about, NOTE, *parts, absent(rows))
