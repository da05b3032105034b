"""Columns of a growing segment: append-only postings that readers scan while one writer appends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vecdb.files.pacing import give_way
from vecdb.options import Columns
from vecdb.storage.column_reader import Piece, Scan, Text
from vecdb.storage.column_summary import ColumnSummaries
from vecdb.storage.column_values import NUMERIC, STORED, TEXT, interval, points, size_bounds, texts
from vecdb.storage.growing_postings import Growable, GrowingColumn, mask_of
from vecdb.storage.payload import FlatValue
from vecdb.types import I32, AnyArray, Equal, Prefix, Probe, RowSet, Search, Sized, Within

_SLICE = 128  # records handled between two yields of the interpreter lock
_BATCH = 512  # records turned into arrays at once
_ANSWERS = 32  # probes whose rows a reader keeps
_NO_ROWS: I32 = np.empty(0, np.int32)


class GrowingColumns:
    """The columns of one growing segment. One thread appends; any number reads through `at`, without a lock."""

    def __init__(self, chosen: Columns | None = None) -> None:
        self._chosen = chosen or Columns()
        self._covered: dict[str, bool] = {}  # paths that were looked at
        self._columns: dict[str, GrowingColumn] = {}
        self._rows = 0
        self._reader = GrowingReader(self._columns, 0)

    @property
    def rows(self) -> int:
        """Rows appended, the ones without any value included."""
        return self._rows

    def append(self, first_row: int, flats: Sequence[Mapping[str, FlatValue]]) -> None:
        """Adds the flat payloads of the rows from `first_row`, which must be `rows`."""
        if first_row != self._rows:
            raise ValueError(f"rows are appended in order: row {self._rows} is next, not {first_row}")
        for first in range(0, len(flats), _BATCH):
            self._append_batch(first_row + first, flats[first : first + _BATCH])
        self._rows = first_row + len(flats)

    def at(self, rows: int) -> GrowingReader:
        """The columns as of the first `rows` rows; stays valid and unchanged while others are appended."""
        reader = self._reader
        if reader.rows != rows:
            reader = self._reader = GrowingReader(self._columns, rows)
        return reader

    def sealed(self, keep: I32 | None) -> dict[str, dict[str, AnyArray]]:
        """The sealed form of the rows `keep` (ascending; None = all), renumbered from 0: path -> name -> array."""
        rows = self._rows if keep is None else len(keep)
        renumbered = None
        if keep is not None:
            renumbered = np.full(self._rows, -1, np.int32)
            renumbered[keep] = np.arange(rows, dtype=np.int32)
        sealed = {}
        for path, column in list(self._columns.items()):
            arrays = column.sealed(rows, renumbered)
            if arrays:
                sealed[path] = arrays
            give_way()
        return sealed

    def _covers(self, path: str) -> bool:
        covered = self._covered.get(path)
        if covered is None:
            covered = self._covered[path] = self._chosen.covers(path)
        return covered

    def _append_batch(self, first_row: int, flats: Sequence[Mapping[str, FlatValue]]) -> None:
        gathered: dict[str, tuple[list[int], list[FlatValue]]] = {}
        for row, flat in enumerate(flats, first_row):
            for path, value in flat.items():
                if path in gathered:  # every covered path but for its first record
                    rows, values = gathered[path]
                    rows.append(row)
                    values.append(value)
                elif self._covers(path):
                    gathered[path] = ([row], [value])
            if row % _SLICE == 0:
                give_way()
        for path, (rows, values) in gathered.items():
            column = self._columns.get(path)
            if column is None:
                column = self._columns[path] = GrowingColumn()
            column.append(np.array(rows, np.int32), values)
            give_way()


class GrowingReader(ColumnSummaries):
    """The columns of the first rows of a growing segment, by vectorised scans.

    The answers of the last probes are kept, because a query is estimated and then evaluated.
    """

    def __init__(self, columns: Mapping[str, GrowingColumn], rows: int) -> None:
        super().__init__(rows)
        self._columns = columns
        self._answers: dict[tuple[Probe, tuple[type, ...]], RowSet] = {}

    def select(self, probe: Probe) -> RowSet:
        # True, 1 and 1.0 make equal probes, so the types belong to the key.
        operands = probe.values if isinstance(probe, Equal) else ()
        key = (probe, tuple(map(type, operands)))
        found = self._answers.get(key)
        if found is None:
            found = super().select(probe)
            if len(self._answers) >= _ANSWERS:
                self._answers = {}
            self._answers[key] = found
        return found

    def _paths(self) -> Iterable[str]:
        # list() of a dict is atomic, a loop over it is not.
        return [path for path in list(self._columns) if len(self._present(path))]

    def _types(self, path: str) -> Iterable[str]:
        column = self._columns.get(path)
        return () if column is None else [stored for stored in STORED if len(self._posted(column, stored)[1])]

    def _present(self, path: str) -> I32:
        column = self._columns.get(path)
        return _NO_ROWS if column is None else self._until(column.present)

    def _nulls(self, path: str) -> I32:
        column = self._columns.get(path)
        return _NO_ROWS if column is None else self._until(column.nulls)

    def _lists(self, path: str) -> I32:
        column = self._columns.get(path)
        return _NO_ROWS if column is None else self._until(column.lists)

    def _numeric(self, path: str, stored: str) -> tuple[AnyArray, I32]:
        return self._posted(self._columns[path], stored)

    def _text(self, path: str, stored: str) -> Text:
        column = self._columns[path]
        codes, rows = self._posted(column, stored)
        return Text(codes, rows, column.words[stored].values.__getitem__, sorted=False)

    def _equal(self, probe: Equal) -> list[Piece]:
        found: list[Piece] = []
        for stored in self._types(probe.path):
            column = self._columns[probe.path]
            values, rows = self._posted(column, stored)
            if stored in TEXT:
                codes = column.words[stored].codes
                known = [codes[text] for text in texts(stored, probe.values) if text in codes]
                if len(known) > 1:
                    found.append(Scan(mask_of(len(codes), known)[values], rows))
                    continue
                wanted = np.array(known, np.int32)
            else:
                wanted = points(stored, probe.values)
            if len(wanted):
                found.append(Scan(values == wanted[0] if len(wanted) == 1 else np.isin(values, wanted), rows))
        return found

    def _within(self, probe: Within) -> list[Piece]:
        found: list[Piece] = []
        for stored in self._types(probe.path):
            values, rows = self._posted(self._columns[probe.path], stored)
            if stored in NUMERIC:
                bounds = interval(stored, probe)
                if bounds is not None:
                    low, high = np.array(bounds, NUMERIC[stored])
                    found.append(Scan((values >= low) & (values <= high), rows))
            elif stored == "string" and isinstance(probe.low if probe.low is not None else probe.high, str):
                words = self._columns[probe.path].words[stored]
                found.append(Scan(words.within(probe)[values], rows))
        return found

    def _prefixed(self, probe: Prefix) -> list[Piece]:
        column = self._columns.get(probe.path)
        if column is None or "string" not in column.words:
            return []
        codes, rows = self._posted(column, "string")
        return [Scan(column.words["string"].prefixed(probe.text)[codes], rows)]

    def _searched(self, probe: Search) -> list[Piece]:
        column = self._columns.get(probe.path)
        if column is None or "string" not in column.words:
            return []
        codes, rows = self._posted(column, "string")
        return [Scan(column.words["string"].searched(probe)[codes], rows)]

    def _sized(self, probe: Sized) -> list[Piece]:
        rows = self._lists(probe.path)
        if not len(rows):
            return []
        sizes = self._columns[probe.path].sizes.array()[: len(rows)]
        first, last = size_bounds(probe)
        return [Scan((sizes >= first) & (sizes <= last), rows)]

    def _until(self, rows: Growable) -> I32:
        array = rows.array()
        return array[: np.searchsorted(array, np.int32(self.rows))]

    def _posted(self, column: GrowingColumn, stored: str) -> tuple[AnyArray, I32]:
        if stored not in column.postings:
            return np.empty(0, np.int32), _NO_ROWS
        values, growing = column.postings[stored]
        rows = self._until(growing)  # before the values, which are published first
        return values.array()[: len(rows)], rows
