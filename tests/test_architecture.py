"""The house as it was drawn: imports point one way, and few rooms name an array library.

Both are read off the source with ``ast``, wherever in a file an import stands.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "devconv"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Each room may use its own group and the groups before it.
ORDER = (
    ("_array", "_check", "_winograd"),
    ("_detect",),
    ("device", "precision", "random"),
    ("_fast",),
    ("functional",),
    ("initializers",),
    ("layers",),
    ("models", "optim"),
    ("data", "checkpoint", "training"),
    ("plots", "testing"),
    ("doctor",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}

LIBRARIES = ("numpy", "cupy", "torch", "jax")
MAY_NAME_A_LIBRARY = {
    "_array",
    "_fast",
    "_detect",
    "device",
    "initializers",
    "checkpoint",
    "data",
    "plots",
    "testing",
    "doctor",
}

MIRRORLESS = {
    "test_architecture.py",
    "test_backends.py",
    "test_benchmarks.py",
    "test_benchmarks_gpu.py",
    "test_capabilities.py",
    "test_docs.py",
    "test_double.py",
    "test_examples.py",
    "test_gpu.py",
    "test_init.py",
    "test_readme.py",
    "test_seeds.py",
    "functional/test_operations.py",
    "layers/test_catalogue.py",
}


def room_of(path: Path) -> str:
    """The room a source file stands in; ``""`` for the package's own front door."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(tree: ast.AST, path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, those given as strings included."""
    package = ["devconv", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield str(name.value)


def rooms_used(tree: ast.AST, path: Path) -> set[str]:
    """The rooms of the package that a file imports from; ``""`` for the front door."""
    used = set()
    for name in imported(tree, path):
        parts = name.split(".")
        if parts[0] == "devconv":
            second = parts[1] if len(parts) > 1 else ""
            used.add(second if is_room(second) else "")
    return used


def is_room(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def libraries_named(tree: ast.AST, path: Path) -> set[str]:
    """Array libraries that a file imports, or asks for by name in a string."""
    named = {name.split(".")[0] for name in imported(tree, path)} & set(LIBRARIES)
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            asked = re.match(rf"({'|'.join(LIBRARIES)})(?:[.:]|$)", node.value)
            named |= {asked[1]} if asked else set()
    return named


def docstrings(tree: ast.AST) -> set[ast.AST]:
    """Strings that stand as statements: documentation, not code."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def parse(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    if not room:
        return
    assert room in LEVEL, f"{name_of(path)}: room {room!r} has no place in the order"
    wrong = sorted(
        used or "devconv itself"
        for used in rooms_used(parse(path), path)
        if not used or LEVEL[used] > LEVEL[room]
    )
    assert wrong == [], f"{name_of(path)} imports from rooms above its own"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_array_libraries_are_named_only_where_the_design_says(path: Path) -> None:
    if room_of(path) in MAY_NAME_A_LIBRARY:
        return
    assert libraries_named(parse(path), path) == set()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_one_door_to_array_api_compat(path: Path) -> None:
    if room_of(path) == "_array":
        return
    roots = {name.split(".")[0] for name in imported(parse(path), path)}
    assert "array_api_compat" not in roots


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_fast_room_s_neighbours_know_it(path: Path) -> None:
    """Nothing above ``functional`` knows that ``_fast`` exists, but ``testing`` and ``doctor``."""
    if room_of(path) in ("_fast", "functional", "testing", "doctor"):
        return
    assert "_fast" not in rooms_used(parse(path), path)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda p: p.name)
def test_tests_mirror_sources(path: Path) -> None:
    """``tests/a/test_b.py`` tests ``devconv/a/b.py``, ``_b.py`` or the folder of that name."""
    relative = path.relative_to(ROOT / "tests")
    if relative.as_posix() in MIRRORLESS:
        return
    name = relative.name.removeprefix("test_").removesuffix(".py")
    folder = PACKAGE / relative.parent
    candidates = [folder / f"{prefix}{name}{end}" for prefix in ("", "_") for end in ("", ".py")]
    assert any(c.exists() for c in candidates), f"{relative} mirrors no file of devconv/"


# --- the reader itself ---

SAMPLE = """
'''numpy in prose'''
import jax.numpy as jnp
from devconv import _array, functional
from devconv.layers.conv import Conv2d
from . import sibling
from .. import optim
def late():
    '''torch'''
    import_module("cupy.lib")
    return kind == "torch:cuda:0" or kind == "numpyro"
"""


def test_the_reader_sees_every_kind_of_import() -> None:
    path = PACKAGE / "training" / "sample.py"
    tree = ast.parse(SAMPLE)
    assert set(imported(tree, path)) == {
        "jax.numpy",
        "devconv._array",
        "devconv.functional",
        "devconv.layers.conv.Conv2d",
        "devconv.training.sibling",
        "devconv.optim",
        "cupy.lib",
    }
    assert libraries_named(tree, path) == {"jax", "cupy", "torch"}
