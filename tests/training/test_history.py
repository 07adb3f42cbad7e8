"""The record of a run: rows and columns, written and read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import devconv as dc
from devconv._check import InvalidValue

ROWS = [
    {"epoch": 1, "loss": 0.9},
    {"epoch": 2, "loss": 0.5, "validation_loss": 0.6},
    {"epoch": 3, "loss": 0.4, "validation_loss": 0.7},
]


def test_rows_and_columns() -> None:
    history = dc.History(ROWS)
    assert len(history) == 3
    assert list(history) == ROWS
    assert history[0] == ROWS[0]
    assert history[-1] == ROWS[-1]
    assert history[1:] == ROWS[1:]
    assert history["loss"] == [0.9, 0.5, 0.4]
    assert history["validation_loss"] == [0.6, 0.7]
    assert history["accuracy"] == []
    assert repr(history) == f"History(3 epochs, last {ROWS[-1]})"
    assert repr(dc.History()) == "History(0 epochs, last None)"


def test_rows_are_copies() -> None:
    row = {"epoch": 1, "loss": 0.9}
    history = dc.History([row])
    history.append(row)
    row["loss"] = 0.0
    assert history["loss"] == [0.9, 0.9]


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "history.jsonl"
    dc.History(ROWS).save(path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS
    assert list(dc.History.load(path)) == ROWS
    dc.History().save(str(path))
    assert len(dc.History.load(str(path))) == 0


def test_a_number_that_is_none_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    dc.History([{"epoch": 1, "loss": float("nan")}]).save(path)
    (loss,) = dc.History.load(path)["loss"]
    assert loss != loss


@pytest.mark.parametrize(
    "content",
    [b'{"epoch": 1}\n{"epoch', b"[1, 2]\n", b'"ab"\n', b"3\n", b"\xff\xfe\n", b"epoch,loss\n1,2\n"],
)
def test_a_file_that_is_no_history(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match="not a history, one JSON object a line") as caught:
        dc.History.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        dc.History.load(tmp_path / "none")
