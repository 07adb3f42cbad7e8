"""cuDNN's convolutions: by a double of its front end everywhere, and by cuDNN where there is one.

The double refuses what the real front end refuses, and spoils the numbers of every plan that
ought to be struck out. The tests on a GPU are skipped, with the reason, where CuPy or cuDNN
cannot be used; ``DEVCONV_REQUIRE=cupy`` requires them wherever ``import cudnn`` has a chance.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import threading
import tomllib
import warnings
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _array, _fast
from devconv import functional as F
from devconv._detect import Unusable
from devconv._fast import cudnn as room
from devconv._fast.budget import budget
from devconv._fast.cudnn import graph, presence
from devconv.functional import direct
from devconv.functional.windows import Windows, plan
from tests import backends
from tests.cases import conv, conv_transpose
from tests.cases.case import Case
from tests.doubles import cudnn as double
from tests.doubles import cupy as gpus
from tests.doubles.cudnn import watch
from tests.toys import cnn, images, labels

CASES = [
    case
    for case in (*conv.CASES, *conv_transpose.CASES)
    if case.options.get("algorithm", "auto") in ("auto", "gemm") and case.draw()[0].ndim <= 5
]
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
SHAPES = ((4, 6, 9, 8), (8, 3, 3, 3))


def dtype_of(name: str) -> Any:
    """A dtype of NumPy's, or the one that stands for bfloat16 there."""
    return pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else np.dtype(name)


def drawn(*shapes: tuple[int, ...], dtype: str = "float32") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype_of(dtype)) for shape in shapes]


def there(x: np.ndarray | None, device: int = 1) -> Any:
    if x is None:
        return None
    with gpus.Device(device):
        return gpus.asarray(x)


def back(x: Any) -> np.ndarray:
    assert isinstance(x, gpus.ndarray)
    return x._values


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    assert found.shape == wanted.shape
    size = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
    np.testing.assert_allclose(found.astype("float64"), wanted, rtol=0.0, atol=tolerance * size)


def wanted_of(case: Case, args: list[Any], dy: np.ndarray) -> list[Any]:
    """What is written once says in float64 of the same numbers."""
    wide = [None if x is None else x.astype("float64") for x in args]
    with dc.testing.generic():
        y, pullback = case.op.vjp(*wide, **case.options)
        return [y, *pullback(dy.astype("float64"))]


@pytest.fixture
def doubles() -> Iterator[None]:
    """CuPy's double, cuDNN's double, and cuDNN asked for."""
    with gpus.installed(), double.installed(), dc.testing.generic(False), _fast.trial("cudnn"):
        yield
    assert gpus.Device().id == 0, "a device was entered and not left"


def step(x: np.ndarray, weight: np.ndarray, device: int = 1, **options: Any) -> list[np.ndarray]:
    """A convolution there and back, its cotangent the result."""
    y, pullback = F.conv.vjp(there(x, device), there(weight, device), **options)
    return [back(a) for a in (y, *pullback(y))]


# --- the numbers ---


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_what_is_written_once(doubles: None, case: Case, dtype: str) -> None:
    args = [None if x is None else x.astype(dtype_of(dtype)) for x in case.draw()]
    y, pullback = case.op.vjp(*map(there, args), **case.options)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype_of(dtype))
    found = [y, *pullback(there(dy))]
    assert gpus.watch.reads == []
    assert len(watch.ran) == len(watch.built) == 3
    for a, b in zip(found, wanted_of(case, args, dy), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert back(a).dtype.name == dtype
            assert a.device.id == 1
            close(back(a), b, TOLERANCE[dtype])


def test_images_in_any_memory(doubles: None) -> None:
    """Channels-first, with gaps, and beginning where cuDNN may not read."""
    x, weight = drawn(*SHAPES)
    wide = there(np.concatenate([x, x], axis=3))
    odd = there(np.concatenate([[0.0], x.ravel()]).astype("float32"))
    last = there(np.ascontiguousarray(np.moveaxis(x, 1, -1)))
    xp = gpus.namespace
    views = (
        there(x),
        wide[:, :, :, :8],
        odd[1:].reshape(x.shape),
        xp.permute_dims(last, (0, 3, 1, 2)),
    )
    wanted = None
    for view in views:
        y, pullback = F.conv.vjp(view, there(weight), groups=2)
        found = [back(a) for a in (y, *pullback(y))]
        wanted = wanted or found
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_image_of_numbers_that_begin_anywhere(doubles: None) -> None:
    x = drawn((2, 7, 7, 1), dtype="float16")[0]
    flat = there(np.concatenate([np.zeros(1, x.dtype), x.ravel()]))
    view = flat[1:].reshape(x.shape)
    assert view.flags.c_contiguous
    assert view.data.ptr % 16
    w = plan((7, 7), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))
    weight = there(drawn((2, 1, 3, 3), dtype="float16")[0])
    np.testing.assert_array_equal(
        back(room.correlate(view, weight, w, 1)), back(room.correlate(there(x), weight, w, 1))
    )


