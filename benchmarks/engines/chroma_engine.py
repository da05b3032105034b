"""Chroma in its embedded form: HNSW beside SQLite. Lists of strings are metadata only when not empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings
from numpy.typing import NDArray

from benchmarks.dataset import Condition


class Adapter:
    efs: tuple[int | None, ...] = (64, 128, 256, 512)

    def create(self, path: Path, dim: int) -> None:
        self.client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
        hnsw = {"space": "cosine", "max_neighbors": 16, "ef_construction": 200, "num_threads": 2}
        self.collection = self.client.create_collection("docs", configuration={"hnsw": hnsw}, embedding_function=None)
        self.ef: int | None = None

    def open(self, path: Path) -> None:
        self.client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
        self.collection = self.client.get_collection("docs", embedding_function=None)
        self.ef = None

    def upsert(self, ids: list[str], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        metadatas = [
            {name: value for name, value in payload.items() if name != "text" and value not in (None, [])}
            for payload in payloads
        ]
        texts = [payload["text"] for payload in payloads]
        self.collection.upsert(ids=ids, embeddings=vectors, metadatas=metadatas, documents=texts)

    def optimize(self) -> None:
        """Nothing to call: the graph is updated while records arrive."""

    def filter(self, conditions: tuple[Condition, ...]) -> dict[str, Any] | None:
        names = {"==": "$eq", ">=": "$gte", "<=": "$lte"}
        parts = [{field: {names[op]: value}} for field, op, value in conditions]
        return None if not parts else parts[0] if len(parts) == 1 else {"$and": parts}

    def search(
        self, query: NDArray[np.float32], k: int, where: dict[str, Any] | None, ef: int | None
    ) -> tuple[list[str], list[dict[str, Any]]]:
        if ef is not None and ef != self.ef:
            self.collection.modify(configuration={"hnsw": {"ef_search": ef}})
            self.ef = ef
        found = self.collection.query(
            query_embeddings=[query], n_results=k, where=where, include=["metadatas", "documents", "distances"]
        )
        return found["ids"][0], found["metadatas"][0]

    def plan(self, query: NDArray[np.float32], k: int, where: dict[str, Any] | None, ef: int | None) -> str:
        return f"ef {ef}"

    def first_indexed(self, query: NDArray[np.float32], k: int) -> bool:
        return False

    def close(self) -> None:
        self.client.close()
