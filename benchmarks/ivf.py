"""Inverted lists beside FAISS: recall against speed, exact search, training, bytes, drift, growth, little memory.

    python -m benchmarks.ivf PATH [--wide DIR] [--photos FILE] [--dims 384,768] [--k 10] [--nlist N] [--rows N]
        [--rounds 5] [--only NAMES] [--parts curves,flat,build,memory,drift,growth,cold] [--large FILE] [--cache DIR]
        [--plot FILE] [--dry]

PATH has debian-minilm-384.npy and debian-packages.parquet; the files of --wide and --photos are those of
benchmarks.hnsw. All engines have the same number of lists. Searches have one thread, in the environment
.venv-peers/graphs, which is made on first use; trainings that are compared have two, in a process of their own.

Prints tables, draws the curves, appends one line of JSON to benchmarks/results/history.jsonl. benchmarks/README.md has
the rules.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.environments import ONE_THREAD, ROOT, environment, python_with
from benchmarks.graphs import PEERS
from benchmarks.history import append, line_of
from benchmarks.hnsw import INSIDE, several, vector_sets

PARTS = ("curves", "flat", "build", "memory", "drift", "growth", "cold")
OF_A_SET = {"curves", "flat", "build", "memory"}
PLOT = ROOT / "benchmarks" / "results" / "ivf.png"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, folder = parser.add_argument, lambda text: Path(text).resolve()
    add("data", type=folder, help="the folder with debian-minilm-384.npy and debian-packages.parquet")
    add("--wide", type=folder, help="the folder with debian-768.npy, if that is another")
    add("--photos", type=folder, help="a file of descriptors, uint8 (1010000, 128)")
    add("--large", type=folder, help="a file of descriptors, uint8 (10010000, 128): lists alone, vectors on the disk")
    add("--dims", type=several(int, (384, 768, 1536)), default=[384, 768], help='of embeddings; "" is none')
    add("--only", type=several(str), default=[], help="engines that have one of these in their names, beside our first")
    add("--k", type=several(int), default=[10])
    add("--nlist", type=int, default=0, help="lists of all engines (default: one for 256 rows)")
    add("--rows", type=int, help="measure on a part of the data")
    add("--rounds", type=int, default=5)
    add("--parts", type=several(str, PARTS), default=list(PARTS), help=",".join(PARTS))
    add("--cache", type=folder, help="where indexes are kept for the next run")
    add("--work", type=folder, help="where databases are made (default: the temporary directory)")
    add("--plot", type=folder, default=PLOT, help="the picture of the curves")
    add("--python", help="an interpreter that has vecdb and faiss (default: one is made)")
    add("--dry", action="store_true", help="do not append to the history")
    given = parser.parse_args()
    if "memory" in given.parts and "curves" not in given.parts:
        parser.error("the part memory tells bytes beside recall: it needs curves")
    return given


def enter(given: argparse.Namespace) -> None:
    """Becomes the process that measures: pools have one thread, which libraries read when they are imported."""
    python = given.python or python_with("graphs", *PEERS.values(), "matplotlib", "--editable", str(ROOT))
    os.execve(python, [python, "-m", "benchmarks.ivf", *sys.argv[1:]], {**environment(searching=True), INSIDE: "1"})


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def measure_set(data: Any, given: argparse.Namespace) -> dict[str, Any]:
    """What is measured on one set of vectors."""
    from benchmarks.graphs.vector_sets import nearest_distances
    from benchmarks.lists import exact, training
    from vecdb.index.two_levels import list_count

    nlist, rows = list_count(len(data.vectors), given.nlist), len(data.vectors)
    figures: dict[str, Any] = {"name": data.name, "rows": rows, "metric": data.metric, "nlist": nlist}
    figures |= {"curves": {}, "ratios": {}, "modes": ["batch", "single"]}
    nearest = nearest_distances(data, max(given.k))
    if "curves" in given.parts:
        figures |= measure_curves(data, nlist, nearest, given)
    if "flat" in given.parts:
        say(f"{data.name}: exact search")
        figures["flat"] = exact.measure(data, given.k[0], nearest[:, : given.k[0]], given.rounds)
    if "build" in given.parts:
        say(f"{data.name}: training and adding")
        figures["build"] = training.in_process(data, nlist, given.rounds)
    return figures


def measure_curves(data: Any, nlist: int, nearest: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Curves of all engines, each of ours compared with all others."""
    from benchmarks.graphs import curves
    from benchmarks.graphs.costs import BUILD_THREADS
    from benchmarks.lists import TARGETS, engines_of, prepare

    ours, *others = engines_of(data.metric, data.dim, nlist)
    engines = [ours, *(e for e in others if not given.only or any(part in e.name for part in given.only))]
    digest = data.digest() if given.cache else ""
    prepare(engines, data.vectors, digest, given.cache, BUILD_THREADS, lambda text: say(f"{data.name} {text}"))
    figures: dict[str, Any] = {"families": {engine.name: engine.family for engine in engines}, "curves": {}}
    figures |= {"versions": {engine.name: engine.version for engine in engines}, "ratios": {}}
    for k in given.k:
        say(f"{data.name}, k = {k}: {given.rounds} rounds of {len(engines)} engines")
        found = curves.measure(engines, data, k, nearest, given.rounds, True, TARGETS)
        figures["curves"][str(k)] = {curve.engine.name: curves.figures(curve) for curve in found}
        ours = [curve for curve in found if curve.engine.name.startswith("vecdb")]
        others = found[len(ours) :]
        figures["ratios"][str(k)] = {curve.engine.name: curves.compare([curve, *found]) for curve in ours}
        if not others:
            say("faiss is not installed: vecdb alone")
    if "memory" in given.parts:
        figures["bytes"] = {engine.name: engine.bytes_per_vector() for engine in engines}
    return figures


