"""Rows of :func:`benchmarks.gpu.race.race` in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.report import OURS, Row, columns, geometric_mean, markdown

NOTE = (
    "Ratios are seconds of the other over seconds of devconv: above 1, devconv is quicker. Medians "
    "of rounds in alternating order in one process, by the wall clock between two moments when the "
    "device had finished; a turn is several calls where they are short (`calls` in the record)."
)

UNMEASURED = "not measured"
"""The verdict of a row for which something is missing here."""


def complete(rows: Mapping[str, Row]) -> dict[str, Row]:
    """The rows that came to their end."""
    return {name: row for name, row in rows.items() if "failed row" not in row}


def gave_up(row: Row, label: str) -> bool:
    """Whether what is written once did, in part at least, the work of a contestant's routes."""
    return label in row.get("notes", {})


def raced(rows: Mapping[str, Row], mean: str = "") -> str:
    """Milliseconds of the library, and ratios of the others; with a geometric mean if named.

    A mean leaves rows out in which the contestant's routes gave up.
    """
    timed = {name: row for name, row in complete(rows).items() if row["seconds"].get(OURS)}
    if not timed:
        return "Nothing was timed."
    _, *others = columns(list(timed.values()), "seconds")
    lines = [[row["case"], *_cells(row, others)] for row in timed.values()]
    if mean and len(timed) > 1:
        lines.append([f"**{mean}**", "", *_means(list(timed.values()), others)])
    return markdown(["", "devconv, ms", *(f"{other} / devconv" for other in others)], lines)


def _cells(row: Row, others: Sequence[str]) -> list[str]:
    ours, found = row["seconds"][OURS], row["seconds"]
    ratios = (f"{found[each] / ours:.2f}" if each in found else "–" for each in others)
    return [f"{1000 * ours:.3f}", *ratios]


def _means(rows: Sequence[Row], others: Sequence[str]) -> list[str]:
    cells = []
    for each in others:
        pairs = [
            row["seconds"] for row in rows if each in row["seconds"] and not gave_up(row, each)
        ]
        note = "" if len(pairs) == len(rows) else f" ({len(pairs)})"
        mean = geometric_mean([found[each] / found[OURS] for found in pairs]) if pairs else 0.0
        cells.append(f"{mean:.2f}{note}" if pairs else "–")
    return cells


def absent(rows: Mapping[str, Row]) -> str:
    """Who was left out of a part, who failed or gave up in which row, and which rows failed."""
    said: dict[str, list[str]] = {}
    for name, row in rows.items():
        if "failed row" in row:
            said.setdefault(row["failed row"], []).append(f"the row {name}")
            continue
        for label, why in row.get("left out", {}).items():
            said.setdefault(f"{label} left out: {why}", [])
        for label, why in row.get("failed", {}).items():
            said.setdefault(f"{label} failed: {why}", []).append(name)
        for label, notes in row.get("notes", {}).items():
            for note in notes:
                said.setdefault(f"{label}: {note}", []).append(name)
    lines = [f"- {why}{': ' if names else ''}{'; '.join(names)}" for why, names in said.items()]
    return "\n".join(lines)


def joined(*pieces: str) -> str:
    """Pieces of a text that are there."""
    return "\n\n".join(piece for piece in pieces if piece)
