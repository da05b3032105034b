"""What searches of one segment cost here: its own indexes asked in turns, about a tenth of a second, one thread.

Times are lower quartiles of single calls, two settings in turns, so that what else runs here counts little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, cast

import numpy as np

from vecdb.engine.door import Door
from vecdb.index.base import ESCALATED, VISITED
from vecdb.index.exact import search_matrix
from vecdb.index.growing import GrowingFlat
from vecdb.kernels import bitset
from vecdb.options import EF_MAX
from vecdb.planner import cost
from vecdb.planner.cost import Costs, Line
from vecdb.planner.estimate import filled_blocks
from vecdb.planner.measured import Walks, factor, fitted
from vecdb.types import F32, I32, I64, U64

if TYPE_CHECKING:  # it loads the compiler
    from vecdb.index.hnsw import HnswIndex

QUERIES, K = 48, 10
FEW_ROWS, MANY_EXACT, MANY_GATHERED, MANY_COPIED = 256, 1_536, 4_096, 16_384  # rows of a filter
WIDTHS = (32, 192)  # ef of walks
RECALLS = (0.9, 0.99)  # of the lists that are scanned
LISTED = 64  # one row in so many passes the filter of a scan of all lists
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5)  # of filters that are the same everywhere
AROUND = 1_024  # rows nearest to a query, of which a filter is made
AROUND_QUERIES = 12

Search = Callable[[F32, int], object]  # (one query, its number)


def measure_lines(door: Door, tick: Callable[[], None]) -> dict[str, Line]:
    """Lines by name (see Costs), of what the indexes of the door serve.

    tick   called now and then; may raise to stop
    """
    lines = {"exact": _exact(door)}
    tick()
    if door.graph is not None and door.graph.traits.gathers:
        lines |= _gathered(door)
        tick()
    if door.flat is not None and not isinstance(door.flat, GrowingFlat):
        lines["scan"] = _scan(door, lines)
        tick()
    if door.lists is not None:
        lines |= _lists(door, lines)
        tick()
    if door.graph is not None:
        lines["walk"] = _walk(door, lines)
        tick()
    return lines


def measure_walks(door: Door, costs: Costs, tick: Callable[[], None]) -> Walks:
    """How walks of the door's graph go under filters; `costs` are those of this machine."""
    assert door.graph is not None
    filtered = []
    for share in SHARES:
        filtered.append((share, _at_random(door, costs, share)))
        tick()
    near, far = _around(door, costs)
    return Walks(tuple(filtered), near, far)


def _exact(door: Door) -> Line:
    matrix = door.field.matrix
    few, many = (_chosen(door, count) for count in (FEW_ROWS, MANY_EXACT))
    spent = _spent(
        door,
        [
            lambda query, i: search_matrix(matrix, query, K, None, few, None),
            lambda query, i: search_matrix(matrix, query, K, None, many, None),
        ],
    )
    return fitted(len(few), spent[0], len(many), spent[1])


def _gathered(door: Door) -> dict[str, Line]:
    graph = cast("HnswIndex", door.graph)
    few, many = (_chosen(door, count) for count in (FEW_ROWS, MANY_GATHERED))
    copied = graph.excerpt(few), graph.excerpt(_chosen(door, MANY_COPIED))
    spent = _spent(
        door,
        [
            lambda query, i: graph.gather(query, K, few),
            lambda query, i: graph.gather(query, K, many),
            lambda query, i: copied[0].search(query, K),
            lambda query, i: copied[1].search(query, K),
        ],
    )
    return {
        "gather": fitted(len(few), spent[0], len(many), spent[1]),
        "excerpt": fitted(len(few), spent[2], len(copied[1].rows), spent[3]),
    }


