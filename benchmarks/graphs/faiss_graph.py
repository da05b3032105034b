"""FAISS: HNSW over float32 and over 8-bit scalar-quantised vectors."""

from __future__ import annotations

import time
from pathlib import Path

import faiss

from benchmarks.graphs import EF_CONSTRUCTION, F32, GraphEngine, Rows

LINKS = (16, 24)


class FaissGraph:
    def __init__(self, metric: str, dim: int, m: int, quantised: bool = False) -> None:
        self.name = f"faiss {'sq8' if quantised else 'f32'} M{m}"
        self.version = f"{faiss.__version__} ({faiss.get_compile_options().strip()})"
        self.metric = {"cosine": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[metric]
        self.dim, self.m, self.quantised = dim, m, quantised

    def build(self, vectors: F32, threads: int) -> float:
        faiss.omp_set_num_threads(threads)
        begin = time.perf_counter()
        if self.quantised:
            self.index = faiss.IndexHNSWSQ(self.dim, faiss.ScalarQuantizer.QT_8bit, self.m, self.metric)
        else:
            self.index = faiss.IndexHNSWFlat(self.dim, self.m, self.metric)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.train(vectors)
        self.index.add(vectors)
        seconds = time.perf_counter() - begin
        faiss.omp_set_num_threads(1)
        return seconds

    def ready(self, queries: F32) -> F32:
        return queries

    def search(self, queries: F32, k: int, ef: int) -> Rows:
        self.index.hnsw.efSearch = ef
        _, rows = self.index.search(queries, k)
        return rows

    def save(self, file: Path) -> None:
        faiss.write_index(self.index, str(file))

    def load(self, file: Path, vectors: F32) -> None:
        self.index = faiss.read_index(str(file))
        faiss.omp_set_num_threads(1)


def engines(metric: str, dim: int) -> list[GraphEngine]:
    return [*(FaissGraph(metric, dim, m) for m in LINKS), FaissGraph(metric, dim, 16, quantised=True)]
