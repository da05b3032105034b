"""Graph indexes in memory, all behind one door, so that all are measured by the same code in one process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Rows = NDArray[np.integer[Any]]

EF_CONSTRUCTION = 200
VECDB = "vecdb"
# The distributions of the peers, by the name that the command line uses; its module is benchmarks.graphs.<name>_graph.
PEERS = {"hnswlib": "hnswlib", "faiss": "faiss-cpu", "usearch": "usearch"}


class GraphEngine(Protocol):
    """A graph under one metric, "cosine" (vectors of unit length) or "l2"; what it returns are rows of its vectors."""

    name: str  # as tables show it, with its settings
    version: str  # of the library, with what decides its speed on this machine

    def build(self, vectors: F32, threads: int) -> float:
        """A new graph over `vectors`; seconds, of the graph alone."""
        ...

    def ready(self, queries: F32) -> Any:
        """Queries (n, dim) as `search` takes them; a slice of the result is the same queries sliced."""
        ...

    def search(self, queries: Any, k: int, ef: int) -> Rows:
        """Integers (n, k), nearest first, -1 where nothing was found; on one thread, one query after another."""
        ...

    def save(self, file: Path) -> None: ...

    def load(self, file: Path, vectors: F32) -> None: ...


def engines_of(library: str, metric: str, dim: int) -> list[GraphEngine]:
    """The settings of a library that are measured; this is what imports it."""
    module = importlib.import_module(f"benchmarks.graphs.{library}_graph")
    found: list[GraphEngine] = module.engines(metric, dim)
    return found
