"""What every way to search costs, in microseconds of one thread.

Constants are medians measured on a 2-core AVX-512 machine over 117k x 384 text embeddings; they decide between arms, so
their ratios matter, not their size. Costs grow with the dimension.
"""

from __future__ import annotations

from vecdb.planner.estimate import filled_blocks
from vecdb.types import Traits

# Scoring chosen rows with float32: 57-78 ns a row of 384 dimensions with prefetching, 69-99 ns without.
EXACT_FIXED_US = 12.0
EXACT_NS_PER_DIM = 70 / 384

# Scan of block codes, streamed from memory, ns a row of 384 dimensions: 10.1, 5.6, 3.4 and 2.1 at 8, 4, 2, 1 bits;
# the fixed part is quantising the query and selecting. Few dimensions have no codes: 32 bits are the float32 rows.
SCAN_FIXED_US = 15.0
SCAN_NS_PER_DIM = {32: 57 / 384, 8: 10.1 / 384, 4: 5.6 / 384, 2: 3.4 / 384, 1: 2.1 / 384}
SCAN_BLOCK_ROWS = 32
# Rows scored again with float32 for recall 1.0 in the same measurements.
SCAN_RESCORED = {32: 0, 8: 30, 4: 50, 2: 200, 1: 500}

# Graph walk, over 30k and 61k rows: two hops more than ef, each scoring some 12 fresh neighbours. At 2, 4 and 8 bits
# 0.27 to 0.37 us a hop of 384 dimensions and 0.23 of 96; a row scored exactly, out of the cache, 0.3 and 0.1 us. A
# fifth more than k are.
GRAPH_FIXED_US = 12.0
GRAPH_EXTRA_HOPS = 2
GRAPH_US_PER_HOP = 0.25
GRAPH_NS_PER_HOP_AND_DIM = 100 / 384
GRAPH_RESCORED = 1.2
GRAPH_NS_PER_RESCORED_DIM = 350 / 384


def exact_us(matching: float, dim: int) -> float:
    """Score every matching row."""
    return EXACT_FIXED_US + matching * dim * EXACT_NS_PER_DIM / 1e3


def scan_us(traits: Traits, share: float, k: int) -> float:
    """Scan the codes of every block that has a matching row, score the best again."""
    per_row = traits.dim * SCAN_NS_PER_DIM[traits.code_bits]
    scanned = traits.rows * filled_blocks(share, SCAN_BLOCK_ROWS)
    rescored = min(max(SCAN_RESCORED[traits.code_bits], k), share * traits.rows)
    return SCAN_FIXED_US + scanned * per_row / 1e3 + rescored * traits.dim * EXACT_NS_PER_DIM / 1e3


def graph_us(traits: Traits, k: int, ef: int) -> float:
    """Walk the graph until the best `ef` nodes are expanded, allowed or not, at most all rows."""
    hops = min(max(k, ef) + GRAPH_EXTRA_HOPS, traits.rows)
    walked = hops * (GRAPH_US_PER_HOP + traits.dim * GRAPH_NS_PER_HOP_AND_DIM / 1e3)
    return GRAPH_FIXED_US + walked + GRAPH_RESCORED * k * traits.dim * GRAPH_NS_PER_RESCORED_DIM / 1e3
