"""NumPy's BLAS in faked surroundings: what holds it back is said, and what mends it."""

from __future__ import annotations

from typing import Any

import pytest
import threadpoolctl

from devconv.doctor import blas as room
from devconv.doctor import mending
from devconv.doctor.blas import Blas, look_at_blas
from devconv.doctor.machine import Processor

OPENBLAS = {
    "user_api": "blas",
    "internal_api": "openblas",
    "version": "0.3.31",
    "threading_layer": "pthreads",
    "architecture": "SkylakeX",
    "num_threads": 8,
    "filepath": "/lib/python3.11/site-packages/numpy.libs/libscipy_openblas64_.so",
}
MKL = {
    "user_api": "blas",
    "internal_api": "mkl",
    "version": "2024.2",
    "num_threads": 8,
    "filepath": "/lib/libmkl_rt.so.2",
}
LIBGOMP = {"user_api": "openmp", "internal_api": "openmp", "num_threads": 8}


@pytest.fixture(autouse=True)
def linux_without_conda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending.sys, "platform", "linux")
    monkeypatch.setattr(mending, "in_conda", lambda: False)


def look(
    monkeypatch: pytest.MonkeyPatch,
    *pools: dict[str, Any],
    avx512: bool | None = True,
    **environment: str,
) -> Blas:
    """What is said of these pools on eight CPUs with 1024 KiB of cache."""
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: list(pools))
    cpu = Processor(name="fake", count=8, avx512=avx512, l2=1024, memory=None)
    return look_at_blas(environment, cpu)


def findings(blas: Blas) -> list[tuple[str, tuple[str, ...]]]:
    assert not any(finding.wrong for finding in blas.findings)  # slow, and right
    return [(finding.text, finding.fix) for finding in blas.findings]


def test_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    blas = look(monkeypatch, LIBGOMP, OPENBLAS, HOME="/root")
    assert (blas.library, blas.version, blas.kernel) == ("OpenBLAS", "0.3.31", "SkylakeX")
    assert (blas.threads, blas.cpus, blas.uses_avx512) == (8, 8, True)
    assert blas.environment == {}
    assert findings(blas) == []


def test_a_variable_chooses_a_kernel_without_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = {**OPENBLAS, "architecture": "Haswell"}
    blas = look(monkeypatch, pool, OPENBLAS_CORETYPE="Haswell")
    assert findings(blas) == [
        (
            "OPENBLAS_CORETYPE=Haswell leaves AVX-512, which this CPU has, unused: "
            "products take up to twice as long",
            ("unset OPENBLAS_CORETYPE",),
        )
    ]
    assert blas.environment == {"OPENBLAS_CORETYPE": "Haswell"}


@pytest.mark.parametrize("avx512", [False, None])
def test_nothing_is_unused_where_there_is_no_avx512(
    monkeypatch: pytest.MonkeyPatch, avx512: bool | None
) -> None:
    pool = {**OPENBLAS, "architecture": "Haswell"}
    assert findings(look(monkeypatch, pool, avx512=avx512, OPENBLAS_CORETYPE="Haswell")) == []


def test_a_variable_that_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(look(monkeypatch, OPENBLAS, OPENBLAS_CORETYPE="SkylakeX")) == []
    assert findings(look(monkeypatch, OPENBLAS, OMP_NUM_THREADS="8")) == []
    assert findings(look(monkeypatch, OPENBLAS, OPENBLAS_L2_SIZE="1024")) == []


@pytest.mark.parametrize("conda", [False, True])
def test_an_old_openblas(monkeypatch: pytest.MonkeyPatch, conda: bool) -> None:
    monkeypatch.setattr(mending, "in_conda", lambda: conda)
    pool = {**OPENBLAS, "version": "0.2.20", "architecture": "Haswell"}
    fix = (
        "conda install -c conda-forge numpy libopenblas" if conda else "pip install --upgrade numpy"
    )
    assert findings(look(monkeypatch, pool)) == [
        (
            "OpenBLAS 0.2.20 leaves AVX-512, which this CPU has, unused (kernel Haswell)",
            (fix,),
        )
    ]


@pytest.mark.parametrize(
    "variable", ["OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"]
)
def test_a_variable_leaves_cpus_idle(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    blas = look(monkeypatch, {**OPENBLAS, "num_threads": 2}, **{variable: "2"})
    assert findings(blas) == [(f"{variable}=2 leaves 6 of 8 CPUs idle", (f"unset {variable}",))]


def test_the_variable_that_counts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = {**OPENBLAS, "num_threads": 1}
    blas = look(monkeypatch, pool, OMP_NUM_THREADS="4", OPENBLAS_NUM_THREADS="1")
    assert [fix for _, fix in findings(blas)] == [("unset OPENBLAS_NUM_THREADS",)]


def test_few_threads_that_nobody_asked_for_are_the_program_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert findings(look(monkeypatch, {**OPENBLAS, "num_threads": 1})) == []


def test_more_threads_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, text = {**OPENBLAS, "num_threads": 64}, "64 threads share 8 CPUs and wait for each other"
    assert findings(look(monkeypatch, pool)) == [(text, ("export OPENBLAS_NUM_THREADS=8",))]
    assert findings(look(monkeypatch, pool, OMP_NUM_THREADS="64")) == [
        (f"{text} (OMP_NUM_THREADS=64)", ("unset OMP_NUM_THREADS",))
    ]


def test_the_size_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(look(monkeypatch, OPENBLAS, OPENBLAS_L2_SIZE="512")) == [
        (
            "OPENBLAS_L2_SIZE=512 cuts blocks for a cache of 512 KiB, this CPU has 1024",
            ("unset OPENBLAS_L2_SIZE",),
        )
    ]


def test_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    blas = look(monkeypatch, MKL, OPENBLAS_CORETYPE="Haswell", OPENBLAS_L2_SIZE="1")
    assert (blas.library, blas.kernel, blas.uses_avx512) == ("MKL", None, None)
    assert findings(blas) == []
    assert findings(look(monkeypatch, MKL, MKL_ENABLE_INSTRUCTIONS="AVX512")) == []
    assert findings(look(monkeypatch, MKL, MKL_ENABLE_INSTRUCTIONS="AVX2")) == [
        (
            "MKL_ENABLE_INSTRUCTIONS=AVX2 keeps MKL from AVX-512, which this CPU has",
            ("unset MKL_ENABLE_INSTRUCTIONS",),
        )
    ]


def test_numpy_s_own_is_the_one_in_its_folder() -> None:
    other = {**OPENBLAS, "filepath": "/lib/python3.11/site-packages/scipy.libs/libopenblas.so"}
    assert room.numpy_s_own([LIBGOMP, other, MKL, OPENBLAS]) == OPENBLAS
    assert room.numpy_s_own([LIBGOMP, MKL, other]) == MKL
    assert room.numpy_s_own([LIBGOMP]) == {}


def test_a_blas_that_threadpoolctl_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    blas = look(monkeypatch, LIBGOMP)
    assert blas.library  # what NumPy says it was built with
    assert (blas.version, blas.threads, blas.kernel) == (None, None, None)
    assert findings(blas) == []


def test_on_windows_a_variable_is_unset_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending.sys, "platform", "win32")
    pool = {**OPENBLAS, "architecture": "Haswell"}
    blas = look(monkeypatch, pool, OPENBLAS_CORETYPE="Haswell")
    assert findings(blas)[0][1] == ("set OPENBLAS_CORETYPE=",)
    assert mending.export("A", 1) == "set A=1"


def test_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    blas = look_at_blas()
    assert blas.library
    assert blas.cpus >= 1
