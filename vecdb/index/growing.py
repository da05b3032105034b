"""The codes of a growing segment: reserved once, filled behind a mark, searched while rows are added.

Importing this loads no compiler; the first `extend` or `search` does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vecdb.index.base import kernel_inputs
from vecdb.types import F32, I32, I64, U64, Matrix, Metric, Traits

if TYPE_CHECKING:
    from vecdb.index.flat import Codes

FIRST_ROWS = 256  # rows to see before their mean is taken as the centre of the codes


class GrowingFlat:
    """Searches a segment that grows up to `capacity` rows. Safe for any number of threads.

    Rows below `coded_rows` are scanned by codes, the others by float32. Untouched reserved memory costs nothing.
    """

    def __init__(self, capacity: int, dim: int, metric: Metric, bits: int = 2) -> None:
        self.capacity, self.dim, self.metric, self.bits = capacity, dim, metric, bits
        self._codes: Codes | None = None
        self._lock = threading.Lock()
        self.coded_rows = 0

    def extend(self, matrix: Matrix, *, wait: bool = True) -> bool:
        """Code the rows from `coded_rows` to the end of `matrix`. False, if not `wait` and somebody else does."""
        if self.coded_rows >= matrix.rows or (self.coded_rows == 0 and matrix.rows < FIRST_ROWS):
            return True
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            self._code(matrix)
        finally:
            self._lock.release()
        return True

    def _code(self, matrix: Matrix) -> None:
        from vecdb.index import flat
        from vecdb.kernels.quantize import centre_of

        bits = flat.code_bits(self.bits, self.dim)
        if bits == flat.FLOAT_BITS:
            return
        if self._codes is None:
            centre = centre_of(matrix.metric, matrix.vectors, matrix.inverse_norms)
            self._codes = flat.Codes(bits, self.capacity, self.dim, centre)
        for first, last in flat.chunks(self.coded_rows, matrix.rows, self.dim):
            self._codes.encode(matrix, first, last)
            self.coded_rows = last  # published after the codes it covers

    def traits(self, matrix: Matrix) -> Traits:
        """As Index.traits, for the rows of `matrix`."""
        from vecdb.index.flat import code_bits

        return Traits("flat", matrix.rows, self.dim, code_bits(self.bits, self.dim), masked=True, graph=False)

    def search(
        self,
        matrix: Matrix,
        queries: F32,
        k: int,
        *,
        allow: U64 | None = None,
        rows: I32 | None = None,
        rescore: int | None = None,
        counters: I64 | None = None,
    ) -> tuple[I32, F32]:
        """As Index.search, over the rows of `matrix` only, however many of them are coded by now."""
        from vecdb.index import flat

        coded = min(self.coded_rows, matrix.rows)  # read before the codes, which are written before it
        codes, inputs = self._codes, kernel_inputs(matrix)
        if rows is not None or codes is None or coded == 0:
            return flat.search_exact(matrix, queries, k, allow, rows, counters)
        return flat.search_codes(inputs, codes.bits, codes.views(), coded, queries, k, rescore or 0, allow, counters)
