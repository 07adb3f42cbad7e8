"""What is aimed at on a GPU, and what was found: met, missed, or not measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.gpu import digits
from benchmarks.gpu.convolution import shapes
from benchmarks.gpu.memory import DTYPES as PEAKS
from benchmarks.gpu.memory import FIGURES
from benchmarks.gpu.numpy import NUMPY
from benchmarks.gpu.tables import complete, gave_up
from benchmarks.report import OURS, Row, geometric_mean, markdown

CONTESTANTS = (OURS, "written once", "kernels", "cudnn", "kernels + cudnn")
PEERS = ("PyTorch", "PyTorch channels-last")
Parts = Mapping[str, Any]
Found = dict[str, float]


@dataclass(frozen=True)
class Target:
    """A figure for each contestant, and what is wanted of it.

    Attributes:
        what: the figure, in words.
        plain: what is wanted of contestants without cuDNN.
        cudnn: what is wanted of those with it; ``None``: nothing.
        figures: each contestant's figure, from the parts; and a remark.
        most: whether the figure is to be at most so much, instead of at least.
    """

    what: str
    plain: float
    cudnn: float | None
    figures: Callable[[Parts], tuple[Found, str]]
    most: bool = False

    def verdict(self, label: str, figure: float) -> str:
        """``"met"`` or ``"missed"``; empty where nothing is wanted."""
        wanted = self.cudnn if "cudnn" in label else self.plain
        if wanted is None:
            return ""
        return "met" if (figure <= wanted if self.most else figure >= wanted) else "missed"


def _rows(parts: Parts, part: str, **wanted: str) -> list[Row]:
    rows = complete(parts.get(part, {}).get("rows", {})).values()
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def convolutions(dtype: str, peer: str) -> Callable[[Parts], tuple[Found, str]]:
    """The geometric mean of the peer's seconds over each contestant's, where its routes ran."""

    def figures(parts: Parts) -> tuple[Found, str]:
        rows = _rows(parts, "convolution", dtype=dtype)
        found, short = {}, []
        for label in CONTESTANTS:
            timed = [row for row in rows if {peer, label} <= set(row["seconds"])]
            seconds = [row["seconds"] for row in timed if not gave_up(row, label)]
            if seconds:
                found[label] = geometric_mean([each[peer] / each[label] for each in seconds])
            if timed and len(seconds) < len(shapes(small=False)):
                short.append(f"{label} {len(seconds)}")
        few = f"of {len(shapes(small=False))} shapes: {', '.join(short)}" if short else ""
        return found, few

    return figures


def step(network: str, dtype: str, peer: str) -> Callable[[Parts], tuple[Found, str]]:
    """The peer's seconds over each contestant's."""

    def figures(parts: Parts) -> tuple[Found, str]:
        for row in _rows(parts, "training", network=network, dtype=dtype):
            found = _over(row["seconds"], peer)
            return found, _in_part(row, found)
        return {}, ""

    return figures


def memory(figure: str, dtype: str, peer: str) -> Callable[[Parts], tuple[Found, str]]:
    """Each contestant's bytes over the peer's."""

    def figures(parts: Parts) -> tuple[Found, str]:
        rows = _rows(parts, "memory", dtype=dtype)
        bytes_of = {row["contestant"]: row[figure] for row in rows}
        if not bytes_of.get(peer):
            return {}, ""
        return {
            label: bytes_of[label] / bytes_of[peer] for label in CONTESTANTS if label in bytes_of
        }, ""

    return figures


def beside_numpy(parts: Parts) -> tuple[Found, str]:
    """NumPy's seconds over each contestant's."""
    for row in _rows(parts, "numpy"):
        found = _over(row["seconds"], NUMPY)
        said = (f"NumPy with {row['threads']} threads", _in_part(row, found))
        return found, "; ".join(filter(None, said))
    return {}, ""


def half_a_point(precision: str) -> Callable[[Parts], tuple[Found, str]]:
    """Points between a precision and float32, each with its routes; and of accuracy alone."""

    def figures(parts: Parts) -> tuple[Found, str]:
        rows = complete(parts.get("digits", {}).get("rows", {}))

        def found(share: str) -> Found:
            return {
                rows[name]["trials"].replace(",", " + ") or OURS: points
                for name, points in digits.apart(rows, share).items()
                if rows[name]["dtype"] == precision
            }

        alone = (f"{label} {points:.2f}" for label, points in found("accuracy").items())
        said = ", ".join(alone)
        return found("right"), f"test accuracy alone: {said}" if said else ""

    return figures


def _in_part(row: Row, found: Found) -> str:
    """Whose routes did not do all of a network's convolutions."""
    short = [label for label in found if gave_up(row, label)]
    return f"{', '.join(short)} (some convolutions written once)" if short else ""


def _over(seconds: Mapping[str, float], peer: str) -> Found:
    have = [label for label in CONTESTANTS if label in seconds and peer in seconds]
    return {label: seconds[peer] / seconds[label] for label in have}


def targets() -> list[Target]:
    """All of them, PyTorch's default memory format first."""
    found = []
    for peer in PEERS:
        for dtype, plain, cudnn in (
            ("float32", 0.7, 0.95),
            ("float16", 0.3, 0.9),
            ("bfloat16", 0.3, 0.9),
        ):
            what = f"{peer} / devconv, convolutions of ResNet-50, {dtype}"
            found.append(Target(what, plain, cudnn, convolutions(dtype, peer)))
        for network, dtype, plain, cudnn in (
            ("ResNet-18", "float32", 0.5, 0.9),
            ("ResNet-18", "float16", 0.3, 0.85),
            ("LeNet-5", "float32", 0.7, 0.7),
        ):
            what = f"{peer} / devconv, step of {network}, {dtype}"
            found.append(Target(what, plain, cudnn, step(network, dtype, peer)))
        for dtype, (figure, said) in product(PEAKS, list(FIGURES.items())[:2]):
            what = f"devconv / {peer}, peak memory of ResNet-18, {dtype}, {said}"
            found.append(Target(what, 1.5, 1.2, memory(figure, dtype, peer), most=True))
    for precision in digits.PRECISIONS:
        what = f"digits, points of the share right of {digits.JUDGED}, float32 and {precision}"
        found.append(Target(what, 0.5, 0.5, half_a_point(precision), most=True))
    found.append(Target("NumPy / devconv, step of ResNet-18, float32", 20.0, None, beside_numpy))
    return found


def summary(parts: Parts) -> list[Row]:
    """A row for each target."""
    rows = []
    for target in targets():
        found, remark = target.figures(parts)
        rows.append(
            {
                "what": target.what,
                "sense": "at most" if target.most else "at least",
                "wanted": {"plain": target.plain, "cudnn": target.cudnn},
                "found": found,
                "verdicts": {label: target.verdict(label, each) for label, each in found.items()},
                "remark": remark,
            }
        )
    return rows


def table(rows: list[Row], *, judged: bool = True) -> str:
    """What was found, target by target; with a verdict where it is of a GPU."""
    lines = []
    for row in rows:
        plain, cudnn = row["wanted"]["plain"], row["wanted"]["cudnn"]
        wanted = f"{'≤' if row['sense'] == 'at most' else '≥'} {plain:g}"
        wanted += "" if cudnn in (None, plain) else f"; cudnn {cudnn:g}"
        cells = [
            f"{row['found'][label]:.2f} {row['verdicts'][label] if judged else ''}".strip()
            if label in row["found"]
            else "–"
            for label in CONTESTANTS
        ]
        lines.append([row["what"], wanted, *cells, row["remark"]])
    return markdown(["", "wanted", *CONTESTANTS, ""], lines)