def test_pixels_that_no_window_reads(doubles: None) -> None:
    """Fewer windows than fit: the rest of the image is left out, its cotangent is zero."""
    full = plan((9, 8), (2, 3), (1, 2), ((1, 0), (0, 1)), (2, 1))
    w = dataclasses.replace(full, out=(3, 2))
    assert not w.is_whole
    weight, x, dy = drawn((4, 3, 2, 3), (2, 9, 8, 6), (2, 3, 2, 4))
    wide = [a.astype("float64") for a in (weight, x, dy)]
    found = (
        room.correlate(there(x), there(weight), w, 2),
        room.input_cotangent(there(dy), there(weight), w, 2),
        room.kernel_cotangent(there(x), there(dy), there(weight), w, 2),
    )
    k, x, dy = wide
    with dc.testing.generic():
        wanted = (
            direct.correlate(x, k, w, 2),
            direct.input_cotangent(dy, k, w, 2),
            direct.kernel_cotangent(x, dy, k, w, 2),
        )
    for a, b in zip(found, wanted, strict=True):
        close(back(a), b, 1e-6)
    assert not np.any(back(found[1])[:, 6:])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_network_learns_by_it(doubles: None, dtype: str) -> None:
    here, away = cnn().build(seed=0).to(dtype=dtype), cnn().build(seed=0).to("cuda:1", dtype=dtype)
    x, target = images(dtype=dtype), labels()
    wanted, grads = dc.value_and_grad(here, F.cross_entropy)(x, target)
    found, away_grads = dc.value_and_grad(away, F.cross_entropy)(there(x), there(target))
    assert watch.ran != []
    assert gpus.watch.reads == []
    tolerance = {"float32": 1e-5, "float16": 3e-2}[dtype]
    close(back(found), wanted, tolerance)
    for name, grad in grads.items():
        close(back(away_grads[name]), grad.astype("float64"), tolerance)


# --- what it is for ---


def test_what_suits(doubles: None) -> None:
    w = plan((6, 6), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))
    x = there(drawn((2, 6, 6, 4))[0])
    assert room.suits(x, w, 1)
    assert not room.suits(x[:0], w, 1)
    assert not room.suits(there(drawn((2, 6, 6, 4), dtype="float64")[0]), w, 1)
    cube = plan((3,) * 4, (1,) * 4, (1,) * 4, ((0, 0),) * 4, (1,) * 4)
    assert not room.suits(there(drawn((1, 3, 3, 3, 3, 1))[0]), cube, 1)
    padding_alone = Windows((4, 4), (1, 1), (1, 1), ((3, 0), (0, 0)), (1, 1), (2, 4))
    assert not room.suits(x, padding_alone, 1)


def test_only_where_it_is_asked_for(doubles: None) -> None:
    x, weight = drawn(*SHAPES)
    with _fast.trial():
        step(x, weight, groups=2)
    with dc.testing.generic():
        step(x, weight, groups=2)
    assert watch.ran == []
    step(x, weight, groups=2)
    assert len(watch.ran) == 3


def test_it_is_explained(doubles: None) -> None:
    explain = lambda dtype: dc.explain_conv((8, 3, 9, 9), (4, 3, 3, 3), dtype=dtype, device="cuda")  # noqa: E731
    assert explain("float32").route == "quick route"
    assert explain("float64").route == "written once"


