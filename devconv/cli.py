"""The command ``devconv``: ``devconv doctor`` says what is wrong, and what mends it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from devconv.doctor import Report, examine, text

COMMANDS = {"doctor": "look at this installation: what is wrong, what mends it"}


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"devconv: {message}; devconv --help says what there is\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what comes back is the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        parser.error(f"unknown command {given[0]!r}")
    options = parser.parse_args(given)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return _doctor(quick=options.quick, as_json=options.json)
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("devconv: stopped", file=sys.stderr)
        return 130


def _parser() -> _Parser:
    parser = _Parser(prog="devconv", description="Convolutions for the arrays you bring.")
    version = f"devconv {sys.modules['devconv'].__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", metavar="command")
    about = COMMANDS["doctor"]
    doctor = commands.add_parser("doctor", help=about, description=f"{about.capitalize()}.")
    doctor.add_argument("--quick", action="store_true", help="leave the speed check out")
    doctor.add_argument("--json", action="store_true", help="print it for machines")
    return parser


def _doctor(*, quick: bool, as_json: bool) -> int:
    """Print each section as soon as it is known, then what wants mending."""
    # JAX would take most of a GPU's memory for this small look.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    report = Report({})
    for name, section in examine(quick=quick):
        report.sections[name] = section
        if not as_json:
            print(text.section(name, section), flush=True)
    print(json.dumps(report.as_dict(), indent=2) if as_json else text.closing(report), flush=True)
    return 0 if report.ok else 1
