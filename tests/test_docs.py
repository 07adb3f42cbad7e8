"""The pages' code runs as it stands, from the first block to the last, on NumPy and elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv.testing import check_vjp
from tests.backends import Backend
from tests.toys import place

DOCS = Path(__file__).parent.parent / "docs"


def run(page: str) -> dict[str, Any]:
    """What the names of a page's code stand for in the end."""
    names: dict[str, Any] = {}
    text = (DOCS / page).read_text("utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_the_code_runs(page: str) -> None:
    run(page)


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (DOCS / target).exists(), target


def test_custom_operations_and_layers_run_everywhere(backend: Backend) -> None:
    names = run("custom.md")
    rng = np.random.default_rng(0)
    x = backend.asarray(rng.standard_normal((4, 3)))
    check_vjp(names["soft_shrink"], x)
    check_vjp(names["scale"], x, backend.asarray(rng.standard_normal(3)))
    model = dc.Sequential(names["Gated"](dc.Dense(3, 3)), names["Scale"](3))
    model.to(place(backend), dtype="float64").build(seed=1)
    y, pullback = model.vjp(x)
    dx, grads = pullback(y)
    assert tuple(dx.shape) == (4, 3)
    assert list(grads) == ["0.gate.weight", "0.gate.bias", "1.factor"]
    with pytest.raises(dc.DevconvError, match=r"^1 \(Scale\): expected 3 channels, got x"):
        dc.Sequential(dc.Dense(3, 2), names["Scale"](3)).output_shape((3,))
