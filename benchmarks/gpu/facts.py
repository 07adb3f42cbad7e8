"""What the design takes for granted about CuPy, tried: each line confirmed, or corrected.

A line says what was read or expected before any run on a GPU; its row says what was found.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial

import devconv as dc
from benchmarks.gpu import counted
from benchmarks.gpu.lab import Lab, NoMeaning, NotHere
from benchmarks.gpu.tables import UNMEASURED, absent, complete, joined
from benchmarks.gpu.told import Jobs, Told
from benchmarks.place import installed
from benchmarks.report import Row, markdown

MINUTES = 4.0  # 25 facts, and 23 rows of launches

Answer = tuple[bool | None, str]
"""Whether the line holds (``None``: it only asks for a number), and what was found."""
FACTS: dict[str, Callable[[Lab], Answer]] = {}


def fact(line: str) -> Callable[[Callable[[Lab], Answer]], Callable[[Lab], Answer]]:
    """Put a line and what tries it on the list."""

    def put(probe: Callable[[Lab], Answer]) -> Callable[[Lab], Answer]:
        FACTS[line] = probe
        return probe

    return put


def jobs(told: Told) -> Jobs:
    """A row for each line, and on a GPU for each count of launches that is on record."""
    lines = {line: partial(row, line, told) for line in FACTS}
    return lines | dict(counted.jobs(told)) if told.place.is_gpu else lines


def row(line: str, told: Told) -> Row:
    """One line."""
    try:
        holds, found = FACTS[line](Lab(told))
    except NoMeaning:
        return {"verdict": "no meaning on the CPU", "found": ""}
    except NotHere as lacks:
        return {"verdict": UNMEASURED, "found": str(lacks)}
    verdict = {True: "holds", False: "DOES NOT HOLD", None: "measured"}[holds]
    if not told.place.is_gpu:
        verdict = "rehearsed with NumPy"
    return {"verdict": verdict, "found": found}


def table(rows: Mapping[str, Row]) -> str:
    """A line for each line."""
    lines = [
        [line, row["verdict"], row["found"].replace("|", "/")]
        for line, row in complete(rows).items()
    ]
    body = markdown(["what was taken for granted", "verdict", "found"], lines) if lines else ""
    return joined(body, absent(rows))


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.1f} µs"


def _raised(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as problem:
        return type(problem).__name__
    return ""


@fact("array_api_compat reports its standard; asking for a namespace costs about 0.5 µs")
def _(lab: Lab) -> Answer:
    compat = importlib.import_module("array_api_compat")
    x = lab.normal(4)
    seconds = lab.handed_over(lambda: compat.array_namespace(x))
    standard = getattr(lab.xp, "__array_api_version__", "no standard")
    return seconds < 2e-6, f"{standard}, {_us(seconds)}"


@fact("device= is ignored when an array is made")
def _(lab: Lab) -> Answer:
    lab.cupy  # noqa: B018 - NumPy refuses another device
    raised = _raised(lambda: lab.xp.zeros(2, device="no such device"))
    return not raised, f"xp.zeros(2, device='no such device') {raised or 'gives an array'}"


@fact("batched matmul of float16 goes up to float32 on the way")
def _(lab: Lab) -> Answer:
    a = lab.normal(8, lab.size(512), lab.size(512), dtype="float16")
    wide = lab.normal(8, lab.size(512), lab.size(512))
    times = [lab.seconds(lambda x=x: lab.xp.matmul(x, x)) for x in (a, wide)]  # type: ignore[misc]
    result = lab.xp.matmul(a, a)
    taken = lab.bytes(lambda: lab.xp.matmul(a, a)) / result.nbytes if lab.place.is_gpu else 0.0
    return (taken > 1.5 if taken else None), (
        f"{result.dtype}, {_us(times[0])} beside {_us(times[1])} in float32; "
        f"bytes taken over the result's {taken:.1f}"
    )


@fact("batched matmul of bfloat16 fails")
def _(lab: Lab) -> Answer:
    bfloat16 = importlib.import_module("ml_dtypes").bfloat16
    a = lab.cupy.ones((2, 8, 8), dtype=bfloat16)
    raised = _raised(lambda: lab.xp.matmul(a, a))
    return bool(raised), raised or "it does not"


@fact("batched matmul copies an operand that is not C-contiguous")
def _(lab: Lab) -> Answer:
    a, n = lab.normal(8, 256, 256), 8 * 256 * 256 * 4
    lab.cupy  # noqa: B018
    taken = lab.bytes(lambda: lab.xp.matmul(a, lab.xp.matrix_transpose(a))) / n
    return taken > 1.5, f"bytes taken over the result's: {taken:.1f}"


@fact("2-D matmul copies nothing of matrices in C or Fortran order")
def _(lab: Lab) -> Answer:
    a = lab.normal(512, 512)
    taken = [lab.bytes(lambda b=b: a @ b) / a.nbytes for b in (a, a.T)]  # type: ignore[misc]
    return max(taken) < 1.5, f"bytes taken over the result's: {taken[0]:.1f}, {taken[1]:.1f}"


@fact("2-D matmul of float16 adds up in float32")
def _(lab: Lab) -> Answer:
    n, k = 64, lab.size(16384)
    a, b = lab.normal(n, k, dtype="float16"), lab.normal(k, n, dtype="float16")
    exact = lab.host(a) @ lab.host(b)
    far = float(abs(lab.host(a @ b) - exact).max() / abs(exact).max())
    return far < 1e-3, f"off by {far:.1e} of the largest after {k} products"


@fact("2-D matmul of bfloat16 works, with ml_dtypes")
def _(lab: Lab) -> Answer:
    bfloat16 = importlib.import_module("ml_dtypes").bfloat16
    a = lab.cupy.ones((64, 64), dtype=bfloat16)
    raised = _raised(lambda: int(lab.xp.sum(a @ a)))
    return not raised, raised or "it does"


@fact("float32 products do without TF32 unless CUPY_TF32=1")
def _(lab: Lab) -> Answer:
    a = lab.normal(lab.size(2048), lab.size(2048))
    exact = lab.host(a) @ lab.host(a)
    far = float(abs(lab.host(a @ a) - exact).max() / abs(exact).max())
    asked = os.environ.get("CUPY_TF32", "")
    return far < 1e-5, f"off by {far:.1e} of the largest, CUPY_TF32={asked!r}"


@fact('under precision("fast") products of float32 matrices are rounded to TF32')
def _(lab: Lab) -> Answer:
    lab.cupy  # noqa: B018 - NumPy has no TF32
    a = lab.normal(lab.size(4096), lab.size(4096))
    exact = lab.host(a[:64, :]) @ lab.host(a).T

    def tried(level: str) -> tuple[float, float]:
        with dc.precision(level):
            far = abs(lab.host(dc.functional.dense(a, a)[:64, :]) - exact).max()
            return float(far / abs(exact).max()), lab.seconds(lambda: dc.functional.dense(a, a))

    (plain, slow), (far, quick) = tried("exact"), tried("fast")
    return 1e-5 < far < 2e-3, (
        f"off by {far:.1e} of the largest beside {plain:.1e} in exact products, "
        f"{slow / quick:.2f} times as quick"
    )


@fact("PyTorch's convolutions have TF32 on by default, its products off")
def _(lab: Lab) -> Answer:
    lab.torch  # noqa: B018 - asked in a process of its own, whose switches nobody set
    ask = "import torch as t; b = t.backends; print(b.cudnn.allow_tf32, b.cuda.matmul.allow_tf32)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.split() == ["True", "False"], done.stdout.strip()


@fact("sliding_window_view waits for the device")
def _(lab: Lab) -> Answer:
    view = lab.plain.lib.stride_tricks.sliding_window_view
    x = lab.normal(8, 64, 64)
    seconds, behind = lab.waits(lambda: view(x, (3, 3), axis=(1, 2)))
    return seconds > behind / 2, f"{_us(seconds)} behind {_us(behind)} of work"


@fact("as_strided does not wait for the device")
def _(lab: Lab) -> Answer:
    x = lab.normal(8, 64, 64)
    strided = lab.plain.lib.stride_tricks.as_strided
    shape, strides = (8, 62, 62, 3, 3), (*x.strides, *x.strides[1:])
    seconds, behind = lab.waits(lambda: strided(x, shape, strides))
    return seconds < behind / 2, f"{_us(seconds)} behind {_us(behind)} of work"


@fact("tensordot of windows copies them once")
def _(lab: Lab) -> Answer:
    x, kernel = lab.normal(8, 66, 66), lab.normal(3, 3)
    strided = lab.cupy.lib.stride_tricks.as_strided
    windows = strided(x, (8, 64, 64, 3, 3), (*x.strides, *x.strides[1:]))
    taken = lab.bytes(lambda: lab.xp.tensordot(windows, kernel, axes=2)) / windows.nbytes
    return 0.9 < taken < 1.6, f"bytes taken over those of the windows: {taken:.1f}"


@fact("a sum over contiguous trailing axes is quick, over (0, 2, 3) slow")
def _(lab: Lab) -> Answer:
    x = lab.normal(lab.size(128), 64, 56, 56)
    times = [lab.seconds(lambda a=a: lab.xp.sum(x, axis=a)) for a in ((1, 2, 3), (2, 3), (0, 2, 3))]  # type: ignore[misc]
    return times[2] > 3 * times[1], (
        f"(1, 2, 3) {_us(times[0])}, (2, 3) {_us(times[1])}, (0, 2, 3) {_us(times[2])}"
    )


@fact("rows added up by a product with ones are quicker than sum(axis=0)")
def _(lab: Lab) -> Answer:
    x = lab.normal(lab.size(128) * 56 * 56, 64)
    ones = lab.xp.ones((1, x.shape[0]), dtype=x.dtype)
    summed, product = lab.seconds(lambda: lab.xp.sum(x, axis=0)), lab.seconds(lambda: ones @ x)
    return product < summed, f"sum {_us(summed)}, product {_us(product)}"


@fact("an elementwise call takes about 11 µs of the host")
def _(lab: Lab) -> Answer:
    x = lab.normal(64)
    host, whole = lab.handed_over(lambda: x + x), lab.seconds(lambda: x + x, 500)
    return 5e-6 < host < 22e-6, f"{_us(host)}; with the device {_us(whole)}"


@fact("a product of matrices takes 20 to 29 µs of the host")
def _(lab: Lab) -> Answer:
    x = lab.normal(32, 32)
    host, whole = lab.handed_over(lambda: x @ x), lab.seconds(lambda: x @ x, 500)
    return 1e-5 < host < 58e-6, f"{_us(host)}; with the device {_us(whole)}"


@fact("PyTorch's calls beside them: an elementwise one, a product of matrices")
def _(lab: Lab) -> Answer:
    x = lab.torch.randn(64, 64, device=lab.place.kind)
    times = lab.handed_over(lambda: x + x), lab.handed_over(lambda: x @ x)
    return None, ", ".join(map(_us, times))


@fact("a reduction gives a 0-d array")
def _(lab: Lab) -> Answer:
    total = lab.xp.sum(lab.normal(4))
    return isinstance(total, lab.cupy.ndarray) and total.shape == (), type(total).__name__


@fact("scatter_add of float32 gives other bits from run to run")
def _(lab: Lab) -> Answer:
    add = importlib.import_module("cupyx").scatter_add if lab.cupy else None
    values, index = lab.normal(1_000_000), lab.cupy.arange(1_000_000) % 7

    def run() -> object:
        target = lab.cupy.zeros(7, dtype="float32")
        add(target, index, values)  # type: ignore[misc]
        return target

    count = lab.bits(run)
    return count > 1, f"{count} different results of 20"


@fact("reductions and products of matrices give the same bits every time")
def _(lab: Lab) -> Answer:
    x = lab.normal(lab.size(2048), lab.size(2048))
    calls = (lambda: lab.xp.sum(x), lambda: lab.xp.sum(x, axis=0), lambda: x @ x)
    counts = [lab.bits(call) for call in calls]
    return counts == [1, 1, 1], f"{counts} different results of 20 each"


@fact("CuPy has no cuDNN of its own; NVIDIA's front end can be installed")
def _(lab: Lab) -> Answer:
    lab.cupy  # noqa: B018
    gone = bool(_raised(lambda: importlib.import_module("cupyx.cudnn")))
    there = "is" if installed("cudnn") else "is not"
    return gone, f"CuPy's is {'gone' if gone else 'there'}; nvidia-cudnn-frontend {there} installed"


@fact("the largest rates: products in float32, float16 and float64, copies")
def _(lab: Lab) -> Answer:
    n, said = lab.size(8192), []
    for dtype in ("float32", "float16", "float64"):
        a = lab.normal(n, n, dtype=dtype)
        seconds = lab.seconds(lambda a=a: a @ a, 3)  # type: ignore[misc]
        said.append(f"{dtype} {2e-12 * n**3 / seconds:.1f} TFLOP/s")
    x = lab.normal(lab.size(256) * 2**19)
    copied = lab.seconds(lambda: x.copy(), 5)
    return None, f"{', '.join(said)}; copies {2e-9 * x.nbytes / copied:.0f} GB/s, read and written"


@fact("a stream that is captured takes no product of matrices")
def _(lab: Lab) -> Answer:
    stream, a = lab.cupy.cuda.Stream(non_blocking=True), lab.normal(64, 64)
    with stream:
        a @ a
        stream.synchronize()
        stream.begin_capture()
        raised = _raised(lambda: a @ a)
        ended = _raised(stream.end_capture)
    return bool(raised), f"the product: {raised or 'taken'}; the end: {ended or 'well'}"
