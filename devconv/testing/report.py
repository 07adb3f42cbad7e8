"""What a parity report says: rows, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devconv import _array

REFERENCE = "difference quotients"
"""In place of a device: beside what the host's own pullbacks are held."""


@dataclass(frozen=True)
class Row:
    """One layer on one device in one dtype; errors are ``max|difference| / max|reference|``.

    Attributes:
        device: where, or ``"difference quotients"``, beside which the host's pullbacks are held.
        dtype: the dtype's name.
        path: the layer's dotted path; ``""`` for the model itself.
        kind: the layer's class; the loss's name; ``"end to end"`` for all layers in a row.
        forward: of the output, of what goes on to the layers inside, and of new buffers.
        dx: of the cotangent of the input, and of what goes back to the layers inside.
        parameters: of the gradients; ``None`` where there are none.
        tolerance: what each may be; ``None`` where no judgement is made.
        mark: ``"ok"``, or what is wrong.
        tf32: whether products were rounded to TF32, as ``dc.precision("fast")`` allows.
    """

    device: str
    dtype: str
    path: str
    kind: str
    forward: float | None
    dx: float | None
    parameters: float | None
    tolerance: float | None
    mark: str
    tf32: bool = False

    @property
    def ok(self) -> bool:
        """Whether the layer stays within its tolerance."""
        return self.mark in ("ok", "")

    @property
    def worst(self) -> float:
        """The largest of the errors."""
        return largest(e for e in (self.forward, self.dx, self.parameters) if e is not None)

    @property
    def name(self) -> str:
        """The layer as error messages name it: ``1 (Conv2d)``."""
        return f"{self.path} ({self.kind})" if self.path else self.kind


@dataclass(frozen=True)
class Parity:
    """What :func:`parity` found; ``str`` of it is the table.

    Attributes:
        rows: a row for each layer, device and dtype, in the order of the forward pass, what is
            inside a layer before the layer.
        left_out: dtypes that a device does not have, in words.
    """

    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every layer stays within its tolerance everywhere."""
        return self.first is None

    @property
    def first(self) -> Row | None:
        """The first layer that leaves its tolerance, on the first device where one does."""
        return next((row for row in self.rows if not row.ok), None)

    def __str__(self) -> str:
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.device, row.dtype), []).append(row)
        titles = {key: _title(*key, group) for key, group in groups.items()}
        width = max(map(len, titles.values()), default=0)
        lines = [f"{titles[key]:<{width}}  {_verdict(group)}" for key, group in groups.items()]
        lines += [f"left out: {line}" for line in self.left_out]
        tables = (f"{titles[key]}\n{_table(group)}" for key, group in groups.items())
        return "\n\n".join(["\n".join(lines), *tables])


def largest(errors: Iterable[float]) -> float:
    """The largest; NaN counts as infinite."""
    return max((e if e == e else math.inf for e in errors), default=0.0)


_HEAD = ("layer", "kind", "forward", "dx", "parameters", "tolerance", "")


def _title(spec: str, dtype: str, rows: Sequence[Row]) -> str:
    if spec == REFERENCE:
        return "the reference's pullbacks by difference quotients"
    half = ", half precision" if dtype in _array.HALF else ""
    tf32 = ", TF32" if any(row.tf32 for row in rows) else ""
    return f"{spec} {dtype}{half}{tf32}"


def _verdict(rows: Sequence[Row]) -> str:
    """One line: the first layer outside, or how near all are."""
    wrong = [row for row in rows if not row.ok]
    judged = [row for row in rows if row.tolerance is not None]
    if wrong:
        first = wrong[0]
        others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return f"first outside: {first.name}: {first.mark}, {first.worst:.1e}{others}"
    worst = max(judged, key=lambda row: row.worst)
    return (
        f"ok, all {len(judged)} within {worst.tolerance:.0e}; largest {worst.worst:.1e} "
        f"({worst.name})"
    )


def _table(rows: Sequence[Row]) -> str:
    cells = [
        _HEAD,
        *(
            (
                row.path or "–",
                row.kind,
                *(_number(e) for e in (row.forward, row.dx, row.parameters)),
                _number(row.tolerance),
                row.mark,
            )
            for row in rows
        ),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEAD))]
    left = (0, 1, len(_HEAD) - 1)
    lines = (
        "  ".join(
            f"{cell:<{width}}" if i in left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _number(error: float | None) -> str:
    if error is None:
        return "–"
    return f"{error:.1e}" if error else "0"
