"""The commands that mend, for this system."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path


def unset(variable: str) -> str:
    """The command that forgets an environment variable."""
    return f"set {variable}=" if sys.platform == "win32" else f"unset {variable}"


def export(variable: str, value: object) -> str:
    """The command that sets one."""
    return f"{'set' if sys.platform == 'win32' else 'export'} {variable}={value}"


def upgrade_numpy() -> str:
    """The command that brings a newer BLAS: NumPy's wheels carry their own."""
    if in_conda():
        return "conda install -c conda-forge numpy libopenblas"
    return "pip install --upgrade numpy"


def install_cupy(wheel: str = "", cuda: str = "") -> tuple[str, ...]:
    """The commands that install CuPy with the CUDA libraries it needs.

    Args:
        wheel: the one to stay with, ``"cupy-cuda12x"``; else
        cuda: the version of CUDA that the driver has, ``"12.8"``; where neither is known,
            both ways are told.
    """
    if in_conda() and not wheel.startswith("cupy-"):
        return ("conda install -c conda-forge cupy",)
    known = re.fullmatch(r"cupy-cuda(\d+)x", wheel)
    major = known[1] if known else cuda.partition(".")[0]
    if major in ("12", "13"):
        return (f'pip install "cupy-cuda{major}x[ctk]"',)
    other = "# cupy-cuda13x[ctk] where nvidia-smi shows CUDA 13"
    return ('pip install "cupy-cuda12x[ctk]"', other)


def reinstall_cupy(records: Sequence[str], cuda: str = "") -> tuple[str, ...]:
    """The commands that take CuPy out, all of it, and install it once.

    Args:
        records: the distributions of CuPy that are installed.
        cuda: the version of CUDA that the driver has.
    """
    by_pip = [record for record in records if record != "cupy" or not in_conda()]
    out = (f"pip uninstall -y {' '.join(by_pip)}",) if by_pip else ()
    if by_pip != list(records):
        return (*out, "conda install -c conda-forge --force-reinstall cupy")
    return (*out, *install_cupy(records[0] if len(records) == 1 and not cuda else "", cuda))


def in_conda() -> bool:
    """Whether this Python belongs to conda."""
    return (Path(sys.prefix) / "conda-meta").is_dir()


def plural(number: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "CPU"), plural(2, "CPU")
    ('1 CPU', '2 CPUs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