# --- plans ---


def test_the_same_shapes_are_planned_once(doubles: None) -> None:
    x, weight = drawn(*SHAPES)
    first = step(x, weight, groups=2)
    assert len(watch.built) == 3
    second = step(x, weight, groups=2)
    assert len(watch.built) == 3
    assert len(watch.ran) == 6
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"padding": 1},
        {"padding": [(1, 0), 0]},
        {"dilation": 2},
        {"groups": 1, "x": (4, 3, 9, 8)},
        {"x": (5, 6, 9, 8)},
        {"weight": (6, 3, 3, 3)},
        {"dtype": "float16"},
        {"device": 0},
        {"level": "fast"},
    ],
    ids=str,
)
def test_another_problem_is_planned_anew(doubles: None, options: dict[str, Any]) -> None:
    step(*drawn(*SHAPES), groups=2)
    options = {"groups": 2, **options}
    shapes = [options.pop("x", SHAPES[0]), options.pop("weight", SHAPES[1])]
    arrays = drawn(*shapes, dtype=options.pop("dtype", "float32"))
    with dc.precision(options.pop("level", "exact")):
        step(*arrays, **options)
    assert len(watch.built) == 6


def test_each_thread_and_device_has_its_handle(doubles: None) -> None:
    x, weight = drawn(*SHAPES)
    results = [step(x, weight, device, groups=2) for device in (1, 0, 1)]

    def other() -> None:
        with dc.testing.generic(False), _fast.trial("cudnn"):
            results.append(step(x, weight, 1, groups=2))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert [handle.device for handle in watch.handles.values()] == [1, 0, 1]
    assert [device for device, _, _ in watch.ran[::3]] == [1, 0, 1, 1]
    assert len(results) == 4
    for found in results[1:]:
        for a, b in zip(found, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_threads_leave_what_they_had_to_the_next(doubles: None) -> None:
    x, weight = drawn(*SHAPES)
    step(x, weight, groups=2)
    results: list[Any] = []

    def other(meet: threading.Barrier | None = None) -> None:
        with dc.testing.generic(False), _fast.trial("cudnn"):
            if meet:
                meet.wait(10)
            results.append(step(x, weight, groups=2))
            if meet:
                meet.wait(10)

    def run(*threads: threading.Thread) -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for _ in range(4):
        run(threading.Thread(target=other))
    assert (len(watch.handles), len(watch.built)) == (2, 6)
    meet = threading.Barrier(2)
    run(*(threading.Thread(target=other, args=(meet,)) for _ in range(2)))
    assert (len(watch.handles), len(watch.built)) == (3, 9)
    run(threading.Thread(target=other))
    assert (len(watch.handles), len(watch.built)) == (3, 9)
    assert len(room._spare) == 2
    assert len(results) == 7


def test_scratch_memory_goes_by_the_class_of_the_device(
    doubles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = drawn(*SHAPES)
    for device in (0, 1):
        step(x, weight, device, groups=2)
    assert [graph.most for graph in watch.built[::3]] == [budget(n) for n in gpus.MEMORY[:2]]
    assert watch.built[0].most != watch.built[3].most


def test_it_runs_on_the_current_stream(doubles: None) -> None:
    x, weight = drawn(*SHAPES)
    step(x, weight, groups=2)
    with gpus.Stream(7):
        step(x, weight, groups=2)
    step(x, weight, groups=2)
    assert [stream for _, stream, _ in watch.ran] == [0, 0, 0, 7, 7, 7, 0, 0, 0]


# --- digits ---


def test_tf32_is_taken_only_where_digits_may_go(doubles: None) -> None:
    x, weight = drawn(*SHAPES)
    exact = step(x, weight, groups=2)
    assert all(run.notes == frozenset() for _, _, run in watch.ran)
    with dc.precision("fast"):
        fast = step(x, weight, groups=2)
    assert all(run.notes == {"TENSOR_CORE"} for _, _, run in watch.ran[3:])
    for a, b in zip(exact, fast, strict=True):
        assert not np.array_equal(a, b)
        close(b, a.astype("float64"), 2e-3)
    half = drawn(*SHAPES, dtype="float16")
    step(*half, groups=2)
    with dc.precision("fast"):
        step(*half, groups=2)
    assert all(run.notes == {"TENSOR_CORE"} for _, _, run in watch.ran[6:])
    assert len(watch.built) == 9  # for half precision both levels are one


@pytest.mark.parametrize("op", [F.conv, F.conv_transpose], ids=["conv", "conv_transpose"])
@pytest.mark.parametrize("level", ["exact", "fast"])
def test_the_way_back_keeps_the_precision(doubles: None, op: Any, level: str) -> None:
    x, weight = map(
        there, drawn((4, 8, 9, 8), (8, 3, 3, 3) if op is F.conv_transpose else (5, 8, 3, 3))
    )
    with dc.precision(level):
        y, pullback = op.vjp(x, weight)
    with dc.precision("exact" if level == "fast" else "fast"):
        pullback(y)
    notes = {"exact": frozenset(), "fast": {"TENSOR_CORE"}}[level]
    assert [run.notes for _, _, run in watch.ran] == [notes] * 3


# --- where there is none ---


def test_without_a_plan_what_is_written_once_runs(doubles: None) -> None:
    x, weight = drawn(*SHAPES)
    with _fast.trial():
        wanted = step(x, weight, groups=2)
    watch.refused = "No valid engine configs\nfor\tthis"
    with pytest.warns(room.NotTaken) as said:
        found = step(x, weight, groups=2)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    texts = [str(one.message) for one in said]
    assert [text.partition(" for ")[2].partition(" of ")[0] for text in texts[:1]] == ["conv_fprop"]
    assert texts[0] == (
        "cuDNN has no plan for conv_fprop of float32 images (4, 6, 9, 8) by (8, 3, 3, 3) "
        "(cudnnGraphNotSupportedError: No valid engine configs for this); such convolutions of "
        "CuPy arrays run as they are written once: take cudnn out of DEVCONV_TRIAL"
    )
    assert len(texts) == 3  # one for each operation
    before = len(watch.handles)
    step(x, weight, groups=2)  # nothing is said again, nothing planned again
    step(x[:3], weight, groups=2)
    assert len(watch.handles) == before
    assert watch.ran == []


def fails(error: Exception) -> Any:
    def call(*given: Any, **options: Any) -> Any:
        raise error

    return call


OUT_OF_MEMORY = fails(MemoryError("Out of memory allocating 1,024 bytes"))
ON_THE_DEVICE = "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
FAILURES: dict[str, tuple[Any, str, Any, str]] = {
    "scratch memory": (gpus._cupy.cuda, "alloc", OUT_OF_MEMORY, "Out of memory allocating"),
    "a copy": (room, "_filled", OUT_OF_MEMORY, r"^cuDNN failed \(MemoryError: Out of memory"),
    "execute": (double.pygraph, "execute", fails(RuntimeError(ON_THE_DEVICE)), ON_THE_DEVICE),
    "planning": (
        *(double.pygraph, "create_execution_plans", fails(RuntimeError(ON_THE_DEVICE))),
        ON_THE_DEVICE,
    ),
    "building": (
        *(double.pygraph, "build_plans"),
        fails(double.cudnnGraphNotSupportedError("No valid execution plans built.")),
        "NotBuilt: cudnnGraphNotSupportedError: No valid execution plans built",
    ),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_fails_for_once_is_written_once_and_tried_again(
    doubles: None, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    x, weight = drawn(*SHAPES)
    with _fast.trial():
        wanted = step(x, weight, groups=2)
    thing, name, failing, words = FAILURES[what]
    with monkeypatch.context() as patch:
        patch.setattr(thing, name, failing)
        with pytest.warns(room.NotTaken, match=words) as said:
            found = step(x, weight, groups=2)
        assert len(said) == 3  # one for each operation
        assert "run as they are written once: free memory, or take" in str(said[0].message)
        again = step(x, weight, groups=2)  # and nothing is said again
    for a, b, c in zip(found, again, wanted, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, c)
    assert watch.ran == []
    step(x, weight, groups=2)
    assert len(watch.ran) == 3


def test_what_never_can_be_planned_is_given_up(
    doubles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def failing(graph: Any) -> None:
        tried.append(1)
        raise ValueError("no such graph")

    monkeypatch.setattr(double.pygraph, "validate", failing)
    x, weight = map(there, drawn(*SHAPES))
    with pytest.warns(room.NotTaken) as said:
        [F.conv(x, weight, groups=2) for _ in range(room.TRIES + 3)]
    assert len(tried) == room.TRIES
    first, last = (str(one.message) for one in said)
    assert first.startswith("cuDNN failed (conv_fprop of float32 images (4, 6, 9, 8) by ")
    assert last.startswith("cuDNN has no plan for conv_fprop")


@pytest.fixture
def cupy_alone() -> Iterator[pytest.MonkeyPatch]:
    """CuPy's double, and cuDNN asked for in whatever state the test puts it."""
    with gpus.installed(), double.forgotten() as patch, dc.testing.generic(False):
        patch.setattr(presence, "installed", lambda *names: [])
        with _fast.trial("cudnn"):
            yield patch


def module(**contents: Any) -> ModuleType:
    made = ModuleType("cudnn")
    vars(made).update(contents)
    return made


NO_LIBRARY = module(
    pygraph=object, backend_version=fails(RuntimeError("Unable to find symbol cudnnGetVersion"))
)
INSTALL = 'pip install "devconv[cudnn]"'
STATES: dict[str, tuple[Any, list[str], str, str]] = {
    "missing": (None, [], "cuDNN's front end is not installed", INSTALL),
    "missing, CUDA 12": (
        None,
        ["cupy-cuda12x"],
        "cuDNN's front end is not installed",
        'pip install "devconv[cudnn12]"',
    ),
    "another module": (
        module(),
        [],
        "the module cudnn is not nvidia-cudnn-frontend's",
        f"pip uninstall cudnn, then {INSTALL}",
    ),
    "no library": (
        NO_LIBRARY,
        ["nvidia-cudnn-frontend"],
        "cuDNN's front end is here and finds no cuDNN "
        "(RuntimeError: Unable to find symbol cudnnGetVersion)",
        INSTALL,
    ),
    "a library that is not found": (
        NO_LIBRARY,
        ["nvidia-cudnn-frontend", "nvidia-cudnn-cu13"],
        "cuDNN's front end is here and finds no cuDNN "
        "(RuntimeError: Unable to find symbol cudnnGetVersion)",
        "pip install --force-reinstall nvidia-cudnn-frontend nvidia-cudnn-cu13",
    ),
    "an old library": (
        module(pygraph=object, backend_version=lambda: 8907),
        [],
        "cuDNN is 8907, older than 9",
        f"{INSTALL} --upgrade",
    ),
}


@pytest.mark.parametrize("state", STATES)
def test_half_installed(cupy_alone: pytest.MonkeyPatch, state: str) -> None:
    found, records, why, fix = STATES[state]
    cupy_alone.setitem(sys.modules, "cudnn", found)
    cupy_alone.setattr(presence, "installed", lambda *names: [n for n in names if n in records])
    x, weight = drawn(*SHAPES)
    with _fast.trial():
        wanted = step(x, weight, groups=2)
    with pytest.warns(room.NotTaken) as said:
        found = step(x, weight, groups=2)
    (one,) = said
    assert str(one.message) == (
        f"{why}; such convolutions of CuPy arrays run as they are written once: {fix}"
    )
    step(x, weight, groups=2)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "error", [OSError("libcudnn.so.9"), AssertionError("Found 2"), ImportError()]
)
def test_a_front_end_that_does_not_import(cupy_alone: pytest.MonkeyPatch, error: Exception) -> None:
    cupy_alone.setattr(presence.importlib, "import_module", lambda name: fails(error)())
    with pytest.raises(Unusable) as problem:
        presence.find()
    assert problem.value.why.startswith("cuDNN's front end does not import (")
    assert problem.value.state == "broken"
    with pytest.warns(room.NotTaken, match="does not import"):
        assert not presence.is_usable()


def test_a_handle_that_cannot_be_made(doubles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a driver too old for the library."""
    error = RuntimeError("cudnnHandle Create failed")
    monkeypatch.setattr(sys.modules["cudnn"], "create_handle", fails(error))
    x, weight = drawn(*SHAPES)
    with pytest.warns(room.NotTaken, match=r": RuntimeError: cudnnHandle Create failed\)"):
        step(x, weight, groups=2)


def test_versions(doubles: None) -> None:
    assert presence.version(presence.find()) == "9.28.0"


def test_records() -> None:
    assert presence.installed("numpy", "devconv-of-another-world") == ["numpy"]
    assert set(presence.records()) <= {
        *("nvidia-cudnn-frontend", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
    }


def test_the_extras_that_are_named_exist(cupy_alone: pytest.MonkeyPatch) -> None:
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for wheels, number in (([], "13"), (["cupy-cuda12x"], "12")):
        cupy_alone.setattr(presence, "installed", lambda *names, w=wheels: w)
        needed = " ".join(extras[presence._extra().strip('"')[len("devconv[") : -1]])
        assert f"nvidia-cudnn-cu{number}" in needed
        assert "nvidia-cudnn-frontend" in needed


# --- the double itself ---


def problem(**other: Any) -> graph.Problem:
    whole = graph.Problem(
        *("conv_fprop", (2, 4, 6, 5), (6, 4, 3, 3), (2, 6, 4, 3)),
        *(((0, 0), (0, 0)), (1, 1), (1, 1), "float32", False, 0, 2**28),
    )
    return whole._replace(**other)


def test_the_double_refuses_what_cudnn_refuses(doubles: None) -> None:
    cudnn = presence.find()
    build = lambda **other: graph.build(cudnn, problem(**other), handle=double.create_handle())  # noqa: E731
    build()
    for wrong in (
        {"y": (2, 6, 4, 4)},
        {"weight": (6, 3, 3, 3)},
        {"image": (3, 4, 6, 5)},
        {"padding": ((1, 0), (0, 0))},
        {"stride": (2, 1)},
    ):
        with pytest.raises(double.cudnnGraphNotSupportedError):
            build(**wrong)
    made = cudnn.pygraph(
        *(), io_data_type=cudnn.data_type.HALF, handle=double.create_handle(), **WIDE
    )
    half = {"data_type": cudnn.data_type.HALF}
    x = made.tensor(dim=[2, 4, 6, 5], stride=graph.strides((2, 4, 6, 5)), uid=1, **half)
    dy = made.tensor(dim=[2, 6, 4, 3], stride=graph.strides((2, 6, 4, 3)), uid=3, **half)
    geometry = {"pre_padding": [0, 0], "post_padding": [0, 0], "stride": [1, 1]}
    with pytest.raises(TypeError):
        made.conv_wgrad(image=x, loss=dy, **geometry, dilation=[1, 1], padding=[0, 0])
    with pytest.raises(TypeError):
        made.conv_wgrad(image=x, loss=dy, **geometry, dilation=(1, 1))
    made.conv_wgrad(image=x, loss=dy, **geometry, dilation=[1, 1]).set_output(True)
    with pytest.raises(ValueError, match="dims not set"):
        made.validate()


WIDE = {
    "intermediate_data_type": double.data_type.FLOAT,
    "compute_data_type": double.data_type.FLOAT,
}


@pytest.mark.parametrize("forgotten", [*graph.STRUCK, "TENSOR_CORE"])
def test_the_double_spoils_what_is_not_struck(
    doubles: None, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    x, weight = drawn(*SHAPES)
    right = step(x, weight, groups=2)[0]
    monkeypatch.setattr(room, "_own", room._Own())
    kept = double.numerical_note[forgotten]
    strike = double.pygraph.deselect_numeric_notes
    monkeypatch.setattr(
        double.pygraph,
        "deselect_numeric_notes",
        lambda self, notes: strike(self, [note for note in notes if note is not kept]),
    )
    assert not np.array_equal(step(x, weight, groups=2)[0], right)


# --- on a GPU ---


@pytest.fixture
def gpu() -> Iterator[backends.Backend]:
    """CuPy with cuDNN, in earnest; a route that is not taken is an error, as all warnings are."""
    backend = backends.get("cupy")
    wanted = "cupy" in backends.required() and util.find_spec("cudnn") is not None
    with double.forgotten(), dc.testing.generic(False), _fast.trial("cudnn"), backend.device:
        try:
            presence.find()
        except Unusable as reason:
            if wanted:
                raise
            pytest.skip(f"{reason.why}: {reason.fix}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", room.NotTaken)
            yield backend


def on_gpu(gpu: backends.Backend, dtype: str, *arrays: np.ndarray | None) -> list[Any]:
    return [None if a is None else gpu.xp.asarray(a.astype(dtype_of(dtype))) for a in arrays]


def taken() -> int:
    """How many plans this thread has made."""
    return room._own.plan.cache_info().currsize


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_a_gpu(gpu: backends.Backend, case: Case, dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
        try:
            on_gpu(gpu, dtype, np.ones(1))
        except (TypeError, ValueError) as error:
            pytest.skip(f"this CuPy has no bfloat16: {error}")
    args = on_gpu(gpu, dtype, *case.draw())
    y, pullback = case.op.vjp(*args, **case.options)
    dy = on_gpu(gpu, dtype, np.random.default_rng(1).standard_normal(y.shape))[0]
    found = [y, *pullback(dy)]
    assert taken() == 3
    host = [None if a is None else _array.to_numpy(a) for a in args]
    for a, b in zip(found, wanted_of(case, host, _array.to_numpy(dy)), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert _array.dtype_name(a.dtype) == dtype
            close(_array.to_numpy(a), b, TOLERANCE[dtype])


LARGE = ((16, 64, 28, 28), (64, 64, 3, 3))


def large(gpu: backends.Backend, dtype: str) -> list[Any]:
    x, weight = on_gpu(gpu, dtype, *drawn(*LARGE))
    y, pullback = F.conv.vjp(x, weight, padding=1)
    return [_array.to_numpy(a) for a in (y, *pullback(y))]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("level", ["exact", "fast"])
def test_on_a_gpu_the_same_bits_again(gpu: backends.Backend, dtype: str, level: str) -> None:
    with dc.precision(level):
        first = large(gpu, dtype)
        for _ in range(3):
            for a, b in zip(large(gpu, dtype), first, strict=True):
                np.testing.assert_array_equal(a, b)
        room._own.plan.cache_clear()  # planned anew, it is the same plan
        for a, b in zip(large(gpu, dtype), first, strict=True):
            np.testing.assert_array_equal(a, b)


def test_on_a_gpu_on_another_stream(gpu: backends.Backend) -> None:
    cupy = importlib.import_module("cupy")
    wanted = large(gpu, "float32")
    with cupy.cuda.Stream(non_blocking=True):
        found = large(gpu, "float32")
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_on_a_gpu_in_two_threads(gpu: backends.Backend) -> None:
    wanted, results = large(gpu, "float32"), []

    def other() -> None:
        with dc.testing.generic(False), _fast.trial("cudnn"), gpu.device:
            results.append(large(gpu, "float32"))

    threads = [threading.Thread(target=other) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for found in results:
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_on_a_gpu_exact_is_float32(gpu: backends.Backend) -> None:
    """Off by less than the rounding of its inputs to TF32 alone makes."""
    x, weight = (a.astype("float64") for a in drawn(*LARGE))
    rounded = [double._tf32(a.astype("float32")) for a in (x, weight)]
    with dc.testing.generic():
        y = F.conv(x, weight, padding=1)
        tf32 = np.abs(F.conv(*rounded, padding=1) - y).max()
    exact = np.abs(large(gpu, "float32")[0] - y).max()
    assert exact < tf32 / 10
    assert exact < 1e-5 * np.abs(y).max()
    with dc.precision("fast"):
        close(large(gpu, "float32")[0], y, 2e-3)


def test_on_a_second_gpu(gpu: backends.Backend) -> None:
    cupy = importlib.import_module("cupy")
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    x, weight = drawn(*LARGE)
    wanted = large(gpu, "float32")[0]
    with cupy.cuda.Device(1):
        x, weight = gpu.xp.asarray(x), gpu.xp.asarray(weight)
    y = F.conv(x, weight, padding=1)  # the first is current
    assert y.device.id == 1
    close(_array.to_numpy(y), wanted.astype("float64"), 1e-5)
