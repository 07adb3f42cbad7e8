"""A processor without AVX-512, played by one that may have it: for ``pytest -p``.

The compiled blocks ask LLVM which vectors there are when they are imported; with this plugin they
are told of 32 bytes. ``NUMBA_CPU_NAME=haswell`` keeps LLVM to them.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm

_asked = llvm.get_host_cpu_features


def _narrow() -> Any:
    features = _asked()
    for name in features:
        if name.startswith("avx512"):
            features[name] = False
    return features


llvm.get_host_cpu_features = _narrow
