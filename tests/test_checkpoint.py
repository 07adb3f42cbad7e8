"""Files that survive: what comes back, who can read it, and what a bad file leaves alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import devconv as dc
from devconv import _array, checkpoint
from devconv._check import DevconvError, InvalidType, InvalidValue
from devconv.functional import mse_loss
from tests import backends
from tests.backends import Backend
from tests.toys import Centre, assert_equal, cnn, images, line, place, unchanged

FLOATS = ["float32", "float64", "float16", "bfloat16"]
EVERY = [(b, d) for b in backends.usable().values() for d in FLOATS if b.has(d)]
every = pytest.mark.parametrize(("backend", "dtype"), EVERY, ids=lambda p: str(p))


def small(dtype: str = "float32", seed: int = 1) -> dc.Sequential:
    model = dc.Sequential(dc.Dense(3, 4), Centre(), dc.Dense(4, 1)).build((3,), seed=seed)
    return model.to(dtype=dtype)


# --- what comes back ---


@every
def test_a_model_comes_back(backend: Backend, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = small().to(place(backend), dtype=dtype)
    model.vjp(backend.asarray(line()[0], dtype))  # buffers that are not zero
    dc.save(model, path)
    other = small(seed=2).to(place(backend), dtype=dtype)
    assert dc.load(other, path) is other
    assert_equal(other.state_dict(), model.state_dict())
    for name, array in other.state_dict().items():
        assert array.dtype == model.state_dict()[name].dtype
        assert dc.device_of(array) == place(backend)


def test_from_any_device_to_any_other(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = small().to(place(backend))
    dc.save(model, path)
    assert_equal(dc.load(small(seed=2), path).state_dict(), model.state_dict())
    dc.save(small(seed=3), path)
    assert_equal(dc.load(model, path).state_dict(), small(seed=3).state_dict())
    assert model.device == place(backend)


def test_open_sizes_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dc.save(small(), path)
    model = dc.Sequential(dc.Dense(None, 4), Centre(), dc.Dense(None, 1))
    assert_equal(dc.load(model, path).state_dict(), small().state_dict())


@pytest.mark.parametrize(
    "dtype",
    [*("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"), *FLOATS],
)
def test_arrays_of_every_dtype(backend: Backend, dtype: str, tmp_path: Path) -> None:
    if not backend.has(dtype):
        return
    path = tmp_path / "arrays.safetensors"
    numbers = np.asarray([[0, 1, 2], [3, 100, 7]])
    arrays = {
        "matrix": backend.asarray(numbers, dtype),
        "number": backend.asarray(np.asarray(1), dtype),
        "nothing": backend.asarray(np.zeros((0, 3)), dtype),
    }
    checkpoint.write_arrays(path, arrays, {"note": "of the test"})
    found, dtypes, metadata = checkpoint.read_arrays(path)
    assert metadata["note"] == "of the test"
    assert set(dtypes.values()) == {dtype}
    assert {name: x.shape for name, x in found.items()} == {
        name: tuple(x.shape) for name, x in arrays.items()
    }
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], backend.to_numpy(array))
        assert found[name].flags.writeable


@pytest.mark.parametrize("axes", [(0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 2, 3)], ids=str)
def test_permuted_views_come_back_unscrambled(
    backend: Backend, axes: tuple[int, ...], tmp_path: Path
) -> None:
    """Channels-last memory under another shape: raw bytes would be in the wrong order."""
    path = tmp_path / "arrays.safetensors"
    base = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    view = backend.xp.permute_dims(backend.asarray(base), axes)
    checkpoint.write_arrays(path, {"x": view}, {})
    found, _, _ = checkpoint.read_arrays(path)
    np.testing.assert_array_equal(found["x"], base.transpose(axes))
    part = backend.asarray(base)[:, 1:, :, ::2]
    checkpoint.write_arrays(path, {"x": part}, {})
    np.testing.assert_array_equal(checkpoint.read_arrays(path)[0]["x"], base[:, 1:, :, ::2])


@every
def test_a_run_comes_back_with_its_moments(backend: Backend, dtype: str, tmp_path: Path) -> None:
    """Gradients of a convolution lie channels-last in memory, and so do the moments."""
    path = tmp_path / "run.safetensors"

    def run(seed: int) -> tuple[dc.Layer, dc.optim.Optimizer]:
        model = dc.Sequential(dc.Conv2d(2, 4, 3), dc.GlobalAvgPool()).build(seed=seed)
        return model.to(place(backend), dtype=dtype), dc.optim.Adam(model, lr=0.125)

    model, optimizer = run(1)
    x, target = backend.asarray(images(2), dtype), backend.asarray(np.ones((2, 4)), dtype)
    for _ in range(2):
        optimizer.step(dc.value_and_grad(model, mse_loss)(x, target)[1])
    checkpoint.save_training(path, model, optimizer, {"epoch": 3, "note": [1, None]})
    other, its = run(2)
    assert checkpoint.load_training(path, other, its) == {"epoch": 3, "note": [1, None]}
    assert_equal(other.state_dict(), model.state_dict())
    moments, wanted = its.state_dict(), optimizer.state_dict()
    assert_equal(dict(sorted(moments.items())), dict(sorted(wanted.items())))
    assert all(moments[name].dtype == wanted[name].dtype for name in wanted)
    assert (its.steps, its.lr) == (2, 0.125)


# --- who can read it ---


def test_safetensors_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = cnn().build()
    dc.save(model, path)
    theirs = safetensors.numpy.load_file(path)
    assert_equal({name: theirs[name] for name in model.state_dict()}, model.state_dict())
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["format"] == "pt"


def test_pytorch_reads_it_and_is_read(tmp_path: Path) -> None:
    backends.get("torch")
    torch, files = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    path = tmp_path / "model.safetensors"
    linear = torch.nn.Linear(3, 2)
    dc.save(dc.Dense(3, 2).build(seed=4), path)
    linear.load_state_dict(files.load_file(path))
    x = line()[0]
    expected = dc.Dense(3, 2).build(seed=4)(x)
    np.testing.assert_allclose(linear(torch.tensor(x)).detach(), expected, atol=1e-6)
    state = torch.nn.Linear(3, 2).state_dict()
    files.save_file(state, path)
    assert_equal(dc.load(dc.Dense(None, 2), path).state_dict(), state)


def test_bfloat16_of_other_programs(tmp_path: Path) -> None:
    """Theirs is stored as such; this library's as float32 with a note, which NumPy can read."""
    torch_backend = backends.get("torch")
    torch, files = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    path = tmp_path / "model.safetensors"
    weight = torch.randn((2, 3)).to(torch.bfloat16)
    files.save_file({"weight": weight}, path)
    wide = weight.to(torch.float32).numpy()

    model = dc.Dense(3, 2, bias=False).build()
    message = r'weight is bfloat16, the model float32; pass dtype="float32" to cast it or model\.to'
    with unchanged(model), pytest.raises(InvalidType, match=message):
        dc.load(model, path)
    dc.load(model, path, dtype="float32")
    np.testing.assert_array_equal(model.parameters["weight"], wide)
    model.to("torch", dtype="bfloat16").build()
    dc.load(model, path)
    assert model.dtype == "bfloat16"
    np.testing.assert_array_equal(torch_backend.to_numpy(model.parameters["weight"]), wide)
    dc.save(model, path)
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["weight"], wide)


