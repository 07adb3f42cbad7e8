"""Pictures of a run: loss and accuracy over the epochs, and what the first filters became."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidValue
from devconv.training import History

# Colours that stay apart for readers who do not see red and green as different.
_TRAINING, _VALIDATION = "#0072B2", "#D55E00"


def _figure(width: float, height: float) -> Any:
    try:
        figure = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise ImportError(
            'pictures need matplotlib; install it with pip install "devconv[train]"'
        ) from None
    return figure.Figure(figsize=(width, height), layout="constrained")


def training_curves(history: History, path: str | os.PathLike[str]) -> None:
    """Draw loss and metrics over the epochs, one panel each, training beside validation.

    Args:
        history: at least one epoch.
        path: the picture, in the format its ending names (``.png``).

    Raises:
        ValueError: an empty history.
        ImportError: without matplotlib.
    """
    if not len(history):
        raise InvalidValue("training_curves: the history is empty; train for an epoch first")
    skip = ("epoch", "images_per_second")
    names = [n for n in history[0] if n not in skip and not n.startswith("validation_")]
    figure = _figure(4.6 * len(names), 3.4)
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for prefix, label, colour in (
            ("", "training", _TRAINING),
            ("validation_", "validation", _VALIDATION),
        ):
            rows = [row for row in history if prefix + name in row]
            if rows:
                epochs, values = [[row[key] for row in rows] for key in ("epoch", prefix + name)]
                panel.plot(epochs, values, color=colour, label=label, marker="o", markersize=3)
        panel.set_xlabel("epoch")
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.get_major_locator().set_params(integer=True)
    _write(figure, path)


def filters(kernels: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
    """Draw banks of 2-D filters, one row of panels a bank, with one colour scale for all.

    Args:
        kernels: weights ``(C_out, C_in, height, width)`` by title, such as ``{"before": ...,
            "after": ...}``; of several input channels the mean is shown.
        path: the picture.

    Raises:
        ValueError: no weights, or weights that are not 4-D.
        ImportError: without matplotlib.
    """
    banks = {title: _array.to_numpy(w) for title, w in kernels.items()}
    if not banks or any(bank.ndim != 4 or 0 in bank.shape for bank in banks.values()):
        shapes = {title: bank.shape for title, bank in banks.items()}
        raise InvalidValue(
            f"filters: kernels must be weights (C_out, C_in, height, width), got {shapes}"
        )
    images = {title: bank.mean(axis=1) for title, bank in banks.items()}
    edge = max(float(np.abs(each).max()) for each in images.values()) or 1.0
    columns = min(16, max(len(each) for each in images.values()))
    rows = {title: math.ceil(len(each) / columns) for title, each in images.items()}
    figure = _figure(0.55 * columns + 1.2, 0.62 * sum(rows.values()) + 0.45 * len(rows) + 0.3)
    parts = figure.subfigures(len(images), 1, height_ratios=list(rows.values()), squeeze=False)
    for (title, bank), part in zip(images.items(), parts[:, 0], strict=True):
        part.suptitle(title, fontsize=10)
        panels = part.subplots(rows[title], columns, squeeze=False).ravel()
        for panel in panels:
            panel.axis("off")
        for panel, image in zip(panels, bank, strict=False):
            drawn = panel.imshow(image, cmap="RdBu_r", vmin=-edge, vmax=edge)
        part.colorbar(drawn, ax=list(panels), label="weight", shrink=0.9)
    _write(figure, path)


def _write(figure: Any, path: str | os.PathLike[str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
