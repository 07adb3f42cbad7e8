"""Pictures: files that are there, of a sensible size, with something on them."""

from __future__ import annotations

import importlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import plots
from devconv._check import InvalidValue
from tests.backends import Backend

matplotlib = pytest.importorskip("matplotlib")


def look(path: Path) -> np.ndarray:
    """The picture's pixels, after checking that the file is a PNG of its own size."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    pixels = importlib.import_module("matplotlib.image").imread(path)
    assert pixels.shape[:2] == (height, width)
    assert 200 <= width <= 6000
    assert 150 <= height <= 6000
    return pixels


def colours(pixels: np.ndarray) -> set[int]:
    red, green, blue = np.moveaxis((255 * pixels[..., :3]).round().astype(int), -1, 0)
    return set(np.unique(red << 16 | green << 8 | blue).tolist())


def rgb(colour: str) -> int:
    return int(colour[1:], 16)


def history(epochs: int, *, validation_from: int = 1) -> dc.History:
    made = dc.History()
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "loss": 1.0 / epoch, "accuracy": 1 - 1 / (epoch + 1)}
        if epoch >= validation_from:
            row |= {"validation_loss": 1.2 / epoch, "validation_accuracy": 1 - 2 / (epoch + 2)}
        made.append({**row, "images_per_second": 1e6})
    return made


def test_training_curves(tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "training.png"
    plots.training_curves(history(5), path)
    pixels = look(path)
    found = colours(pixels)
    assert rgb(plots._TRAINING) in found
    assert rgb(plots._VALIDATION) in found
    loss_alone = dc.History([{"epoch": 1, "loss": 0.5}])
    plots.training_curves(loss_alone, tmp_path / "one.png")
    one = look(tmp_path / "one.png")
    assert one.shape[1] < pixels.shape[1]  # one panel instead of two
    assert rgb(plots._TRAINING) in colours(one)
    assert rgb(plots._VALIDATION) not in colours(one)


def test_validation_that_began_later_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "training.png"
    plots.training_curves(history(6, validation_from=4), path)
    assert rgb(plots._VALIDATION) in colours(look(path))


def test_a_loss_that_is_nan_leaves_a_gap(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": float("nan")}]
    plots.training_curves(dc.History(rows), tmp_path / "training.png")
    look(tmp_path / "training.png")


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (20, 3, 5, 5), (1, 1, 1, 1)], ids=str)
def test_filters(backend: Backend, shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "filters.png"
    rng = np.random.default_rng(0)
    before, after = (backend.asarray(rng.standard_normal(shape)) for _ in range(2))
    plots.filters({"before": before, "after": after}, path)
    pixels = look(path)
    reds = np.sum((pixels[..., 0] > 0.6) & (pixels[..., 2] < 0.4))
    blues = np.sum((pixels[..., 2] > 0.6) & (pixels[..., 0] < 0.4))
    assert reds > 50
    assert blues > 50


def test_one_scale_for_all_filters(tmp_path: Path) -> None:
    """A bank a hundred times weaker than the other is nearly white."""
    loud = np.random.default_rng(0).standard_normal((4, 1, 3, 3))
    plots.filters({"a": loud, "b": 0.01 * loud}, tmp_path / "both.png")
    plots.filters({"b": 0.01 * loud}, tmp_path / "alone.png")

    def strong(name: str) -> int:
        pixels = look(tmp_path / name)[:, :-150]  # without the colour bar
        half = pixels[pixels.shape[0] // 2 :] if name == "both.png" else pixels
        return int(np.sum(np.abs(half[..., 0] - half[..., 2]) > 0.4))

    assert strong("both.png") == 0
    assert strong("alone.png") > 100


def test_filters_that_are_all_zero(tmp_path: Path) -> None:
    plots.filters({"zero": np.zeros((2, 1, 3, 3), dtype="float32")}, tmp_path / "filters.png")
    look(tmp_path / "filters.png")


def test_an_empty_history(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="training_curves: the history is empty; train for an e"):
        plots.training_curves(dc.History(), tmp_path / "training.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        ({}, r"filters: kernels must be weights \(C_out, C_in, height, width\), got \{\}"),
        ({"w": np.ones((3, 4))}, r"got \{'w': \(3, 4\)\}"),
        ({"a": np.ones((1, 1, 2, 2)), "b": np.ones((1, 1, 2))}, r"'b': \(1, 1, 2\)\}"),
        ({"w": np.ones((0, 1, 3, 3))}, r"got \{'w': \(0, 1, 3, 3\)\}"),
    ],
)
def test_what_is_no_bank_of_filters(kernels: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=message):
        plots.filters(kernels, tmp_path / "filters.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    message = r'pictures need matplotlib; install it with pip install "devconv\[train\]"'
    with pytest.raises(ImportError, match=message):
        plots.training_curves(history(2), tmp_path / "training.png")
    with pytest.raises(ImportError, match=message):
        plots.filters({"w": np.ones((1, 1, 2, 2))}, tmp_path / "filters.png")


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    """No window, no global figure: a notebook's or a server's own pictures are not touched."""
    plots.training_curves(history(2), tmp_path / "training.png")
    pyplot = importlib.import_module("matplotlib.pyplot")
    assert pyplot.get_fignums() == []
