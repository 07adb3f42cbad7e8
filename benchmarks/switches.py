"""The library's own switches, and the number of threads that everybody has."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import threadpoolctl

import devconv as dc
from benchmarks.place import installed
from devconv import _fast
from devconv.testing import generic

Switch = Callable[[], AbstractContextManager[Any]]


def as_it_is() -> AbstractContextManager[Any]:
    """The library as it runs by itself."""
    return nullcontext()


def written_once() -> AbstractContextManager[Any]:
    """Without any quicker route."""
    return generic()


def has_numba() -> bool:
    """Whether the library computes with Numba now, so that doing without is another matter."""
    return os.environ.get("DEVCONV_NUMBA", "") != "0" and bool(_fast.numpy.compiled())


def numpy_alone() -> AbstractContextManager[Any]:
    """Without the routes that need Numba."""
    return _fast.numba(False)


def fast() -> AbstractContextManager[Any]:
    """With digits traded for speed."""
    return dc.precision("fast")


def limit(threads: int) -> None:
    """Give this library and all its peers so many threads, for good; before JAX is imported."""
    os.environ["NPROC"] = os.environ["PJRT_NPROC"] = str(threads)  # JAX on the CPU
    threadpoolctl.threadpool_limits(threads)
    if installed("torch"):
        importlib.import_module("torch").set_num_threads(threads)


@contextmanager
def all_of(*switches: Switch) -> Any:
    """Several switches at once."""
    with ExitStack() as stack:
        for switch in switches:
            stack.enter_context(switch())
        yield


def variants(is_gpu: bool = False) -> dict[str, Switch]:
    """The library's ways to compute, by the names they have in the tables."""
    found: dict[str, Switch] = {"devconv": as_it_is}
    if not is_gpu and has_numba():
        found["NumPy alone"] = numpy_alone
    found["devconv fast"] = fast
    found["written once"] = written_once
    return found
