"""Every check that all operations share, derived from the table in ``tests/cases``.

On JAX each new shape is compiled: there one compiled function per case answers for the
values, the pullback and ``jax.vjp`` together, and the rest of the product is marked slow.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest

from devconv import _array, _fast
from devconv import functional as F
from devconv.testing import check_vjp, generic
from tests import backends
from tests.backends import Backend
from tests.capabilities import DTYPES
from tests.cases import collect
from tests.cases.case import Case
from tests.compiled import assert_one_graph

CASES = collect()
EAGER = [b for b in backends.usable().values() if b.name != "jax"]
HALVES = [
    (b, d)
    for b in backends.usable().values()
    for d in DTYPES[b.name]
    if d in _array.HALF and b.has(d)
]
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
SHARED = ("weight", "bias", "pos_weight")  # arguments without a batch of their own


def slow_on(*names: str) -> Any:
    """The usable backends; those named run only when the slow tests are asked for."""
    return pytest.mark.parametrize(
        "backend",
        [
            pytest.param(b, id=b.name, marks=[pytest.mark.slow] if b.name in names else [])
            for b in backends.usable().values()
        ],
    )


def cases(*, among: Any = lambda case: True) -> Any:
    return pytest.mark.parametrize("case", [c for c in CASES if among(c)], ids=str)


# --- the pieces a check is made of ---


def moved(case: Case, backend: Backend, dtype: str, seed: int = 0, host: Any = None) -> list[Any]:
    """The case's arrays on a backend, floating ones in ``dtype``."""
    host = case.draw(seed) if host is None else host
    return [None if x is None else _on(backend, x, dtype) for x in host]


def options(case: Case, backend: Backend, dtype: str) -> dict[str, Any]:
    """The case's options, its arrays moved to the backend."""
    return {
        name: _on(backend, value, dtype) if isinstance(value, np.ndarray) else value
        for name, value in case.options.items()
    }


def _on(backend: Backend, x: np.ndarray, dtype: str) -> Any:
    return backend.asarray(x, dtype if x.dtype.kind == "f" else None)


def first(y: Any) -> Any:
    """The differentiable output."""
    return y[0] if isinstance(y, tuple) else y


def outputs(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)


def cotangent(y: Any, backend: Backend, seed: int = 1) -> Any:
    """A random ``dy`` for ``y``."""
    values = np.random.default_rng(seed).standard_normal(tuple(first(y).shape))
    return backend.asarray(values, _array.dtype_name(first(y).dtype))


def error(result: Any, expected: Any) -> float:
    """``max|result - expected| / max|expected|``, after asserting equal shapes."""
    result, expected = np.asarray(result, dtype="float64"), np.asarray(expected, dtype="float64")
    assert result.shape == expected.shape
    if expected.size == 0:
        return 0.0
    scale = float(np.max(np.abs(expected))) or 1.0
    return float(np.max(np.abs(result - expected))) / scale


def assert_close(backend: Backend, results: Any, expected: Any, tolerance: float) -> None:
    for result, wanted in zip(results, expected, strict=True):
        assert (result is None) == (wanted is None)
        if result is not None:
            found = error(backend.to_numpy(result), backend.to_numpy(wanted))
            assert found <= tolerance, f"differs by {found:.2e} of the largest value"


def assert_like(y: Any, x: Any, dtype: str) -> None:
    """``y`` belongs to the library and device of ``x`` and has ``dtype``."""
    assert not isinstance(y, np.generic)
    assert _array.library(_array.array_namespace(y)) == _array.library(_array.array_namespace(x))
    assert _array.device(y) == _array.device(x)
    assert _array.dtype_name(y.dtype) == dtype


def bits(backend: Backend, arrays: Any) -> list[Any]:
    """The arrays as bytes, to compare to the last bit."""
    return [None if x is None else backend.to_numpy(x).tobytes() for x in arrays]


def once(function: Any) -> Any:
    """Work something out once for each case."""
    by_id = {str(case): case for case in CASES}
    cached = functools.cache(lambda name: function(by_id[name]))
    return lambda case: cached(str(case))


@once
def expected(case: Case) -> tuple[np.ndarray, ...]:
    """The plain definition's outputs."""
    return tuple(np.asarray(v) for v in outputs(case.reference(*case.draw(), **case.options)))


