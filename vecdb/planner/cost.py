"""What every way to search costs, in microseconds of one thread.

Measured `Costs` hold for one machine, dimension, code, m and size; maintenance measures them. Where there are none,
usual values serve: medians of a 2-core AVX-512 machine (AMD Zen 4) over 117k x 384 text embeddings, scaled by the
dimension. They decide between arms, so their ratios matter, not their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from vecdb.planner.estimate import filled_blocks
from vecdb.types import Traits

USUAL = "usual values of an AVX-512 machine"

# Scoring chosen rows with float32: 57-78 ns a row of 384 dimensions with prefetching, 69-99 ns without.
EXACT_FIXED_US = 12.0
EXACT_NS_PER_DIM = 70 / 384

# Scoring chosen rows by codes: a fifth to a seventh of what the float32 rows take (records of two cache lines against
# 24), two to three times a row of a scan; the rest is coding the query, and a second and third look at the best.
GATHER_FIXED_US = 10.0
GATHER_NS_PER_LINE = 5.0
GATHER_LINE_BYTES = 64
# Where more than this share matches, a filter is kept as bits, and its rows are listed for each query.
GATHER_LISTED_SHARE = 1 / 16
GATHER_LISTED_NS = 1.0
# Rows scored exactly: so many, and more for a large k.
GATHER_LEAST_RESCORED = 30
GATHER_RESCORED = 1.5

# Copies of these codes side by side: 5 ns a row of 384 dimensions and 2 bits for 5,000 rows, 3 ns for 30,000. Making
# them takes 30 to 90 ns a row.
EXCERPT_FIXED_US = 12.0
EXCERPT_NS_PER_BIT = 3.3 / 384 / 2
COPY_NS_PER_LINE = 25.0

# Scan of block codes, streamed from memory, ns a row of 384 dimensions: 10.1, 5.6, 3.4 and 2.1 at 8, 4, 2, 1 bits;
# the fixed part is quantising the query and selecting. Few dimensions have no codes: 32 bits are the float32 rows.
SCAN_FIXED_US = 15.0
SCAN_NS_PER_DIM = {1: 2.1 / 384, 2: 3.4 / 384, 4: 5.6 / 384, 8: 10.1 / 384, 32: 57 / 384}
SCAN_BLOCK_ROWS = 32
# Rows scored again with float32 for recall 1.0 in the same measurements.
SCAN_RESCORED = {1: 500, 2: 80, 4: 50, 8: 30, 32: 0}  # with 2 bits of a pool of 200: kernels/bounded.py

# Lists of an inverted file: the best are found by codes of their centres, 3,906 of 128 dimensions in 10 us, 4,000 of
# 384, which take half the bits, in 15 us; each one that is scanned costs 0.15 us beside its blocks. Of 8 lists three
# quarters are, of 64 not half, until none brings anything nearer. 50 rows are scored again at 2 bits.
LIST_FIXED_US = 0.15
LIST_NS_PER_CENTRE_DIM, CENTRE_DIMS_HALVED = 0.02, 256
LISTS_SCANNED, LISTS_SCANNED_POWER = 1.29, -0.26
LISTS_RESCORED = {1: 100, 2: 50, 4: 30, 8: 20, 32: 0}

# Graph walk, over 30k and 61k rows: two hops more than ef, each scoring some 12 fresh neighbours. At 2, 4 and 8 bits
# 0.27 to 0.37 us a hop of 384 dimensions and 0.23 of 96; a row scored exactly, out of the cache, 0.3 and 0.1 us. A
# fifth more than k are. Beyond 65k rows, which a cache still holds in part, memory makes hops slower: 0.75 us at 1M.
# Under a filter a walk goes about a tenth further than was expected, and now and then gives up to the fallback.
GRAPH_FIXED_US = 12.0
GRAPH_EXTRA_HOPS = 2
GRAPH_US_PER_HOP = 0.25
GRAPH_NS_PER_HOP_AND_DIM = 100 / 384
GRAPH_US_PER_HOP_AND_DOUBLING = 0.12
GRAPH_CACHED_ROWS = 65_536
GRAPH_DISTANCES_PER_HOP = 12
GRAPH_FILTERED = 1.2
GRAPH_RESCORED = 1.2
GRAPH_RESCORED_COLD = 5.0  # times a row that is scored in order


@dataclass(frozen=True, slots=True)
class Line:
    """Microseconds of a query, and nanoseconds of each row (of a walk: each hop)."""

    fixed_us: float
    each_ns: float

    def us(self, count: float) -> float:
        return self.fixed_us + count * self.each_ns / 1e3


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured on this machine.

    lines      by "exact", "gather", "excerpt", "scan", "lists" and "walk"; usual values for those that are missing. The
               line of lists is of the rows in those that may be scanned, of which patience leaves out some
    filtered   (share of the rows that match, times the hops that ef tells), shares ascending: walks under a filter that
               is the same everywhere
    far        times the same hops: a walk that gives up, because the filter leaves out what is near the query
    source     where the figures come from, in words
    """

    lines: Mapping[str, Line] = field(default_factory=dict)
    filtered: tuple[tuple[float, float], ...] = ()
    far: float = 1.0
    source: str = USUAL


