"""NumPy's BLAS, which every product on the CPU runs through, and what holds it back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import threadpoolctl

from devconv.doctor.machine import Processor, processor
from devconv.doctor.mending import export, plural, unset, upgrade_numpy
from devconv.doctor.report import Finding, Section

NAMES = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS", "flexiblas": "FlexiBLAS"}
AVX512_KERNELS = ("skylakex", "cooperlake", "sapphirerapids", "skx", "knl", "zen4", "zen5")
_CHOOSES_KERNEL = {
    "openblas": "OPENBLAS_CORETYPE",
    "mkl": "MKL_ENABLE_INSTRUCTIONS",
    "blis": "BLIS_ARCH_TYPE",
}
_CHOOSES_THREADS = {
    "openblas": ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
    "mkl": ("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    "blis": ("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
}
_LISTENED_TO = re.compile(
    "(OPENBLAS|MKL|BLIS|GOTO)_[A-Z0-9_]+$|OMP_NUM_THREADS$|VECLIB_MAXIMUM_THREADS$"
)


@dataclass(frozen=True, kw_only=True)
class Blas(Section):
    """The BLAS that NumPy calls; ``None`` for what it does not tell.

    Attributes:
        library: its name.
        version: as it states it.
        threading: ``"pthreads"``, ``"openmp"``, ...
        threads: how many it uses.
        cpus: how many CPUs this process may use.
        kernel: the architecture its inner loops were chosen for.
        uses_avx512: whether that one uses AVX-512.
        path: the file.
        environment: the variables that such libraries listen to, as far as they are set.
    """

    library: str
    version: str | None
    threading: str | None
    threads: int | None
    cpus: int
    kernel: str | None
    uses_avx512: bool | None
    path: str | None
    environment: dict[str, str]


def look_at_blas(environment: Mapping[str, str] = os.environ, cpu: Processor | None = None) -> Blas:
    """Ask the libraries that are loaded, of which one is NumPy's."""
    cpu = cpu or processor()
    pool = numpy_s_own(threadpoolctl.threadpool_info())
    api = str(pool.get("internal_api", ""))
    kernel = pool.get("architecture")
    uses = None if kernel is None else str(kernel).lower() in AVX512_KERNELS
    blas = Blas(
        library=NAMES.get(api, api) or _built_with(),
        version=pool.get("version"),
        threading=pool.get("threading_layer"),
        threads=pool.get("num_threads"),
        cpus=cpu.count,
        kernel=kernel,
        uses_avx512=uses,
        path=pool.get("filepath"),
        environment={k: v for k, v in sorted(environment.items()) if _LISTENED_TO.match(k)},
    )
    found = (_kernel(blas, api, cpu), *_threads(blas, api), _cache(blas, api, cpu))
    return Blas(**{**vars(blas), "findings": tuple(f for f in found if f is not None)})


def numpy_s_own(pools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """NumPy's among the thread pools of a process: the one in its own folder, else the first."""
    blas = [pool for pool in pools if pool.get("user_api") == "blas"]
    own = [p for p in blas if re.search(r"[/\\]numpy(\.libs)?[/\\]", str(p.get("filepath", "")))]
    return (own or blas or [{}])[0]


def _built_with() -> str:
    config: Any = np.show_config(mode="dicts")
    return str(config["Build Dependencies"]["blas"]["name"])


def _kernel(blas: Blas, api: str, cpu: Processor) -> Finding | None:
    """AVX-512 that the CPU has and the BLAS does not use."""
    if not cpu.avx512:
        return None
    variable = _CHOOSES_KERNEL.get(api, "")
    value = blas.environment.get(variable)
    if api == "mkl" and value is not None and "AVX512" not in value.upper():
        text = f"{variable}={value} keeps MKL from AVX-512, which this CPU has"
        return Finding("BLAS", text, (unset(variable),))
    if blas.uses_avx512 is not False:
        return None
    idle = "leaves AVX-512, which this CPU has, unused"
    if value is not None:
        text = f"{variable}={value} {idle}: products take up to twice as long"
        return Finding("BLAS", text, (unset(variable),))
    text = f"{blas.library} {blas.version} {idle} (kernel {blas.kernel})"
    return Finding("BLAS", text, (upgrade_numpy(),))


def _threads(blas: Blas, api: str) -> list[Finding]:
    """Too few threads because a variable says so, or more than there are CPUs."""
    names = _CHOOSES_THREADS.get(api, ())
    setter = next((name for name in names if name in blas.environment), None)
    if blas.threads is None or blas.threads == blas.cpus:
        return []
    cause = f"{setter}={blas.environment[setter]}" if setter else ""
    if blas.threads > blas.cpus:
        text = f"{blas.threads} threads share {plural(blas.cpus, 'CPU')} and wait for each other"
        fix = (
            unset(setter) if setter else export(names[0] if names else "OMP_NUM_THREADS", blas.cpus)
        )
        return [Finding("BLAS", f"{text} ({cause})" if cause else text, (fix,))]
    if not setter:
        return []
    text = f"{cause} leaves {blas.cpus - blas.threads} of {plural(blas.cpus, 'CPU')} idle"
    return [Finding("BLAS", text, (unset(setter),))]


def _cache(blas: Blas, api: str, cpu: Processor) -> Finding | None:
    size = blas.environment.get("OPENBLAS_L2_SIZE")
    if api != "openblas" or size is None or size == str(cpu.l2):
        return None
    real = f"this CPU has {cpu.l2}" if cpu.l2 else "this CPU's is not known"
    text = f"OPENBLAS_L2_SIZE={size} cuts blocks for a cache of {size} KiB, {real}"
    return Finding("BLAS", text, (unset("OPENBLAS_L2_SIZE"),))
