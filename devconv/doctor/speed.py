"""How fast is it? A convolution against the product it is made of, and against PyTorch's."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from devconv import functional
from devconv.doctor.machine import available_cpus
from devconv.doctor.report import Finding, Section

SIDE = 1024
IMAGES, KERNELS = (32, 64, 32, 32), (64, 64, 3, 3)
LEAST = 0.3
"""A convolution slower than this share of a product's speed is held up by something."""


@dataclass(frozen=True, kw_only=True)
class Speed(Section):
    """Float32, forward, in GFLOP/s; ``None`` for a library that is not there.

    Attributes:
        product: NumPy's product of two 1024 × 1024 matrices.
        convolution: a 3 × 3 convolution of NumPy arrays, 64 to 64 channels.
        of_product: the convolution's share of the product's speed.
        torch: PyTorch's own convolution.
        of_torch: the NumPy convolution's share of PyTorch's speed.
        verdict: in one sentence.
        busy: whether more programs want to run than there are CPUs.
    """

    product: float
    convolution: float
    of_product: float
    torch: float | None
    of_torch: float | None
    verdict: str
    busy: bool = False


def look_at_speed() -> Speed:
    """Measure for about two seconds; once more where it looks slow, as other programs may be."""
    busy = is_busy()
    speed = _measured()
    if speed.findings:
        speed = max(speed, _measured(), key=lambda s: s.of_product)
    return replace(speed, busy=busy)


def is_busy() -> bool:
    """Whether more programs wanted to run in the last minute than there are CPUs."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > available_cpus()


def _measured() -> Speed:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    x = rng.standard_normal(IMAGES, dtype=np.float32)
    weight = rng.standard_normal(KERNELS, dtype=np.float32)
    flops = 2 * x.size * KERNELS[0] * KERNELS[2] * KERNELS[3]
    product = 2 * SIDE**3 / seconds(lambda: a @ a) / 1e9
    convolution = flops / seconds(lambda: functional.conv(x, weight, padding=1)) / 1e9
    peer = _torch(x, weight)
    torch = None if peer is None else flops / seconds(peer) / 1e9
    return judged(product, convolution, torch)


def judged(product: float, convolution: float, torch: float | None) -> Speed:
    """The figures, their ratios and what they mean."""
    share = convolution / product
    slow = share < LEAST
    text = f"a convolution keeps {share:.0%} of the speed of the products it is made of"
    fix = "stop other programs, see that DEVCONV_GENERIC is not set, and look again"
    return Speed(
        product=product,
        convolution=convolution,
        of_product=share,
        torch=torch,
        of_torch=None if torch is None else convolution / torch,
        verdict=f"slow: {text}" if slow else f"fine: {text}",
        findings=(Finding("speed", f"{text}, {LEAST:.0%} is little", (fix,)),) if slow else (),
    )


def seconds(call: Callable[[], object], budget: float = 0.5) -> float:
    """The shortest of the calls that fit into ``budget`` seconds, after a rest.

    BLAS threads spin for about 100 ms after a product and would slow another library down.
    """
    time.sleep(0.2)
    call()
    best, end = float("inf"), time.perf_counter() + budget
    while True:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            return best


def _torch(x: np.ndarray, weight: np.ndarray) -> Callable[[], object] | None:
    """PyTorch's own convolution of the same numbers, where PyTorch is loaded already."""
    if "torch" not in sys.modules:
        return None
    try:
        torch = importlib.import_module("torch")
        images, kernels = torch.from_numpy(x), torch.from_numpy(weight)
    except Exception:
        return None
    return lambda: torch.nn.functional.conv2d(images, kernels, padding=1)