NOT_MEASURED = Costs()


def exact_line(costs: Costs, dim: int) -> Line:
    return costs.lines.get("exact") or Line(EXACT_FIXED_US, dim * EXACT_NS_PER_DIM)


def gather_line(costs: Costs, traits: Traits) -> Line:
    return costs.lines.get("gather") or Line(GATHER_FIXED_US, _code_lines(traits) * GATHER_NS_PER_LINE)


def excerpt_line(costs: Costs, traits: Traits) -> Line:
    return costs.lines.get("excerpt") or Line(EXCERPT_FIXED_US, traits.dim * traits.code_bits * EXCERPT_NS_PER_BIT)


def scan_line(costs: Costs, traits: Traits) -> Line:
    """The rows that are scored again are not in it."""
    return costs.lines.get("scan") or Line(SCAN_FIXED_US, traits.dim * _of_bits(SCAN_NS_PER_DIM, traits.code_bits))


def walk_line(costs: Costs, traits: Traits) -> Line:
    """The rows that are scored again are not in it."""
    doublings = max(0.0, math.log2(max(1, traits.rows) / GRAPH_CACHED_ROWS))
    hop = GRAPH_US_PER_HOP + GRAPH_US_PER_HOP_AND_DOUBLING * doublings + traits.dim * GRAPH_NS_PER_HOP_AND_DIM / 1e3
    return costs.lines.get("walk") or Line(GRAPH_FIXED_US, hop * 1e3)


def exact_us(costs: Costs, matching: float, dim: int) -> float:
    """Score every matching row."""
    return exact_line(costs, dim).us(matching)


def gather_us(costs: Costs, traits: Traits, share: float, k: int) -> float:
    """Score the codes of every matching row, and the best again; the line holds for few."""
    matching = share * traits.rows
    listed = matching * GATHER_LISTED_NS / 1e3 if share > GATHER_LISTED_SHARE else 0.0
    return gather_line(costs, traits).us(matching) + listed + _more_us(costs, traits, matching, k)


def excerpt_us(costs: Costs, traits: Traits, share: float, k: int) -> float:
    """The same with copies of the codes."""
    matching = share * traits.rows
    return excerpt_line(costs, traits).us(matching) + _more_us(costs, traits, matching, k)


def copying_us(traits: Traits, share: float) -> float:
    """Copy the codes of every matching row."""
    return share * traits.rows * _code_lines(traits) * COPY_NS_PER_LINE / 1e3


def _more_us(costs: Costs, traits: Traits, matching: float, k: int) -> float:
    """Rows scored exactly beyond the few that are in the line."""
    more = max(0.0, min(GATHER_RESCORED * k, matching) - GATHER_LEAST_RESCORED)
    return more * GRAPH_RESCORED_COLD * exact_line(costs, traits.dim).each_ns / 1e3


