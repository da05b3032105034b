"""What every way to search costs, in microseconds of one thread.

Constants are medians measured on a 2-core AVX-512 machine over 117k x 384 text embeddings; they decide between arms, so
their ratios matter, not their size. Costs grow with the dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from vecdb.planner.estimate import filled_blocks
from vecdb.types import Traits

# Scoring chosen rows with float32: 57-78 ns a row of 384 dimensions with prefetching, 69-99 ns without.
EXACT_FIXED_US = 12.0
EXACT_NS_PER_DIM = 70 / 384

# Scan of block codes, streamed from memory, ns a row of 384 dimensions: 10.1, 5.6, 3.4 and 2.1 at 8, 4, 2, 1 bits;
# the fixed part is quantising the query and selecting. Few dimensions have no codes: 32 bits are the float32 rows.
SCAN_FIXED_US = 15.0
SCAN_NS_PER_DIM = {1: 2.1 / 384, 2: 3.4 / 384, 4: 5.6 / 384, 8: 10.1 / 384, 32: 57 / 384}
SCAN_BLOCK_ROWS = 32
# Rows scored again with float32 for recall 1.0 in the same measurements.
SCAN_RESCORED = {1: 500, 2: 200, 4: 50, 8: 30, 32: 0}

# Lists of an inverted file: the best are found by 8-bit codes of their centres, 512 of 384 dimensions in 4 us; each one
# that is scanned costs 0.15 us beside its blocks. 50 rows are scored again at 2 bits.
LIST_FIXED_US = 0.15
LIST_NS_PER_CENTRE_DIM = 4_000 / 512 / 384
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
GRAPH_NS_PER_RESCORED_DIM = 350 / 384


def exact_us(matching: float, dim: int) -> float:
    """Score every matching row."""
    return EXACT_FIXED_US + matching * dim * EXACT_NS_PER_DIM / 1e3


def scan_us(traits: Traits, share: float, k: int) -> float:
    """Scan the codes of every block that has a matching row, score the best again."""
    return _blocks_us(traits, traits.rows, share) + _again_us(traits, SCAN_RESCORED, share * traits.rows, k)


def lists_us(traits: Traits, nprobe: int, share: float, k: int) -> float:
    """Find the nearest lists, scan each of their blocks that has a matching row, score the best again.

    nprobe   lists that are scanned, at most all; lists are taken to be of one size
    """
    probed = min(nprobe, traits.lists)
    rows = traits.rows * probed / traits.lists
    centres = traits.lists * traits.dim * LIST_NS_PER_CENTRE_DIM / 1e3
    again = _again_us(traits, LISTS_RESCORED, rows * share, k)
    return centres + probed * LIST_FIXED_US + _blocks_us(traits, rows, share) + again


def _blocks_us(traits: Traits, rows: float, share: float) -> float:
    scanned = rows * filled_blocks(share, SCAN_BLOCK_ROWS)
    return SCAN_FIXED_US + scanned * traits.dim * _of_bits(SCAN_NS_PER_DIM, traits.code_bits) / 1e3


def _again_us(traits: Traits, rescored: Mapping[int, float], matching: float, k: int) -> float:
    rows = min(max(_of_bits(rescored, traits.code_bits), k), matching)
    return rows * traits.dim * EXACT_NS_PER_DIM / 1e3


def _of_bits(table: Mapping[int, float], bits: int) -> float:
    """The entry for `bits`, or for the next wider code that was measured."""
    return table[min((known for known in table if known >= bits), default=max(table))]


def graph_us(traits: Traits, k: int, ef: int, share: float = 1.0) -> float:
    """Walk the graph until the best `ef` nodes are expanded, allowed or not, at most all rows."""
    hops = min(max(k, ef) + GRAPH_EXTRA_HOPS, traits.rows)
    walked = hops * _hop_us(traits) * (GRAPH_FILTERED if share < 1.0 else 1.0)
    return GRAPH_FIXED_US + walked + GRAPH_RESCORED * k * traits.dim * GRAPH_NS_PER_RESCORED_DIM / 1e3


def walk_budget(traits: Traits, microseconds: float) -> int:
    """Distances of a walk that take as long as `microseconds`."""
    return math.ceil(microseconds / _hop_us(traits) * GRAPH_DISTANCES_PER_HOP)


def _hop_us(traits: Traits) -> float:
    doublings = max(0.0, math.log2(max(1, traits.rows) / GRAPH_CACHED_ROWS))
    cold = GRAPH_US_PER_HOP_AND_DOUBLING * doublings
    return GRAPH_US_PER_HOP + cold + traits.dim * GRAPH_NS_PER_HOP_AND_DIM / 1e3
