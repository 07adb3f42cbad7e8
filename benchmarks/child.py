"""A measurement in a process of its own: ``python -m benchmarks.child module:function {...}``."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "result: "


def call(function: Callable[..., Any], limit: float | None = None, **given: Any) -> Any:
    """``function(**given)`` of a module of this package, in a fresh process.

    Args:
        function: by name in its module.
        limit: seconds it may take, where there is a limit.
        given: what JSON can carry; so with the result.

    Raises:
        RuntimeError: with what the process wrote, when it failed.
        TimeoutExpired: it took longer.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.child",
            f"{function.__module__}:{function.__name__}",
            json.dumps(given),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=False,
        timeout=limit,
    )
    if done.returncode:
        raise RuntimeError(f"{function.__module__}:{function.__name__} failed: {done.stderr}")
    answers = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    return json.loads(answers[-1].removeprefix(MARK))


def main(path: str, given: str) -> None:
    """Run one function and print what it returns."""
    module, _, name = path.partition(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(given))
    print(MARK + json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
