"""Which operation is tested where: one table, from which tests and documentation are derived.

``python -m tests.capabilities`` writes ``docs/capabilities.md``.
"""

from __future__ import annotations

from pathlib import Path

from devconv import functional as F
from devconv.functional import Operation
from tests.cases import collect
from tests.cases.case import Case

PAGE = Path(__file__).parent.parent / "docs" / "capabilities.md"

DTYPES: dict[str, tuple[str, ...]] = {
    "numpy": ("float64", "float32", "float16"),
    "array_api_strict": ("float64", "float32"),
    "torch": ("float64", "float32", "float16", "bfloat16"),
    "jax": ("float64", "float32", "float16", "bfloat16"),
    "cupy": ("float64", "float32", "float16", "bfloat16"),
}
"""The floating dtypes each library has, which are those its operations are tested in.

CuPy's bfloat16 needs ``ml_dtypes``.
"""

TITLES = {
    "numpy": "NumPy",
    "array_api_strict": "array-api-strict",
    "torch": "PyTorch",
    "jax": "JAX",
    "cupy": "CuPy",
}
SHORT = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def operations() -> dict[str, Operation]:
    """Every public operation, by name."""
    found = {name: getattr(F, name) for name in F.__all__}
    return {name: op for name, op in found.items() if isinstance(op, Operation)}


def dtypes(cases: list[Case], library: str) -> list[str]:
    """The dtypes an operation's cases are tried in on a library."""
    half = any(case.half for case in cases)
    return [d for d in DTYPES[library] if half or d in ("float64", "float32")]


def table() -> str:
    """The table in Markdown: operations by libraries, with the dtypes tested."""
    by_name: dict[str, list[Case]] = {}
    for case in collect():
        by_name.setdefault(case.op.__name__, []).append(case)
    lines = [
        f"| operation | cases | beside PyTorch's own | {' | '.join(TITLES.values())} |",
        f"|{' --- |' * (3 + len(TITLES))}",
    ]
    for name in sorted(operations()):
        cases = by_name.get(name, [])
        beside = sum(case.torch is not None for case in cases)
        cells = [" ".join(SHORT[d] for d in dtypes(cases, library)) for library in TITLES]
        cells[-1] = f"({cells[-1]})"  # no run on record
        lines.append(f"| `{name}` | {len(cases)} | {beside} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    return f"""# What runs where

Every operation, forward and pullback, and the floating dtypes it is tested in on each library.
A case is one choice of options and shapes; each is held against the plain definition in
float64, against central differences, and, where PyTorch has the operation, against its result
and its gradient. CuPy runs the same cases where there is a GPU; no such run is on record yet,
so its column is in brackets.

This page is written by `python -m tests.capabilities` from the table the tests are derived
from, and a test holds the two equal.

{table()}
"""


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.name}: {len(operations())} operations, {len(collect())} cases")
