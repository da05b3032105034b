"""The data of the benchmarks: 384-dimensional embeddings of package descriptions, with their metadata.

A folder holds `debian-packages.parquet` (one row a record) and `debian-minilm-384.npy` (float16, the same order).
1,000 held-out rows are the queries; the rest is indexed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

K = 10
QUERIES = 1000
FIELDS = ("section", "arch", "installed_kb", "n_depends", "priority", "tags")

Condition = tuple[str, str, Any]  # (field, "==" | ">=" | "<=", value)

# Every filter is a conjunction; the share of the records that match is printed beside it.
FILTERS: dict[str, tuple[Condition, ...]] = {
    "none": (),
    "arch = all": (("arch", "==", "all"),),
    "section = libdevel": (("section", "==", "libdevel"),),
    "installed_kb >= 20000": (("installed_kb", ">=", 20000),),
    "section = science": (("section", "==", "science"),),
    "section = libs, kb >= 1000, depends <= 3": (
        ("section", "==", "libs"),
        ("installed_kb", ">=", 1000),
        ("n_depends", "<=", 3),
    ),
    "section = electronics": (("section", "==", "electronics"),),
}


@dataclass(frozen=True)
class Dataset:
    """ids[i], vectors[i] (float32, unit length) and payloads[i] belong together; queries are not among them."""

    ids: list[str]
    vectors: NDArray[np.float32]
    payloads: list[dict[str, Any]]
    queries: NDArray[np.float32]

    @functools.cached_property
    def row_of(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.ids)}

    def matching(self, conditions: tuple[Condition, ...]) -> NDArray[np.bool_]:
        """Which records match, by plain Python over the payloads."""
        tests = {"==": lambda a, b: a == b, ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b}
        return np.array([all(tests[op](p[field], value) for field, op, value in conditions) for p in self.payloads])

    def kth_distance(self, conditions: tuple[Condition, ...], k: int = K) -> NDArray[np.float32]:
        """float32 (queries,): the exact cosine distance of the k-th nearest matching record."""
        matching = self.vectors[self.matching(conditions)]
        distances = 1.0 - self.queries @ matching.T
        k = min(k, matching.shape[0])
        return np.partition(distances, k - 1, axis=1)[:, k - 1]

    def recall(self, found: list[list[str]], kth: NDArray[np.float32], k: int) -> float:
        """Mean share of the k nearest that was found; `k` is at most the number of records that match.

        A hit counts when it is as near as the exact k-th, so ties count as found.
        """
        hits = 0
        for query, ids, bound in zip(self.queries, found, kth, strict=False):
            rows = [self.row_of[key] for key in dict.fromkeys(ids)]
            hits += int(np.count_nonzero(1.0 - self.vectors[rows] @ query <= bound + 1e-6)) if rows else 0
        return hits / (k * len(found))


def load(folder: Path, records: int | None = None, queries: int = QUERIES) -> Dataset:
    """The records that are indexed and the first `queries` of the held-out rows; `records` takes a part only."""
    import pyarrow.parquet

    matrix = np.load(folder / "debian-minilm-384.npy", allow_pickle=False).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    order = np.random.default_rng(7).permutation(matrix.shape[0])
    kept = order[QUERIES:] if records is None else order[QUERIES : QUERIES + records]
    table = pyarrow.parquet.read_table(folder / "debian-packages.parquet", columns=["id", "text", *FIELDS])
    rows = table.take(kept).to_pylist()
    return Dataset(
        ids=[row["id"] for row in rows],
        vectors=matrix[kept],
        payloads=[{name: row[name] for name in ("text", *FIELDS)} for row in rows],
        queries=matrix[order[:queries]],
    )
