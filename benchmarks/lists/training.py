"""Training and adding beside FAISS, and how near the rows are to the centroids of both.

A process of its own, because pools of two threads are told so before libraries are imported:

    python -m benchmarks.lists.training FILE METRIC NLIST ROUNDS

FILE is a .npy of float32 vectors. Prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import ROOT, THREADS, environment
from benchmarks.graphs import F32
from benchmarks.graphs.costs import BUILD_THREADS, quartiles
from benchmarks.graphs.curves import paired
from benchmarks.graphs.vector_sets import VectorSet
from benchmarks.lists import ITERATIONS, SAMPLE_EACH

BLOCK = 8192  # rows that are compared with all centroids at once


def objective(vectors: F32, centroids: F32) -> float:
    """The mean squared distance of all rows to their nearest centroid.

    float32 products choose the centroid, float64 measures the distance.
    """
    norms, total = np.einsum("ij,ij->i", centroids, centroids), 0.0
    for first in range(0, len(vectors), BLOCK):
        rows = vectors[first : first + BLOCK]
        nearest = (norms - 2.0 * rows @ centroids.T).argmin(1)
        rest = rows.astype(np.float64) - centroids[nearest]
        total += float(np.einsum("ij,ij->", rest, rest))
    return total / len(vectors)


def ours(vectors: F32, metric: str, nlist: int) -> tuple[dict[str, float], F32]:
    """Seconds by stage, and the centroids. The whole build ends with the measurement of recall by lists scanned."""
    from benchmarks.lists.vecdb_lists import lists, matrix_of
    from vecdb.index.clustering import ITERATIONS as OURS
    from vecdb.index.two_levels import train

    assert OURS == ITERATIONS
    matrix = matrix_of(vectors, metric)
    begin = time.perf_counter()
    train(matrix, nlist, threads=BUILD_THREADS, sample=SAMPLE_EACH * nlist)
    seconds = {"training alone": time.perf_counter() - begin}
    built = lists(metric, nlist, 2)
    seconds["whole"] = built.build(vectors, BUILD_THREADS)
    return seconds, built.index.grouping.centroids.values()


def theirs(vectors: F32, recipe: str) -> tuple[dict[str, float], F32]:
    from benchmarks.lists.faiss_lists import Built

    built = Built(vectors.shape[1], recipe, "l2", alike=True)
    training, adding = built.build(vectors, BUILD_THREADS)
    return {"training alone": training, "whole": training + adding}, built.centroids()


def measure(vectors: F32, metric: str, nlist: int, rounds: int) -> dict[str, Any]:
    """Seconds by engine and stage, ratios of each round (below 1 where we take less), objectives."""
    import vecdb

    vecdb.warm_up()
    kinds: dict[str, Any] = {"vecdb IVF 2-bit": lambda: ours(vectors, metric, nlist)}
    if find_spec("faiss") is not None:
        for code in ("Flat", f"PQ{vectors.shape[1] // 2}x4fsr,RFlat"):
            kinds[f"faiss {code}"] = lambda code=code: theirs(vectors, f"IVF{nlist},{code}")
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in kinds}
    objectives: dict[str, float] = {}
    for number in range(rounds):
        for turn in range(len(kinds)):
            name = list(kinds)[(turn + number) % len(kinds)]
            taken, centroids = kinds[name]()
            for stage, value in taken.items():
                seconds[name].setdefault(stage, []).append(value)
            if name not in objectives:  # one seed gives one result
                objectives[name] = objective(vectors, centroids)
    mine = next(iter(kinds))
    ratios = {
        name: {stage: paired(values, seconds[mine][stage]) for stage, values in stages.items()}
        for name, stages in seconds.items()
        if name != mine
    }
    medians = {name: {stage: quartiles(v) for stage, v in stages.items()} for name, stages in seconds.items()}
    return {"threads": BUILD_THREADS, "nlist": nlist, "sample_each": SAMPLE_EACH, "iterations": ITERATIONS,
            "seconds": medians, "ratios": ratios, "objective": objectives}  # fmt: skip


def in_process(data: VectorSet, nlist: int, rounds: int) -> dict[str, Any]:
    """`measure` in a process whose pools have BUILD_THREADS threads each."""
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder:
        file = Path(folder) / "vectors.npy"
        np.save(file, data.vectors)
        command = [sys.executable, "-m", "benchmarks.lists.training", str(file), data.metric, str(nlist), str(rounds)]
        pools = dict.fromkeys(THREADS, str(BUILD_THREADS))
        done = subprocess.run(command, env=environment(False) | pools, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    file, metric, *numbers = sys.argv[1:]
    vectors = np.load(file, allow_pickle=False)
    print(json.dumps(measure(vectors, metric, *map(int, numbers))))
