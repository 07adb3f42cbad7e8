"""The two faces of an operation, and what every operation asks of its arrays."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest

from devconv import _array
from devconv import functional as F
from devconv._check import DevconvError, InvalidType, InvalidValue
from devconv.functional import Operation, differentiable
from devconv.functional.norm import batch_norm_and_statistics
from devconv.functional.operation import check_together
from devconv.testing import check_vjp
from tests import backends
from tests.backends import Backend

X, W, B = np.ones((2, 3, 5, 5)), np.ones((4, 3, 3, 3)), np.ones(4)


@differentiable(integers=("label",), constants=("factor",), statistics=("scale",))
def sample(x: Any, scale: Any = None, label: Any = None, /, *, factor: Any = None, power: int = 2):
    """Raise to a power.

    Only that.
    """
    y = x**power

    def pullback(dy: Any) -> tuple[Any, ...]:
        return power * x ** (power - 1) * dy, None if scale is None else dy, None

    return y, pullback


@differentiable
def halves(x: Any, /) -> Any:
    return (0.5 * x, "a half"), lambda dy: (0.5 * dy,)


def strict(host: Any, device: str = "device1", dtype: Any = None) -> Any:
    xp = backends.get("array_api_strict").xp
    return xp.asarray(host, device=xp.Device(device), dtype=dtype)


def torch(host: Any) -> Any:
    return backends.get("torch").asarray(host)


# --- two faces ---


def test_an_operation_keeps_its_name_and_signature() -> None:
    assert isinstance(sample, Operation)
    assert sample.__name__ == "sample"
    assert inspect.getdoc(sample.__wrapped__) == sample.__doc__.replace("\n    ", "\n").strip()
    assert list(inspect.signature(sample).parameters) == ["x", "scale", "label", "factor", "power"]
    assert sample.arguments == ("x", "scale", "label")
    assert repr(F.relu) == "<devconv operation relu(x: 'Array', /) -> Any>"


def test_calling_is_the_first_half_of_vjp(backend: Backend) -> None:
    x = backend.asarray([1.0, -2.0, 3.0])
    y, pullback = sample.vjp(x, power=3)
    np.testing.assert_array_equal(backend.to_numpy(sample(x, power=3)), backend.to_numpy(y))
    (dx,) = pullback(x)
    np.testing.assert_array_equal(backend.to_numpy(dx), [3.0, -24.0, 81.0])


def test_one_entry_for_each_argument_handed_in() -> None:
    for count in (1, 2, 3):
        args = [np.ones(2), np.ones(2), np.ones(2)][:count]
        assert len(sample.vjp(*args)[1](np.ones(2))) == count
    assert [len(F.conv.vjp(*a)[1](np.ones((2, 4, 3, 3)))) for a in ((X, W), (X, W, None))] == [2, 3]
    assert F.conv.vjp(X, W, None)[1](np.ones((2, 4, 3, 3)))[2] is None


def test_what_was_left_out_has_no_cotangent() -> None:
    @differentiable
    def eager(x: Any, y: Any = None, /) -> Any:
        return x, lambda dy: (dy, dy)

    x = np.ones(2)
    assert eager.vjp(x, None)[1](x)[1] is None
    assert len(eager.vjp(x)[1](x)) == 1


def test_a_tuple_leads_with_the_differentiable_output() -> None:
    (y, note), pullback = halves.vjp(np.asarray([4.0]))
    assert note == "a half"
    assert halves(np.asarray([4.0]))[0] == y == 2.0
    np.testing.assert_array_equal(pullback(np.asarray([6.0]))[0], [3.0])


def test_each_cotangent_has_its_own_argument_s_dtype() -> None:
    x, scale = np.ones(3, dtype="float16"), np.ones(3, dtype="float32")
    dx, dscale = sample.vjp(x, scale)[1](np.ones(3, dtype="float16"))
    assert (dx.dtype, dscale.dtype) == ("float16", "float32")


def test_zero_dimensions_stay_arrays_on_numpy() -> None:
    y, pullback = sample.vjp(np.asarray(3.0))
    (dx,) = pullback(np.asarray(1.0))
    assert isinstance(y, np.ndarray)
    assert isinstance(dx, np.ndarray)


def test_a_custom_operation_inherits_the_checks(backend: Backend) -> None:
    check_vjp(sample, backend.asarray([0.5, -1.5]), power=3)
    with pytest.raises(InvalidType, match=r"^sample: x \(2,\) has dtype int64"):
        sample(backend.asarray(np.asarray([1, 2])))


# --- what is no array, or not of the right kind ---


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "^conv: expected x, weight, bias, got no array$"),
        ((None, W), "^conv: x must be an array, got None$"),
        ((X, None), "^conv: weight must be an array, got None$"),
        (([[1.0]], W), r"^conv: x must be an array, got list; make one .* numpy.asarray\(x\)$"),
        ((X, 3.0), "^conv: weight must be an array, got float;"),
        ((X, W, "bias"), "^conv: bias must be an array, got str;"),
        ((np.ma.masked_array(X), W), "^conv: x must be an array, got MaskedArray;"),
        ((X, W, 4), "^conv: bias must be an array, got int;"),
    ],
)
def test_what_is_no_array_is_refused(args: Any, message: str) -> None:
    with pytest.raises(InvalidType, match=message):
        F.conv(*args)


def test_numpy_matrices_are_refused() -> None:
    with pytest.warns(PendingDeprecationWarning), pytest.raises(InvalidType, match=r"got matrix"):
        F.relu(np.matrix([[1.0]]))


def test_arguments_that_do_not_exist_are_refused() -> None:
    with pytest.raises(TypeError):
        F.conv(X, W, B, B)
    with pytest.raises(TypeError):
        F.conv(X)
    with pytest.raises(TypeError):
        F.conv(X, weight=W)
    with pytest.raises(TypeError, match=r"strides"):
        F.conv(X, W, strides=2)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool", "complex128"])
def test_only_real_floating_arrays(dtype: str) -> None:
    message = (
        rf"^conv: x \(2, 3, 5, 5\) has dtype {dtype}, expected a real floating dtype; convert "
        r'it first: x.astype\("float32"\)$'
    )
    with pytest.raises(InvalidType, match=message):
        F.conv(X.astype(dtype), W)
    with pytest.raises(InvalidType, match=rf"^conv: bias \(4,\) has dtype {dtype}"):
        F.conv(X, W, B.astype(dtype))


@pytest.mark.parametrize("name", list(backends.usable()))
def test_integer_images_are_refused_everywhere(name: str) -> None:
    x = backends.get(name).asarray(np.ones((2, 3), dtype="int32"))
    with pytest.raises(InvalidType, match=r"^relu: x \(2, 3\) has dtype int32"):
        F.relu(x)


def test_labels_may_be_integers_but_not_booleans() -> None:
    x, label = np.ones(2), np.asarray([0, 1])
    assert sample.vjp(x, None, label)[1](x)[1:] == (None, None)
    message = r"^sample: label \(2,\) has dtype bool, expected integers or a real floating dtype"
    with pytest.raises(InvalidType, match=message):
        sample(x, None, label == 0)


def test_constants_are_checked_like_arguments() -> None:
    x = np.ones(2)
    assert sample(x, factor=np.ones(1)).shape == (2,)
    with pytest.raises(InvalidType, match=r"^sample: factor must be an array, got list"):
        sample(x, factor=[1.0])
    with pytest.raises(
        InvalidType, match=r"^sample: factor \(1,\) has dtype int64, expected a real"
    ):
        sample(x, factor=np.asarray([1]))
    with pytest.raises(InvalidType, match=r"^sample: x is float64 and factor is float32"):
        sample(x, factor=np.ones(1, dtype="float32"))
    with pytest.raises(InvalidType, match=r"x is a NumPy array on cpu and factor a PyTorch array"):
        sample(x, factor=torch([1.0]))


# --- one dtype ---


def test_dtypes_are_never_promoted(backend: Backend) -> None:
    x, w = backend.asarray(X, "float32"), backend.asarray(W)
    casts = (_array.how_to_cast("x", x, "float64"), _array.how_to_cast("weight", w, "float32"))
    message = re.escape(
        "conv: x is float32 and weight is float64, expected one dtype; convert: "
        f'{casts[0]}, {casts[1]} or model.to(dtype="float32")'
    )
    with pytest.raises(InvalidType, match=f"^{message}$"):
        F.conv(x, w)
    with pytest.raises(InvalidType, match=r"^conv: x is float64 and bias is float32"):
        F.conv(backend.asarray(X), w, backend.asarray(B, "float32"))


def test_half_precision_may_come_with_float32_statistics() -> None:
    half, single, double = (np.ones(2, dtype=d) for d in ("float16", "float32", "float64"))
    assert sample(half, single).dtype == "float16"
    with pytest.raises(InvalidType, match=r"x is float16 and scale is float64"):
        sample(half, double)
    with pytest.raises(InvalidType, match=r"x is float32 and scale is float16"):
        sample(single, half)
    with pytest.raises(InvalidType, match=r"x is float16 and factor is float32"):
        sample(half, factor=single)


def test_the_byte_order_of_a_file_is_no_other_dtype() -> None:
    x, w = X.astype(">f8"), W.astype("<f8")
    y, pullback = F.conv.vjp(x, w)
    np.testing.assert_array_equal(y, F.conv(X, W))
    dx, dw = pullback(y.astype(">f8"))
    np.testing.assert_array_equal(dw, F.conv.vjp(X, W)[1](y)[1])
    assert (dx.dtype, dw.dtype) == (x.dtype, w.dtype)


def test_the_cast_that_mends_it_is_the_library_s_own() -> None:
    narrow = torch(np.asarray(W, dtype="float32"))
    message = (
        r"x is float64 and weight is float32, expected one dtype; convert: "
        r"x\.to\(dtype=torch\.float32\), weight\.to\(dtype=torch\.float64\) or model\.to\("
    )
    with pytest.raises(InvalidType, match=message):
        F.conv(torch(X), narrow)
    with pytest.raises(InvalidType, match=r"convert it first: xp\.astype\(x, xp\.float32\)$"):
        F.conv(strict(X.astype("int64")), strict(W))
    _, pullback = F.relu.vjp(torch(X))
    with pytest.raises(InvalidType, match=r"dy is float32 and y is float64; convert: dy\.to\("):
        pullback(torch(np.asarray(X, dtype="float32")))


# --- one library, one device ---


def test_arrays_of_two_libraries_are_refused() -> None:
    message = (
        "^conv: x is a NumPy array on cpu and weight a PyTorch array on torch; bring them "
        r'together: x = dc.to_device\(x, "torch"\) or model.to\("cpu"\) or '
        r'weight = dc.to_device\(weight, "cpu"\)$'
    )
    with pytest.raises(InvalidType, match=message):
        F.conv(X, torch(W))
    with pytest.raises(InvalidType, match=r'together: model.to\("torch"\) or b = dc.to_device\('):
        check_together([("0.weight", X), ("b", torch(X))], held="0.weight")
    with pytest.raises(
        InvalidType, match=r': a = dc.to_device\(a, "torch"\) or model.to\("cpu"\)$'
    ):
        check_together([("a", X), ("0.weight", torch(X))], held="0.weight")
    with pytest.raises(InvalidType, match=r"x is a PyTorch array on torch and bias a NumPy array"):
        F.conv(torch(X), torch(W), B)
    with pytest.raises(InvalidType, match=r"weight a array-api-strict array on array_api_strict:"):
        F.conv(X, strict(W))
    jax = backends.get("jax")
    with pytest.raises(
        InvalidType, match=r"x is a JAX array on jax and weight a NumPy array on cpu"
    ):
        F.conv(jax.asarray(X), W)


def test_arrays_on_two_devices_are_refused() -> None:
    message = (
        "^conv: x is on array_api_strict:device1 and weight on array_api_strict; bring them "
        r'together: x = dc.to_device\(x, "array_api_strict"\) or '
        r'model.to\("array_api_strict:device1"\) or '
        r'weight = dc.to_device\(weight, "array_api_strict:device1"\)$'
    )
    with pytest.raises(InvalidValue, match=message):
        F.conv(strict(X), strict(W, "CPU_DEVICE"))
    with pytest.raises(InvalidValue, match=r"x is on array_api_strict and weight on .*:device2"):
        F.conv(strict(X, "CPU_DEVICE"), strict(W, "device2"))


def test_labels_must_be_on_the_logits_device() -> None:
    with pytest.raises(InvalidValue, match=r"logits is on .*:device1 and target on array_api_stri"):
        F.cross_entropy(strict(np.ones((2, 3))), strict(np.asarray([0, 1]), "CPU_DEVICE"))
    with pytest.raises(InvalidType, match=r"logits is a PyTorch array on torch and target a NumPy"):
        F.cross_entropy(torch(np.ones((2, 3))), np.asarray([0, 1]))


def test_together_names_what_is_where() -> None:
    check_together([("a", strict(X)), ("b", strict(W))])
    with pytest.raises(InvalidType, match=r"a is a NumPy array on cpu and c a PyTorch array"):
        check_together([("a", X), ("b", W), ("c", torch(X))])


# --- the dual vector ---


def wrong_cotangents() -> list[Any]:
    y = np.ones((2, 4, 3, 3))
    return [
        (y[:1], InvalidValue, r"dy has shape \(1, 4, 3, 3\), expected that of y, \(2, 4, 3, 3\)"),
        (y[0, 0, 0, 0], InvalidValue, r"dy has shape \(\), expected"),
        (
            y.astype("float32"),
            InvalidType,
            r'dy is float32 and y is float64; .*astype\("float64"\)',
        ),
        (y.astype("int64"), InvalidType, "dy is int64 and y is float64"),
        (1.0, InvalidType, r"dy must be an array of shape \(2, 4, 3, 3\), got float"),
        (None, InvalidType, r"dy must be an array of shape \(2, 4, 3, 3\), got NoneType"),
        (y.tolist(), InvalidType, "dy must be an array of shape .*, got list"),
        (torch(y), InvalidType, r'dy is a PyTorch array and y a NumPy array; .*\(dy, "cpu"\)'),
    ]


@pytest.mark.parametrize("case", range(8))
def test_a_wrong_dy_is_refused(case: int) -> None:
    dy, error, message = wrong_cotangents()[case]
    _, pullback = F.conv.vjp(X, W)
    with pytest.raises(error, match=f"^conv pullback: {message}"):
        pullback(dy)


def test_dy_on_another_device_is_refused() -> None:
    _, pullback = F.relu.vjp(strict(np.ones(3)))
    message = (
        "^relu pullback: dy is on array_api_strict and y on array_api_strict:device1; "
        r'dy = dc.to_device\(dy, "array_api_strict:device1"\)$'
    )
    with pytest.raises(InvalidValue, match=message):
        pullback(strict(np.ones(3), "CPU_DEVICE"))


def test_a_loss_takes_a_dual_number() -> None:
    _, pullback = F.mse_loss.vjp(np.ones(3), np.zeros(3))
    with pytest.raises(InvalidType, match=r"dy must be an array of shape \(\), got float"):
        pullback(1.0)
    np.testing.assert_allclose(pullback(np.asarray(3.0))[0], 2.0)


def test_a_wrong_dy_leaves_the_pullback_usable() -> None:
    _, pullback = F.conv.vjp(X, W)
    with pytest.raises(DevconvError):
        pullback(np.ones(3))
    assert pullback(np.ones((2, 4, 3, 3)))[0].shape == X.shape


# --- errors, as a kind ---


def test_errors_are_value_or_type_errors_in_one_line() -> None:
    for bad, builtin in (((X, W[:, :2]), ValueError), ((X, 3), TypeError)):
        with pytest.raises(DevconvError) as caught:
            F.conv(*bad)
        assert isinstance(caught.value, builtin)
        assert "\n" not in str(caught.value)


def test_a_refused_call_changes_nothing() -> None:
    x, w = X.copy(), W.copy()
    with pytest.raises(DevconvError):
        F.conv(x, w, np.ones(9))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(w, W)


# --- options filled in ---


def test_options_may_be_filled_in() -> None:
    strided = F.conv.with_options(stride=2, padding=1)
    np.testing.assert_array_equal(strided(X, W), F.conv(X, W, stride=2, padding=1))
    np.testing.assert_array_equal(strided(X, W, stride=1), F.conv(X, W, padding=1))
    assert strided.origin is F.conv
    assert strided.with_options(padding=0).options == {"stride": 2, "padding": 0}
    assert F.conv.options == {}
    assert F.conv.origin is F.conv
    assert repr(strided) == repr(F.conv)[:-1] + ", stride=2, padding=1>"
    assert strided.__name__ == "conv"


def test_arrays_after_the_first_may_be_filled_in() -> None:
    bias = np.arange(4.0)
    fixed = F.conv.with_options(bias=bias)
    y, pullback = fixed.vjp(X, W)
    np.testing.assert_array_equal(y, F.conv(X, W, bias))
    assert len(pullback(y)) == 2  # a constant gets nothing back
    one = F.conv.with_options(weight=W, bias=bias)
    z, back = one.vjp(X)
    np.testing.assert_array_equal(z, y)
    assert len(back(z)) == 1
    other, three = fixed.vjp(X, W, bias + 1.0)
    np.testing.assert_allclose(other, y + 1.0)
    assert len(three(other)) == 3
    none, _ = F.conv.with_options(bias=None).vjp(X, W)
    np.testing.assert_array_equal(none, F.conv(X, W))
    with pytest.raises(InvalidValue, match=r"^conv: bias"):
        F.conv.with_options(bias=np.ones(9))(X, W)


def test_options_that_an_operation_does_not_have() -> None:
    with pytest.raises(
        InvalidType, match="conv has no option 'x'; it takes weight, bias, stride, "
    ):
        F.conv.with_options(x=X)
    with pytest.raises(InvalidType, match="relu has no option 'alpha'; it takes none"):
        F.relu.with_options(alpha=1.0)


def test_a_pickle_says_where_an_operation_is_found() -> None:
    for op in (sample, F.conv, batch_norm_and_statistics, F.cross_entropy):
        assert pickle.loads(pickle.dumps(op)) is op
        assert copy.copy(op) is copy.deepcopy(op) is op


def test_a_pickle_keeps_what_was_filled_in() -> None:
    op = F.softmax.with_options(axis=0).with_options(axis=1)
    scaled = sample.with_options(scale=np.asarray(3.0))
    for again in (pickle.loads(pickle.dumps(op)), copy.deepcopy(op), copy.copy(op)):
        assert again.origin is F.softmax
        assert again.options == {"axis": 1}
        np.testing.assert_array_equal(again(np.ones((1, 4))), np.full((1, 4), 0.25))
    assert copy.deepcopy(scaled).options["scale"] is not scaled.options["scale"]


def test_an_operation_that_no_module_holds_is_copied_but_not_pickled() -> None:
    inner = differentiable(lambda x, /: (x, lambda dy: (dy,)))
    assert copy.deepcopy(inner) is inner
    with pytest.raises((AttributeError, pickle.PicklingError), match="<lambda>"):
        pickle.dumps(inner)


def test_the_arrays_that_a_call_needs() -> None:
    assert F.conv.required == ("x", "weight")
    assert F.layer_norm.required == ("x",)


def test_a_function_that_forgets_its_pullback_is_told() -> None:
    @differentiable
    def double(x: Any, /) -> Any:
        return 2.0 * x

    with pytest.raises(InvalidType, match=r"^double: the operation's function must return \(y, p"):
        double(np.ones((2, 3)))


@pytest.mark.parametrize("found", [np.ones((2, 3)), (), None])
def test_a_pullback_that_forgets_its_tuple_is_told(found: Any) -> None:
    @differentiable
    def double(x: Any, /) -> Any:
        return 2.0 * x, lambda dy: found

    _, pullback = double.vjp(np.ones((2, 3)))
    with pytest.raises(InvalidType, match=r"^double pullback: the pullback must return a tuple"):
        pullback(np.ones((2, 3)))