@once
def known(case: Case) -> tuple[Any, ...]:
    """The cotangents in float64 on NumPy, which ``check_vjp`` and PyTorch vouch for."""
    y, pullback = case.op.vjp(*case.draw(), **case.options)
    return pullback(cotangent(y, backends.get("numpy")))


def is_loss(case: Case) -> bool:
    return "reduction" in case.op.__signature__.parameters


def rounded(case: Case, backend: Backend, dtype: str) -> list[Any]:
    """The case's arrays in float64 after a rounding to ``dtype``."""
    there = moved(case, backend, dtype)
    return [
        host if host is None or host.dtype.kind != "f" else backend.to_numpy(x).astype("float64")
        for host, x in zip(case.draw(), there, strict=True)
    ]


# --- the table itself ---


def test_ids_are_unique() -> None:
    names = [str(case) for case in CASES]
    assert sorted(names) == sorted(set(names))


def test_every_operation_has_cases() -> None:
    operations = {name for name in F.__all__ if isinstance(getattr(F, name), F.Operation)}
    assert operations - {case.op.__name__ for case in CASES} == set()


def test_every_option_has_a_case() -> None:
    used = {(case.op.__name__, option) for case in CASES for option in case.options}
    declared = {
        (op.__name__, name)
        for op in {case.op for case in CASES}
        for name, p in op.__signature__.parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }
    assert declared - used == set()


# --- values ---


@cases()
@slow_on("jax")
def test_forward_is_the_definition(case: Case, backend: Backend) -> None:
    args = moved(case, backend, "float64")
    y = outputs(case.op(*args, **options(case, backend, "float64")))
    assert_like(y[0], args[0], "float64")
    assert_close(backend, y, expected(case), 1e-12)


@cases()
@slow_on("jax")
def test_float32_stays_float32(case: Case, backend: Backend) -> None:
    args = moved(case, backend, "float32")
    chosen = options(case, backend, "float32")
    y, pullback = case.op.vjp(*args, **chosen)
    assert_like(first(y), args[0], "float32")
    near = rounded(case, backend, "float32")
    there = {
        k: v.astype("float32").astype("float64") if _is_floating(v) else v
        for k, v in case.options.items()
    }
    assert_close(backend, outputs(y)[:1], outputs(case.reference(*near, **there))[:1], 1e-5)
    dy = cotangent(y, backend)
    _, exact = case.op.vjp(*near, **there)
    grads = pullback(dy)
    for d, x in zip(grads, args, strict=True):
        if d is not None:
            assert_like(d, x, "float32")
    assert_close(backend, grads, exact(backend.to_numpy(dy).astype("float64")), 1e-5)


def _is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


@cases(among=lambda case: case.torch is not None)
def test_pytorch_agrees(case: Case) -> None:
    backend = backends.get("torch")
    args = moved(case, backend, "float64")
    y, pullback = case.op.vjp(*args, **options(case, backend, "float64"))
    theirs = [x if x is None or not _array.is_floating(x) else x.requires_grad_() for x in args]
    assert case.torch is not None
    wanted = case.torch(*theirs)
    ours = [first(y)] if not isinstance(wanted, tuple) else y
    wanted_y = [backend.to_numpy(v) for v in outputs(wanted)]
    assert_close(backend, [v.detach() for v in ours], wanted_y, 1e-12)
    dy = cotangent(y, backend)
    first(wanted).backward(dy)
    grads = [None if d is None else d.detach() for d in pullback(dy)]
    assert_close(
        backend, grads, [None if d is None else x.grad for d, x in _pairs(grads, theirs)], 1e-11
    )


def _pairs(grads: Any, args: Any) -> Any:
    return zip(grads, args, strict=True)


# --- derivatives ---


@cases(among=lambda case: case.smooth)
@slow_on("jax")
def test_pullback_is_the_transposed_derivative(case: Case, backend: Backend) -> None:
    args = moved(case, backend, "float64")
    check_vjp(case.op, *args, directions=1, **options(case, backend, "float64"))


@cases()
def test_autograd_through_the_forward_pass_agrees(case: Case) -> None:
    backend = backends.get("torch")
    args = moved(case, backend, "float64")
    chosen = options(case, backend, "float64")
    leaves = [x.requires_grad_() if x is not None and _array.is_floating(x) else None for x in args]
    with generic():
        y, pullback = case.op.vjp(*args, **chosen)
    dy = cotangent(y, backend)
    first(y).backward(dy)
    grads = [None if d is None else d.detach() for d in pullback(dy)]
    theirs = [None if d is None else x.grad for d, x in zip(grads, leaves, strict=True)]
    assert_close(backend, grads, theirs, 1e-10)


