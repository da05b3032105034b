"""The arrays of one path of a sealed segment, checked when the path is first used, and what is made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels import bitset
from vecdb.storage.column_values import DTYPES, NUMERIC, SIZE, STORED
from vecdb.storage.ranks import Ranks, starts_of
from vecdb.storage.string_table import StringTable
from vecdb.types import I32, I64, ROWS_DENSITY, U8, AnyArray, RowSet

NO_ROWS: I32 = np.empty(0, np.int32)


class SealedColumn:
    """Raises ValueError when an array is missing, has the wrong type, or names rows or bytes that are not there."""

    def __init__(self, path: str, rows: int, arrays: Mapping[str, AnyArray]) -> None:
        self._path, self._rows, self._arrays = path, rows, arrays
        self.nulls = self._row_array("null_rows")
        self._present = self._row_array("present_rows") if "present_rows" in arrays else None
        self._present_set: RowSet | None = None
        self._ranks: dict[str, Ranks] = {}
        self.numeric: dict[str, tuple[AnyArray, I32]] = {}
        self.text: dict[str, tuple[U8, I64, I64, I32]] = {}
        self.tables: dict[str, StringTable] = {}
        for stored in NUMERIC:
            if f"{stored}_rows" in arrays:
                self.numeric[stored] = self._open_numeric(stored)
        self.sizes = self._open_numeric(SIZE) if f"{SIZE}_rows" in arrays else (np.empty(0, np.int32), NO_ROWS)
        self.lists = self.sizes[1]
        for stored in STORED:
            if f"{stored}_starts" in arrays:
                self._open_text(stored)
        self.types = {*self.numeric, *self.text}

    @property
    def present(self) -> I32:
        """The rows that have the path."""
        if self._present is None:
            self._present = np.arange(self._rows, dtype=np.int32)
        return self._present

    def present_set(self) -> RowSet:
        """The same as a set, which is kept: bits where they are many."""
        if self._present_set is None:
            if "present_rows" not in self._arrays:
                self._present_set = RowSet(self._rows, bits=bitset.full(self._rows))
            elif len(self.present) * ROWS_DENSITY > self._rows:
                self._present_set = RowSet(len(self.present), bits=bitset.from_rows(self.present, self._rows))
            else:
                self._present_set = bitset.set_of_rows(self.present)
        return self._present_set

    def starts(self, stored: str) -> I64:
        """Where the postings of each distinct value of a type begin, and their end."""
        if stored in self.text:
            return self.text[stored][2]
        return starts_of(self.numeric[stored][0])

    def posted(self, stored: str) -> I32:
        """The rows of the postings of a type, by (value, row)."""
        return self.text[stored][3] if stored in self.text else self.numeric[stored][1]

    def values(self, stored: str, ranks: NDArray[np.integer]) -> list[Any]:
        """The distinct values of these ranks: bool, int, float, str or bytes; timestamps as microseconds."""
        if stored in self.text:
            words = [self.tables[stored][rank] for rank in ranks.tolist()]
            return words if stored == "bytes" else [word.decode() for word in words]
        found = self.numeric[stored][0][self.starts(stored)[ranks]].tolist()
        return [bool(value) for value in found] if stored == "bool" else found

    def values_at(self, stored: str, positions: Sequence[int]) -> list[Any]:
        """The values of postings, by position."""
        if stored in self.text:
            return self.values(stored, np.searchsorted(self.starts(stored), positions, "right") - 1)
        return list(self.numeric[stored][0][list(positions)].tolist())

    def ranks(self, stored: str) -> Ranks:
        """The rank of each row's value; only for a path without lists. Made on first use and kept."""
        ranks = self._ranks.get(stored)
        if ranks is None:
            ranks = self._ranks[stored] = Ranks(self._rows, self.starts(stored), self.posted(stored))
        return ranks

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
            return NO_ROWS
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
