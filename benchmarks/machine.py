"""What a result was measured on."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import threadpoolctl

from benchmarks.place import Place

LIBRARIES = ("numpy", "numba", "torch", "jax", "cupy-cuda12x", "cupy-cuda13x", "mygrad")
OF_A_GPU = ("ml_dtypes", "nvidia-cudnn-frontend", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
SETTINGS = "OPENBLAS_|OMP_|MKL_|NUMBA_|CUPY_|DEVCONV_|XLA_|TORCH_|NVIDIA_TF32"


def describe(threads: int, place: Place) -> dict[str, Any]:
    """The machine, the libraries and the settings that move the numbers."""
    versions = {}
    for name in (*LIBRARIES, *(OF_A_GPU if place.is_gpu else ())):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    blas = [
        {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return {
        "cpu": cpu(),
        "gpu": place.name,
        "device": place.details(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "libraries": versions,
        "blas": blas,
        "environment": {key: value for key, value in os.environ.items() if re.match(SETTINGS, key)},
    }


def cpu() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown CPU"
    found = re.search(r"model name\s*:\s*(.+)", text)
    name = found.group(1).strip() if found else "unknown CPU"
    return f"{name} (AVX-512)" if "avx512f" in text else name


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def label(place: Place) -> str:
    """A file name for this machine: ``amd-epyc-2-cores``, or its GPU's name."""
    words = slug(place.name or cpu())
    return words if place.is_gpu else f"{words}-{cores()}-cores"


def slug(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