@cases()
def test_one_compiled_function_on_jax(case: Case) -> None:
    """Values, pullback, and ``jax.vjp`` through the written-once forward pass."""
    backend = backends.get("jax")
    import jax

    args = moved(case, backend, "float64")
    chosen = options(case, backend, "float64")
    floats = [i for i, x in enumerate(args) if x is not None and _array.is_floating(x)]
    dy = cotangent(expected(case)[0].astype("float64"), backend)

    @jax.jit
    def everything(args: Any, dy: Any) -> Any:
        def forward(*inputs: Any) -> Any:
            filled = list(args)
            for i, x in zip(floats, inputs, strict=True):
                filled[i] = x
            return first(case.op(*filled, **chosen))

        y, pullback = case.op.vjp(*args, **chosen)
        with generic():
            _, theirs = jax.vjp(forward, *(args[i] for i in floats))
        return y, pullback(dy), theirs(dy)

    y, grads, theirs = everything(args, dy)
    assert_close(backend, outputs(y), expected(case), 1e-12)
    assert_close(backend, grads, known(case), 1e-11)
    oracle = [None] * len(args)
    for i, d in zip(floats, theirs, strict=True):
        oracle[i] = d if grads[i] is not None else None
    assert_close(backend, grads, [None if d is None else np.asarray(d) for d in oracle], 1e-10)


# --- the contract ---


@cases()
@slow_on("jax")
def test_pullback_is_pure_and_answers_for_each_argument(case: Case, backend: Backend) -> None:
    args = moved(case, backend, "float64")
    chosen = options(case, backend, "float64")
    before = bits(backend, args)
    y, pullback = case.op.vjp(*args, **chosen)
    dy = cotangent(y, backend)
    values, dual = bits(backend, outputs(y)), bits(backend, [dy])
    grads = pullback(dy)
    kept = bits(backend, grads)
    again = pullback(dy)
    assert isinstance(grads, tuple)
    assert len(grads) == len(args)
    for x, d in zip(args, grads, strict=True):
        if x is None or not _array.is_floating(x):
            assert d is None
        else:
            assert tuple(d.shape) == tuple(x.shape)
            assert_like(d, x, "float64")
    assert bits(backend, again) == kept == bits(backend, grads)
    assert bits(backend, args) == before
    assert bits(backend, [dy]) == dual
    assert bits(backend, outputs(y)) == values == bits(backend, outputs(case.op(*args, **chosen)))


@cases()
@slow_on("jax")
def test_written_once_route_agrees(case: Case, backend: Backend) -> None:
    args = moved(case, backend, "float64")
    chosen = options(case, backend, "float64")
    y, pullback = case.op.vjp(*args, **chosen)
    dy = cotangent(y, backend)
    with generic():
        plain, back = case.op.vjp(*args, **chosen)
        grads = back(dy)
    assert_close(backend, outputs(y), [backend.to_numpy(v) for v in outputs(plain)], 1e-12)
    wanted = [None if d is None else backend.to_numpy(d) for d in grads]
    assert_close(backend, pullback(dy), wanted, 1e-12)


