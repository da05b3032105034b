"""Carrying a graph over to another matrix that holds most of its rows, under other numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vecdb.index import graph_builder
from vecdb.index.base import NO_NORMS, NO_ROWS, frozen
from vecdb.index.calibration import hold_out
from vecdb.index.code_quality import Codes
from vecdb.index.graph_builder import Graph, LinkCodes
from vecdb.kernels.graph_build import mark_reached
from vecdb.kernels.graph_carry import carry_links
from vecdb.kernels.twins import equal_rows
from vecdb.types import F32, I32, I64, U8, U64, Matrix, Progress

GONE_MAX = 0.5  # share of the old rows that may go: beyond, little is left to link the others by
GROWTH_MAX = 8  # a graph that grows more at once is built anew
TOP_NODES_MAX = 1024  # expected on the highest level: new nodes rise no higher, and with more it is no entrance
NO_CODES = LinkCodes(frozen(np.empty((0, graph_builder.LINE), np.uint8)), NO_ROWS, NO_ROWS, NO_ROWS, NO_NORMS)


def carry_graph(
    old: Graph,
    before: Matrix,
    after: Matrix,
    new_rows: I32,
    centre: F32,
    codes: Codes,
    ef: int,
    seed: int,
    threads: int,
    progress: Progress | None,
    measure: Callable[[Graph, I32], None],
) -> Graph | None:
    """The graph `old` over `before`, as one over `after`; None when too few rows stay to be worth it.

    new_rows   int32: the row in `after` of each row of `before`, -1 for one that is gone; no row twice. A row that is
               gone hands its place in the graph to a new one with the same vector
    measure    called with the new graph while only those nodes are missing that calibration.hold_out picked
    """
    old_nodes = np.flatnonzero(old.nodes())
    nodes = with_successors(before, after, new_rows, old_nodes)
    held = np.flatnonzero(nodes >= 0)
    carried = np.zeros(after.rows, np.uint8)
    carried[nodes[held]] = 1
    twins = graph_builder.find_twins(after, carried)
    if not _worth_it(old, len(old_nodes), held, int(graph_builder.nodes_of(twins).sum())):
        return None
    graph = _empty(old, after, nodes, held, twins, centre, codes, seed)
    graph_builder.encode(graph, after, 0, progress)
    by = NO_CODES if len(held) == len(old_nodes) else graph_builder.link_codes(graph, after, progress)
    weak = _carry(old, graph, nodes, by, threads, progress)
    reached, stack = np.zeros(after.rows, np.uint8), np.empty(after.rows, np.int32)
    if 2 * mark_reached(graph.links, graph.entry, reached, stack) < len(held):
        return None
    strong = (carried == 1) & (weak == 0) & (reached == 1)
    others = np.flatnonzero((graph.nodes() == 1) & ~strong)
    again = carried[others] == 1
    order = np.concatenate([np.flatnonzero(strong), others[again], others[~again]])
    first = int(strong.sum())
    if first < len(order):
        order, missing = hold_out(order.astype(np.int32), len(order) - int((~again).sum()))
        graph_builder.insert(
            graph, after, first, ef, threads, progress, order, missing, lambda nodes: measure(graph, nodes)
        )
    return graph


def _worth_it(old: Graph, before: int, held: I64, after: int) -> bool:
    """Whether to carry the nodes `held` of `before` ones into a graph of `after` nodes."""
    if len(held) < max(1.0, (1 - GONE_MAX) * before) or len(held) * GROWTH_MAX < after:
        return False
    return bool(after <= TOP_NODES_MAX * old.upper.shape[1] ** int(old.levels[held].max()))


def _empty(
    old: Graph, after: Matrix, new_rows: I32, held: I64, twins: I32, centre: F32, codes: Codes, seed: int
) -> Graph:
    """Room for the new graph. Carried rows keep their levels; the others reach no higher than the entry."""
    m = old.upper.shape[1]
    entry = old.entry if new_rows[old.entry] >= 0 else int(held[np.argmax(old.levels[held])])
    levels = np.minimum(graph_builder.draw_levels(0, after.rows, m, seed), old.levels[entry])
    levels[new_rows[held]] = old.levels[held]
    levels *= graph_builder.nodes_of(twins)
    empty = graph_builder.empty_graph(after.rows, after.dim, m, levels, twins, centre, codes)
    return replace(empty, entry=int(new_rows[entry]))


def _carry(old: Graph, graph: Graph, new_rows: I32, by: LinkCodes, threads: int, progress: Progress | None) -> U8:
    """Fill the lists of the carried rows; uint8 (rows,): 1 for a row that lost most of its neighbours."""
    rows, weak = len(new_rows), np.zeros(len(graph.levels), np.uint8)
    old_first_upper, first_upper = frozen(old.first_upper()), frozen(graph.first_upper())
    counter = np.zeros(1, np.int64)
    stamps, epochs = [np.zeros(rows, np.int32) for _ in range(threads)], [0] * threads

    def work(thread: int, limit: int) -> None:
        epochs[thread] = carry_links(
            frozen(old.links), frozen(old.upper), old_first_upper, frozen(old.levels), frozen(new_rows),
            by.codes, by.bias, by.extra, by.offsets, graph.links, graph.upper, first_upper, weak,
            counter, limit, stamps[thread], epochs[thread],
        )  # fmt: skip

    graph_builder.take_turns(work, 0, rows, threads, counter, progress)
    return weak


# ---- rows that are gone and came back -------------------------------------------------------------------------------
def with_successors(before: Matrix, after: Matrix, new_rows: I32, nodes: I64) -> I32:
    """int32 (rows before,): new_rows for the nodes of the old graph, -1 for what follows a twin.

    A node that is gone gets a row of `after` that no other node has and that holds the same vector: a twin that stays,
    or the successor of a record whose payload alone was changed.
    """
    found = np.full(before.rows, -1, np.int32)
    found[nodes] = new_rows[nodes]
    taken = np.zeros(after.rows, np.bool_)
    taken[found[found >= 0]] = True
    gone, free = nodes[found[nodes] < 0].astype(np.int32), np.flatnonzero(~taken).astype(np.int32)
    if len(gone) == 0 or len(free) == 0:
        return found
    left, right = _pairs(graph_builder.hash_vectors(before, gone), graph_builder.hash_vectors(after, free))
    same = np.zeros(len(left), np.uint8)
    old_words, new_words = graph_builder.words_of(before), graph_builder.words_of(after)
    equal_rows(old_words, frozen(gone[left]), new_words, frozen(free[right]), same)
    found[gone[left[same == 1]]] = free[right[same == 1]]
    return found


def _pairs(left: U64, right: U64) -> tuple[I64, I64]:
    """Positions of equal values, each position once: the first of the left with the first of the right, and so on."""
    left_order, right_order = np.argsort(left, kind="stable"), np.argsort(right, kind="stable")
    wanted, given = left[left_order], right[right_order]
    rank = np.arange(len(wanted)) - np.searchsorted(wanted, wanted)
    at = np.searchsorted(given, wanted) + rank
    found = at < len(given)
    found[found] = given[at[found]] == wanted[found]
    return left_order[found], right_order[at[found]]
