"""The resampling layer: images on a grid of another size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from devconv import functional
from devconv.functional.resample import check_mode, upsampled_size
from devconv.layers.operation import OperationLayer, rank_of
from devconv.layers.scope import Trace
from devconv.layers.shapes import InputShape, check_image, roomy, sized


@dataclass(repr=False, eq=False)
class Upsample(OperationLayer):
    """Interpolate images on a finer or coarser grid; see :func:`devconv.functional.upsample`.

    Args:
        size: the size of ``y`` in pixels, an int or one per spatial dimension.
        scale_factor: in place of ``size``, a number or one per dimension.
        mode: ``"nearest"``, ``"linear"`` or ``"cubic"``, in every dimension.
        align_corners: whether the corner pixels' centres fall on one another.

    >>> Upsample(scale_factor=2, mode="linear").output_shape((16, 8, 8))
    (16, 16, 16)
    """

    operation = functional.upsample

    size: int | Sequence[int] | None = None
    scale_factor: float | Sequence[float] | None = None
    mode: str = "nearest"
    align_corners: bool = False

    def _check_options(self) -> None:
        check_mode(self.mode, self.align_corners)
        image = roomy(rank_of(self.size, self.scale_factor))
        upsampled_size(image, self.size, self.scale_factor)

    def options(self) -> dict[str, Any]:
        """The options of :func:`devconv.functional.upsample`."""
        return {
            "size": self.size,
            "scale_factor": self.scale_factor,
            "mode": self.mode,
            "align_corners": self.align_corners,
        }

    def infer(self, trace: Trace, shape: InputShape) -> InputShape:
        """``(N, C, *spatial)`` becomes ``(N, C, *size)``."""
        check_image(shape, None)
        out, _ = upsampled_size(sized(shape), self.size, self.scale_factor)
        return (*shape[:2], *out)
