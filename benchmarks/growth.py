"""Time per image as the batch grows: a route must not fall off a cliff."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import steps
from benchmarks.convolution import contestants
from benchmarks.networks import NETWORKS
from benchmarks.options import Options
from benchmarks.report import OURS, Row, columns, markdown

CONVOLUTION, NETWORK = "B", "LeNet-5"
Calls = Mapping[str, Callable[[], Any]]


def measure(options: Options) -> list[Row]:
    """One row for each case: microseconds per image at each batch."""
    cases: dict[str, Callable[[int], Calls]] = {}
    shape = options.shapes.get(CONVOLUTION)
    if shape is not None:
        cases[f"convolution {CONVOLUTION}, with gradients"] = lambda n: {
            name: racer.both
            for name, racer in contestants(shape.batch(n), options.place, "float32").items()
        }
    cases[f"{NETWORK}, training step"] = lambda n: steps.training(
        NETWORKS[NETWORK], options.place, "float32", n
    )
    rows: list[Row] = []
    for case, calls in cases.items():
        rows += [row(case, n, calls(n), options) for n in options.batches]
    return rows


def row(case: str, images: int, calls: Calls, options: Options) -> Row:
    """One case at one batch, without those too slow to matter."""
    timed = options.time({name: call for name, call in calls.items() if name != "MyGrad"})
    options.place.release()
    seconds = {name: each / images for name, each in timed.seconds.items()}
    print(f"{case}, batch {images}: devconv {1e6 * seconds[OURS]:.1f} µs an image", flush=True)
    return {
        "case": case,
        "batch": images,
        "per image": seconds,
        "disturbed": timed.disturbed,
    }


def table(rows: list[Row]) -> str:
    """Microseconds per image, and what the largest batch costs over the smallest."""
    names = columns(rows, "per image")
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        of_case = [row for row in rows if row["case"] == case]
        first, last = of_case[0], of_case[-1]
        for row in of_case:
            times = [f"{1e6 * row['per image'][n]:.1f}" if n in row["per image"] else "–"
                     for n in names]  # fmt: skip
            lines.append([case, str(row["batch"]), *times])
        grown = [
            f"{last['per image'][n] / first['per image'][n]:.2f}" if n in last["per image"] else "–"
            for n in names
        ]
        lines.append([f"**{last['batch']} over {first['batch']}**", "", *grown])
    body = markdown(["case", "batch", *(f"{name}, µs" for name in names)], lines)
    return f"Time per image, float32: level is 1.00 in the rows set bold.\n\n{body}"
