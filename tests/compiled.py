"""PyTorch's compiler on a function, as one graph or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest


def in_one_graph(function: Callable[..., Any], *arguments: Any, backend: str = "eager") -> Any:
    """What ``torch.compile(function, fullgraph=True)`` makes of the arguments.

    ``backend="eager"`` reads the Python and runs the graph as it is; ``"aot_eager"`` also goes
    through what a real backend is handed.
    """
    torch = pytest.importorskip("torch")
    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)
    with warnings.catch_warnings():  # about caches that it looks through
        warnings.simplefilter("ignore", UserWarning)
        return compiled(*arguments)


def assert_one_graph(
    function: Callable[..., Any], *arguments: Any, backend: str = "eager", tolerance: float
) -> None:
    """The compiled function gives what the function gives."""
    torch = pytest.importorskip("torch")
    found = in_one_graph(function, *arguments, backend=backend)
    wanted = function(*arguments)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=tolerance, equal_nan=True)
