"""Files that survive: safetensors, written whole or not at all, read by any device.

A file is written to a temporary name, flushed to the disk and renamed, so that a kill at any
moment leaves the last good one. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, brief, located
from devconv.layers import Layer
from devconv.layers.hints import no_layer
from devconv.optim import Optimizer

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
}
_HALVED = "devconv.bfloat16"
"""The metadata entry that lists arrays stored as float32 which were bfloat16."""


def save(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write a model's parameters and buffers to a safetensors file.

    Args:
        model: a built layer.
        path: the file; a file of that name is replaced once the new one is complete.

    >>> import tempfile, devconv as dc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dc.save(dc.Dense(2, 1).build(seed=1), f"{folder}/model.safetensors")
    ...     dc.load(dc.Dense(None, 1), f"{folder}/model.safetensors")
    Dense(2, 1)  # 3
    """
    _check_arguments("save", model, path)
    write_arrays(path, model.state_dict(), {"format": "pt"})


def load(model: Layer, path: str | os.PathLike[str], *, dtype: Any = None) -> Layer:
    """Read a model's parameters and buffers from a safetensors file, onto the model's device.

    Args:
        model: a layer with the names and shapes of the saved one, built or not.
        path: the file.
        dtype: cast to this; without it the stored dtype must be the model's.

    Returns:
        The model.

    Raises:
        ValueError: no such file, a truncated one, the file of another model or of a training
            run; the model is as it was then.
        TypeError: another dtype.
    """
    _check_arguments("load", model, path)
    arrays, dtypes, metadata = read_arrays(path)
    if "devconv" in metadata:
        raise InvalidValue(
            f"{path}: holds a training run; take it up with trainer.resume(path), then "
            "dc.save(trainer.model, ...) makes a file of the model alone"
        )
    _load_layer(model, arrays, dtypes, path, dtype)
    return model


def _check_arguments(function: str, model: Any, path: Any) -> None:
    """Refuse what is no layer, or no path, before anything is written or read."""
    with located(function):
        if not isinstance(model, Layer):
            turned = " (the model comes first, then the path)" if isinstance(path, Layer) else ""
            raise InvalidType(f"model must be a layer, got {no_layer(model)}{turned}")
        if not isinstance(path, str | os.PathLike):
            raise InvalidType(f"path must be a str or a path, got {brief(path)}")


def _load_layer(
    model: Layer,
    arrays: Mapping[str, np.ndarray],
    dtypes: Mapping[str, str],
    path: str | os.PathLike[str],
    dtype: Any = None,
) -> None:
    for name, stored in dtypes.items():
        if dtype is None and stored == "bfloat16" != model.dtype:
            raise InvalidType(
                f"{path}: {name} is bfloat16, the model {model.dtype}; pass "
                f'dtype="{model.dtype}" to cast it or model.to(dtype="bfloat16") first'
            )
    if dtype is None and "bfloat16" in dtypes.values():
        dtype = "bfloat16"  # the arrays hold its values as float32
    try:
        model.load_state_dict(arrays, dtype=dtype)
    except (InvalidValue, InvalidType) as error:
        raise type(error)(f"{path}: {error}") from None


def save_training(
    path: str | os.PathLike[str],
    model: Layer,
    optimizer: Optimizer,
    progress: Mapping[str, Any],
) -> None:
    """Write all that a training run needs to continue: arrays, moments, counts.

    Args:
        path: the file.
        model: its parameters, buffers and generator state are stored.
        optimizer: its moments, options and count of steps are stored.
        progress: what else the run wants back, as JSON.
    """
    _check_arguments("save_training", model, path)
    arrays = {f"model.{name}": x for name, x in model.state_dict().items()}
    arrays |= {f"optimizer.{name}": x for name, x in optimizer.state_dict().items()}
    record = {
        "optimizer": type(optimizer).__name__,
        "steps": optimizer.steps,
        "lr": optimizer.lr,
        "options": _described(optimizer),
        "generator": model.generator_state,
        "progress": dict(progress),
    }
    write_arrays(path, arrays, {"devconv": json.dumps(record)})


def load_training(
    path: str | os.PathLike[str], model: Layer, optimizer: Optimizer, *, needs: Needs | None = None
) -> dict[str, Any]:
    """Read what :func:`save_training` wrote, onto the model's device.

    Args:
        path: the file.
        model: a layer with the names and shapes of the saved one.
        optimizer: one of the saved kind for ``model``, made with the same options; the step
            size becomes that of the last step, which may be another than the first.
        needs: what the run's ``progress`` must hold, and what tells whether it is sound (or may
            be missing, ``None``).

    Returns:
        The run's ``progress``.

    Raises:
        ValueError: no such file, a truncated one, the file of another model or optimizer or
            of one with other options, or one without a training run; model and optimizer are
            as they were then.
    """
    _check_arguments("load_training", model, path)
    arrays, dtypes, metadata = read_arrays(path)
    record = _record(path, metadata, needs or {})
    if record["optimizer"] != type(optimizer).__name__:
        raise InvalidValue(
            f"{path}: the run was made with {record['optimizer']}, this optimizer is "
            f"{type(optimizer).__name__}; continue with the same kind"
        )
    own, moments = _part(arrays, "model."), _part(arrays, "optimizer.")
    with model._whole_or_not_at_all():
        _load_layer(model, own, _part(dtypes, "model."), path)
        _check_options(path, record["options"], _described(optimizer))
        model.generator_state = record["generator"]
        optimizer.load_state_dict(moments, steps=record["steps"])
    optimizer.lr = record["lr"]
    return dict(record["progress"])


