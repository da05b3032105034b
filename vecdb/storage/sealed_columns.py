"""Columns of a sealed segment: sorted postings in borrowed, read-only arrays, answered by binary search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np

from vecdb.storage.column_reader import ColumnReader, Text
from vecdb.storage.column_values import DTYPES, NUMERIC, SIZE, STORED, interval, points, size_bounds, texts
from vecdb.storage.string_table import StringTable
from vecdb.types import I32, I64, U8, AnyArray, Equal, Estimate, Null, Prefix, Present, Probe, Search, Sized, Within

_NO_ROWS: I32 = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class _Spans:
    """Pieces of one array of postings: rows[lows[i]:highs[i]]."""

    rows: I32
    lows: I64
    highs: I64

    def count(self) -> int:
        return int((self.highs - self.lows).sum())

    def gather(self) -> list[I32]:
        if len(self.lows) == 1:
            return [self.rows[self.lows[0] : self.highs[0]]]
        filled = np.flatnonzero(self.highs > self.lows)
        if len(filled) <= 16:
            return [self.rows[self.lows[span] : self.highs[span]] for span in filled]
        lengths = (self.highs - self.lows)[filled]
        shifts = np.repeat(self.lows[filled] - np.cumsum(lengths) + lengths, lengths)
        return [self.rows[shifts + np.arange(len(shifts))]]


class SealedColumns(ColumnReader):
    """The columns of one sealed segment.

    rows    rows of the segment
    paths   path -> name -> array, as `seal_columns` describes them; borrowed, and not read before they are used

    The first use of a path checks that rows and offsets are in range, and raises ValueError when they are not.
    """

    def __init__(self, rows: int, paths: Mapping[str, Mapping[str, AnyArray]]) -> None:
        super().__init__(rows)
        self._arrays = paths
        self._columns: dict[str, _Column] = {}

    @property
    def path_names(self) -> Set[str]:
        return self._arrays.keys()

    def count(self, probe: Probe) -> Estimate:
        """How many rows the probe matches, exactly; without lists from binary searches alone."""
        column = self._column(probe.path)
        if isinstance(probe, Present | Null) or column is None:
            return super().count(probe)
        if len(column.lists) and not isinstance(probe, Sized):
            return super().count(probe)
        found = sum(spans.count() for spans in self._spans(column, probe))
        return Estimate(found, found)

    def numeric(self, path: str, stored: str) -> tuple[AnyArray, I32]:
        """(values, rows) of the postings of a numeric type or of SIZE, sorted; empty when there are none."""
        column = self._column(path)
        if column is not None and stored == SIZE:
            return column.sizes
        if column is None or stored not in column.numeric:
            return np.empty(0, DTYPES[stored]), _NO_ROWS
        return column.numeric[stored]

    def text_arrays(self, path: str, stored: str) -> tuple[U8, I64, I64, I32] | None:
        """(bytes, offsets, starts, rows) of a text type, or None."""
        column = self._column(path)
        return None if column is None else column.text.get(stored)

    def present_rows(self, path: str) -> I32:
        return self._present(path)

    def null_rows(self, path: str) -> I32:
        return self._nulls(path)

    def _column(self, path: str) -> _Column | None:
        column = self._columns.get(path)
        if column is None and path in self._arrays:
            column = self._columns[path] = _Column(path, self._rows, self._arrays[path])
        return column

    def _paths(self) -> Iterable[str]:
        return list(self._arrays)

    def _types(self, path: str) -> Iterable[str]:
        column = self._column(path)
        return () if column is None else [stored for stored in STORED if stored in column.types]

    def _present(self, path: str) -> I32:
        column = self._column(path)
        return _NO_ROWS if column is None else column.present

    def _nulls(self, path: str) -> I32:
        column = self._column(path)
        return _NO_ROWS if column is None else column.nulls

    def _lists(self, path: str) -> I32:
        column = self._column(path)
        return _NO_ROWS if column is None else column.lists

    def _numeric(self, path: str, stored: str) -> tuple[AnyArray, I32]:
        return self.numeric(path, stored)

    def _text(self, path: str, stored: str) -> Text:
        column = self._column(path)
        assert column is not None
        _, _, starts, rows = column.text[stored]
        codes = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        return Text(codes, rows, column.tables[stored].__getitem__, sorted=True)

    def _equal(self, probe: Equal) -> list[I32]:
        return self._gather(probe)

    def _within(self, probe: Within) -> list[I32]:
        return self._gather(probe)

    def _prefixed(self, probe: Prefix) -> list[I32]:
        return self._gather(probe)

    def _searched(self, probe: Search) -> list[I32]:
        return self._gather(probe)

    def _sized(self, probe: Sized) -> list[I32]:
        return self._gather(probe)

    def _gather(self, probe: Probe) -> list[I32]:
        column = self._column(probe.path)
        spans = [] if column is None else self._spans(column, probe)
        return [piece for span in spans for piece in span.gather()]

    def _spans(self, column: _Column, probe: Probe) -> list[_Spans]:
        if isinstance(probe, Sized):
            values, rows = column.sizes
            return [_closed_spans(values, rows, np.array(size_bounds(probe), np.int32))]
        spans = [_numeric_spans(stored, *postings, probe) for stored, postings in column.numeric.items()]
        for stored, (_, _, starts, rows) in column.text.items():
            ends = _code_ranges(stored, column.tables[stored], probe)
            if len(ends):
                spans.append(_Spans(rows, starts[ends[:, 0]], starts[ends[:, 1]]))
        return [span for span in spans if span is not None]


def _numeric_spans(stored: str, values: AnyArray, rows: I32, probe: Probe) -> _Spans | None:
    if isinstance(probe, Equal):
        wanted = points(stored, probe.values)
        if not len(wanted):
            return None
        return _Spans(rows, np.searchsorted(values, wanted), np.searchsorted(values, wanted, "right"))
    bounds = interval(stored, probe) if isinstance(probe, Within) else None
    if bounds is None:
        return None
    return _closed_spans(values, rows, np.array(bounds, NUMERIC[stored]))


def _closed_spans(values: AnyArray, rows: I32, bounds: AnyArray) -> _Spans:
    """The one span of values from bounds[0] to bounds[1], both included."""
    first, last = np.searchsorted(values, bounds[:1]), np.searchsorted(values, bounds[1:], "right")
    return _Spans(rows, first, np.maximum(first, last))


def _code_ranges(stored: str, table: StringTable, probe: Probe) -> I64:
    """(first, past the last) numbers of the words that match, int64 (ranges, 2)."""
    if stored == "string" and isinstance(probe, Search):
        return table.searched(probe)
    return np.array(_bisected(stored, table, probe), np.int64).reshape(-1, 2)


def _bisected(stored: str, table: StringTable, probe: Probe) -> list[tuple[int, int]]:
    if isinstance(probe, Equal):
        wanted = texts(stored, probe.values)
        found = [table.find(value.encode() if stored == "string" else value) for value in wanted]
        return [(code, code + 1) for code in found if code >= 0]
    if stored != "string":
        return []
    if isinstance(probe, Prefix):
        return [table.prefixed(probe.text.encode())]
    if not isinstance(probe, Within) or not isinstance(probe.low if probe.low is not None else probe.high, str):
        return []
    first, last = 0, len(table)
    if isinstance(probe.low, str):
        first = (table.upper if probe.low_open else table.lower)(probe.low.encode())
    if isinstance(probe.high, str):
        last = (table.lower if probe.high_open else table.upper)(probe.high.encode())
    return [(first, last)] if first < last else []


class _Column:
    """The arrays of one path, checked once."""

    def __init__(self, path: str, rows: int, arrays: Mapping[str, AnyArray]) -> None:
        self._path, self._rows, self._arrays = path, rows, arrays
        self.nulls = self._row_array("null_rows")
        self._present = self._row_array("present_rows") if "present_rows" in arrays else None
        self.numeric: dict[str, tuple[AnyArray, I32]] = {}
        self.text: dict[str, tuple[U8, I64, I64, I32]] = {}
        self.tables: dict[str, StringTable] = {}
        for stored in NUMERIC:
            if f"{stored}_rows" in arrays:
                self.numeric[stored] = self._open_numeric(stored)
        self.sizes = self._open_numeric(SIZE) if f"{SIZE}_rows" in arrays else (np.empty(0, np.int32), _NO_ROWS)
        self.lists = self.sizes[1]
        for stored in STORED:
            if f"{stored}_starts" in arrays:
                self._open_text(stored)
        self.types = {*self.numeric, *self.text}

    @property
    def present(self) -> I32:
        if self._present is None:
            self._present = np.arange(self._rows, dtype=np.int32)
        return self._present

    def _open_numeric(self, stored: str) -> tuple[AnyArray, I32]:
        values, posted = self._array(f"{stored}_values", DTYPES[stored]), self._row_array(f"{stored}_rows")
        self._require(len(values) == len(posted), f"{stored} values and rows differ in length")
        return values, posted

    def _open_text(self, stored: str) -> None:
        data, offsets = self._array(f"{stored}_bytes", "|u1"), self._array(f"{stored}_offsets", "<i8")
        starts, posted = self._array(f"{stored}_starts", "<i8"), self._row_array(f"{stored}_rows")
        table = StringTable(data, offsets)
        self._require(table.fits(), f"{stored} offsets do not fit the bytes")
        fits = len(starts) == len(offsets) and starts[0] == 0 and starts[-1] == len(posted)
        self._require(fits and bool((np.diff(starts) >= 0).all()), f"{stored} starts do not fit the rows")
        self.text[stored] = (data, offsets, starts, posted)
        self.tables[stored] = table

    def _row_array(self, name: str) -> I32:
        if name not in self._arrays:
            return _NO_ROWS
        rows = self._array(name, "<i4")
        # As unsigned, negative numbers are large.
        self._require(not len(rows) or int(rows.view(np.uint32).max()) < self._rows, f"{name} is out of range")
        return rows

    def _array(self, name: str, dtype: str) -> AnyArray:
        self._require(name in self._arrays, f"{name} is missing")
        array = self._arrays[name]
        self._require(array.dtype == np.dtype(dtype) and array.ndim == 1, f"{name} has the wrong type or shape")
        return array

    def _require(self, condition: bool, reason: str) -> None:
        if not condition:
            raise ValueError(f"column {self._path!r}: {reason}")
