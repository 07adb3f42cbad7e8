"""A convolution as a graph of cuDNN's, and the choice of a plan for it.

cuDNN proposes plans, the quickest first, each with notes on what it does to the numbers. Those
that lose digits, or add in no fixed order, are struck out, and the first that can be built is
taken: the same problem gets the same plan again.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from devconv import _detect
from devconv._check import Pair, Shape

DTYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}
"""What cuDNN calls the dtypes there is a route for."""

STRUCK = (
    "DOWN_CONVERT_INPUTS",
    "REDUCED_PRECISION_REDUCTION",
    "NONDETERMINISTIC",
    *("FFT", "WINOGRAD", "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13"),
)
"""Plans with these notes are never taken. Transforms lose digits, and carry a NaN too far."""

X, W, Y = 1, 2, 3
"""The graph's names for its tensors."""


class Problem(NamedTuple):
    """A convolution as cuDNN is told of it. Shapes are channels-first, memory channels-last."""

    operation: str
    image: Shape
    weight: Shape
    y: Shape
    padding: tuple[Pair, ...]
    stride: Shape
    dilation: Shape
    dtype: str
    tf32: bool
    device: int
    scratch: int
    """The bytes a plan may ask for: by the device's class, so that a class has one choice."""

    def __str__(self) -> str:
        return f"{self.operation} of {self.dtype} images {self.image} by {self.weight}"


class NotBuilt(Exception):  # told in a warning, shown to nobody as it is
    """Plans that cuDNN supports could not be built, as where memory is short."""


class Built(NamedTuple):
    """A graph with the plan that was chosen for it, and the bytes of scratch memory it needs."""

    graph: Any
    workspace: int


def build(cudnn: Any, problem: Problem, **where: Any) -> Built:
    """Have cuDNN plan a problem, on the device of ``handle=``.

    Raises whatever the front end raises where there is no plan that may be taken; ``NotBuilt``
    where there are some, and none could be made ready.
    """
    kind = getattr(cudnn.data_type, DTYPES[problem.dtype])
    wide = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide, **where
    )

    def tensor(uid: int, shape: Shape) -> Any:
        return graph.tensor(dim=list(shape), stride=strides(shape), data_type=kind, uid=uid)

    geometry = {
        "pre_padding": [before for before, _ in problem.padding],
        "post_padding": [after for _, after in problem.padding],
        "stride": list(problem.stride),
        "dilation": list(problem.dilation),
    }
    image, weight, y = problem.image, problem.weight, problem.y
    if problem.operation == "conv_fprop":
        x, k = tensor(X, image), tensor(W, weight)
        out, uid, shape = graph.conv_fprop(image=x, weight=k, **geometry), Y, y
    elif problem.operation == "conv_dgrad":
        dy, k = tensor(Y, y), tensor(W, weight)
        out, uid, shape = graph.conv_dgrad(loss=dy, filter=k, **geometry), X, image
    else:
        x, dy = tensor(X, image), tensor(Y, y)
        out, uid, shape = graph.conv_wgrad(image=x, loss=dy, **geometry), W, weight
    out.set_uid(uid)
    out.set_dim(list(shape))
    out.set_stride(strides(shape))
    out.set_data_type(kind)
    out.set_output(True)

    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    exact = problem.dtype == "float32" and not problem.tf32
    struck = (*STRUCK, "TENSOR_CORE") if exact else STRUCK  # TF32, for float32
    graph.deselect_numeric_notes([getattr(cudnn.numerical_note, note) for note in struck])
    graph.deselect_workspace_greater_than(problem.scratch)
    graph.check_support()
    try:
        graph.build_plans()
    except Exception as error:  # whatever the reason, it says that there is no plan
        raise NotBuilt(_detect.line(error)) from None
    return Built(graph, graph.get_workspace_size())


def strides(shape: Shape) -> list[int]:
    """The strides, in elements, of ``(N, C, *spatial)`` in channels-last memory without gaps.

    >>> strides((2, 3, 4, 5))
    [60, 1, 15, 3]
    """
    _, c, *spatial = shape
    steps = [c * math.prod(spatial[d:]) for d in range(len(spatial) + 1)]
    return [steps[0], 1, *steps[1:]]
