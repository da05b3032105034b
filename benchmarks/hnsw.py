"""The graph index beside hnswlib, FAISS and USearch: recall against speed, builds, bytes and threads.

    python -m benchmarks.hnsw PATH [--peers hnswlib,faiss,usearch] [--dims 384,768,1536] [--wide DIR] [--photos FILE]
        [--k 10,100] [--rounds 5] [--rows N] [--cache DIR] [--build [ROUNDS]] [--growth SIZES] [--plot FILE]

PATH has debian-minilm-384.npy; debian-768.npy and debian-1536.npy are looked up there and in --wide
(benchmarks/data/embed_parts.py makes them); --photos is the file of benchmarks/data/photo_descriptors.py.

All engines run in one process, with one thread for searches and two for builds, in the environment
.venv-peers/graphs, which is made on first use. Prints tables, draws the curves, appends one line of JSON to
benchmarks/results/history.jsonl. benchmarks/README.md has the rules.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.environments import ONE_THREAD, ROOT, environment, python_with
from benchmarks.graphs import PEERS, VECDB
from benchmarks.history import append, line_of

INSIDE = "VECDB_BENCHMARK_INSIDE"  # set in the process that measures
PARTS = ("single", "overhead", "scaling", "collection")
PLOT = ROOT / "benchmarks" / "results" / "hnsw.png"


def several(kind: Callable[[str], Any], allowed: Any = None) -> Callable[[str], list[Any]]:
    """Reads values that commas separate."""

    def read(text: str) -> list[Any]:
        values = [kind(part) for part in text.split(",") if part]
        unknown = [str(value) for value in values if allowed and value not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; there are {', '.join(map(str, allowed))}")
        return values

    return read


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, folder = parser.add_argument, lambda text: Path(text).resolve()
    add("data", type=folder, help="the folder with debian-minilm-384.npy")
    add("--wide", type=folder, help="the folder with debian-768.npy and debian-1536.npy, if that is another")
    add("--photos", type=folder, help="a file of descriptors, uint8 (1010000, 128)")
    add("--peers", type=several(str, PEERS), default=list(PEERS), help='comma-separated; "" is vecdb alone')
    add("--only", type=several(str), default=[], help="peers whose settings have one of these in their names: M16,SQ8")
    add("--dims", type=several(int, (384, 768, 1536)), default=[384, 768, 1536], help='of embeddings; "" is none')
    add("--k", type=several(int), default=[10, 100])
    add("--rounds", type=int, default=5)
    add("--rows", type=int, help="measure on a part of the data")
    add("--parts", type=several(str, PARTS), default=list(PARTS), help="beside the curves: " + ",".join(PARTS))
    add("--build", type=int, nargs="?", const=1, default=0, metavar="ROUNDS", help="time the builds of all engines")
    add("--growth", type=several(int), default=[], help="vecdb on this many rows of the photos: 10000,100000,1000000")
    add("--cache", type=folder, help="where graphs are kept for the next run")
    add("--work", type=folder, help="where databases are made (default: the temporary directory)")
    add("--plot", type=folder, default=PLOT, help="the picture of the curves")
    add("--python", help="an interpreter that has vecdb and the peers (default: one is made)")
    add("--dry", action="store_true", help="do not append to the history")
    given = parser.parse_args()
    if given.growth and not given.photos:
        parser.error("--growth is measured on --photos")
    return given


def enter(given: argparse.Namespace) -> None:
    """Becomes the process that measures: pools have one thread, which libraries read when they are imported."""
    python = given.python or sys.executable
    if given.peers and not given.python:
        python = python_with("graphs", *PEERS.values(), "matplotlib", "--editable", str(ROOT))
    command = [python, "-m", "benchmarks.hnsw", *sys.argv[1:]]
    os.execve(python, command, {**environment(searching=True), INSIDE: "1"})


def vector_sets(given: argparse.Namespace) -> list[Callable[[], Any]]:
    """What to measure, loaded one after the other; a file that is not there is said and left out."""
    from benchmarks.graphs.vector_sets import EMBEDDINGS, embeddings, photos

    sets: list[Callable[[], Any]] = []
    for dim in given.dims:
        places = [folder / EMBEDDINGS[dim] for folder in (given.data, given.wide) if folder]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            print(f"  {EMBEDDINGS[dim]} is not there and left out", file=sys.stderr)
        else:
            sets.append(lambda file=file: embeddings(file, given.rows))
    return [*sets, *([lambda: photos(given.photos, given.rows)] if given.photos else [])]


def measure_set(data: Any, given: argparse.Namespace) -> dict[str, Any]:
    """All figures of one set of vectors."""
    from benchmarks.graphs import costs, curves, engines_of
    from benchmarks.graphs.vector_sets import nearest_distances

    ours = engines_of(VECDB, data.metric, data.dim)[0]
    peers = [engine for library in given.peers for engine in engines_of(library, data.metric, data.dim)]
    engines = [ours, *(e for e in peers if not given.only or any(part in e.name for part in given.only))]
    figures: dict[str, Any] = {"name": data.name, "rows": len(data.vectors), "metric": data.metric}
    figures |= {"versions": {engine.name: engine.version for engine in engines}, "curves": {}, "ratios": {}}
    figures["modes"] = ["batch", *(["single"] if "single" in given.parts else [])]
    with costs.Collection(data.metric, given.work) as collection:
        fill = (lambda: collection.fill(data.vectors)) if "collection" in given.parts else None
        seconds, ingest = costs.prepare(engines, data, given.cache, given.build, fill)
        if given.build:
            figures["build"] = costs.build_figures(seconds, ours.name, ingest)
        nearest = nearest_distances(data, max(given.k))
        for k in given.k:
            print(
                f"  {data.name}, k = {k}: {given.rounds} rounds of {len(engines)} engines", file=sys.stderr, flush=True
            )
            found = curves.measure(engines, data, k, nearest, given.rounds, "single" in given.parts)
            figures["curves"][str(k)] = {curve.engine.name: curves.figures(curve) for curve in found}
            figures["ratios"][str(k)] = curves.compare(found)
        figures |= costs.own_figures(ours, data, given.k[0], given.rounds, given.parts, collection)
    return figures


def pinning() -> dict[str, Any]:
    return {"search_threads": 1, "build_threads": 2, "cpus": sorted(os.sched_getaffinity(0)), **ONE_THREAD}


def main() -> None:
    given = arguments()
    if INSIDE not in os.environ:
        enter(given)
    import vecdb
    from benchmarks.graphs import costs, plot, tables
    from benchmarks.graphs.vector_sets import photos

    vecdb.warm_up()  # no figure holds the compilation of kernels
    line = line_of("hnsw", {"pinning": pinning(), "rounds": given.rounds})
    line["sets"] = []
    for load in vector_sets(given):
        line["sets"].append(measure_set(load(), given))
        print(tables.report(line["sets"][-1]), flush=True)
    if given.growth:
        line["growth"] = costs.growth(photos(given.photos, None), given.growth, given.rounds)
        print(f"\n{tables.growth(line['growth'])}")
    if line["sets"] and not plot.draw(line["sets"], given.plot):
        print("  matplotlib is not installed: no picture is drawn", file=sys.stderr)
    if not given.dry:
        append(line)


if __name__ == "__main__":
    main()
