"""Qdrant Edge: HNSW over float32, payload indexes created before the graph, as its filtering wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from numpy.typing import NDArray

from benchmarks.dataset import Condition

INDEXED = {
    "section": qdrant.PayloadSchemaType.Keyword,
    "arch": qdrant.PayloadSchemaType.Keyword,
    "priority": qdrant.PayloadSchemaType.Keyword,
    "tags": qdrant.PayloadSchemaType.Keyword,
    "installed_kb": qdrant.PayloadSchemaType.Integer,
    "n_depends": qdrant.PayloadSchemaType.Integer,
}


class Adapter:
    efs: tuple[int | None, ...] = (64, 96, 128, 192, 256, 384, 512)

    def __init__(self) -> None:
        self.count = 0  # ids must be integers or UUIDs; the name goes into the payload

    def create(self, path: Path, dim: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        hnsw = qdrant.HnswIndexConfig(m=16, ef_construct=200, full_scan_threshold=10_000, max_indexing_threads=2)
        config = qdrant.EdgeConfig(
            vectors=qdrant.EdgeVectorParams(size=dim, distance=qdrant.Distance.Cosine, hnsw_config=hnsw),
            max_search_threads=1,
        )
        self.shard = qdrant.EdgeShard.create(str(path), config)
        for name, kind in INDEXED.items():
            self.shard.update(qdrant.UpdateOperation.create_field_index(name, kind))

    def open(self, path: Path) -> None:
        self.shard = qdrant.EdgeShard.load(str(path))

    def upsert(self, ids: list[str], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        points = [
            qdrant.Point(self.count + n, vector.tolist(), {**payload, "id": key})
            for n, (key, vector, payload) in enumerate(zip(ids, vectors, payloads, strict=True))
        ]
        self.count += len(ids)
        self.shard.update(qdrant.UpdateOperation.upsert_points(points))

    def optimize(self) -> None:
        self.shard.optimize()
        self.shard.flush()

    def filter(self, conditions: tuple[Condition, ...]) -> qdrant.Filter | None:
        bounds = {">=": "gte", "<=": "lte"}
        must = [
            qdrant.FieldCondition(field, match=qdrant.MatchValue(value))
            if op == "=="
            else qdrant.FieldCondition(field, range=qdrant.RangeFloat(**{bounds[op]: value}))
            for field, op, value in conditions
        ]
        return qdrant.Filter(must=must) if must else None

    def search(
        self, query: NDArray[np.float32], k: int, where: qdrant.Filter | None, ef: int | None
    ) -> tuple[list[str], list[dict[str, Any]]]:
        request = qdrant.QueryRequest(
            limit=k,
            query=qdrant.Query.Nearest(query.tolist()),
            filter=where,
            with_payload=True,
            params=qdrant.SearchParams(hnsw_ef=ef),
        )
        payloads = [point.payload for point in self.shard.query(request)]
        return [payload["id"] for payload in payloads], payloads

    def plan(self, query: NDArray[np.float32], k: int, where: qdrant.Filter | None, ef: int | None) -> str:
        return f"ef {ef}"

    def first_indexed(self, query: NDArray[np.float32], k: int) -> bool:
        return False

    def close(self) -> None:
        self.shard.flush()
        self.shard.close()
