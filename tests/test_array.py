"""The door to the libraries: names, devices, dtypes and the way to the host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import devconv as dc
from devconv import _array
from devconv._check import InvalidType
from tests import backends
from tests.backends import Backend

SPECS = {
    "numpy": "cpu",
    "array_api_strict": "array_api_strict:device1",
    "torch": "torch",
    "jax": "jax",
    "cupy": "cuda:0",
}


def spec_of(backend: Backend) -> str:
    where = backends.placed().get(backend.name)
    if where in (None, "double"):
        return SPECS[backend.name] if where is None else "cuda:1"
    return dc.device(where if backend.name == "cupy" else f"{backend.name}:{where}").spec


def test_library_and_device_have_one_name(backend: Backend) -> None:
    x = backend.asarray(np.ones(3))
    assert _array.library(_array.array_namespace(x)) == backend.name
    assert _array.device_name(x) == spec_of(backend)
    assert _array.NAMES[backend.name]


@pytest.mark.parametrize(
    ("name", "native", "spec"),
    [
        ("cupy", SimpleNamespace(id=1), "cuda:1"),
        ("torch", "cpu", "torch"),
        ("torch", "cuda:1", "torch:cuda:1"),
        ("jax", None, "jax"),
        ("jax", SimpleNamespace(platform="cpu", id=0), "jax"),
        ("jax", SimpleNamespace(platform="cpu", id=2), "jax:cpu:2"),
        ("jax", SimpleNamespace(platform="gpu", id=0), "jax:cuda:0"),
        ("jax", SimpleNamespace(platform="tpu", id=3), "jax:tpu:3"),
    ],
)
def test_device_specs(name: str, native: Any, spec: str) -> None:
    assert _array.spec_of(name, native) == spec


def test_a_spread_array_is_named_by_its_first_device() -> None:
    devices = [SimpleNamespace(platform="gpu", id=i) for i in (1, 0)]
    sharding = SimpleNamespace(device_set=devices)
    assert _array.spec_of("jax", sharding) == "jax:cuda:0"


def test_the_strict_library_s_own_cpu_has_no_suffix() -> None:
    xp = backends.get("array_api_strict").xp
    assert _array.device_name(xp.ones(1)) == "array_api_strict"


def test_traced_arrays_have_no_device() -> None:
    backend = backends.get("jax")
    import jax

    seen = []

    def look(x: Any) -> Any:
        seen.append((_array.device(x), _array.device_name(x), _array.is_readable(x)))
        return x

    jax.jit(look)(backend.asarray(np.ones(2)))
    assert seen == [(None, "jax", False)]


# --- what is an array ---


def test_arrays_of_every_library_are_arrays(backend: Backend) -> None:
    assert _array.is_array(backend.asarray(np.ones(2)))
    assert _array.is_array(backend.asarray(np.ones(())))


@pytest.mark.parametrize("x", [1.0, [1.0], None, "x", (np.ones(1),), np.ma.masked_array([1.0])])
def test_other_things_are_not(x: Any) -> None:
    assert not _array.is_array(x)


def test_plain_means_numpy_and_no_subclass() -> None:
    class Sub(np.ndarray):
        pass

    assert _array.is_plain(np.ones(1))
    assert not _array.is_plain(np.ones(1).view(Sub))
    assert not _array.is_plain(np.float64(1.0))
    assert _array.is_array(np.ones(1).view(Sub))


# --- dtypes ---


@pytest.mark.parametrize("name", ["float64", "float32", "int64", "int32", "uint8", "bool"])
def test_dtypes_have_one_name(backend: Backend, name: str) -> None:
    x = backend.asarray(np.ones(2), name)
    assert _array.dtype_name(x.dtype) == name
    assert _array.dtype_of(backend.xp, name) == x.dtype
    assert _array.is_floating(x) == name.startswith("float")
    assert _array.is_integer(x) == name.startswith(("int", "uint"))


def test_dtype_names_of_other_spellings() -> None:
    assert _array.dtype_name("float32") == "float32"
    assert _array.dtype_name(np.float16) == "float16"
    assert _array.dtype_name(np.dtype(">f8")) == "float64"
    jax = backends.get("jax").xp
    assert _array.dtype_name(jax.float32) == "float32"
    assert _array.dtype_name(jax.bfloat16) == "bfloat16"


def test_complex_is_neither_floating_nor_integer(backend: Backend) -> None:
    x = backend.asarray(np.ones(2), "complex128")
    assert not _array.is_floating(x)
    assert not _array.is_integer(x)


def test_a_missing_dtype_is_named() -> None:
    with pytest.raises(InvalidType, match=r"array-api-strict has no dtype 'float16'"):
        _array.dtype_of(backends.get("array_api_strict").xp, "float16")
    with pytest.raises(InvalidType, match=r"NumPy has no dtype 'bfloat16'"):
        _array.dtype_of(backends.get("numpy").xp, "bfloat16")


@pytest.mark.parametrize(
    ("name", "wide"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_long_sums_are_wide(backend: Backend, name: str, wide: str) -> None:
    if not backend.has(name):
        return
    x = backend.asarray(np.ones(2), name)
    assert _array.dtype_name(_array.wide_dtype(x)) == wide
    with backend.here():
        assert _array.dtype_name(_array.widen(x).dtype) == wide
        assert (_array.widen(x) is x) == (name == wide)


def test_casting_to_the_same_dtype_is_nothing(backend: Backend) -> None:
    x = backend.asarray(np.ones(2))
    assert _array.cast(x, x.dtype) is x
    with backend.here():
        y = _array.cast(x, _array.dtype_of(backend.xp, "float32"))
    assert _array.dtype_name(y.dtype) == "float32"


@pytest.mark.parametrize(
    ("device", "dtype"), [("device1", "int64"), ("no_float64", "int64"), ("no_x64", "int32")]
)
def test_devices_count_in_their_own_integers(device: str, dtype: str) -> None:
    xp = backends.get("array_api_strict").xp
    x = xp.ones(1, dtype=xp.float32, device=xp.Device(device))
    assert _array.dtype_name(_array.index_dtype(x)) == dtype


# --- values on the host ---


def test_values_are_read_only_where_that_costs_nothing(backend: Backend) -> None:
    x = backend.asarray(np.ones(2))
    assert _array.is_readable(x) == (backend.name in ("numpy", "torch"))


def test_the_strict_library_is_read_on_its_cpu_alone() -> None:
    xp = backends.get("array_api_strict").xp
    assert _array.is_readable(xp.ones(1))
    assert not _array.is_readable(xp.ones(1, device=xp.Device("device1")))


def test_special_tensors_are_not_read() -> None:
    torch = backends.get("torch").xp
    assert not _array.is_readable(torch.nn.Parameter(torch.ones(1)))
    assert not _array.is_readable(torch.ones(1, device="meta"))


def test_to_numpy_brings_the_values(backend: Backend) -> None:
    host = np.arange(6.0).reshape(2, 3)
    result = _array.to_numpy(backend.asarray(host))
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, host)


def test_to_numpy_keeps_the_shape_of_a_permuted_view(backend: Backend) -> None:
    host = np.arange(24.0).reshape(2, 3, 4)
    x = backend.xp.permute_dims(backend.asarray(host), (2, 0, 1))
    np.testing.assert_array_equal(_array.to_numpy(x), host.transpose(2, 0, 1))


def test_to_numpy_of_half_precision(backend: Backend) -> None:
    for name in _array.HALF:
        if backend.has(name):
            result = _array.to_numpy(backend.asarray(np.asarray([0.5, -3.0]), name))
            assert result.dtype == ("float32" if name == "bfloat16" else "float16")
            np.testing.assert_array_equal(result, [0.5, -3.0])


def test_to_numpy_of_a_scalar_is_an_array() -> None:
    assert isinstance(_array.to_numpy(np.float64(2.0)), np.ndarray)


def test_to_numpy_of_a_tensor_with_a_gradient() -> None:
    torch = backends.get("torch").xp
    x = torch.ones(2, requires_grad=True)
    np.testing.assert_array_equal(_array.to_numpy(x), [1.0, 1.0])


def test_to_numpy_refuses_what_is_no_array() -> None:
    message = r"^to_numpy: expected an array, got list; make one with numpy.asarray\(x\)$"
    with pytest.raises(InvalidType, match=message):
        _array.to_numpy([1.0])


def test_to_numpy_refuses_what_has_no_values() -> None:
    backend = backends.get("jax")
    import jax

    with pytest.raises(InvalidType, match=r"x is traced by jax.jit and has no values yet"):
        jax.jit(_array.to_numpy)(backend.asarray(np.ones(1)))


def test_numpy_scalars_become_arrays() -> None:
    assert isinstance(_array.as_array(np.float64(2.0)), np.ndarray)
    x = np.ones(2)
    assert _array.as_array(x) is x


def test_writing_into_arrays_that_may_be_immutable(backend: Backend) -> None:
    """In place where that is possible: nothing is copied but what cannot be written."""
    x, value = backend.asarray(np.zeros((2, 3))), backend.asarray(np.asarray([1.0, 2.0]))
    with backend.here():
        y = _array.written(x, (slice(0, 1), slice(1, None), ...), value)
        z = _array.added(y, (..., slice(0, 2)), value)
    np.testing.assert_array_equal(backend.to_numpy(z), [[1.0, 3.0, 2.0], [1.0, 2.0, 0.0]])
    assert (z is x) == (backend.name != "jax")
    assert z.dtype == x.dtype


def test_writing_leaves_what_is_read_only() -> None:
    x = np.zeros(2)
    x.flags.writeable = False
    np.testing.assert_array_equal(_array.added(x, (slice(0, 1), ...), np.ones(1)), [1.0, 0.0])
    np.testing.assert_array_equal(x, [0.0, 0.0])


def test_moving_within_a_library() -> None:
    xp = backends.get("array_api_strict").xp
    x = _array.move(xp.ones(2), xp.Device("device1"))
    assert _array.device_name(x) == "array_api_strict:device1"
