"""vecdb's inverted lists themselves, without segments, ids and logs around them."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import vecdb
from benchmarks.graphs import F32, Rows
from benchmarks.graphs.vecdb_graph import matrix_of, source_version, store, stored
from benchmarks.lists import ListEngine, probes
from vecdb.index.base import Index, load_kind
from vecdb.types import Matrix

BITS = (2, 1, 4, 8)  # the default first: what others are compared with


class VecdbLists:
    """An index kind that scans lists, with its options."""

    index: Index
    matrix: Matrix

    def __init__(self, metric: str, options: Any, name: str) -> None:
        self.name = self.family = self.stored = name
        self.version, self.metric, self.options, self.nlist = source_version(), metric, options, options.nlist

    def efforts(self, k: int, rows: int) -> list[int]:
        return probes(self.nlist)

    def build(self, vectors: F32, threads: int) -> float:
        return self.build_over(matrix_of(vectors, self.metric), threads)

    def build_over(self, matrix: Matrix, threads: int) -> float:
        self.matrix, begin = matrix, time.perf_counter()
        self.index = load_kind(self.options.kind).build(matrix, self.options, threads=threads)
        return time.perf_counter() - begin

    def ready(self, queries: F32) -> F32:
        return queries

    def search(self, queries: F32, k: int, ef: int) -> Rows:
        rows, _ = self.index.search(queries, k, nprobe=ef)
        return rows

    def save(self, file: Path) -> None:
        store(self.index, file)

    def load(self, file: Path, vectors: F32) -> None:
        self.matrix = matrix_of(vectors, self.metric)
        self.index = stored(self.options.kind, self.matrix, self.options, file)

    def bytes_per_vector(self) -> float:
        """Of its arrays, and of what it makes from them when it is opened."""
        found, kind = self.index, load_kind(self.options.kind)
        arrays, parameters = found.arrays(), found.parameters()
        tracemalloc.start()
        opened = kind.from_arrays(self.matrix, self.options, arrays, parameters)
        made, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del opened
        return float(sum(array.nbytes for array in arrays.values()) + made) / self.matrix.rows


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
