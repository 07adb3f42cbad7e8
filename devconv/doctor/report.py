"""What the doctor hands on: findings, sections of them, and a report of all sections."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Something that wants mending.

    Attributes:
        about: what it is about, in a word or two.
        text: what was found, in one sentence.
        fix: what mends it: commands, or a sentence, one a line.
        wrong: whether results are wrong or something is broken, which is exit status 1; what
            only costs time is not.
    """

    about: str
    text: str
    fix: tuple[str, ...] = ()
    wrong: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the report: what a probe saw, and what of that wants mending."""

    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Failed(Section):
    """A probe that broke down."""

    problem: str


@dataclass(frozen=True)
class Report:
    """All sections, by name."""

    sections: dict[str, Section]

    @property
    def findings(self) -> list[Finding]:
        """What wants mending: what is wrong first."""
        found = [finding for section in self.sections.values() for finding in section.findings]
        return sorted(found, key=lambda finding: not finding.wrong)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; what only costs time does not count."""
        return not any(finding.wrong for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Everything as dicts, lists, strings and numbers."""
        parts: dict[str, Any] = {}
        for name, section in self.sections.items():
            parts[name] = asdict(section)
            del parts[name]["findings"]
        return {"ok": self.ok, "findings": [asdict(f) for f in self.findings], **parts}


def guarded(name: str, probe: Callable[[], Section]) -> Section:
    """What a probe saw; where it breaks down, that."""
    try:
        with quiet():
            return probe()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a broken library raises what it likes, SystemExit too
        problem = told(error)
        text = f"this probe broke down: {problem}"
        return Failed(problem=problem, findings=(Finding(name, text, wrong=True),))


def told(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 160 else f"{text[:157]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries say at import and on first use out of the report."""
    before = logging.root.manager.disable
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
