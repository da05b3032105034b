"""Copies of the codes of the rows that filters match, of one segment: what a filter that repeats has earned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from vecdb.filter.expression import Node
from vecdb.types import I32

if TYPE_CHECKING:  # they load the compiler
    from vecdb.index.excerpt import Excerpt
    from vecdb.index.hnsw import HnswIndex

Key = tuple[int, Node | None]  # field number, filter
FILTERS_MAX = 4_096  # whose queries are counted


class Kept:
    """An excerpt of codes of `graph`. used: a time of the last search with it, by a clock that counts."""

    __slots__ = ("excerpt", "graph", "used")

    def __init__(self, graph: HnswIndex, excerpt: Excerpt, used: int) -> None:
        self.graph, self.excerpt, self.used = graph, excerpt, used


class Excerpts:
    """The least recently used go first when all hold more rows than the segment: then filters that part its rows
    among them, as tenants do, all find room. It takes no more memory than the codes that walks read.

    What is there is found without a lock.
    """

    __slots__ = ("_asked", "_clock", "_held", "_kept", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Key, Kept] = {}
        self._clock = count(1)
        self._held = 0  # rows
        self._asked: dict[Key, int] = {}

    def asked(self, key: Key) -> int:
        """Queries with a filter since it was first asked for, or since its copy made room."""
        return self._asked.get(key, 0)

    def count(self, key: Key, queries: int) -> None:
        """Racing threads may lose some."""
        if len(self._asked) >= FILTERS_MAX and key not in self._asked:
            self._asked.clear()
        self._asked[key] = self._asked.get(key, 0) + queries

    def holds(self, key: Key, graph: object) -> bool:
        """Whether there is a copy of codes of this graph."""
        found = self._kept.get(key)
        return found is not None and found.graph is graph

    def get(self, key: Key, graph: HnswIndex, rows: Callable[[], I32]) -> Excerpt:
        """The copy, made if there is none. rows() are the field's rows that the filter allows, ascending."""
        found = self._kept.get(key)
        if found is not None and found.graph is graph:
            found.used = next(self._clock)
            return found.excerpt
        excerpt = graph.excerpt(rows())
        with self._lock:
            self._drop(key)
            self._kept[key] = Kept(graph, excerpt, next(self._clock))
            self._held += len(excerpt.rows)
            while self._held > graph.matrix.rows and len(self._kept) > 1:
                self._drop(min(self._kept, key=lambda held: self._kept[held].used))
        return excerpt

    def _drop(self, key: Key) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._asked.pop(key, None)
            self._held -= len(gone.excerpt.rows)
