"""vecdb's graph index itself, without segments, ids and logs around it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from benchmarks.graphs import EF_CONSTRUCTION, F32, GraphEngine, Rows
from vecdb import memory
from vecdb.index.base import Index, load_kind
from vecdb.index.hnsw import HnswIndex
from vecdb.types import Matrix, Metric

METRICS = {"cosine": Metric.COSINE, "l2": Metric.L2}
SOURCES = Path(vecdb.__file__).parent


def source_version() -> str:
    """Version and a digest of the rooms that make the graph: a stored graph serves until one of them changes."""
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(file for room in ("index", "kernels") for file in (SOURCES / room).glob("*.py")):
        digest.update(file.read_bytes())
    return f"{vecdb.__version__}-{digest.hexdigest()}"


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that lies as arrays do that are built or mapped from files."""
    copy = memory.aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


def matrix_of(vectors: F32, metric: str) -> Matrix:
    """Borrowed, read-only; metric "cosine" or "l2"."""
    norms = None
    if metric == "cosine":
        norms = (1.0 / np.linalg.norm(vectors, axis=1)).astype(np.float32)
        norms.flags.writeable = False
    borrowed = vectors.view()
    borrowed.flags.writeable = False
    return Matrix(borrowed, norms, METRICS[metric])


def store(index: Index, file: Path) -> None:
    with file.open("wb") as out:
        np.savez(out, parameters=np.array(json.dumps(index.parameters())), **index.arrays())


def stored(kind: str, matrix: Matrix, options: Any, file: Path) -> Index:
    """The index that `store` wrote."""
    with np.load(file, allow_pickle=False) as found:
        arrays = {name: aligned(found[name]) for name in found.files if name != "parameters"}
        parameters = json.loads(str(found["parameters"]))
    return load_kind(kind).from_arrays(matrix, options, arrays, parameters)


class VecdbGraph:
    index: Index

    def __init__(self, metric: str, m: int = 16) -> None:
        self.name = f"vecdb M{m}"
        self.version = source_version()
        self.metric = metric
        self.options = vecdb.HNSW(m=m, ef_construction=EF_CONSTRUCTION)

    def build(self, vectors: F32, threads: int) -> float:
        matrix = matrix_of(vectors, self.metric)
        begin = time.perf_counter()
        self.index = HnswIndex.build(matrix, self.options, threads=threads)
        return time.perf_counter() - begin

    def ready(self, queries: F32) -> F32:
        return queries

    def search(self, queries: F32, k: int, ef: int) -> Rows:
        rows, _ = self.index.search(queries, k, ef=ef)
        return rows

    def save(self, file: Path) -> None:
        store(self.index, file)

    def load(self, file: Path, vectors: F32) -> None:
        self.index = stored("hnsw", matrix_of(vectors, self.metric), self.options, file)

    def bytes_per_vector(self) -> float:
        return sum(array.nbytes for array in self.index.arrays().values()) / self.index.indexed_rows


def engines(metric: str, dim: int) -> list[GraphEngine]:
    return [VecdbGraph(metric)]