@cases()
@pytest.mark.parametrize("backend", [b for b in EAGER if b.name != "torch"], ids=str)
def test_tiles_of_one_row_agree(
    case: Case, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = moved(case, backend, "float64")
    monkeypatch.setattr(_fast, "workspace", lambda x: 1)
    with generic():
        y, pullback = case.op.vjp(*args, **options(case, backend, "float64"))
        dy = cotangent(y, backend)
        grads = pullback(dy)
    assert_close(backend, outputs(y), expected(case), 1e-12)
    assert_close(backend, grads, known(case), 1e-12)


@cases(among=lambda case: case.batched)
@slow_on("jax")
def test_empty_batch(case: Case, backend: Backend) -> None:
    host = list(case.draw())
    lead = host[0].shape
    for i, x in enumerate(host):
        name = case.op.arguments[i]
        if x is not None and (name not in SHARED or x.shape == lead):
            host[i] = x[:0]
    args = moved(case, backend, "float64", host=host)
    y, pullback = case.op.vjp(*args, **options(case, backend, "float64"))
    for result, full in zip(outputs(y), expected(case), strict=True):
        if full.ndim and not (is_loss(case) and case.options.get("reduction") != "none"):
            assert tuple(result.shape) == (0, *full.shape[1:])
            continue
        value = float(backend.to_numpy(result))
        assert np.isnan(value) if case.options.get("reduction", "mean") != "sum" else value == 0.0
    assert_like(first(y), args[0], "float64")
    for x, d in zip(args, pullback(cotangent(y, backend)), strict=True):
        if d is not None:
            assert tuple(d.shape) == tuple(x.shape)
            assert_like(d, x, "float64")
            assert not np.any(backend.to_numpy(d))


@cases()
@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed", "read-only"])
def test_numpy_memory_makes_no_difference(case: Case, layout: str) -> None:
    backend = backends.get("numpy")
    args = [None if x is None else _laid_out(x, layout) for x in case.draw()]
    y, pullback = case.op.vjp(*args, **case.options)
    assert_close(backend, outputs(y), expected(case), 1e-12)
    dy = _laid_out(cotangent(y, backend), layout)
    assert_close(backend, pullback(dy), known(case), 1e-12)


def _laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same values in memory of another order."""
    if layout == "transposed":
        return np.array(x.T, order="C").T
    if layout == "read-only":
        x = np.array(x)
        x.flags.writeable = False
        return x
    if layout == "reversed":
        back = tuple(slice(None, None, -1) for _ in x.shape)
        return np.array(x[back])[back]
    wide = np.full(tuple(2 * n for n in x.shape), 7, dtype=x.dtype)
    every = tuple(slice(None, None, 2) for _ in x.shape)
    wide[every] = x
    return wide[(*every, ...)]


@cases()
@pytest.mark.parametrize("layout", ["transposed", "strided"])
def test_pytorch_memory_makes_no_difference(case: Case, layout: str) -> None:
    backend = backends.get("torch")

    def laid_out(x: Any) -> Any:
        if x is None:
            return None
        host = _laid_out(backend.to_numpy(x), layout)
        return backend.xp.from_numpy(host).to(backend.device)

    args = [laid_out(x) for x in moved(case, backend, "float64")]
    y, pullback = case.op.vjp(*args, **options(case, backend, "float64"))
    assert_close(backend, outputs(y), expected(case), 1e-12)
    assert_close(backend, pullback(laid_out(cotangent(y, backend))), known(case), 1e-12)


@cases()
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_nan_goes_on(case: Case, name: str) -> None:
    backend = backends.get(name)
    x, *others = case.draw()
    host = [np.full_like(x, np.nan), *others]
    args = moved(case, backend, "float64", host=host)
    y = case.op(*args, **options(case, backend, "float64"))
    assert np.isnan(backend.to_numpy(first(y))).any()


@cases()
def test_device_is_never_waited_for(case: Case, host_reads: Any) -> None:
    backend = backends.get("array_api_strict")
    args = moved(case, backend, "float64")
    chosen = options(case, backend, "float64")
    dy = cotangent(expected(case)[0].astype("float64"), backend)
    with host_reads.forbidden():
        _, pullback = case.op.vjp(*args, **chosen)
        pullback(dy)


@cases()
@pytest.mark.parametrize("device", ["no_float64", "no_x64"])
def test_devices_without_64_bits(case: Case, device: str) -> None:
    if device == "no_x64" and case.op is F.max_unpool:
        pytest.skip("array-api-strict's argsort and searchsorted make int64 even there")
    strict = backends.get("array_api_strict")
    backend = Backend(strict.name, strict.xp, strict.xp.Device(device))
    labels = "int64" if device == "no_float64" else "int32"
    args = [
        None if x is None else backend.asarray(x, "float32" if x.dtype.kind == "f" else labels)
        for x in case.draw()
    ]
    y, pullback = case.op.vjp(*args, **options(case, backend, "float32"))
    assert_like(first(y), args[0], "float32")
    for x, d in zip(args, pullback(cotangent(y, backend)), strict=True):
        if d is not None:
            assert_like(d, x, "float32")


# --- half precision ---


@cases(among=lambda case: case.half)
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        pytest.param(b, d, id=f"{b.name}-{d}", marks=[pytest.mark.slow] if b.name == "jax" else [])
        for b, d in HALVES
    ],
)
def test_half_precision(case: Case, backend: Backend, dtype: str) -> None:
    """Within two roundings of float64, input and output; a loss is float32."""
    args = moved(case, backend, dtype)
    chosen = options(case, backend, dtype)
    y, pullback = case.op.vjp(*args, **chosen)
    assert_like(first(y), args[0], "float32" if is_loss(case) else dtype)
    near = rounded(case, backend, dtype)
    there = {
        k: backend.to_numpy(chosen[k]).astype("float64") if _is_floating(v) else v
        for k, v in case.options.items()
    }
    exact, back = case.op.vjp(*near, **there)
    tolerance = 1e-5 if is_loss(case) else EPSILON[dtype]
    assert_close(backend, outputs(y)[:1], outputs(exact)[:1], tolerance)
    dy = cotangent(y, backend)
    grads = pullback(dy)
    for d, x in zip(grads, args, strict=True):
        if d is not None:
            assert_like(d, x, dtype)
    wanted = back(backend.to_numpy(dy).astype("float64"))
    assert_close(backend, grads, wanted, EPSILON[dtype])


# --- torch.compile ---


def some_of_each() -> list[Any]:
    """The first case of each room's operations; the last one of each operation marked long."""
    first = {case.op.__wrapped__.__module__: case for case in reversed(CASES)}
    later = {case.op.__name__: case for case in CASES if case.draw()[0].ndim > 0}
    chosen = {str(case): case for case in (*first.values(), *later.values())}
    fast = {str(case) for case in first.values()}
    return [
        pytest.param(case, id=name, marks=[] if name in fast else [pytest.mark.long])
        for name, case in chosen.items()
    ]


@pytest.mark.parametrize("case", some_of_each())
def test_torch_compiles_there_and_back_as_one_graph(case: Case) -> None:
    backend = backends.get("torch")
    args, chosen = moved(case, backend, "float64"), options(case, backend, "float64")
    dy = cotangent(case.op(*args, **chosen), backend)

    def there_and_back(dy: Any, *arrays: Any) -> Any:
        y, pullback = case.op.vjp(*arrays, **chosen)
        return y, pullback(dy)

    assert_one_graph(there_and_back, dy, *args, tolerance=1e-12)


def test_a_compiled_convolution_is_the_library_s_own_or_the_written_once_one() -> None:
    """Closing the door is seen by what was compiled with the door open."""
    torch, graphs = pytest.importorskip("torch"), []

    def recorded(graph: Any, inputs: Any) -> Any:
        graphs.append({node.name for node in graph.graph.nodes})
        return graph.forward

    x, weight = torch.ones((1, 2, 5, 5)), torch.ones((3, 2, 2, 2))
    torch.compiler.reset()
    compiled = torch.compile(lambda x, w: F.conv(x, w), backend=recorded, fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with generic(False):
            results = [compiled(x, weight)]
        with generic():
            results.append(compiled(x, weight))
    for y in results:
        np.testing.assert_array_equal(y, np.full((1, 3, 4, 4), 8.0))
    assert ["conv2d" in names for names in graphs] == [True, False]


# --- options that are yes or no ---


def flags(case: Case) -> list[str]:
    """The options of the case's operation that are true or false."""
    parameters = case.op.__signature__.parameters.values()
    return [p.name for p in parameters if p.annotation == "bool"]


FLAGS = {(case.op.__name__, name): case for case in CASES for name in flags(case)}


@pytest.mark.parametrize(("operation", "name"), FLAGS)
@pytest.mark.parametrize("value", ["yes", 1, None, np.ones(1, dtype=bool)], ids=repr)
def test_only_true_and_false_are_yes_and_no(operation: str, name: str, value: Any) -> None:
    case, numpy = FLAGS[operation, name], backends.get("numpy")
    arrays, given = moved(case, numpy, "float64"), options(case, numpy, "float64")
    with pytest.raises(TypeError, match=rf"^{operation}: {name} must be True or False, got "):
        case.op(*arrays, **{**given, name: value})


def test_every_flag_has_a_case() -> None:
    """And NumPy's own booleans are as good as Python's."""
    every = {
        (name, p.name)
        for name, op in vars(F).items()
        if isinstance(op, F.Operation)
        for p in op.__signature__.parameters.values()
        if p.annotation == "bool"
    }
    assert every == FLAGS.keys()
    x = np.ones((1, 1, 3))
    for yes in (True, np.True_):
        assert F.max_pool(x, kernel_size=2, ceil_mode=yes).shape == (1, 1, 2)
    assert F.max_pool(x, kernel_size=2, ceil_mode=np.False_).shape == (1, 1, 1)
