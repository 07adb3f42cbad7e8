"""``python -m benchmarks [convolution | routes] [--shapes A B ...] [--record]``.

``convolution`` measures the library on NumPy beside its peers, ``routes`` what the quicker
routes buy on each library's arrays.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from benchmarks import convolution, machine, routes, timing

RESULTS = Path(__file__).parent / "results"


def agree(reference: Any, other: Any) -> float:
    """The largest difference of two results over the largest entry; they must be close."""
    worst = 0.0
    for a, b in zip(reference, other, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        worst = max(worst, float(np.abs(a - b).max() / np.abs(a).max()))
    if not worst < 1e-4:
        raise SystemExit(f"results differ by {worst:.1e} of their largest entry; nothing is timed")
    return worst


def measure(name: str, shape: convolution.Shape, rounds: int) -> dict[str, Any]:
    """One row of the table: seconds of each contestant, forward and with gradients."""
    ours = convolution.devconv(shape)
    contestants = {"devconv": ours, "written once": convolution.devconv(shape, written_once=True)}
    for label, last in (("torch", False), ("torch channels-last", True)):
        if (calls := convolution.torch(shape, last=last)) is not None:
            contestants[label] = calls
    reference = ours[1]()
    error = max(agree(reference, calls[1]()) for calls in contestants.values())
    row: dict[str, Any] = {"case": name, "shape": str(shape), "difference": error}
    for index, kind in enumerate(("forward", "with gradients")):
        row[kind] = timing.interleaved(
            {label: calls[index] for label, calls in contestants.items()}, rounds=rounds
        )
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown: milliseconds, and ratios (above 1: devconv is faster)."""
    peers = [name for name in rows[0]["forward"] if name != "devconv"]
    head = ["case", "N, C, size, O, kernel"]
    for kind in ("forward", "with gradients"):
        head += [f"{kind}, ms", *(f"{peer} / devconv" for peer in peers)]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        cells = [row["case"], row["shape"]]
        for kind in ("forward", "with gradients"):
            ours = row[kind]["devconv"]
            cells += [f"{1000 * ours:.2f}", *(f"{row[kind][peer] / ours:.2f}" for peer in peers)]
        lines.append(f"| {' | '.join(cells)} |")
    means = ["geometric mean", ""]
    for kind in ("forward", "with gradients"):
        means.append("")
        for peer in peers:
            logs = [math.log(row[kind][peer] / row[kind]["devconv"]) for row in rows]
            means.append(f"{math.exp(sum(logs) / len(logs)):.2f}")
    return "\n".join([*lines, f"| {' | '.join(means)} |"])


def main() -> None:
    """Measure, print the table, and record it if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the library beside its peers."
    )
    parser.add_argument("what", nargs="?", choices=["convolution", "routes"], default="convolution")
    parser.add_argument("--shapes", nargs="+", choices=list(convolution.SHAPES), help="some only")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/")
    given = parser.parse_args()

    timing.keep_memory()
    threadpoolctl.threadpool_limits(given.threads)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(given.threads)
    about = machine.describe(given.threads)
    print(f"{about['cpu']}, {given.threads} threads, {about['libraries']}")
    if about["environment"]:
        print(f"settings that move the numbers: {about['environment']}")
    if given.what == "routes":
        rows = routes.measure(given.rounds)
        text = routes.table(rows)
    else:
        rows = []
        for name in given.shapes or convolution.SHAPES:
            rows.append(measure(name, convolution.SHAPES[name], given.rounds))
            print(table(rows[-1:]).splitlines()[-2], flush=True)
        text = table(rows)
    print(text)
    if given.record:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{given.what}-{machine.label()}"
        record = {"machine": about, "rows": rows}
        path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        path.with_suffix(".md").write_text(
            f"{about['cpu']}, {given.threads} threads, {about['libraries']}\n\n"
            f"Ratios are seconds of the other over seconds of devconv: above 1, devconv is "
            f"quicker.\n\n{text}\n"
        )
        print(f"recorded in benchmarks/results/{path.name}.json and .md")


if __name__ == "__main__":
    main()
