"""The README keeps its promises: its commands, its code, its lists."""

from __future__ import annotations

import re
from pathlib import Path

import devconv as dc
from tests import test_architecture

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_first_two_shell_blocks_are_run_and_test():
    """One line each, which make their own environment."""
    first, second = blocks("sh")[:2]
    for block in (first, second):
        assert block.count("\n") == 1
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert "examples/train_digits.py" in first
    assert second.rstrip().endswith("-m pytest")


def test_the_code_runs():
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert isinstance(names["model"], dc.Sequential)
    assert names["dk"].tolist() == [[[[4.0, 6.0], [4.0, 4.0]]]]


def test_every_device_in_the_table_is_known():
    table = TEXT[TEXT.index("## Devices") : TEXT.index("## Written once")]
    specs = re.findall(
        r'"([a-z_0-9:]+)"', "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))
    )
    assert {"auto", "cpu", "cuda", "torch", "jax", "array_api_strict"} <= set(specs)
    for spec in specs:
        problem = ""
        try:
            dc.device(spec)
        except dc.DevconvError as error:
            problem = str(error)
        assert problem == "" or "cannot be used" in problem, (spec, problem)


def test_the_written_once_list_is_the_one_that_is_held():
    table = TEXT[TEXT.index("## Written once") : TEXT.index("## Examples")]
    listed = {
        name.strip("/").removesuffix(".py") for name in re.findall(r"`devconv/([\w/.]+)`", table)
    }
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "devconv").iterdir()}
    assert listed == rooms & test_architecture.MAY_NAME_A_LIBRARY


def test_the_changelog_has_this_version():
    assert f"## {dc.__version__}" in (ROOT / "CHANGELOG.md").read_text()
