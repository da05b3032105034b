"""One adapter per engine, all behind the same door, so that all are measured by the same code.

An adapter imports its engine and nothing of the others: each is measured in a process and an environment of its own.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import Condition

# The distribution that an engine's environment gets beside numpy, pyarrow and psutil.
PEERS = {
    "zvec": "zvec",
    "zvec-int8": "zvec",
    "qdrant-edge": "qdrant-edge-py",
    "chroma": "chromadb",
    "lancedb": "lancedb",
}
MODULES = {
    "vecdb": "vecdb_engine",
    "zvec": "zvec_engine",
    "zvec-int8": "zvec_int8_engine",
    "qdrant-edge": "qdrant_engine",
    "chroma": "chroma_engine",
    "lancedb": "lancedb_engine",
}


class Engine(Protocol):
    """What is asked of every engine. Cosine distance; searches return ids and whole payloads, nearest first."""

    efs: tuple[int | None, ...]  # search efforts to try, cheapest first; None is the engine's own choice

    def create(self, path: Path, dim: int) -> None: ...

    def open(self, path: Path) -> None: ...

    def upsert(self, ids: list[str], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None: ...

    def optimize(self) -> None: ...

    def filter(self, conditions: tuple[Condition, ...]) -> Any: ...

    def search(
        self, query: NDArray[np.float32], k: int, where: Any, ef: int | None
    ) -> tuple[list[str], list[dict[str, Any]]]: ...

    def plan(self, query: NDArray[np.float32], k: int, where: Any, ef: int | None) -> str: ...

    def first_indexed(self, query: NDArray[np.float32], k: int) -> bool:
        """Searches until an index answered; False when the very first search was already answered by one."""
        ...

    def close(self) -> None: ...


def make(name: str) -> Engine:
    """The engine's adapter; this is what imports the engine."""
    engine: Engine = importlib.import_module(f"benchmarks.engines.{MODULES[name]}").Adapter()
    return engine
