"""LanceDB: IVF with HNSW-SQ inside and refinement, scalar indexes on the filtered fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.dataset import FIELDS, Condition

INTEGERS = ("installed_kb", "n_depends")


class Adapter:
    efs: tuple[int | None, ...] = (64, 128, 256, 512)

    def create(self, path: Path, dim: int) -> None:
        self.dim = dim
        names = [("id", pa.string()), ("text", pa.string()), ("vector", pa.list_(pa.float32(), dim))]
        kinds = {"tags": pa.list_(pa.string()), **dict.fromkeys(INTEGERS, pa.int64())}
        self.schema = pa.schema([*names, *((name, kinds.get(name, pa.string())) for name in FIELDS)])
        self.table = lancedb.connect(str(path)).create_table("docs", schema=self.schema)

    def open(self, path: Path) -> None:
        self.table = lancedb.connect(str(path)).open_table("docs")

    def upsert(self, ids: list[str], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        columns: dict[str, Any] = {name: [payload[name] for payload in payloads] for name in ("text", *FIELDS)}
        columns["id"] = ids
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        # Every id is new here, so adding is what an upsert comes to; merge_insert would be slower.
        self.table.add(pa.table(columns, schema=self.schema))

    def optimize(self) -> None:
        self.table.optimize()
        self.table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=16, ef_construction=200)
        for name in ("section", "arch", "priority"):
            self.table.create_scalar_index(name, index_type="BITMAP")
        for name in INTEGERS:
            self.table.create_scalar_index(name, index_type="BTREE")

    def filter(self, conditions: tuple[Condition, ...]) -> str | None:
        parts = [f"{field} {'=' if op == '==' else op} {value!r}" for field, op, value in conditions]
        return " AND ".join(parts) or None

    def search(
        self, query: NDArray[np.float32], k: int, where: str | None, ef: int | None
    ) -> tuple[list[str], list[dict[str, Any]]]:
        asked = self.table.search(query).distance_type("cosine").limit(k).ef(ef or 128).refine_factor(4)
        asked = asked.select(["id", "text", *FIELDS, "_distance"])
        rows = (asked.where(where, prefilter=True) if where else asked).to_list()
        return [row["id"] for row in rows], rows

    def plan(self, query: NDArray[np.float32], k: int, where: str | None, ef: int | None) -> str:
        return f"ef {ef}, refined 4x"

    def first_indexed(self, query: NDArray[np.float32], k: int) -> bool:
        return False

    def close(self) -> None:
        del self.table
