"""The part of cuDNN's front end, ``nvidia-cudnn-frontend``, played by PyTorch on the CPU.

What it takes, and what it refuses, was read in versions 1.18 to 1.32 of the real one: names of
arguments, the order of the steps, the dimensions that must be given, who is asked before what.
It computes in float64, through the addresses it is handed, on the arrays of
:mod:`tests.doubles.cupy`.

Of the plans it proposes the first ones spoil the numbers, one for each note that a careful
caller strikes out: whoever takes such a plan gets NaN, another result each time, or TF32's digits.
"""

from __future__ import annotations

import enum
import itertools
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from devconv import _detect
from devconv._fast import cudnn as room
from devconv._fast.cudnn import presence
from tests.doubles import cupy as double

data_type = enum.Enum("data_type", ["FLOAT", "DOUBLE", "HALF", "BFLOAT16", "NOT_SET"])
heur_mode = enum.Enum("heur_mode", ["A", "B", "FALLBACK", "OPENSOURCE"])
numerical_note = enum.Enum(
    "numerical_note",
    [
        *("TENSOR_CORE", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "FFT"),
        *("NONDETERMINISTIC", "WINOGRAD", "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6"),
        *("WINOGRAD_TILE_13x13", "STRICT_NAN_PROP"),
    ],
)
NAMES = {data_type.FLOAT: "float32", data_type.HALF: "float16", data_type.BFLOAT16: "bfloat16"}
LARGE = 2**40
"""The scratch memory that one of the plans asks for."""


class cudnnGraphNotSupportedError(Exception):
    """No plan: not a ``RuntimeError``."""


