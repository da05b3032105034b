"""Columns of a growing segment: append-only postings that readers scan while one writer appends."""

from __future__ import annotations

import bisect
import datetime as dt
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vecdb.storage import seal_columns
from vecdb.storage.column_reader import ColumnReader, Piece, Scan, Text
from vecdb.storage.column_values import NUMERIC, STORED, TEXT, encode, interval, points, stored_type, texts
from vecdb.storage.payload import FlatValue, microseconds
from vecdb.types import I32, AnyArray, Equal, Prefix, Probe, RowSet, Within

_SLICE = 128  # records handled between two yields of the interpreter lock
_BATCH = 1024  # records turned into arrays at once
_FIRST_CAPACITY = 256
_ANSWERS = 32  # probes whose rows a reader keeps


class GrowingColumns:
    """The columns of one growing segment. One thread appends; any number reads through `at`, without a lock."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
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
            time.sleep(0)
        return sealed

    def _append_batch(self, first_row: int, flats: Sequence[Mapping[str, FlatValue]]) -> None:
        gathered: dict[str, tuple[list[int], list[FlatValue]]] = {}
        for row, flat in enumerate(flats, first_row):
            for path, value in flat.items():
                if path in gathered:
                    rows, values = gathered[path]
                    rows.append(row)
                    values.append(value)
                else:
                    gathered[path] = ([row], [value])
            if row % _SLICE == 0:
                time.sleep(0)
        for path, (rows, values) in gathered.items():
            column = self._columns.get(path)
            if column is None:
                column = self._columns[path] = _Column()
            column.append(np.array(rows, np.int32), values)
            time.sleep(0)


class GrowingReader(ColumnReader):
    """The columns of the first rows of a growing segment, by vectorised scans.

    The answers of the last probes are kept, because a query is estimated and then evaluated.
    """

    def __init__(self, columns: Mapping[str, _Column], rows: int) -> None:
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
                    found.append(Scan(_mask(len(codes), known)[values], rows))
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

    def _until(self, rows: _Growable) -> I32:
        array = rows.array()
        return array[: np.searchsorted(array, np.int32(self.rows))]

    def _posted(self, column: _Column, stored: str) -> tuple[AnyArray, I32]:
        if stored not in column.postings:
            return np.empty(0, np.int32), _NO_ROWS
        values, growing = column.postings[stored]
        rows = self._until(growing)  # before the values, which are published first
        return values.array()[: len(rows)], rows


class _Growable:
    """An array with spare capacity. Readers get an array that stays valid; what they see of it never changes."""

    def __init__(self, dtype: str) -> None:
        self._published: tuple[AnyArray, int] = (np.empty(0, dtype), 0)

    def array(self) -> AnyArray:
        array, count = self._published
        return array[:count]

    def append(self, values: AnyArray) -> None:
        array, count = self._published
        needed = count + len(values)
        if needed > len(array):
            grown = np.empty(max(needed, 2 * len(array), _FIRST_CAPACITY), array.dtype)
            grown[:count] = array[:count]
            array = grown
        array[count:needed] = values
        self._published = (array, needed)


class _Words:
    """A dictionary of strings (or bytes) that grows: value <-> code in order of arrival."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.codes: dict[Any, int] = {}
        self._sorted: tuple[list[Any], list[int]] = ([], [])

    def encode(self, values: Iterable[Any]) -> AnyArray:
        codes = self.codes
        for value in values:
            if value not in codes:
                self.values.append(value)  # before its code is known, so that a reader can look it up
                codes[value] = len(self.values) - 1
        return np.array([codes[value] for value in values], np.int32)

    def within(self, probe: Within) -> AnyArray:
        """For every code, whether its value lies between the bounds."""
        ordered, codes = self._ordered()
        below = bisect.bisect_right if probe.low_open else bisect.bisect_left
        above = bisect.bisect_left if probe.high_open else bisect.bisect_right
        first = 0 if probe.low is None else below(ordered, probe.low)
        last = len(ordered) if probe.high is None else above(ordered, probe.high)
        return _mask(len(codes), codes[first:last])

    def prefixed(self, text: str) -> AnyArray:
        """For every code, whether its value starts with `text`."""
        ordered, codes = self._ordered()
        first = bisect.bisect_left(ordered, text)
        last = bisect.bisect_right(ordered, text, lo=first, key=lambda value: value[: len(text)])
        return _mask(len(codes), codes[first:last])

    def _ordered(self) -> tuple[list[Any], list[int]]:
        """Values in ascending order with their codes; kept until values are added."""
        ordered, codes = self._sorted
        count = len(self.values)
        if len(codes) < count:
            # Sorting a sorted list with a tail is nearly linear.
            tail = self.values[len(codes) : count]
            pairs = sorted([*zip(ordered, codes, strict=True), *zip(tail, range(len(codes), count), strict=True)])
            ordered, codes = [value for value, _ in pairs], [code for _, code in pairs]
            self._sorted = (ordered, codes)
        return ordered, codes


