"""The report as text: a section a table, columns aligned, at most 100 characters wide."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from devconv._array import NAMES
from devconv.doctor.agreement import Agreement
from devconv.doctor.blas import Blas
from devconv.doctor.cudnn import CuDNN
from devconv.doctor.devices import Devices, Place
from devconv.doctor.libraries import Libraries
from devconv.doctor.machine import Machine, Settings
from devconv.doctor.mending import plural
from devconv.doctor.report import Failed, Report, Section
from devconv.doctor.routes import Routes
from devconv.doctor.speed import SIDE, Speed

Row: TypeAlias = Sequence[str]

WIDTH = 100
_LABEL, _SECOND = 18, 11
_GIB = 2**30
_TITLES = {
    "machine": "Machine",
    "settings": "Settings",
    "blas": "NumPy's BLAS",
    "libraries": "Libraries",
    "devices": "Devices",
    "routes": "Quicker routes",
    "agreement": "Agreement of a small network's results and gradients with NumPy's in float64",
    "speed": "Speed",
}


def section(name: str, found: Section) -> str:
    """One section: its title, and a table under it."""
    if isinstance(found, Failed):
        rows: list[Row] = [("not known", found.problem)]
    else:
        rows = _ROWS[name](found)
    return "\n".join([_TITLES[name], *table(rows), ""])


def closing(report: Report) -> str:
    """What wants mending, and the verdict."""
    lines: list[str] = []
    for title, wrong in (("What is wrong", True), ("What would be better", False)):
        found = [finding for finding in report.findings if finding.wrong == wrong]
        for number, finding in enumerate(found, 1):
            head = f"  {number}. "
            lines += [] if number > 1 else [title]
            lines += _wrapped(f"{finding.about}: {finding.text}.", head, " " * len(head))
            lines += [f"{' ' * (len(head) + 2)}{command}" for command in finding.fix]
        lines += [""] if found else []
    return "\n".join([*lines, verdict(report)])


def verdict(report: Report) -> str:
    """The report in one line."""
    agreement = report.sections.get("agreement")
    trials = agreement.trials if isinstance(agreement, Agreement) else ()
    wrong = sum(finding.wrong for finding in report.findings)
    rest = len(report.findings) - wrong
    if wrong:
        return f"{plural(wrong, 'thing')} wrong, {rest} to improve."
    agree = f"All {len(trials)} results agree" if trials else "Nothing is wrong"
    return f"{agree}; {plural(rest, 'thing')} to improve." if rest else f"{agree}. All is well."


def table(rows: Sequence[Row]) -> list[str]:
    """Rows as lines: columns as wide as they must be, the last one wrapped."""
    lines, columns = [], max(len(row) for row in rows)
    least = (_LABEL, _SECOND, *(0,) * columns)
    widths = [
        max(least[i], *(len(row[i]) for row in rows if len(row) > i + 1))
        for i in range(columns - 1)
    ]
    for row in rows:
        head = "  " + "".join(f"{cell:<{widths[i]}}  " for i, cell in enumerate(row[:-1]))
        lines += _wrapped(row[-1], head, " " * len(head))
    return lines


def _wrapped(text: str, head: str, indent: str) -> list[str]:
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    return [line.rstrip() for line in lines] or [head.rstrip()]


def _machine(found: Machine) -> list[Row]:
    cpu = found.processor
    return [
        ("devconv", found.devconv),
        ("Python", found.python),
        ("", found.executable),
        ("system", found.system),
        ("processor", f"{cpu.name}, {plural(cpu.count, 'CPU')}, {cpu.kernels}"),
        ("memory", _memory(cpu.memory) or "unknown"),
    ]


def _settings(found: Settings) -> list[Row]:
    return [
        (s.variable, "not set" if s.value is None else repr(s.value), s.meaning)
        for s in found.settings
    ]


def _blas(found: Blas) -> list[Row]:
    version = " ".join(part for part in (found.library, found.version) if part)
    kernel = {None: "", True: ", with AVX-512", False: ", without AVX-512"}[found.uses_avx512]
    threads = "unknown" if found.threads is None else f"{found.threads} on "
    rows: list[Row] = [
        ("library", version),
        ("kernel", f"{found.kernel or 'unknown'}{kernel}"),
        ("threads", threads + plural(found.cpus, "CPU") if found.threads else threads),
    ]
    for i, (variable, value) in enumerate(found.environment.items()):
        rows.append(("" if i else "environment", f"{variable}={value}"))
    return rows


def _libraries(found: Libraries) -> list[Row]:
    rows: list[Row] = []
    for library in found.libraries:
        if library.problem:
            rows.append((library.name, library.version or "", "does not import"))
        elif library.version is None:
            rows.append((library.name, "-", f"{library.purpose}: {library.install}"))
        else:
            rows.append((library.name, library.version, library.purpose))
    return rows


def _devices(found: Devices) -> list[Row]:
    rows: list[Row] = []
    if found.driver:
        of = f"for CUDA {found.driver.cuda}" if found.driver.cuda else "its CUDA unknown"
        gpus = f"sees {plural(len(found.driver.gpus), 'GPU')}"
        rows.append(("NVIDIA driver", found.driver.version or "unknown", f"{of}, {gpus}"))
    for place in found.places:
        rows += _place(place)
    if not found.auto:
        rows.append(('"auto"', "unusable", "DEVCONV_DEVICE asks for what cannot be used"))
    else:  # why there is no usable GPU stands above
        reason = "no usable GPU" if found.reason.startswith("no usable GPU:") else found.reason
        rows.append(('"auto"', found.auto, reason))
    return rows


def _place(place: Place) -> list[Row]:
    library = NAMES.get(place.library, place.library)
    if place.usable:
        about = ", ".join(part for part in (place.name, _memory(place.memory)) if part)
        return [(place.spec, "usable", f"{library} on {about}" if about else library)]
    return [(place.spec, "unusable", place.why), *(("", "", fix) for fix in place.fix)]


def _routes(found: Routes) -> list[Row]:
    names = {**NAMES, "numba": "NumPy, by Numba"}
    rows: list[Row] = [
        (names.get(library, library), ", ".join(primitives))
        for library, primitives in found.by_library.items()
    ]
    if found.cudnn is not None:
        rows.append(("CuPy, by cuDNN", _cudnn(found.cudnn)))
    return rows if found.enabled else [*rows, ("none is in use", "DEVCONV_GENERIC is set")]


def _cudnn(found: CuDNN) -> str:
    if found.problem:
        return f"{found.problem}: {found.install}"
    taken = "taken" if found.asked_for else "not asked for, by DEVCONV_TRIAL=cudnn"
    return f"cuDNN {found.library} by front end {found.front_end}; on trial, {taken}"


def _agreement(found: Agreement) -> list[Row]:
    rows: list[Row] = []
    for trial in found.trials:
        sign = "ok" if trial.ok else "NOT ok"
        if trial.difference is None:
            rows.append((trial.device, trial.dtype, sign, trial.problem))
        else:
            figures = f"off by {trial.difference:.1e}, allowed {trial.tolerance:.0e}"
            figures = figures if trial.difference else "equal"
            rows.append((trial.device, trial.dtype, sign, figures))
    return rows


def _speed(found: Speed) -> list[Row]:
    share = f"{found.of_product:.2f} of the product"
    rows: list[Row] = [
        ("NumPy product", _gflops(found.product), f"{SIDE} × {SIDE} by {SIDE} × {SIDE}, float32"),
        ("NumPy convolution", _gflops(found.convolution), f"64 to 64 channels, 3 × 3; {share}"),
    ]
    if found.torch is not None and found.of_torch is not None:
        text = f"its own; NumPy's has {found.of_torch:.2f} of its speed"
        rows.append(("PyTorch's", _gflops(found.torch), text))
    if found.busy:
        rows.append(("note", "other programs keep this machine busy: the figures are too low"))
    return [*rows, ("verdict", found.verdict)]


def _gflops(value: float) -> str:
    return f"{value:5.0f} GFLOP/s"


def _memory(amount: int | None) -> str:
    return f"{amount / _GIB:.1f} GiB" if amount else ""


_ROWS: dict[str, Callable[[Any], list[Row]]] = {
    "machine": _machine,
    "settings": _settings,
    "blas": _blas,
    "libraries": _libraries,
    "devices": _devices,
    "routes": _routes,
    "agreement": _agreement,
    "speed": _speed,
}
