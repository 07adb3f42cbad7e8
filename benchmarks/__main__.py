"""``python -m benchmarks [TABLE] [--record]``: measure the library beside its peers.

================  ==========================================================================
``convolution``   one convolution, forward and with both gradients (the default)
``routes``        what the quicker routes buy on each library's arrays
``training``      a training step of whole networks, beside PyTorch
``inference``     their forward pass
``memory``        peak memory of one convolution with both gradients
``growth``        time per image at two sizes of batch
``threads``       one thread against several
``all``           all of these
``gpu``           tests, parity and tables on a GPU, recorded under its name
``picture``       the bar chart of the recorded convolutions
``accuracy``      how far from float64 each library is
================  ==========================================================================
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    accuracy,
    convolution,
    gpu,
    growth,
    inference,
    machine,
    memory,
    picture,
    routes,
    switches,
    threads,
    timing,
    training,
)
from benchmarks.networks import NETWORKS
from benchmarks.options import Options, Table
from benchmarks.place import DTYPES, Place
from benchmarks.report import RESULTS, heading, save
from benchmarks.shapes import SHAPES

TABLES: dict[str, Table] = {
    "convolution": convolution,
    "routes": routes,
    "training": training,
    "inference": inference,
    "memory": memory,
    "growth": growth,
    "threads": threads,
}
ON_A_GPU = (*gpu.TABLES, "growth")
PICTURE = Path(__file__).parent.parent / "docs" / "speed.svg"


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = [*TABLES, "all", "gpu", "picture", "accuracy"]
    parser.add_argument("what", nargs="?", choices=what, default="convolution")
    parser.add_argument("--device", choices=list(DTYPES), help="cpu, but cuda for gpu")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), help="some only")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="some only")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES["cuda"], help="some only")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--record", action="store_true", help="write what was measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for it")
    parser.add_argument("--parts", nargs="+", choices=gpu.PARTS, help="of gpu: some only")
    parser.add_argument("--tests", nargs="+", default=[], help="of gpu: what pytest runs")
    return parser.parse_args(given)


def options(given: argparse.Namespace) -> Options:
    """What the tables are told."""
    kind = given.device or ("cuda" if given.what == "gpu" else "cpu")
    return Options(
        place=Place(kind),
        threads=given.threads,
        rounds=given.rounds,
        shapes={name: SHAPES[name] for name in given.shapes or SHAPES},
        networks=tuple(given.networks or ()),
        dtypes=tuple(given.dtypes or ()),
    )


def prepare(told: Options) -> None:
    """Settle what moves the numbers: threads, memory, PyTorch's choices."""
    timing.keep_memory()
    switches.limit(told.threads)
    told.place.prepare()


def measure(names: Sequence[str], told: Options, out: Path | None) -> None:
    """Measure tables, print them, and write each as soon as it is there."""
    about = machine.describe(told.threads, told.place)
    print(heading(about))
    for name in names:
        rows = TABLES[name].measure(told)
        text = TABLES[name].table(rows)
        print(f"\n{text}\n", flush=True)
        if out is not None:
            path = out / f"{name}-{machine.label(told.place)}"
            save(path, {"machine": about, "rows": rows}, f"{heading(about)}\n\n{text}")
            print(f"recorded in {path}.json and .md")


def draw(out: Path) -> None:
    """The bar chart of this machine's record, or of the only one there is."""
    mine = out / f"convolution-{machine.label(Place())}.json"
    found = [mine] if mine.exists() else sorted(out.glob("convolution-*-cores.json"))
    if not found:
        raise SystemExit("nothing to draw: run python -m benchmarks convolution --record first")
    picture.draw(picture.load(found[0]), PICTURE)
    print(f"drawn from {found[0].name}: {PICTURE}")


def main(given: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    said = arguments(sys.argv[1:] if given is None else given)
    if said.what == "accuracy":
        accuracy.main(["--record"] if said.record else [])
        return
    if said.what == "picture":
        draw(said.out)
        return
    told = options(said)
    if told.place.missing:
        raise SystemExit(told.place.missing)
    if told.place.is_gpu and said.what not in ("gpu", *ON_A_GPU):
        raise SystemExit(f"{said.what} is measured on the CPU; on a GPU: {', '.join(ON_A_GPU)}")
    prepare(told)
    if said.what == "gpu":
        if not gpu.run(told, said.out, said.parts or gpu.PARTS, said.tests):
            raise SystemExit(1)
        return
    names = list(TABLES) if said.what == "all" else [said.what]
    measure(names, told, said.out if said.record else None)


if __name__ == "__main__":
    main()