class _Column:
    """One path of a growing segment."""

    def __init__(self) -> None:
        self.present = _Growable("<i4")
        self.nulls = _Growable("<i4")
        self.lists = _Growable("<i4")
        self.postings: dict[str, tuple[_Growable, _Growable]] = {}  # stored type -> values (or codes), rows
        self.words: dict[str, _Words] = {}  # text type -> its dictionary

    def append(self, rows: I32, values: list[FlatValue]) -> None:
        """Adds the values of some later rows, ascending."""
        kinds = set(map(type, values))
        if len(kinds) == 1 and (stored := stored_type(next(iter(kinds)))):
            self._post(stored, values, rows)
        else:
            self._append_mixed(rows, values)
        self.present.append(rows)

    def _append_mixed(self, rows: I32, values: list[FlatValue]) -> None:
        buckets: dict[str, tuple[list[Any], list[int]]] = {}
        nulls, lists = [], []
        for row, value in zip(rows.tolist(), values, strict=True):
            if value is None:
                nulls.append(row)
                continue
            elements: Iterable[Any] = (value,)
            if isinstance(value, list | tuple):
                if isinstance(value, list):
                    lists.append(row)
                elements = _distinct(value)
            for element in elements:
                bucket = buckets.setdefault(stored_type(type(element)), ([], []))
                bucket[0].append(element)
                bucket[1].append(row)
        for stored, (elements, posted) in buckets.items():
            self._post(stored, elements, np.array(posted, np.int32))
        self.nulls.append(np.array(nulls, np.int32))
        self.lists.append(np.array(lists, np.int32))

    def _post(self, stored: str, values: Sequence[Any], rows: I32) -> None:
        if stored in TEXT:
            if stored not in self.words:
                self.words[stored] = _Words()
            encoded = self.words[stored].encode(values)
        else:
            encoded = encode(stored, values)
        if stored == "float":
            known = ~np.isnan(encoded)  # NaN equals nothing and lies in no range: it is only present
            encoded, rows = encoded[known], rows[known]
        if stored not in self.postings:
            self.postings[stored] = (_Growable(NUMERIC.get(stored, "<i4")), _Growable("<i4"))
        posted_values, posted_rows = self.postings[stored]
        posted_values.append(encoded)
        posted_rows.append(rows)

    def sealed(self, rows: int, renumbered: I32 | None) -> dict[str, AnyArray]:
        present, nulls, lists = (
            seal_columns.renumber(growing.array(), renumbered) for growing in (self.present, self.nulls, self.lists)
        )
        if not len(present):
            return {}
        arrays = seal_columns.presence(rows, present, nulls, lists)
        for stored, (values, growing) in self.postings.items():
            posted = seal_columns.renumber(growing.array(), renumbered, drop=False)
            kept = posted >= 0
            if stored in TEXT:
                arrays |= seal_columns.from_words(stored, self.words[stored].values, values.array()[kept], posted[kept])
            else:
                arrays |= seal_columns.numeric(stored, values.array()[kept], posted[kept])
        return arrays or {"present_rows": present}


def _distinct(values: Sequence[Any]) -> Iterable[Any]:
    """The elements of a list without repeated ones."""
    kinds = set(map(type, values))
    if len(kinds) == 1 and not issubclass(next(iter(kinds)), dt.date):
        return dict.fromkeys(values)
    return {_identity(element): element for element in values}.values()


def _identity(element: Any) -> tuple[str, Any]:
    """Equal for elements that are one posting. True, 1 and 1.0 are one key of a dict, so the type belongs to it."""
    stored = stored_type(type(element))
    return stored, microseconds(element) if stored == "timestamp" else element


def _mask(count: int, chosen: list[int]) -> AnyArray:
    mask = np.zeros(count, np.bool_)
    mask[chosen] = True
    return mask


_NO_ROWS: I32 = np.empty(0, np.int32)
