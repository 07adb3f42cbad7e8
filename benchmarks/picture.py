"""The bar chart of the recorded convolutions: ``python -m benchmarks picture``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import OURS, Row, geometric_mean, heading
from benchmarks.shapes import NAMED

PEER = "PyTorch"
KINDS = {"forward": "Forward", "with gradients": "Forward and both gradients"}
COLOURS = {"with Numba": "#1b6ca8", "NumPy alone": "#9cc3e0", OURS: "#1b6ca8"}
INK, FAINT, LINE = "#222222", "#8a8a8a", "#c0392b"
MEAN = "geometric\nmean\nA to S"

Series = dict[str, list[float]]


def series(rows: Sequence[Row], kind: str) -> tuple[list[str], Series]:
    """Labels, and per way to compute: the peer's time over its own, and their mean.

    Older records name the peer ``torch``, and have one way to compute.
    """
    rows = [row for row in rows if row.get("dtype", "float32") == "float32"]
    peer = PEER if PEER in rows[0][kind] else "torch"
    alone = all("NumPy alone" in row[kind] for row in rows)
    ways = {"with Numba": OURS, "NumPy alone": "NumPy alone"} if alone else {OURS: OURS}
    found = {way: [row[kind][peer] / row[kind][name] for row in rows] for way, name in ways.items()}
    named = [i for i, row in enumerate(rows) if row["case"] in NAMED]
    labels = [label(row) for row in rows]
    if named:
        labels.append(MEAN)
        for values in found.values():
            values.append(geometric_mean([values[i] for i in named]))
    return labels, found


def label(row: Row) -> str:
    """A shape in four lines: its name, channels, kernel and stride, image."""
    _, c, size, o, kernel = row["shape"].split(", ")
    kernel = kernel.partition(" g")[0]
    return f"{row['case']}\n{c}→{o}\n{kernel}\n{size}"


def footer(about: dict[str, Any]) -> str:
    """What was measured, on what, and when."""
    libraries = {n: v for n, v in about["libraries"].items() if n in ("numpy", "numba", "torch")}
    date = f", {about['date']}" if "date" in about else ""
    return heading({**about, "libraries": libraries}) + date


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw a record of the convolution table.

    Args:
        record: what ``convolution-<machine>.json`` holds.
        path: an SVG or PNG file.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    style = {
        "font.size": 11,
        "font.family": "DejaVu Sans",
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.hashsalt": "devconv",
    }
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(2, 1, figsize=(9.5, 8.2), sharex=True)
        for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
            _panel(axes, *series(record["rows"], kind), title)
        handles, names = panels[0].get_legend_handles_labels()
        figure.suptitle(
            "One convolution on the CPU: PyTorch's time over devconv's",
            x=0.09,
            y=0.985,
            ha="left",
            fontsize=15,
            fontweight="bold",
        )
        figure.text(
            0.09,
            0.928,
            "Above the red line devconv, on NumPy arrays, is quicker; below it PyTorch is. "
            "float32, PyTorch's default format.",
            fontsize=10,
        )
        if len(names) > 1:
            figure.legend(
                handles,
                [f"devconv, {name}" for name in names],
                loc="upper right",
                bbox_to_anchor=(0.99, 0.925),
                ncols=len(names),
                fontsize=10,
                frameon=False,
            )
        panels[-1].set_xlabel("Shape: channels → filters, kernel and stride (s), image")
        figure.supylabel("PyTorch's time / devconv's time", x=0.012, fontsize=11)
        figure.text(0.09, 0.012, footer(record["machine"]), color=FAINT, fontsize=9)
        figure.subplots_adjust(left=0.09, right=0.985, top=0.865, bottom=0.165, hspace=0.14)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=metadata, dpi=150)
        pyplot.close(figure)


def _panel(axes: Any, labels: Sequence[str], found: Series, title: str) -> None:
    """Bars that grow from 1: as high for twice as quick as they are deep for half as quick."""
    width = 0.8 / len(found)
    for place, (way, values) in enumerate(found.items()):
        left = [i - 0.4 + (place + 0.5) * width for i in range(len(labels))]
        bars = axes.bar(
            left, [v - 1 for v in values], width * 0.94, bottom=1, color=COLOURS[way], label=way
        )
        for bar, value in zip(bars, values, strict=True):
            axes.annotate(
                f"{value:.2f}" if value < 10 else f"{value:.0f}",
                (bar.get_x() + bar.get_width() / 2, value),
                xytext=(0, 3 if value >= 1 else -3),
                textcoords="offset points",
                ha="center",
                va="bottom" if value >= 1 else "top",
                fontsize=8.5,
            )
    axes.set_yscale("log", base=2)
    everything = [v for values in found.values() for v in values]
    low, high = min(0.5, *everything), max(2.0, *everything)
    room = 1.1 * (high / low) ** 0.07  # for the numbers beyond the bars
    axes.set_ylim(low / room, high * room)
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}×" if y >= 1 else f"1/{1 / y:g}×")
    axes.minorticks_off()
    axes.axhline(1, color=LINE, linewidth=1.6, zorder=3)
    if MEAN in labels:
        axes.axvline(len(labels) - 1.5, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_xticks(range(len(labels)), labels, fontsize=9, linespacing=1.35)
    axes.tick_params(length=0)
    axes.set_title(title, loc="left", fontsize=12, pad=8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def load(path: Path) -> dict[str, Any]:
    """A record."""
    return dict(json.loads(path.read_text()))
