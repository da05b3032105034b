"""A collection as a plain dict, searched by brute force in NumPy. Imports nothing of vecdb."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tests import oracles

METRICS = {"cosine": oracles.COSINE, "dot": oracles.DOT, "l2": oracles.L2}


class Book:
    """id -> (vector or None, payload), in order of the current version."""

    def __init__(self, metric: str) -> None:
        self.metric = METRICS[metric]
        self.records: dict[Any, tuple[np.ndarray | None, dict[str, Any]]] = {}
        self.known: dict[Any, tuple[list[Any], np.ndarray]] = {}  # rankings since the last write

    def write(self, ids: Iterable[Any], vectors: Iterable[Any], payloads: Iterable[dict[str, Any]]) -> None:
        self.known.clear()
        for id, vector, payload in zip(ids, vectors, payloads, strict=True):
            self.records.pop(id, None)
            self.records[id] = (None if vector is None else np.asarray(vector, np.float32), payload)

    def delete(self, ids: Iterable[Any]) -> None:
        self.known.clear()
        for id in ids:
            self.records.pop(id, None)

    def matching(self, predicate: Callable[[dict[str, Any]], bool] | None = None) -> list[Any]:
        return [id for id, (_, payload) in self.records.items() if predicate is None or predicate(payload)]

    def ranked(
        self, query: np.ndarray, predicate: Callable[[dict[str, Any]], bool] | None = None
    ) -> tuple[list[Any], np.ndarray]:
        """Every matching record that has a vector with its distance, nearest first, ties in order of writing."""
        key = np.asarray(query, np.float32).tobytes(), predicate
        if key not in self.known:
            self.known[key] = self._rank(np.asarray(query), predicate)
        return self.known[key]

    def _rank(
        self, query: np.ndarray, predicate: Callable[[dict[str, Any]], bool] | None
    ) -> tuple[list[Any], np.ndarray]:
        ids = [id for id in self.matching(predicate) if self.records[id][0] is not None]
        if not ids:
            return [], np.empty(0, np.float32)
        found = oracles.distances(self.metric, np.stack([self.records[id][0] for id in ids]), query)
        order = np.argsort(found, kind="stable")
        return [ids[i] for i in order], found[order]
