"""The record of a training run: one row of numbers an epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from devconv._check import InvalidValue
from devconv.checkpoint import write_whole


class History:
    """Rows such as ``{"epoch": 1, "loss": 0.9, "validation_accuracy": 0.8, ...}``.

    >>> history = History([{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": 0.5}])
    >>> history["loss"], len(history), history[-1]
    ([0.9, 0.5], 2, {'epoch': 2, 'loss': 0.5})
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add an epoch."""
        self.rows.append(dict(row))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, index: int | str) -> Any:
        """The row of that number, or the column of that name."""
        if isinstance(index, str):
            return [row[index] for row in self.rows if index in row]
        return self.rows[index]

    def __repr__(self) -> str:
        return f"History({len(self.rows)} epochs, last {self.rows[-1] if self.rows else None})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON object a line."""
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_whole(path, lines.encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: a file that is not one JSON object a line.
        """
        try:
            rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        except ValueError as error:
            raise InvalidValue(f"{path}: not a history, one JSON object a line ({error})") from None
        for row in rows:
            if not isinstance(row, dict):
                raise InvalidValue(f"{path}: not a history, one JSON object a line, got {row!r}")
        return cls(rows)
