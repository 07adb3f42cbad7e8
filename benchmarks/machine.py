"""What a result was measured on."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import threadpoolctl

LIBRARIES = ("numpy", "torch", "jax", "cupy", "mygrad")


def describe(threads: int) -> dict[str, Any]:
    """The machine, the libraries and the settings that move the numbers."""
    versions = {}
    for name in LIBRARIES:
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
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": versions,
        "blas": blas,
        "environment": {
            key: value for key, value in os.environ.items() if re.match("OPENBLAS_|OMP_|MKL_", key)
        },
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


def label() -> str:
    """A file name for this machine: ``amd-epyc-2-cores``."""
    words = re.sub(r"[^a-z0-9]+", "-", cpu().lower()).strip("-")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{words}-{cores}-cores"
