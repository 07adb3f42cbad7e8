"""The commands that mend, for this system."""

from __future__ import annotations

import sys

from devconv._detect import in_conda


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


def plural(number: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "CPU"), plural(2, "CPU")
    ('1 CPU', '2 CPUs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
