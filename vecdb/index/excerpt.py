"""Copies of the codes of chosen rows, for filters that are asked for again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vecdb.index.base import NO_BITS, frozen, result_arrays
from vecdb.index.gather import sizes
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.excerpt import code_words, copy_records, search_excerpt
from vecdb.memory import aligned
from vecdb.types import F32, I32, I64

if TYPE_CHECKING:
    from vecdb.index.hnsw import WalkInputs


class Excerpt:
    """What HnswIndex.gather looks at, of some rows, side by side: finds the same at a fraction of the cost.

    inputs  as search_graph takes them first;  rows  int32, ascending
    """

    __slots__ = ("_blocks", "_fixed", "bits", "rows")

    def __init__(self, inputs: WalkInputs, rows: I32) -> None:
        metric, vectors, bits, records, _, fine_bits, fine, fine_factors, _, _, _, _, _, centre, _, _ = inputs
        self.bits, self.rows, dim = bits, frozen(rows), vectors.shape[1]
        blocks, words = -(-len(rows) // BLOCK), code_words(bits, dim)
        codes = aligned((blocks, BLOCK * words), np.uint32)
        add, scale = (aligned((blocks * BLOCK,), np.float32) for _ in range(2))
        copy_records(records.view(np.uint32), words, self.rows, codes, add.view(np.uint32), scale.view(np.uint32))
        self._blocks = frozen(codes.view(np.uint8)), frozen(add), frozen(scale)
        # What search_excerpt takes before the queries.
        self._fixed = (
            metric, vectors, bits, *self._blocks, self.rows, fine_bits, fine, fine_factors, centre, NO_BITS
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + sum(array.nbytes for array in self._blocks)

    def search(
        self, queries: F32, k: int, *, rescore: int | None = None, counters: I64 | None = None
    ) -> tuple[I32, F32]:
        """The k nearest of the rows, the best by codes scored exactly."""
        scored, pool = sizes(self.bits, k, rescore)
        found, distances = result_arrays(queries, k)
        counted = np.zeros(4, np.int64) if counters is None else counters
        search_excerpt(*self._fixed, frozen(queries), k, pool, scored, found, distances, counted)
        return found, distances
