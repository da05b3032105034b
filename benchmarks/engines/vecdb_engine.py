"""vecdb itself, through its public API only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from benchmarks.dataset import Condition


class Adapter:
    # First what it does by itself: under a filter an ef is the width of the walk, whatever of it matches.
    efs: tuple[int | None, ...] = (None, 64, 96, 128, 192, 256, 384, 512)

    def create(self, path: Path, dim: int) -> None:
        self.database = vecdb.open(path, sync="full")
        index = vecdb.HNSW(m=16, ef_construction=200)
        self.docs = self.database.create_collection("docs", dim=dim, metric="cosine", index=index)

    def open(self, path: Path) -> None:
        self.database = vecdb.open(path)
        self.docs = self.database.get_collection("docs")

    def upsert(self, ids: list[str], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        self.docs.upsert(ids=ids, vectors=vectors, payloads=payloads)

    def optimize(self) -> None:
        self.docs.optimize()

    def filter(self, conditions: tuple[Condition, ...]) -> dict[str, Any] | None:
        names = {"==": "$eq", ">=": "$gte", "<=": "$lte"}
        return {field: {names[op]: value} for field, op, value in conditions} or None

    def search(
        self, query: NDArray[np.float32], k: int, where: dict[str, Any] | None, ef: int | None
    ) -> tuple[list[str], list[dict[str, Any]]]:
        hits = self.docs.search(query, k=k, where=where, ef=ef)
        return list(hits.ids), [hit.payload for hit in hits]

    def plan(self, query: NDArray[np.float32], k: int, where: dict[str, Any] | None, ef: int | None) -> str:
        arms = [str(segment.plan.arm) for segment in self.docs.explain(query, k=k, where=where).segments]
        return f"ef {ef}, {' and '.join(dict.fromkeys(arms))}"

    def first_indexed(self, query: NDArray[np.float32], k: int) -> bool:
        """The first searches of a process are answered by NumPy; explain() waits for the kernels."""
        self.docs.explain(query, k=k)
        self.docs.search(query, k=k)
        return True

    def close(self) -> None:
        self.database.close()
