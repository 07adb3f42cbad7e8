"""Rows in Markdown, and the recorded results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
OURS = "devconv"

Row = dict[str, Any]


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; numbers stand to the right, so all but the first column do."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios: of 2 and 1/2 it is 1."""
    return math.exp(sum(map(math.log, values)) / len(values))


def columns(rows: Sequence[Row], kind: str) -> list[str]:
    """The contestants of some rows, the library first, each once."""
    names = dict.fromkeys(name for row in rows for name in row[kind])
    return [OURS, *(name for name in names if name != OURS)]


def ratios(row: Row, kind: str, peers: Sequence[str]) -> list[str]:
    """The library's milliseconds, then seconds of each other over its own."""
    ours = row[kind][OURS]
    return [
        f"{1000 * ours:.2f}",
        *(f"{row[kind][peer] / ours:.2f}" if peer in row[kind] else "–" for peer in peers),
    ]


def means(rows: Sequence[Row], kind: str, peers: Sequence[str]) -> list[str]:
    """The geometric mean of each ratio; with the number of rows where some lack it."""
    cells = []
    for peer in peers:
        have = [row[kind][peer] / row[kind][OURS] for row in rows if peer in row[kind]]
        note = "" if len(have) == len(rows) else f" ({len(have)})"
        cells.append(f"{geometric_mean(have):.2f}{note}" if have else "–")
    return cells


def ratio_table(
    rows: Sequence[Row],
    kind: str,
    about: Mapping[str, Callable[[Row], str]],
    groups: Mapping[str, Callable[[Row], bool]] | None = None,
) -> str:
    """Milliseconds of the library and ratios of the others (above 1: the library is quicker).

    Args:
        rows: what was measured, with seconds by contestant under ``kind``.
        kind: ``"forward"``, ...
        about: the leading columns.
        groups: groups of rows by what their mean is called, in order; a group of one has no
            mean.
    """
    _, *peers = columns(rows, kind)
    head = [*about, "devconv, ms", *(f"{peer} / devconv" for peer in peers)]
    lines = []
    for name, belongs in (groups or {"": lambda row: True}).items():
        group = [row for row in rows if belongs(row)]
        lines += [[*(f(row) for f in about.values()), *ratios(row, kind, peers)] for row in group]
        if name and len(group) > 1:
            blank = [""] * (len(about) - 1)
            lines.append([f"**{name}**", *blank, "", *means(group, kind, peers)])
    return markdown(head, lines)


NOTE = (
    "Ratios are seconds of the other over seconds of devconv: above 1, devconv is quicker. "
    "Medians of rounds in alternating order, in one process."
)


def heading(about: Mapping[str, Any]) -> str:
    """What a table was measured on, in one line."""
    where = f"{about['gpu']}, {about['cpu']}" if about.get("gpu") else about["cpu"]
    versions = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    settings = "".join(f", {name}={value}" for name, value in about["environment"].items())
    return f"{where}, {about['threads']} threads, {versions}{settings}"


def save(path: Path, content: Mapping[str, Any], text: str) -> None:
    """Write ``<path>.json`` and ``<path>.md``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.json").write_text(json.dumps(content, indent=1) + "\n")
    Path(f"{path}.md").write_text(text + "\n")
