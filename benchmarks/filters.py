"""Filtered search on real data: every arm at every selectivity, and whether the planner picks the right one.

    python -m benchmarks.filters DATA [--peers zvec,zvec-int8,qdrant-edge] [--sweep 200]

The collection API, one thread, payloads read: the filters of the data set, powers of two of selectivity, filters that
have to do with where the query lies (its own section, far ones, the other half of the space), long lists of values,
ranges of time, several conditions, and random filters. Each is asked by every arm and by the planner's choice. Prints
tables; writes results/filters.png where matplotlib is installed; appends a line of JSON to results/history.jsonl.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import vecdb
from benchmarks.environments import ROOT, environment, python_of
from benchmarks.filtering.arms import arms_of, build, measure
from benchmarks.filtering.cases import all_cases, prepare, sweep
from benchmarks.filtering.tables import draw, report, summary
from benchmarks.history import HISTORY, append, line_of
from benchmarks.hnsw import several

PEERS = ("zvec", "zvec-int8", "qdrant-edge")
PEER_S = 3600
SWEEP_QUERIES = 30


def run(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """(figures by case, arms)"""
    data, fields = prepare(given.data, given.records)
    with tempfile.TemporaryDirectory(prefix="vecdb-filters-", dir=given.work) as folder:
        database, docs = build(Path(folder) / "data", data, given.index)
        with database:
            arms = arms_of(docs, data.queries[0])
            cases = list(all_cases(data, fields, given.queries))
            cases += list(sweep(data, fields, given.sweep, min(given.queries, SWEEP_QUERIES)))
            found = {}
            for case in cases:
                found[f"{case.table}: {case.name}"] = measure(docs, data, case, arms, given.rounds)
                print(f"  {case.table}: {case.name}", file=sys.stderr, flush=True)
    return found, arms


def peer(name: str, given: argparse.Namespace) -> dict[str, Any]:
    command = [python_of(name), "-m", "benchmarks.filtering.peer", name, str(given.data)]
    command += ["--queries", str(given.queries)]
    command += ["--records", str(given.records)] if given.records else []
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PEER_S, cwd=ROOT, env=environment(searching=True)
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with debian-packages.parquet and debian-minilm-384.npy")
    parser.add_argument("--peers", type=several(str, PEERS), default=[], help="comma-separated: " + ", ".join(PEERS))
    parser.add_argument("--index", default="hnsw", choices=("hnsw", "ivf", "flat", "auto"), help="default: hnsw")
    parser.add_argument("--queries", type=int, default=200, help="of each case, at most (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="times that the arms take turns (default: 3)")
    parser.add_argument("--sweep", type=int, default=200, help="random filters (default: 200)")
    parser.add_argument("--records", type=int, help="measure on a part of the data")
    parser.add_argument("--work", type=Path, help="where the database is made (default: the temporary directory)")
    parser.add_argument("--dry", action="store_true", help="do not append to the history, draw nothing")
    given = parser.parse_args()
    given.data = given.data.resolve()
    cases, arms = run(given)
    peers = {name: peer(name, given) for name in given.peers}
    print(report(cases, arms, peers))
    swept = {key: one for key, one in cases.items() if key.startswith("sweep: ")}
    kept = {key: one for key, one in cases.items() if key not in swept}
    if given.dry:
        return
    figures: dict[str, Any] = {"version": vecdb.__version__, "index": given.index, "cases": kept, "peers": peers}
    if swept:
        figures["sweep"] = summary(swept)
    append(line_of("filters", figures))
    if importlib.util.find_spec("matplotlib") is not None:
        draw(cases, arms, HISTORY.parent / "filters.png")


if __name__ == "__main__":
    main()
