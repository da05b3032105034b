"""USearch: HNSW over float32 and over 8-bit integers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import usearch
from usearch.index import Index

from benchmarks.graphs import EF_CONSTRUCTION, F32, GraphEngine, Rows

LINKS = 16


class UsearchGraph:
    def __init__(self, metric: str, dim: int, kind: str) -> None:
        self.name = f"usearch {kind} M{LINKS}"
        self.metric, self.dim, self.kind = metric, dim, kind
        self.index = self._empty()
        self.version = f"{usearch.__version__} ({self.index.hardware_acceleration})"

    def _empty(self) -> Index:
        metric = {"cosine": "cos" if self.kind == "i8" else "ip", "l2": "l2sq"}[self.metric]
        return Index(ndim=self.dim, metric=metric, dtype=self.kind, connectivity=LINKS, expansion_add=EF_CONSTRUCTION)

    def ready(self, queries: F32) -> Any:
        """Descriptors of 0 to 255 lose nothing as int8 around 128; unit vectors are quantised by the library."""
        return (queries - 128.0).astype(np.int8) if self.kind == "i8" and self.metric == "l2" else queries

    def build(self, vectors: F32, threads: int) -> float:
        keys, taken = np.arange(len(vectors), dtype=np.uint64), self.ready(vectors)
        begin = time.perf_counter()
        self.index = self._empty()
        self.index.add(keys, taken, threads=threads)
        return time.perf_counter() - begin

    def search(self, queries: Any, k: int, ef: int) -> Rows:
        self.index.expansion_search = ef
        matches = self.index.search(queries, k, threads=1)
        rows = np.atleast_2d(matches.keys.view(np.int64))  # one query alone: 1-d, as long as there are hits
        if rows.shape[1] < k:
            return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)
        if len(queries) > 1 and matches.counts.min() < k:
            return np.where(np.arange(k) < matches.counts[:, None], rows, -1)
        return rows

    def save(self, file: Path) -> None:
        self.index.save(str(file))

    def load(self, file: Path, vectors: F32) -> None:
        self.index = self._empty()
        self.index.load(str(file))


def engines(metric: str, dim: int) -> list[GraphEngine]:
    return [UsearchGraph(metric, dim, kind) for kind in ("f32", "i8")]