class Watch:
    """What was asked of cuDNN."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.built: list[pygraph] = []
        self.ran: list[tuple[int, int, Plan]] = []
        """Device, stream and plan of each convolution."""
        self.handles: dict[int, Handle] = {}
        """By the number that stands for each, which is all that a caller has of it."""
        self.refused = ""
        """Why no graph is supported, if none is to be."""


watch = Watch()


@dataclass
class Handle:
    device: int
    stream: int = 0


_numbers = itertools.count(0x7F0000000000, 64)  # addresses, as far as they tell


def create_handle() -> int:
    number = next(_numbers)
    watch.handles[number] = Handle(double.Device().id)
    return number


def _handle(number: Any) -> Handle:
    """The handle that a number stands for."""
    if type(number) is not int:
        raise TypeError(f"incompatible function arguments: {number!r} is no handle")
    assert number in watch.handles, "CUDNN_STATUS_BAD_PARAM: no such handle"
    return watch.handles[number]


def set_stream(handle: int, stream: int) -> None:
    assert isinstance(stream, int)
    _handle(handle).stream = stream


def backend_version() -> int:
    return 92800


class Tensor:
    def __init__(self, dim: Any, stride: Any, kind: Any, uid: int | None, output: bool) -> None:
        self.dim, self.stride, self.data_type, self.uid = dim, stride, kind, uid
        self.is_virtual = output
        self.frozen = False

    def _set(self, **values: Any) -> Tensor:
        assert not self.frozen, "the graph is planned already"
        vars(self).update(values)
        return self

    def set_uid(self, uid: int) -> Tensor:
        return self._set(uid=uid)

    def set_dim(self, dim: list[int]) -> Tensor:
        return self._set(dim=_integers(dim))

    def set_stride(self, stride: list[int]) -> Tensor:
        return self._set(stride=_integers(stride))

    def set_data_type(self, data_type: Any) -> Tensor:
        return self._set(data_type=data_type)

    def set_output(self, value: bool) -> Tensor:
        return self._set(is_virtual=not value)


def _integers(values: Any) -> list[int]:
    if not isinstance(values, list) or not all(type(v) is int for v in values):
        raise TypeError(f"incompatible function arguments: {values!r}")
    return values


@dataclass(frozen=True)
class Plan:
    notes: frozenset[str]
    workspace: int = 0


def plans(kind: Any) -> list[Plan]:
    spoiling = [note.name for note in numerical_note if note.name != "STRICT_NAN_PROP"]
    spoiling.remove("TENSOR_CORE")
    first = [Plan(frozenset({note, "TENSOR_CORE"})) for note in spoiling]
    first += [Plan(frozenset({note})) for note in spoiling]
    first += [Plan(frozenset(), LARGE), Plan(frozenset({"TENSOR_CORE"}), 64)]
    return [*first, Plan(frozenset(), 256)]


class pygraph:
    def __init__(
        self,
        name: str = "test_graph",
        io_data_type: Any = None,
        intermediate_data_type: Any = None,
        compute_data_type: Any = None,
        handle: Any = None,
    ) -> None:
        assert compute_data_type is data_type.FLOAT
        assert intermediate_data_type is data_type.FLOAT
        assert io_data_type in NAMES
        self.device, self.done = _handle(handle).device, "made"
        self.tensors: list[Tensor] = []
        self.struck: set[str] = set()
        self.most: int | None = None

    def _step(self, after: str, now: str) -> None:
        assert self.done == after, f"{now} comes after {after}, not after {self.done}"
        self.done = now

    def tensor(
        self,
        dim: Any,
        stride: Any = None,
        data_type: Any = None,
        is_virtual: bool = False,
        is_pass_by_value: bool = False,
        ragged_offset: Any = None,
        reordering_type: Any = None,
        name: str = "",
        uid: int | None = None,
    ) -> Tensor:
        made = Tensor(_integers(dim), _integers(stride), data_type, uid, False)
        self.tensors.append(made)
        return made

    def _node(self, operation: str, tensors: dict[str, Tensor], geometry: Any) -> Tensor:
        assert self.done == "made"
        assert all(tensor in self.tensors for tensor in tensors.values())
        self.operation, self.geometry = operation, {k: _integers(v) for k, v in geometry.items()}
        self.output = Tensor(None, None, None, None, True)
        self.operands = {**tensors, "output": self.output}
        return self.output

    def conv_fprop(
        self,
        image: Tensor,
        weight: Tensor,
        pre_padding: Any,
        post_padding: Any,
        stride: Any,
        dilation: Any,
        compute_data_type: Any = None,
        name: str = "",
    ) -> Tensor:
        geometry = (pre_padding, post_padding, stride, dilation)
        return self._node(
            "fprop", {"image": image, "weight": weight}, dict(zip(GEOMETRY, geometry, strict=True))
        )

    def conv_dgrad(
        self,
        loss: Tensor,
        filter: Tensor,
        pre_padding: Any,
        post_padding: Any,
        stride: Any,
        dilation: Any,
        compute_data_type: Any = None,
        name: str = "",
    ) -> Tensor:
        geometry = (pre_padding, post_padding, stride, dilation)
        return self._node(
            "dgrad", {"loss": loss, "weight": filter}, dict(zip(GEOMETRY, geometry, strict=True))
        )

    def conv_wgrad(
        self,
        image: Tensor,
        loss: Tensor,
        pre_padding: Any,
        post_padding: Any,
        stride: Any,
        dilation: Any,
        compute_data_type: Any = None,
        name: str = "",
    ) -> Tensor:
        geometry = (pre_padding, post_padding, stride, dilation)
        return self._node(
            "wgrad", {"image": image, "loss": loss}, dict(zip(GEOMETRY, geometry, strict=True))
        )

    def validate(self) -> None:
        self._step("made", "validate")
        for name, tensor in self.operands.items():
            if not tensor.dim or not tensor.stride:
                raise ValueError(f"Tensor '{name}' dims not set.")
            if not len(tensor.dim) == len(tensor.stride) == 2 + len(self.geometry["stride"]):
                raise ValueError(f"Tensor '{name}' dim/stride length mismatch")
            if tensor.data_type not in NAMES:
                raise ValueError(f"Tensor '{name}' has no data type")
            tensor.frozen = True
        assert not self.output.is_virtual, "the result is nowhere written"
        uids = [tensor.uid for tensor in self.operands.values()]
        assert None not in uids
        assert len(set(uids)) == 3

    @property
    def sides(self) -> tuple[Tensor, Tensor, Tensor]:
        """The image, the weight and the result, whichever of them is computed."""
        sides = (("image", "dgrad"), ("weight", "wgrad"), ("loss", "fprop"))
        image, weight, y = (
            self.operands["output" if operation == self.operation else name]
            for name, operation in sides
        )
        return image, weight, y

    def build_operation_graph(self) -> None:
        self._step("validate", "build_operation_graph")
        x, k, y = (tensor.dim for tensor in self.sides)
        if len(x) not in (4, 5):
            raise cudnnGraphNotSupportedError("two or three spatial dimensions")
        if x[0] != y[0] or k[0] != y[1] or x[1] % k[1] or k[0] % (x[1] // k[1]) or 0 in (*x, *k):
            raise cudnnGraphNotSupportedError(f"CUDNN_STATUS_BAD_PARAM: {x}, {k}, {y}")
        for n, kernel, out, before, after, step, apart in zip(
            x[2:], k[2:], y[2:], *self.geometry.values(), strict=True
        ):
            if (n + before + after - apart * (kernel - 1) - 1) // step + 1 != out:
                raise cudnnGraphNotSupportedError(f"CUDNN_STATUS_BAD_PARAM: {out} windows")

    def create_execution_plans(self, heuristics: list[Any]) -> None:
        self._step("build_operation_graph", "create_execution_plans")
        assert heuristics == [heur_mode.A, heur_mode.FALLBACK]
        if watch.refused:
            raise cudnnGraphNotSupportedError(watch.refused)
        self.plans = plans(self.output.data_type)

    def deselect_numeric_notes(self, notes: list[Any]) -> pygraph:
        assert self.done == "create_execution_plans", "notes are struck out of plans there are"
        self.struck |= {numerical_note(note).name for note in notes}
        return self

    def deselect_workspace_greater_than(self, workspace: int) -> None:
        self.most = workspace

    def check_support(self) -> None:
        self._step("create_execution_plans", "check_support")
        left = [
            plan
            for plan in self.plans
            if not plan.notes & self.struck and (self.most is None or plan.workspace <= self.most)
        ]
        if not left:
            raise cudnnGraphNotSupportedError("No execution plans support the graph.")
        self.plan = left[0]

    def build_plans(self) -> None:
        self._step("check_support", "build_plans")
        watch.built.append(self)

    def get_workspace_size(self) -> int:
        assert self.done == "build_plans"
        return self.plan.workspace

    def execute(self, tensor_dict: Any, workspace: Any = None, handle: Any = None) -> None:
        assert self.done == "build_plans"
        there = _handle(handle)
        assert there.device == self.device == double.Device().id
        assert set(tensor_dict) == {tensor.uid for tensor in self.operands.values()}
        if self.plan.workspace:
            room = double.watch.addresses[workspace]
            assert room.nbytes >= self.plan.workspace
            assert room.device.id == there.device
        x, k, y = (_at(tensor_dict[t.uid], t, there.device) for t in self.sides)
        double.watch.launch("cudnn")
        watch.ran.append((there.device, there.stream, self.plan))
        _convolve(self, x, k, y)


GEOMETRY = ("pre_padding", "post_padding", "stride", "dilation")


def _at(address: int, tensor: Tensor, device: int) -> np.ndarray:
    """The array at an address, seen through what the graph says of it."""
    assert address % 16 == 0, "CUDNN_STATUS: misaligned address"
    there = double.watch.addresses[address]
    assert there.device.id == device
    assert there.dtype.name == NAMES[tensor.data_type]
    last = sum((n - 1) * step for n, step in zip(tensor.dim, tensor.stride, strict=True))
    assert there.flags.c_contiguous
    assert last < there.size, "reads beyond the array"
    flat = there._values.reshape(-1)
    steps = [step * there.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(flat, tensor.dim, steps)


_runs = itertools.count()


def _convolve(graph: pygraph, x: np.ndarray, k: np.ndarray, y: np.ndarray) -> None:
    """Write the one of the three that the graph is for."""
    pre, post, stride, dilation = graph.geometry.values()
    kept = _tf32 if graph.plan.notes and x.dtype == np.float32 else (lambda a: a)
    image, weight, out = (
        np.zeros(a.shape) if graph.operation == operation else kept(a).astype(np.float64, order="C")
        for a, operation in ((x, "dgrad"), (k, "wgrad"), (y, "fprop"))
    )
    padded = np.pad(image, ((0, 0), (0, 0), *zip(pre, post, strict=True)))
    groups = x.shape[1] // k.shape[1]
    filters = weight.reshape(groups, -1, *weight.shape[1:])  # a view: (G, O/G, C/G, *kernel)
    windows = out.reshape(x.shape[0], groups, -1, math.prod(y.shape[2:]))  # (N, G, O/G, *out)
    for tap in np.ndindex(k.shape[2:]):
        steps = zip(tap, y.shape[2:], stride, dilation, strict=True)
        read = (..., *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in steps))
        pixels = padded[read].reshape(x.shape[0], groups, -1, windows.shape[-1])
        if graph.operation == "fprop":
            windows += np.einsum("ngcp,goc->ngop", pixels, filters[..., *tap])
        elif graph.operation == "wgrad":
            filters[..., *tap] = np.einsum("ngop,ngcp->goc", windows, pixels)
        else:
            padded[read] += np.einsum("ngop,goc->ngcp", windows, filters[..., *tap]).reshape(
                padded[read].shape
            )
    inside = (..., *(slice(n, n + size) for n, size in zip(pre, x.shape[2:], strict=True)))
    found = {"fprop": out, "wgrad": weight, "dgrad": padded[inside]}
    result = found[graph.operation]
    if graph.plan.notes - {"TENSOR_CORE"}:
        result = result * np.nan if next(_runs) % 2 else -result
    {"fprop": y, "dgrad": x, "wgrad": k}[graph.operation][...] = result


def _tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to the 10 bits of TF32's fraction."""
    fraction, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.round(fraction * 2**11) / 2**11, exponent)


@contextmanager
def installed() -> Iterator[None]:
    """Let ``import cudnn`` find the double, and devconv plan anew; CuPy's is there already."""
    names = (
        *("data_type", "heur_mode", "numerical_note", "cudnnGraphNotSupportedError"),
        *("create_handle", "set_stream", "backend_version", "pygraph"),
    )
    module = ModuleType("cudnn")
    vars(module).update({name: globals()[name] for name in names}, __version__="1.28.0")
    with forgotten() as patch:
        patch.setitem(sys.modules, "cudnn", module)
        yield


@contextmanager
def forgotten() -> Iterator[pytest.MonkeyPatch]:
    """Whatever devconv knows of cuDNN, and has said of it, put aside."""
    with pytest.MonkeyPatch.context() as patch:
        answers = {name: a for name, a in _detect._answers.items() if name != "cudnn"}
        patch.setattr(_detect, "_answers", answers)
        patch.setattr(presence, "_said", set())
        patch.setattr(room, "_spare", [])
        patch.setattr(room, "_own", room._Own())
        watch.reset()
        yield patch
