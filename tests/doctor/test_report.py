"""Reports: what counts as wrong, and probes that break down."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from devconv.doctor.report import Failed, Finding, Report, Section, guarded, told


def test_what_is_wrong_comes_first() -> None:
    slow, wrong = Finding("a", "slow"), Finding("b", "wrong", ("mend",), wrong=True)
    report = Report({"one": Section(findings=(slow,)), "two": Section(findings=(wrong,))})
    assert report.findings == [wrong, slow]
    assert not report.ok
    assert Report({"one": Section(findings=(slow,))}).ok
    parts = report.as_dict()
    assert parts["ok"] is False
    assert parts["one"] == {}
    assert parts["findings"][0] == {"about": "b", "text": "wrong", "fix": ("mend",), "wrong": True}


@pytest.mark.parametrize("error", [RuntimeError("a\nb"), SystemExit(3), ImportError()])
def test_a_probe_that_breaks_down_is_a_finding(error: BaseException) -> None:
    def probe() -> Section:
        raise error

    section = guarded("GPU", probe)
    assert isinstance(section, Failed)
    assert section.problem == told(error)
    (finding,) = section.findings
    assert finding.about == "GPU"
    assert finding.text == f"this probe broke down: {told(error)}"
    assert finding.wrong


def test_ctrl_c_is_not_a_finding() -> None:
    def probe() -> Section:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded("GPU", probe)


def test_errors_in_one_line() -> None:
    assert told(RuntimeError("a\n  b")) == "RuntimeError: a b"
    assert told(ImportError()) == "ImportError"
    assert len(told(ValueError("x" * 1000))) == len("ValueError: ") + 160


def test_libraries_are_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    def probe() -> Section:
        print("hello")
        print("oh", file=sys.stderr)
        warnings.warn("careful", stacklevel=1)
        logging.getLogger("jax").warning("no GPU")
        return Section()

    before = logging.root.manager.disable
    assert guarded("noise", probe) == Section()
    assert capsys.readouterr() == ("", "")
    assert logging.root.manager.disable == before