def _scan(door: Door, lines: dict[str, Line]) -> Line:
    """A quarter of the blocks and all of them; the rows that are scored again come off both."""
    flat, rows = door.flat, door.field.matrix.rows
    assert flat is not None
    assert not isinstance(flat, GrowingFlat)
    part: I32 = np.arange(rows // 4, dtype=np.int32)
    quarter, every = bitset.from_rows(part, rows), bitset.full(rows)
    spent = _spent(
        door,
        [lambda query, i: flat.search(query, K, allow=quarter), lambda query, i: flat.search(query, K, allow=every)],
    )
    again = cost.scan_us(Costs({**lines, "scan": Line(0.0, 0.0)}), flat.traits, 0.25, K)
    return fitted(len(part), spent[0] - again, rows, spent[1] - again)


def _lists(door: Door, lines: dict[str, Line]) -> dict[str, Line]:
    """Some of the nearest lists and more of them; all lists are the scan of a segment that has no other codes."""
    lists, rows = door.lists, door.field.matrix.rows
    assert lists is not None
    traits = lists.traits
    few = min(lists.effort(K, RECALLS[0]) or 1, max(1, traits.lists // 4))
    many = min(max(lists.effort(K, RECALLS[1]) or 1, 2 * few), traits.lists - 1)
    scarce = bitset.from_mask(np.random.default_rng(LISTED).random(rows) * LISTED < 1)
    spent = _spent(
        door,
        [
            lambda query, i: lists.search(query, K, nprobe=few),
            lambda query, i: lists.search(query, K, nprobe=many),
            lambda query, i: lists.search(query, K, allow=scarce, nprobe=traits.lists),
            lambda query, i: lists.search(query, K, nprobe=traits.lists),
        ],
    )
    found, each = {}, rows / traits.lists
    if few < many:
        nothing = Costs({**lines, "lists": Line(0.0, 0.0)})
        again = [cost.lists_us(nothing, traits, probed, 1.0, K) for probed in (few, many)]
        found["lists"] = fitted(few * each, spent[0] - again[0], many * each, spent[1] - again[1])
    if door.flat is None:
        nothing, part = Costs({**lines, "scan": Line(0.0, 0.0)}), filled_blocks(1 / LISTED, cost.SCAN_BLOCK_ROWS)
        again = [cost.lists_us(nothing, traits, traits.lists, share, K) for share in (1 / LISTED, 1.0)]
        found["scan"] = fitted(part * rows, spent[2] - again[0], rows, spent[3] - again[1])
    return found


def _walk(door: Door, lines: dict[str, Line]) -> Line:
    graph = door.graph
    assert graph is not None
    counters = [np.zeros(4, np.int64), np.zeros(4, np.int64)]
    spent = _spent(
        door,
        [
            lambda query, i: graph.search(query, K, ef=WIDTHS[0], counters=counters[0]),
            lambda query, i: graph.search(query, K, ef=WIDTHS[1], counters=counters[1]),
        ],
    )
    hops = [int(counted[VISITED]) / QUERIES for counted in counters]
    again = cost.graph_us(Costs({**lines, "walk": Line(0.0, 0.0)}), graph.traits, K, WIDTHS[0])
    return fitted(hops[0], spent[0] - again, max(hops[1], hops[0] + 1), spent[1] - again)


def _at_random(door: Door, costs: Costs, share: float) -> float:
    assert door.graph is not None
    mask = np.random.default_rng(round(1 / share)).random(door.field.matrix.rows) < share
    spent, escalated = _filtered(door, costs, [bitset.from_mask(mask)] * QUERIES, share)
    return _times(door, costs, share, spent + escalated * _fallback_us(door, costs, share))


def _around(door: Door, costs: Costs) -> tuple[float, float]:
    """(near, far) of Walks: of the rows around each query only, and of all but these."""
    graph, rows = door.graph, door.field.matrix.rows
    assert graph is not None
    count = min(AROUND, EF_MAX, max(K, rows // 8))
    queries = _queries(door)[:AROUND_QUERIES]
    nearest = [np.unique(graph.search(query[None], count, ef=count)[0][0]) for query in queries]
    inside = [bitset.from_rows(found[found >= 0], rows) for found in nearest]
    outside = [bitset.full(rows) & ~bits for bits in inside]
    share = count / rows
    near, _ = _filtered(door, costs, inside, share)
    far, _ = _filtered(door, costs, outside, 1 - share)
    return _times(door, costs, share, near), _times(door, costs, 1 - share, far)


def _filtered(door: Door, costs: Costs, allowed: Sequence[U64], share: float) -> tuple[float, float]:
    """(microseconds, escalated) of a walk, query i under allowed[i]."""
    graph, counters = door.graph, np.zeros(4, np.int64)
    assert graph is not None
    ef, budget = graph.effort(K, None, share), cost.walk_budget(costs, graph.traits, _fallback_us(door, costs, share))

    def search(query: F32, i: int) -> object:
        return graph.search(query, K, allow=allowed[i], ef=ef, budget=budget, counters=counters)

    (spent,) = _spent(door, [search], len(allowed))
    return spent, int(counters[ESCALATED]) / len(allowed)


def _times(door: Door, costs: Costs, share: float, spent_us: float) -> float:
    """The hops of a walk, as time, over those that its ef tells."""
    assert door.graph is not None
    traits, ef = door.graph.traits, door.graph.effort(K, None, share) or K
    usual = Costs(costs.lines, ((1.0, 1.0),))
    rest = cost.graph_us(
        Costs({**costs.lines, "walk": Line(cost.walk_line(costs, traits).fixed_us, 0.0)}), traits, K, ef
    )
    return factor((spent_us - rest) / (cost.graph_us(usual, traits, K, ef, share) - rest))


def _fallback_us(door: Door, costs: Costs, share: float) -> float:
    rows, dim = door.field.matrix.rows, door.field.matrix.dim
    ways = [cost.exact_us(costs, share * rows, dim)]
    for traits in door.traits:
        ways += [cost.gather_us(costs, traits, share, K)] if traits.gathers else []
        ways += [cost.scan_us(costs, traits, share, K)] if traits.masked and not traits.lists else []
    return min(ways)


def _spent(door: Door, searches: Sequence[Search], count: int = QUERIES) -> list[float]:
    """Microseconds of one query by each of the searches, which take turns.

    Each turn has another query for each of them: the second to get the same one would find its rows in the cache, and a
    wide walk seem no longer than a narrow one.
    """
    queries = _queries(door)[:count]
    times: I64 = np.empty((len(searches), len(queries)), np.int64)
    for turn in range(len(queries)):
        for number, search in enumerate(searches):
            i = (turn + number * len(queries) // len(searches)) % len(queries)
            begin = perf_counter_ns()
            search(queries[i : i + 1], i)
            times[number, i] = perf_counter_ns() - begin
    return [float(np.percentile(spent, 25)) / 1e3 for spent in times]


def _queries(door: Door) -> F32:
    """Rows of the segment: a walk to one of them is as long as to what lies beside it."""
    matrix = door.field.matrix
    at = np.random.default_rng(1).integers(0, matrix.rows, QUERIES)
    return np.ascontiguousarray(matrix.vectors[at].astype(np.float32))


def _chosen(door: Door, count: int) -> I32:
    """Rows of a filter, which all queries have in common, as queries of one kind do."""
    rows = door.field.matrix.rows
    return np.unique(np.random.default_rng(count).integers(0, rows, count)).astype(np.int32)