def _described(optimizer: Optimizer) -> dict[str, Any]:
    """The options an optimizer was made with, as a record has them."""
    options = {**optimizer.options, "lr": optimizer.initial_lr}
    return dict(json.loads(json.dumps(options, default=repr)))


def _check_options(
    path: str | os.PathLike[str], saved: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Refuse an optimizer that was made otherwise, naming the options that differ."""
    names = [name for name in {**saved, **given} if saved.get(name) != given.get(name)]
    if names:
        theirs, ours = (
            ", ".join(f"{name}={options.get(name)!r}" for name in names)
            for options in (saved, given)
        )
        raise InvalidValue(
            f"{path}: the run's optimizer was made with {theirs}, this one with {ours}; make it "
            f"as that was, and change it after resume: trainer.optimizer.{names[0]} = ..."
        )


Needs = Mapping[str, Callable[[Any], bool]]
_RECORD = {
    "optimizer": str,
    "steps": int,
    "lr": float,
    "options": dict,
    "generator": dict,
    "progress": dict,
}


def _record(
    path: str | os.PathLike[str], metadata: Mapping[str, str], needs: Needs
) -> dict[str, Any]:
    """What the metadata says of the run, complete or refused."""
    if "devconv" not in metadata:
        raise InvalidValue(
            f"{path}: holds no training run; dc.load(model, path) reads a file of parameters"
        )
    try:
        record = json.loads(metadata["devconv"])
        found = [isinstance(record[name], kind) for name, kind in _RECORD.items()]
        found += [is_sound(record["progress"].get(name)) for name, is_sound in needs.items()]
        found.append(record["lr"] >= 0.0)
        if all(found) and {"seed", "draws"} <= record["generator"].keys():
            return dict(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InvalidValue(f"{path}: the record of the run is damaged; use an earlier file")


def _part(mapping: Mapping[str, Any], start: str) -> dict[str, Any]:
    return {name.removeprefix(start): x for name, x in mapping.items() if name.startswith(start)}


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: Mapping[str, str]
) -> None:
    """Write arrays of any library, in any memory order, to a safetensors file.

    ``bfloat16`` is stored as float32 with the same values, and a note of what it was.
    """
    host = {name: np.array(_array.to_numpy(x), order="C") for name, x in arrays.items()}
    halved = [name for name, x in arrays.items() if _array.dtype_name(x.dtype) == "bfloat16"]
    notes = {**metadata, _HALVED: json.dumps(halved)} if halved else dict(metadata)
    write_whole(path, safetensors.numpy.save(host, metadata=notes))


def read_arrays(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, str]]:
    """Read a safetensors file: arrays on the host, their stored dtypes, and the metadata.

    ``bfloat16``, which NumPy does not have, arrives as float32 with the same values.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InvalidValue(f"{path}: there is no such file") from None
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be read ({error.strerror})") from None
    try:
        entries = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        length = int.from_bytes(content[:8], "little")
        metadata = dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))
    except safetensors.SafetensorError as error:
        raise InvalidValue(
            f"{path}: not a complete safetensors file ({error}); it was truncated or is of "
            "another kind, use an earlier one"
        ) from None
    arrays: dict[str, np.ndarray] = {}
    dtypes = dict.fromkeys(json.loads(metadata.get(_HALVED, "[]")), "bfloat16")
    for name, entry in entries:
        kind = _NAMES.get(entry["dtype"])
        if kind is None:
            raise InvalidType(f"{path}: {name} has dtype {entry['dtype']}, which is not supported")
        dtypes.setdefault(name, kind)
        if kind == "bfloat16":  # the upper half of a float32
            flat = np.frombuffer(entry["data"], dtype="<u2").astype(np.uint32) << 16
            flat = flat.view(np.float32)
        else:
            flat = np.frombuffer(entry["data"], dtype=np.dtype(kind).newbyteorder("<"))
            flat = flat.astype(np.dtype(kind))
        arrays[name] = flat.reshape(tuple(entry["shape"]))
    return arrays, dtypes, metadata


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file completely or not at all; folders on the way are made."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    binary = getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name is on the disk only when its folder is
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
