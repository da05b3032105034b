"""Columns of a sealed segment: sorted postings in borrowed, read-only arrays, answered by binary search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels import bitset
from vecdb.storage.column_order import Order
from vecdb.storage.column_reader import Piece, Text
from vecdb.storage.column_spans import spans_of, spans_of_sizes
from vecdb.storage.column_summary import ColumnSummaries
from vecdb.storage.column_values import DTYPES, SIZE, STORED
from vecdb.storage.ranks import Spans
from vecdb.storage.sealed_column import NO_ROWS, SealedColumn
from vecdb.storage.sealed_summary import distinct_of, extremes_of, order_of
from vecdb.types import (
    I32,
    I64,
    ROWS_DENSITY,
    SORT_DENSITY,
    U8,
    U64,
    AnyArray,
    Equal,
    Estimate,
    Null,
    Prefix,
    Present,
    Probe,
    RowSet,
    Scalar,
    Search,
    Sized,
    Within,
)

RECENT = 64  # probes whose spans are kept
RECENT_SPANS = 1_024  # of a probe that is kept: 16 KiB


class SealedColumns(ColumnSummaries):
    """The columns of one sealed segment.

    rows    rows of the segment
    paths   path -> name -> array, as `seal_columns` describes them; borrowed, and not read before they are used

    check   called with a path before its first use; raises when its files are damaged

    The first use of a path checks that rows and offsets are in range, and raises ValueError when they are not.
    """

    def __init__(
        self, rows: int, paths: Mapping[str, Mapping[str, AnyArray]], check: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(rows)
        self._arrays, self._check = paths, check
        self._columns: dict[str, SealedColumn] = {}
        self._recent: dict[int, tuple[Probe, dict[str, Spans]]] = {}  # by id(), so a probe is kept with its spans
        self._gone: tuple[U64, I32] | None = None  # the last bitset that was left out of a count, and its rows

    @property
    def path_names(self) -> Set[str]:
        return self._arrays.keys()

    # ---- probes ---------------------------------------------------------------------------------------------------
    def select(self, probe: Probe) -> RowSet:
        column = self._column(probe.path)
        if column is not None and isinstance(probe, Present):
            return column.present_set()
        if column is None or isinstance(probe, Present | Null | Sized) or len(column.lists):
            return super().select(probe)
        spans = self._spans(column, probe)
        total = sum(found.count() for found in spans.values())
        if total * SORT_DENSITY <= self._rows:
            return self._union(_pieces(spans), lists=False)
        if total == self._rows:
            return RowSet(total, bits=bitset.full(total))
        dense = total * ROWS_DENSITY > self._rows
        if not dense and sum(found.filled() for found in spans.values()) == 1 and isinstance(probe, Equal):
            return self._union(_pieces(spans), lists=False)  # the rows of one value ascend
        mask = self._within_spans(column, spans, None)
        if dense:
            return RowSet(total, bits=bitset.from_mask(mask))
        return RowSet(total, rows=np.flatnonzero(mask).astype(np.int32))

    def among(self, probe: Probe, rows: I32) -> NDArray[np.bool_]:
        column = self._column(probe.path)
        if column is None or isinstance(probe, Present | Null | Sized) or len(column.lists):
            return super().among(probe, rows)
        spans = self._spans(column, probe)
        if sum(found.count() for found in spans.values()) <= len(rows):
            return super().among(probe, rows)
        return self._within_spans(column, spans, rows)

    def count(self, probe: Probe) -> Estimate:
        """How many rows the probe matches, by binary searches: exactly, or bounds where lists have several values."""
        column = self._column(probe.path)
        if column is None:
            return Estimate(0, 0)
        if isinstance(probe, Present):
            found = column.present_set().count
        elif isinstance(probe, Null):
            found = len(column.nulls)
        elif isinstance(probe, Sized):
            found = spans_of_sizes(column, probe).count()
        else:
            return self._count_values(column, probe)
        return Estimate(found, found)

    def count_without(self, probe: Probe, gone: U64) -> Estimate:
        """The same without the rows of a bitset."""
        column = self._column(probe.path)
        if column is None:
            return Estimate(0, 0)
        if isinstance(probe, Present | Null | Sized):
            return super().count_without(probe, gone)
        counted = self._count_values(column, probe)
        lost = self._rows_of(gone)
        if counted.high == 0:
            return counted
        if not counted.exact:
            return Estimate(max(0, counted.low - len(lost)), min(counted.high, self._rows - len(lost)))
        if len(column.lists) or counted.high <= len(lost):
            return super().count_without(probe, gone)
        removed = int(np.count_nonzero(self._within_spans(column, self._spans(column, probe), lost)))
        return Estimate(counted.low - removed, counted.high - removed)

    def _count_values(self, column: SealedColumn, probe: Probe) -> Estimate:
        spans = self._spans(column, probe)
        counts = [found.count() for found in spans.values()]
        total = sum(counts)
        # The postings of one value are of different rows; a list may be posted for several values.
        one = isinstance(probe, Equal) and sum(found.filled() for found in spans.values()) <= 1
        if not len(column.lists) or one:
            return Estimate(total, total)
        values = [
            int((found.highs - found.lows).max(initial=0)) for found in spans.values() if isinstance(probe, Equal)
        ]
        return Estimate(max(values, default=min(1, total)), min(total, column.present_set().count))

    def _spans(self, column: SealedColumn, probe: Probe) -> dict[str, Spans]:
        """The postings that match, kept for a while: a filter is estimated, then evaluated, with the same probes."""
        kept = self._recent.get(id(probe))
        if kept is not None and kept[0] is probe:
            return kept[1]
        spans = spans_of(column, probe)
        if sum(len(found.lows) for found in spans.values()) <= RECENT_SPANS:
            if len(self._recent) >= RECENT:
                self._recent = {}
            self._recent[id(probe)] = (probe, spans)
        return spans

    def _within_spans(self, column: SealedColumn, spans: Mapping[str, Spans], rows: I32 | None) -> NDArray[np.bool_]:
        """For each of `rows` (None: all), whether its value lies in the spans of its type; for a path without lists."""
        mask: NDArray[np.bool_] | None = None
        for stored, found in spans.items():
            if found.filled():
                marked = column.ranks(stored).within(found, rows)
                mask = marked if mask is None else mask | marked
        return np.zeros(self._rows if rows is None else len(rows), np.bool_) if mask is None else mask

    def _rows_of(self, gone: U64) -> I32:
        kept = self._gone
        if kept is None or kept[0] is not gone:
            kept = self._gone = (gone, bitset.to_rows(gone, self._rows))
        return kept[1]

    # ---- summaries ------------------------------------------------------------------------------------------------
    def order(self, path: str, rows: I32) -> Order:
        column = self._column(path)
        if column is None or len(column.lists) or len(column.types) != 1:
            return super().order(path, rows)
        return order_of(column, next(iter(column.types)), rows)

    def _distinct(self, path: str, stored: str, wanted: NDArray[np.bool_] | None) -> tuple[list[Any], AnyArray]:
        column = self._column(path)
        assert column is not None
        if wanted is not None and len(column.lists):
            return super()._distinct(path, stored, wanted)
        return distinct_of(column, stored, wanted)

    def _extremes(self, path: str, stored: str, wanted: NDArray[np.bool_] | None) -> list[Scalar]:
        column = self._column(path)
        assert column is not None
        return extremes_of(column, stored, wanted)

    # ---- arrays, for merges ---------------------------------------------------------------------------------------
    def numeric(self, path: str, stored: str) -> tuple[AnyArray, I32]:
        """(values, rows) of the postings of a numeric type or of SIZE, sorted; empty when there are none."""
        column = self._column(path)
        if column is not None and stored == SIZE:
            return column.sizes
        if column is None or stored not in column.numeric:
            return np.empty(0, DTYPES[stored]), NO_ROWS
        return column.numeric[stored]

    def text_arrays(self, path: str, stored: str) -> tuple[U8, I64, I64, I32] | None:
        """(bytes, offsets, starts, rows) of a text type, or None."""
        column = self._column(path)
        return None if column is None else column.text.get(stored)

    def present_rows(self, path: str) -> I32:
        return self._present(path)

    def null_rows(self, path: str) -> I32:
        return self._nulls(path)

    # ---- what a ColumnReader asks ---------------------------------------------------------------------------------
    def _column(self, path: str) -> SealedColumn | None:
        column = self._columns.get(path)
        if column is None and path in self._arrays:
            if self._check is not None:
                self._check(path)
            column = self._columns[path] = SealedColumn(path, self._rows, self._arrays[path])
        return column

    def _paths(self) -> Iterable[str]:
        return list(self._arrays)

    def _types(self, path: str) -> Iterable[str]:
        column = self._column(path)
        return () if column is None else [stored for stored in STORED if stored in column.types]

    def _present(self, path: str) -> I32:
        column = self._column(path)
        return NO_ROWS if column is None else column.present

    def _nulls(self, path: str) -> I32:
        column = self._column(path)
        return NO_ROWS if column is None else column.nulls

    def _lists(self, path: str) -> I32:
        column = self._column(path)
        return NO_ROWS if column is None else column.lists

    def _numeric(self, path: str, stored: str) -> tuple[AnyArray, I32]:
        return self.numeric(path, stored)

    def _text(self, path: str, stored: str) -> Text:
        column = self._column(path)
        assert column is not None
        _, _, starts, rows = column.text[stored]
        codes = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        return Text(codes, rows, column.tables[stored].__getitem__, sorted=True)

    def _equal(self, probe: Equal) -> list[Piece]:
        return self._gather(probe)

    def _within(self, probe: Within) -> list[Piece]:
        return self._gather(probe)

    def _prefixed(self, probe: Prefix) -> list[Piece]:
        return self._gather(probe)

    def _searched(self, probe: Search) -> list[Piece]:
        return self._gather(probe)

    def _sized(self, probe: Sized) -> list[Piece]:
        column = self._column(probe.path)
        return [] if column is None else [*spans_of_sizes(column, probe).gather()]

    def _gather(self, probe: Probe) -> list[Piece]:
        column = self._column(probe.path)
        return [] if column is None else _pieces(self._spans(column, probe))


def _pieces(spans: Mapping[str, Spans]) -> list[Piece]:
    return [piece for found in spans.values() for piece in found.gather()]