def _code_lines(traits: Traits) -> int:
    """Cache lines of the code of one row."""
    return math.ceil((traits.dim * traits.code_bits / 8 + 8) / GATHER_LINE_BYTES)


def scan_us(costs: Costs, traits: Traits, share: float, k: int) -> float:
    """Scan the codes of every block that has a matching row, score the best again."""
    scanned = traits.rows * filled_blocks(share, SCAN_BLOCK_ROWS)
    again = _again_us(costs, traits, SCAN_RESCORED, share * traits.rows, k)
    return scan_line(costs, traits).us(scanned) + again


def lists_us(costs: Costs, traits: Traits, nprobe: int, share: float, k: int) -> float:
    """Find the nearest lists, scan each of their blocks that has a matching row, score the best again.

    nprobe   lists that are scanned at most; lists are taken to be of one size
    """
    probed, filled = float(min(nprobe, traits.lists)), filled_blocks(share, SCAN_BLOCK_ROWS)
    rows, measured = traits.rows * probed / traits.lists, costs.lines.get("lists")
    if measured is not None and probed < traits.lists:
        return measured.us(rows * filled) + _again_us(costs, traits, LISTS_RESCORED, rows * share, k)
    if probed < traits.lists:
        probed *= min(1.0, LISTS_SCANNED * max(probed, 1.0) ** LISTS_SCANNED_POWER)
        rows = traits.rows * probed / traits.lists
    centres = traits.lists * traits.dim * LIST_NS_PER_CENTRE_DIM / 1e3 / (2 if traits.dim >= CENTRE_DIMS_HALVED else 1)
    again = _again_us(costs, traits, LISTS_RESCORED, rows * share, k)
    return centres + probed * LIST_FIXED_US + scan_line(costs, traits).us(rows * filled) + again


def _again_us(costs: Costs, traits: Traits, rescored: Mapping[int, float], matching: float, k: int) -> float:
    rows = min(max(_of_bits(rescored, traits.code_bits), k), matching)
    return rows * exact_line(costs, traits.dim).each_ns / 1e3


def _of_bits(table: Mapping[int, float], bits: int) -> float:
    """The entry for `bits`, or for the next wider code that was measured."""
    return table[min((known for known in table if known >= bits), default=max(table))]


def graph_us(costs: Costs, traits: Traits, k: int, ef: int, share: float = 1.0) -> float:
    """Walk the graph until the best `ef` nodes are expanded, allowed or not, at most all rows."""
    hops = min(max(k, ef) + GRAPH_EXTRA_HOPS, traits.rows) * (filtered(costs, share) if share < 1.0 else 1.0)
    again = GRAPH_RESCORED * k * GRAPH_RESCORED_COLD * exact_line(costs, traits.dim).each_ns / 1e3
    return walk_line(costs, traits).us(hops) + again


def gives_up_us(costs: Costs, traits: Traits, k: int, ef: int) -> float:
    """A walk under a filter that gives up."""
    hops = min(max(k, ef) + GRAPH_EXTRA_HOPS, traits.rows)
    return walk_line(costs, traits).us(hops * costs.far)


def filtered(costs: Costs, share: float) -> float:
    """How many times the hops that its ef tells a walk makes under a filter, read on a logarithmic scale of shares."""
    known = costs.filtered
    if not known:
        return GRAPH_FILTERED
    at, factor = known[0]
    if share <= at:
        return factor
    for higher, after in known[1:]:
        if share <= higher:
            part = math.log(share / at) / math.log(higher / at)
            return factor + part * (after - factor)
        at, factor = higher, after
    return factor


def walk_budget(costs: Costs, traits: Traits, microseconds: float) -> int:
    """Distances of a walk that take as long as `microseconds`."""
    return math.ceil(microseconds * 1e3 / walk_line(costs, traits).each_ns * GRAPH_DISTANCES_PER_HOP)
