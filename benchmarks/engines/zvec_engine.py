"""zvec: HNSW over float32, an inverted index on every filtered field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zvec
from numpy.typing import NDArray

from benchmarks.dataset import FIELDS, Condition

TYPES = {"installed_kb": zvec.DataType.INT64, "n_depends": zvec.DataType.INT64, "tags": zvec.DataType.ARRAY_STRING}


class Adapter:
    efs: tuple[int | None, ...] = (64, 96, 128, 192, 256, 384, 512)
    quantiser = zvec.QuantizeType.UNDEFINED
    refined = False

    def __init__(self) -> None:
        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1)

    def create(self, path: Path, dim: int) -> None:
        index = zvec.HnswIndexParam(
            metric_type=zvec.MetricType.COSINE, m=16, ef_construction=200, quantize_type=self.quantiser
        )
        fields = [
            zvec.FieldSchema(
                name,
                TYPES.get(name, zvec.DataType.STRING),
                nullable=True,
                index_param=zvec.InvertIndexParam(enable_range_optimization=name in ("installed_kb", "n_depends")),
            )
            for name in FIELDS
        ]
        fields.append(zvec.FieldSchema("text", zvec.DataType.STRING, nullable=True))
        vector = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, dim, index_param=index)
        self.collection = zvec.create_and_open(str(path), zvec.CollectionSchema("docs", fields, [vector]))

    def open(self, path: Path) -> None:
        self.collection = zvec.open(str(path))

    def upsert(self, ids: list[str], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        docs = [
            zvec.Doc(key, vectors={"vector": vector}, fields=payload)
            for key, vector, payload in zip(ids, vectors, payloads, strict=True)
        ]
        failed = [status for status in self.collection.upsert(docs) if not status.ok()]
        if failed:
            raise RuntimeError(f"zvec refused {len(failed)} records: {failed[0].message()}")

    def optimize(self) -> None:
        self.collection.flush()
        self.collection.optimize(option=zvec.OptimizeOption(concurrency=2))

    def filter(self, conditions: tuple[Condition, ...]) -> str | None:
        parts = [f"{field} {'=' if op == '==' else op} {value!r}" for field, op, value in conditions]
        return " and ".join(parts) or None

    def search(
        self, query: NDArray[np.float32], k: int, where: str | None, ef: int | None
    ) -> tuple[list[str], list[dict[str, Any]]]:
        effort = zvec.HnswQueryParam(ef=ef or 300, is_using_refiner=self.refined)
        asked = zvec.Query("vector", vector=query, param=effort)
        found = self.collection.query(asked, topk=k, filter=where)
        return [doc.id for doc in found], [doc.fields for doc in found]

    def plan(self, query: NDArray[np.float32], k: int, where: str | None, ef: int | None) -> str:
        return f"ef {ef}"

    def first_indexed(self, query: NDArray[np.float32], k: int) -> bool:
        return False

    def close(self) -> None:
        self.collection.close()
