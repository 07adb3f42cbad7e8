"""The front door: what ``import devconv as dc`` offers."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import devconv as dc
from devconv import data, functional, initializers, layers, optim, training
from tests.test_architecture import ROOT

DOORS: list[ModuleType] = [dc, layers, optim, training, data, functional]


def test_every_name_exists_once_and_in_order() -> None:
    for door in DOORS:
        names = door.__all__
        assert len(set(names)) == len(names), door.__name__
        assert set(names) <= set(dir(door)), door.__name__
    own = [name for name in dc.__all__ if name not in layers.__all__]
    for names in (own, layers.__all__):  # as ruff sorts: constants, classes, the rest
        classes = [n for n in names if n[0].isupper() and not n.isupper()]
        others = [n for n in names if not n[0].isupper()]
        assert classes == sorted(classes)
        assert others == sorted(others)


def test_everything_public_is_documented() -> None:
    bare = [
        f"{door.__name__}.{name}"
        for door in DOORS
        for name in door.__all__
        if not name.startswith("__") and callable(getattr(door, name))
        if not getattr(getattr(door, name), "__doc__", None)
    ]
    assert bare == []


def test_names_of_the_contract() -> None:
    assert callable(dc.device)
    assert str(dc.device("cpu")) == "cpu (numpy)"
    assert dc.functional is functional
    assert dc.initializers is initializers
    for name in ("to_device", "to_numpy", "pure", "value_and_grad", "save", "load"):
        assert callable(getattr(dc, name))
    for name in ("Conv1d", "Conv2d", "Conv3d", "Dense", "Flatten", "MaxPool2d", "AvgPool2d"):
        assert issubclass(getattr(dc, name), dc.Layer)
    assert issubclass(dc.optim.SGD, dc.optim.Optimizer)
    assert issubclass(dc.DevconvError, Exception)


def test_the_version_is_written_once() -> None:
    parts = dc.__version__.split(".")
    assert all(part.isdecimal() for part in parts[:2])
    assert dc.__version__ not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


LOOK = """
import sys, threading
before = set(threading.enumerate())
import devconv
heavy = {"torch", "jax", "cupy", "array_api_strict", "matplotlib", "sklearn"} & set(sys.modules)
assert not heavy, heavy
assert set(threading.enumerate()) == before
"""


def test_import_starts_nothing_and_loads_no_other_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
