"""vecdb's inverted lists themselves, without segments, ids and logs around them."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from benchmarks.graphs import F32, Rows
from benchmarks.graphs.vecdb_graph import aligned, source_version
from benchmarks.lists import ListEngine, probes
from vecdb.index.base import Index, load_kind
from vecdb.types import Matrix, Metric

BITS = (2, 1, 4, 8)  # the default first: what others are compared with
METRICS = {"cosine": Metric.COSINE, "l2": Metric.L2}


def matrix_of(vectors: F32, metric: str) -> Matrix:
    norms = None
    if metric == "cosine":
        norms = (1.0 / np.linalg.norm(vectors, axis=1)).astype(np.float32)
        norms.flags.writeable = False
    borrowed = vectors.view()
    borrowed.flags.writeable = False
    return Matrix(borrowed, norms, METRICS[metric])


class VecdbLists:
    """An index kind that scans lists, with its options."""

    index: Index

    def __init__(self, metric: str, options: Any, name: str) -> None:
        self.name = self.family = self.stored = name
        self.version, self.metric, self.options, self.nlist = source_version(), metric, options, options.nlist

    def efforts(self, k: int, rows: int) -> list[int]:
        return probes(self.nlist)

    def build(self, vectors: F32, threads: int) -> float:
        matrix = matrix_of(vectors, self.metric)
        begin = time.perf_counter()
        self.index = load_kind(self.options.kind).build(matrix, self.options, threads=threads)
        return time.perf_counter() - begin

    def ready(self, queries: F32) -> F32:
        return queries

    def search(self, queries: F32, k: int, ef: int) -> Rows:
        rows, _ = self.index.search(queries, k, nprobe=ef)
        return rows

    def save(self, file: Path) -> None:
        with file.open("wb") as out:
            np.savez(out, parameters=np.array(json.dumps(self.index.parameters())), **self.index.arrays())

    def load(self, file: Path, vectors: F32) -> None:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: aligned(stored[name]) for name in stored.files if name != "parameters"}
            parameters = json.loads(str(stored["parameters"]))
        matrix = matrix_of(vectors, self.metric)
        self.index = load_kind(self.options.kind).from_arrays(matrix, self.options, arrays, parameters)

    def bytes_per_vector(self) -> float:
        """Of its arrays, and of what it makes from them when it is opened."""
        found, kind = self.index, load_kind(self.options.kind)
        arrays, parameters = found.arrays(), found.parameters()
        rows = parameters["rows"]
        matrix = found.matrix  # type: ignore[attr-defined]
        tracemalloc.start()
        opened = kind.from_arrays(matrix, self.options, arrays, parameters)
        made, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del opened
        return float(sum(array.nbytes for array in arrays.values()) + made) / rows


def lists(metric: str, nlist: int, bits: int) -> VecdbLists:
    return VecdbLists(metric, vecdb.IVF(nlist=nlist, bits=bits), f"vecdb IVF {bits}-bit")


def product_lists(metric: str, nlist: int) -> list[VecdbLists]:
    """Product codes of 2 bits a dimension, as the default of the others."""
    kinds = {
        "4-bit": vecdb.IVFPQ(nlist),
        "8-bit": vecdb.IVFPQ(nlist, bits=8),
        "4-bit OPQ": vecdb.IVFPQ(nlist, rotation=True),
    }
    return [VecdbLists(metric, options, f"vecdb IVFPQ {name}") for name, options in kinds.items()]


def engines(metric: str, nlist: int) -> list[ListEngine]:
    return [*(lists(metric, nlist, bits) for bits in BITS), *product_lists(metric, nlist)]