def measure_cold(data: Any, given: argparse.Namespace) -> dict[str, Any]:
    import vecdb
    from benchmarks.graphs.vector_sets import nearest_distances
    from benchmarks.lists import cold

    indexes = {"IVF 2-bit": vecdb.IVF(nlist=given.nlist), "IVFPQ": vecdb.IVFPQ(nlist=given.nlist)}
    return cold.measure(data, indexes, given.k[0], nearest_distances(data, given.k[0]), given.work)


def largest(sets: list[Callable[[], Any]]) -> Any:
    """The set whose float32 file is the largest."""
    found = None
    for load in sets:
        data = load()
        if found is None or data.vectors.nbytes > found.vectors.nbytes:
            found = data
    return found


def measure_others(sets: list[Callable[[], Any]], given: argparse.Namespace, line: dict[str, Any]) -> None:
    """The parts that choose their own data: drift is of the embeddings with sections, growth of the photos."""
    from benchmarks.graphs.vector_sets import photos
    from benchmarks.lists import drift, growth, large, tables

    if "drift" in given.parts:
        say("drift")
        line["drift"] = drift.measure(given.data, given.rows, given.nlist, given.rounds)
        print(f"\n{tables.drift(line['drift'])}", flush=True)
    if "growth" in given.parts and given.photos:
        say("growth")
        line["growth"] = growth.grow(photos(given.photos, given.rows), given.nlist, given.rounds, given.cache, say)
        print(f"\n{tables.growth(line['growth'])}", flush=True)
    if given.large:
        say("ten million")
        line["large"] = large.measure(given.large, given.nlist, given.rounds, given.work, say)
        print(f"\n{tables.large(line['large'])}", flush=True)
    if "cold" in given.parts and sets:
        say("little memory")
        line["cold"] = measure_cold(largest(sets), given)
        print(f"\n{tables.cold(line['cold'])}", flush=True)


def pinning() -> dict[str, Any]:
    return {"search_threads": 1, "build_threads": 2, "cpus": sorted(os.sched_getaffinity(0)), **ONE_THREAD}


def main() -> None:
    given = arguments()
    if INSIDE not in os.environ:
        enter(given)
    import vecdb
    from benchmarks.graphs import plot
    from benchmarks.lists import tables

    vecdb.warm_up()  # no figure holds the compilation of kernels
    line = line_of("ivf", {"pinning": pinning(), "rounds": given.rounds})
    sets, line["sets"] = vector_sets(given), []
    for load in sets if OF_A_SET & set(given.parts) else []:
        line["sets"].append(measure_set(load(), given))
        print(tables.report(line["sets"][-1]), flush=True)
    measure_others(sets, given, line)
    if "curves" in given.parts and line["sets"] and not plot.draw(line["sets"], given.plot):
        say("matplotlib is not installed: no picture is drawn")
    if not given.dry:
        append(line)


if __name__ == "__main__":
    main()
