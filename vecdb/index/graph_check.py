"""Whether searches can find every row of a graph: a walk of its links in NumPy, without compiled kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from vecdb.index.base import Index
from vecdb.types import I32, I64, AnyArray, Matrix

if TYPE_CHECKING:  # they load the compiler
    from vecdb.index.graph_builder import Graph
    from vecdb.index.hnsw import HnswIndex

FRONTIER = 1 << 16  # nodes whose links are gathered at a time
ROWS = 8192  # rows compared at a time


def unreached(index: Index) -> I32:
    """The rows that no search of the index can find, ascending. Its `check` passed before."""
    graph = graph_of(index)
    if graph is None or index.indexed_rows == 0:
        return np.empty(0, np.int32)
    found = reached_nodes(graph)[chain_nodes(graph.twins)]
    return np.flatnonzero(~found).astype(np.int32)


def graph_of(index: Index) -> Graph | None:
    return cast("HnswIndex", index).graph if index.kind == "hnsw" else None


def reached_nodes(graph: Graph) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """bool (n,): the rows that links of level 0 lead to from the entry."""
    reached = np.zeros(len(graph.links), np.bool_)
    reached[graph.entry] = True
    frontier = np.array([graph.entry])
    while len(frontier):
        fresh = []
        for start in range(0, len(frontier), FRONTIER):
            rows = graph.links[frontier[start : start + FRONTIER]].reshape(-1)
            rows = np.unique(rows[rows >= 0])
            rows = rows[~reached[rows]]
            reached[rows] = True
            fresh.append(rows)
        frontier = np.concatenate(fresh)
    return reached


def chain_nodes(twins: I32) -> I64:
    """int64 (n,): the node at the head of the chain in which a search meets each row, itself for one outside chains.

    As searches do, a chain is followed to ascending rows only, except from its node.
    """
    rows = np.arange(len(twins))
    followed = np.zeros(len(twins), np.bool_)
    followed[twins[twins >= 0]] = True
    linked = np.flatnonzero((twins >= 0) & (~followed | (twins > rows)))
    head = rows.copy()
    head[twins[linked]] = linked
    while True:  # each turn doubles how far ahead a row looks
        further = head[head]
        if (further == head).all():
            return head
        head = further


def false_twins(index: Index, matrix: Matrix) -> I32:
    """The rows whose chain goes on to a row with another vector."""
    graph = graph_of(index)
    if graph is None:
        return np.empty(0, np.int32)
    twins = graph.twins
    linked = np.flatnonzero(twins >= 0).astype(np.int32)
    words = matrix.vectors.view(f"u{matrix.vectors.itemsize}")
    wrong = [np.empty(0, np.int32)]
    for start in range(0, len(linked), ROWS):
        rows = linked[start : start + ROWS]
        wrong.append(rows[(words[rows] != words[twins[rows]]).any(axis=1)])
    return np.concatenate(wrong)


def check_links(name: str, links: I32, nodes: AnyArray, rows: int) -> None:
    if links.size and (links.min() < -1 or links.max() >= rows):
        raise ValueError(f"array {name!r} holds an id outside the {rows} rows")
    if (links == nodes[:, None]).any():
        raise ValueError(f"array {name!r} links a node to itself")
    if ((links[:, 1:] >= 0) & (links[:, :-1] < 0)).any():
        raise ValueError(f"array {name!r} has a row with a gap")
