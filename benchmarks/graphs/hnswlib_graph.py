"""hnswlib: the reference implementation of HNSW, float32."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path

import hnswlib
import numpy as np

from benchmarks.graphs import EF_CONSTRUCTION, F32, GraphEngine, Rows

LINKS = (12, 16, 24)


class HnswlibGraph:
    def __init__(self, metric: str, dim: int, m: int) -> None:
        self.name = f"hnswlib M{m}"
        self.version = importlib.metadata.version("hnswlib")
        self.space, self.dim, self.m = {"cosine": "ip", "l2": "l2"}[metric], dim, m

    def build(self, vectors: F32, threads: int) -> float:
        begin = time.perf_counter()
        self.index = hnswlib.Index(self.space, self.dim)
        self.index.init_index(len(vectors), M=self.m, ef_construction=EF_CONSTRUCTION)
        self.index.add_items(vectors, num_threads=threads)
        seconds = time.perf_counter() - begin
        self.index.set_num_threads(1)
        return seconds

    def ready(self, queries: F32) -> F32:
        return queries

    def search(self, queries: F32, k: int, ef: int) -> Rows:
        self.index.set_ef(ef)
        labels, _ = self.index.knn_query(queries, k, num_threads=1)
        return labels.view(np.int64)

    def save(self, file: Path) -> None:
        self.index.save_index(str(file))

    def load(self, file: Path, vectors: F32) -> None:
        self.index = hnswlib.Index(self.space, self.dim)
        self.index.load_index(str(file), max_elements=len(vectors))
        self.index.set_num_threads(1)


def engines(metric: str, dim: int) -> list[GraphEngine]:
    return [HnswlibGraph(metric, dim, m) for m in LINKS]
