"""What each quicker route buys: the library with and without it, on its own arrays."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

import devconv as dc
from benchmarks import timing
from benchmarks.convolution import SHAPES, arrays, channels_last
from devconv import functional as F
from devconv.testing import generic

LIBRARIES = ("numpy", "torch", "jax")
CHOSEN = ("A", "B", "F", "H", "L", "S", "depthwise")


def calls(shape: Any, library: str, *, written_once: bool) -> Any:
    """Forward with both gradients, on the arrays of one library, until the result is there."""
    device = dc.device(library)
    host = arrays(shape)
    x, weight, dy = (device.asarray(channels_last(a)) for a in host)
    options: dict[str, Any] = {"stride": shape.stride, "padding": shape.padding}
    options["groups"] = shape.groups

    def both(x: Any, weight: Any, dy: Any) -> Any:
        y, pullback = F.conv.vjp(x, weight, **options)
        return y, *pullback(dy)

    with generic(written_once):
        if library == "jax":
            import jax

            compiled = jax.jit(both).lower(x, weight, dy).compile()
            return lambda: jax.block_until_ready(compiled(x, weight, dy))

    def run() -> Any:
        with generic(written_once):
            return both(x, weight, dy)

    return run


def measure(rounds: int) -> list[dict[str, Any]]:
    """One row for each library and shape: seconds with the routes, and without."""
    rows = []
    for library in LIBRARIES:
        if importlib.util.find_spec(library) is None:
            continue
        for name in CHOSEN:
            shape = SHAPES[name]
            quick = calls(shape, library, written_once=False)
            plain = calls(shape, library, written_once=True)
            for a, b in zip(quick(), plain(), strict=True):
                one, other = dc.to_numpy(a), dc.to_numpy(b)
                assert np.abs(one - other).max() < 1e-4 * np.abs(other).max()
            seconds = timing.interleaved({"quick": quick, "plain": plain}, rounds=rounds)
            rows.append({"library": library, "case": name, "shape": str(shape), **seconds})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown: what a route buys, above 1 where it is quicker."""
    lines = [
        "| arrays | case | N, C, size, O, kernel | with routes, ms | written once, ms | gain |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        quick, plain = 1000 * row["quick"], 1000 * row["plain"]
        lines.append(
            f"| {row['library']} | {row['case']} | {row['shape']} | {quick:.2f} | {plain:.2f} | "
            f"{plain / quick:.2f} |"
        )
    return "\n".join(lines)
