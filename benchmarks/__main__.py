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
``gpu``           all there is to know about a GPU, part by part (see docs/gpu.md)
``picture``       the bar chart of the recorded convolutions
``accuracy``      how far from float64 each library is
================  ==========================================================================
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    accuracy,
    convolution,
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
from benchmarks.gpu import command as gpu
from benchmarks.gpu.contestants import unknown
from benchmarks.gpu.told import Told
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
ON_A_GPU = ("convolution", "training", "inference", "growth")
NOT_OF_GPU = ("record", "shapes", "networks")
"""Options of the tables alone; ``gpu`` always writes what it measured."""
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
    parser.add_argument("--rounds", type=int, help="how many count (10; of gpu 7)")
    parser.add_argument("--threads", type=int, help="of the CPU (2; of gpu all)")
    parser.add_argument("--record", action="store_true", help="write what was measured")
    parser.add_argument("--out", type=Path, help="the folder for it")
    of_gpu = parser.add_argument_group("gpu")
    of_gpu.add_argument("--parts", nargs="+", choices=gpu.PARTS, help="some only")
    of_gpu.add_argument("--minutes", type=float, help="for each part, 0 without end")
    of_gpu.add_argument("--without", nargs="+", default=[], help="contestants to leave out")
    of_gpu.add_argument("--resume", action="store_true", help="keep the rows that are there")
    of_gpu.add_argument("--small", action="store_true", help="tiny: a rehearsal")
    of_gpu.add_argument("--tests", default="", help="what pytest is told, in one string")
    of_gpu.add_argument("--join", nargs="+", type=Path, help="records to make one of")
    return parser.parse_args(given)


def options(given: argparse.Namespace) -> Options:
    """What the tables are told."""
    return Options(
        place=Place(given.device or "cpu"),
        threads=given.threads or min(2, machine.cores()),
        rounds=given.rounds or 10,
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


def told(given: argparse.Namespace) -> Told:
    """What the parts of ``gpu`` are told."""
    place = Place(given.device or "cuda")
    return Told(
        place=place,
        small=given.small,
        rounds=given.rounds or (1 if given.small else 7),
        turn=0.0 if given.small else 0.05,
        threads=given.threads or (machine.cores() if place.is_gpu else min(2, machine.cores())),
        dtypes=tuple(given.dtypes or ()),
        without=tuple(given.without),
        tests=tuple(shlex.split(given.tests)),
    )


def flags(given: argparse.Namespace, out: Path) -> list[str]:
    """The command line of ``gpu`` anew, without parts, minutes and who is left out."""
    found = ["--device", given.device or "cuda", "--out", str(out.resolve())]
    for name in ("rounds", "threads"):
        found += [f"--{name}", str(getattr(given, name))] if getattr(given, name) else []
    found += ["--dtypes", *given.dtypes] if given.dtypes else []
    found += [f"--tests={given.tests}"] if given.tests else []
    for name in ("small", "resume"):
        found += [f"--{name}"] if getattr(given, name) else []
    return found


def on_a_gpu(given: argparse.Namespace) -> bool:
    """The command ``gpu``: one part in this process, several in one each."""
    foreign = [f"--{name}" for name in NOT_OF_GPU if getattr(given, name)]
    wrong = f"{', '.join(foreign)}: not of gpu" if foreign else unknown(given.without)
    if wrong:
        raise SystemExit(wrong)
    if given.join:
        print(f"recorded in {gpu.join(given.join, given.out or RESULTS)}.json and .md")
        return True
    what = told(given)
    if what.place.missing:
        raise SystemExit(what.place.missing)
    out = gpu.folder(given.out, what)
    parts = given.parts or list(gpu.PARTS)
    path = out / f"{machine.label(what.place)}.json"
    if len(parts) == 1:
        switches.limit(what.threads)
        return gpu.one(parts[0], what, out, minutes=given.minutes, resume=given.resume)
    fine = gpu.several(parts, flags(given, out), path, given.minutes, given.without)
    print(path.with_suffix(".md").read_text() if path.exists() else "nothing was recorded")
    print(f"recorded in {path} and .md")
    return fine


def main(given: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    said = arguments(sys.argv[1:] if given is None else given)
    if said.what == "accuracy":
        accuracy.main(["--record"] if said.record else [])
        return
    if said.what == "picture":
        draw(said.out or RESULTS)
        return
    if said.what == "gpu":
        if not on_a_gpu(said):
            raise SystemExit(1)
        return
    how = options(said)
    if how.place.missing:
        raise SystemExit(how.place.missing)
    if how.place.is_gpu and said.what not in ON_A_GPU:
        raise SystemExit(f"{said.what} is measured on the CPU; on a GPU: {', '.join(ON_A_GPU)}")
    prepare(how)
    names = list(TABLES) if said.what == "all" else [said.what]
    measure(names, how, (said.out or RESULTS) if said.record else None)


if __name__ == "__main__":
    main()