# --- what is refused, and changes nothing ---


def test_the_file_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dc.save(small(), path)
    fault = "state['0.weight'] has shape (4, 3), the model's is (4, 2, 3, 3)"
    more = "state does not fit this model: missing 1.weight, 1.bias; unknown 1.mean, 1.scale"
    for model, message in (
        (cnn().build(), fault),
        (cnn(), fault),
        (dc.Sequential(dc.Dense(3, 4), dc.Dense(4, 1)).build(), more),
    ):
        with unchanged(model), pytest.raises(InvalidValue) as caught:
            dc.load(model, path)
        assert str(caught.value).startswith(f"{path}: {message}")
        assert str(caught.value).endswith("; load it into the model it was saved from")


def test_other_shapes_and_dtypes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dc.save(dc.Dense(3, 2).build(), path)
    wider = dc.Dense(4, 2).build()
    message = r"state\['weight'\] has shape \(2, 3\), the model's is \(2, 4\); load it into the m"
    with unchanged(wider), pytest.raises(InvalidValue, match=message):
        dc.load(wider, path)
    double = dc.Dense(3, 2).build().to(dtype="float64")
    message = r"state\['weight'\] is float32, the model float64; pass dtype='float64' to cast it"
    with unchanged(double), pytest.raises(InvalidType, match=message) as caught:
        dc.load(double, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert dc.load(double, path, dtype="float64").dtype == "float64"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "none.safetensors"
    with unchanged(model), pytest.raises(InvalidValue) as caught:
        dc.load(model, path)
    assert str(caught.value) == f"{path}: there is no such file"


def trainer_of(seed: int = 1) -> dc.Trainer:
    model = dc.Dense(2, 1).build(seed=seed)
    return dc.Trainer(model, mse_loss, dc.optim.SGD(model, momentum=0.9))


def saved_run(path: Path) -> bytes:
    made = trainer_of()
    made.fit([(np.ones((2, 2), dtype="float32"), np.ones((2, 1), dtype="float32"))], epochs=1)
    made.save(path)
    return path.read_bytes()


def test_a_file_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole = saved_run(path)
    made, before = trainer_of(seed=2), trainer_of(seed=2).model.state_dict()
    with unchanged(made.model):
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            for load in (lambda: made.resume(path), lambda: dc.load(made.model, path)):
                with pytest.raises(InvalidValue, match="not a complete safetensors file") as caught:
                    load()
                assert str(caught.value).startswith(f"{path}: ")
    assert_equal(made.model.state_dict(), before)
    path.write_bytes(whole)
    made.resume(path)
    assert made.epoch == 1


def test_a_file_with_any_byte_of_its_header_changed(tmp_path: Path) -> None:
    """It is read, or refused by name; a refused one leaves the run as it was."""
    path = tmp_path / "run.safetensors"
    whole = saved_run(path)
    end = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    refused = 0
    for place_ in range(end):
        damaged = bytearray(whole)
        damaged[place_] ^= 1 << int(rng.integers(0, 7))
        path.write_bytes(damaged)
        made = trainer_of(seed=2)
        try:
            made.resume(path)
        except DevconvError:
            refused += 1
            assert (made.epoch, made.optimizer.steps, len(made.history)) == (0, 0, 0)
            assert_equal(made.model.state_dict(), trainer_of(seed=2).model.state_dict())
            assert made.optimizer.state_dict() == {}
    assert refused > end / 2


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for content in (b"", b"PK\x03\x04" + bytes(100), b'{"weight": [1, 2]}', bytes(64)):
        path.write_bytes(content)
        with pytest.raises(InvalidValue, match=r"not a complete safetensors file .* use an earl"):
            dc.load(small(), path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "the record of the run is damaged; use an earlier file"),
        ("[]", "the record of the run is damaged"),
        ("{}", "the record of the run is damaged"),
        ({"steps": "3"}, "the record of the run is damaged"),
        ({"generator": {"seed": 0}}, "the record of the run is damaged"),
        ({"progress": {"epoch": 1}}, "the record of the run is damaged"),
        ({"optimizer": "Adam"}, "the run was made with Adam, this optimizer is SGD; continue wi"),
        ({"lr": -0.1}, "the record of the run is damaged"),
        ({"lr": float("nan")}, "the record of the run is damaged"),
        ({"options": []}, "the record of the run is damaged"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"generator": {"seed": -1, "draws": 0}}, "seed must be at least 0, got -1"),
    ],
)
def test_a_record_that_makes_no_sense(record: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    saved_run(path)
    arrays, _, metadata = checkpoint.read_arrays(path)
    if not isinstance(record, str):
        record = json.dumps({**json.loads(metadata["devconv"]), **record})
    checkpoint.write_arrays(path, arrays, {"devconv": record})
    made = trainer_of(seed=2)
    with unchanged(made.model), pytest.raises(InvalidValue, match=message):
        made.resume(path)
    assert (made.epoch, made.optimizer.steps, made.optimizer.state_dict()) == (0, 0, {})


def test_a_dtype_that_is_not_supported(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(InvalidType, match=r"w has dtype F8_E4M3, which is not supported"):
        dc.load(small(), path)


def test_a_file_of_a_run_is_no_file_of_a_model(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    saved_run(path)
    message = r": holds a training run; take it up with trainer\.resume\(path\), then dc\.save\("
    for model in (dc.Dense(2, 1).build(), dc.Dense(None, 1), cnn()):
        with unchanged(model), pytest.raises(InvalidValue, match=message) as caught:
            dc.load(model, path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("function", ["save", "load"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            lambda model: ("x", model),
            r"model must be a layer, got 'x' \(the model comes first, then the path\)",
        ),
        (lambda model: (dc.Dense, "x"), "model must be a layer, got the class Dense; make one wi"),
        (lambda model: (model.parameters, "x"), "model must be a layer, got ReadOnly"),
        (lambda model: (model, 3), "path must be a str or a path, got 3"),
        (lambda model: (model, None), "path must be a str or a path, got None"),
    ],
)
def test_wrong_arguments(
    function: str, arguments: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidType, match=f"^{function}: {message}"):
        getattr(dc, function)(*arguments(dc.Dense(2, 1).build()))
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_with_the_options_it_was_made_with(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    model = dc.Dense(2, 1).build()
    optimizer = dc.optim.SGD(model, lr=0.1, momentum=0.9)
    optimizer.lr = 0.01  # as a schedule does: that is no other option
    checkpoint.save_training(path, model, optimizer, {})

    def load(*, lr: float = 0.1, momentum: float = 0.9, **options: Any) -> dc.optim.Optimizer:
        other = dc.Dense(2, 1).build(seed=5)
        its = dc.optim.SGD(other, lr=lr, momentum=momentum, **options)
        checkpoint.load_training(path, other, its)
        return its

    its = load()
    assert (its.lr, its.initial_lr) == (0.01, 0.1)
    for options, message in (
        ({"momentum": 0.8}, r"made with momentum=0\.9, this one with momentum=0\.8; make it as"),
        (
            {"lr": 0.5, "nesterov": True},
            r"the run's optimizer was made with lr=0\.1, nesterov=False, this one with lr=0\.5, "
            r"nesterov=True; make it as that was, and change it after resume: "
            r"trainer\.optimizer\.lr = \.\.\.$",
        ),
    ):
        with pytest.raises(InvalidValue, match=message) as caught:
            load(**options)
        assert str(caught.value).startswith(f"{path}: ")


def test_options_with_several_numbers_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    model = dc.Dense(2, 1).build()
    checkpoint.save_training(path, model, dc.optim.Adam(model, betas=(0.8, 0.9)), {})
    checkpoint.load_training(path, model, dc.optim.Adam(model, betas=[0.8, 0.9]))  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"made with betas=\[0\.8, 0\.9\], this one with betas="):
        checkpoint.load_training(path, model, dc.optim.Adam(model))


# --- written whole or not at all ---


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model.safetensors"
    dc.save(small(), str(path))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("fault", ["write", "fsync", "replace"])
def test_a_kill_leaves_the_last_good_file(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    dc.save(small(), path)

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    target = checkpoint.os if fault in ("fsync", "write") else Path
    with monkeypatch.context() as patch:
        patch.setattr(target, "fdopen" if fault == "write" else fault, stop)
        with pytest.raises(KeyboardInterrupt):
            dc.save(small(seed=2), path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert_equal(dc.load(small(seed=3), path).state_dict(), small().state_dict())


def test_it_reaches_the_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")
    genuine = os.fsync

    def fsync(handle: int) -> None:
        others = [each.read_bytes() for each in tmp_path.iterdir() if each != path]
        seen.append((others, path.read_bytes()))
        genuine(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    checkpoint.write_whole(path, b"new")
    # First what is in the file, then, where there is such a thing, its name in the folder.
    assert seen[0] == ([b"new"], b"old")
    assert seen[1:] == ([([], b"new")] if os.name == "posix" else [])
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain", tmp_path / "file"
    plain.touch()
    checkpoint.write_whole(path, b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_dtype_names_cover_the_library_s() -> None:
    assert set(checkpoint._NAMES.values()) >= {*_array.HALF, "float32", "float64", "int64", "bool"}
