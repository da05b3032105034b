"""The vectors of the graph benchmark, their exact neighbours, and what counts as found.

Rows are shuffled by default_rng(7); the first 1,000 are the queries, the rest is indexed, as in benchmarks/dataset.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import QUERIES
from benchmarks.graphs import F32, F64, Rows

EMBEDDINGS = {384: "debian-minilm-384.npy", 768: "debian-768.npy", 1536: "debian-1536.npy"}
PHOTO_ROWS = 1_000_000
BLOCK = 16_384  # rows that are compared with all queries at once
SPARE = 32  # candidates beyond k, because float32 chooses them and float64 orders them
TIE = 1e-6  # of the distance: a hit that is farther than the k-th by less is as near


@dataclass(frozen=True)
class VectorSet:
    """vectors and queries, float32; metric "cosine" (both of unit length) or "l2" (squared Euclidean distance)."""

    name: str
    metric: str
    vectors: F32
    queries: F32

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def digest(self) -> str:
        """Names the indexed vectors and their metric, for files that are kept."""
        state = hashlib.blake2b(repr((self.metric, self.vectors.shape)).encode(), digest_size=8)
        state.update(self.vectors.data)
        return state.hexdigest()

    def distances(self, query: int, rows: Rows) -> F64:
        """float64 (len(rows),): the exact distances of one query."""
        near, asked = self.vectors[rows].astype(np.float64), self.queries[query].astype(np.float64)
        return np.asarray(((near - asked) ** 2).sum(1) if self.metric == "l2" else 1.0 - near @ asked)

    def part(self, rows: int) -> VectorSet:
        return VectorSet(self.name, self.metric, self.vectors[:rows], self.queries)


def embeddings(file: Path, rows: int | None) -> VectorSet:
    stored = np.load(file, allow_pickle=False, mmap_mode="r")
    order = np.random.default_rng(7).permutation(len(stored))
    queries, vectors = (unit(stored[part]) for part in (order[:QUERIES], order[QUERIES:][:rows]))
    return VectorSet(f"embeddings-{stored.shape[1]}", "cosine", vectors, queries)


def unit(rows: NDArray[np.float16]) -> F32:
    vectors = rows.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def photos(file: Path, rows: int | None) -> VectorSet:
    """SIFT descriptors, uint8 (1010000, 128), as float32."""
    stored = np.load(file, allow_pickle=False)
    order = np.random.default_rng(7).permutation(len(stored))
    kept = order[QUERIES:][: min(rows or PHOTO_ROWS, PHOTO_ROWS)]
    queries, vectors = stored[order[:QUERIES]].astype(np.float32), stored[kept].astype(np.float32)
    return VectorSet(f"photos-{stored.shape[1]}", "l2", vectors, queries)


def nearest_distances(data: VectorSet, k: int) -> F64:
    """float64 (queries, k), ascending: the exact distances of the k nearest rows of every query."""
    kept = min(k + SPARE, len(data.vectors))
    ids = np.empty((len(data.queries), 0), np.int64)
    scores = np.empty((len(data.queries), 0), np.float32)
    for first in range(0, len(data.vectors), BLOCK):
        block = data.vectors[first : first + BLOCK]
        score = data.queries @ block.T
        score *= -2.0 if data.metric == "l2" else -1.0
        if data.metric == "l2":
            score += np.einsum("ij,ij->i", block, block)
        here = np.broadcast_to(np.arange(first, first + len(block)), score.shape)
        scores, ids = least(np.hstack([scores, score]), np.hstack([ids, here]), kept)
    exact = np.stack([data.distances(query, rows) for query, rows in enumerate(ids)])
    return np.asarray(np.sort(exact, axis=1)[:, :k])


def least(scores: F32, ids: Rows, kept: int) -> tuple[F32, Rows]:
    if scores.shape[1] <= kept:
        return scores, ids
    chosen = np.argpartition(scores, kept - 1, axis=1)[:, :kept]
    return np.take_along_axis(scores, chosen, 1), np.take_along_axis(ids, chosen, 1)


def recall(data: VectorSet, found: Rows, nearest: F64) -> float:
    """Share of the k nearest that was found, k = found.shape[1]; ties count as found, repeats and -1 do not.

    `nearest` is of `nearest_distances`, with at least k columns unless there are fewer rows.
    """
    bounds = nearest[:, min(found.shape[1], nearest.shape[1]) - 1]
    hits = 0
    for query, (rows, bound) in enumerate(zip(found, bounds, strict=True)):
        distinct = np.unique(rows[rows >= 0])
        hits += int(np.count_nonzero(data.distances(query, distinct) <= bound + TIE * abs(bound)))
    return hits / (len(found) * min(found.shape[1], nearest.shape[1]))
