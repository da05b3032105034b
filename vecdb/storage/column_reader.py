"""What growing and sealed columns have in common: row sets from pieces, and the questions about values.

Values of different kinds sort bool < number < timestamp < string < bytes < missing; null and NaN count as missing here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels import bitset
from vecdb.storage.column_values import (
    KIND_OF,
    KINDS,
    MISSING_RANK,
    NUMERIC,
    ORDERED_KINDS,
    RANKS,
    decode,
)
from vecdb.types import (
    I32,
    AnyArray,
    ColumnInfo,
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

ROWS_DENSITY = 16  # below rows / 16 a set is kept as rows, above as bits


@dataclass(frozen=True, slots=True)
class Text:
    """Text postings: row `rows[i]` has the value `word(codes[i])`; codes ascend with the words when `sorted`."""

    codes: AnyArray
    rows: I32
    word: Callable[[int], Any]
    sorted: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """The postings among `rows` that `mask` marks; the rows ascend."""

    mask: NDArray[np.bool_]
    rows: I32


Piece = Scan | I32  # rows that match by one array of postings, ascending within one value only


class ColumnReader(ABC):
    """A `FieldSource` over postings, and the values behind it."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    @property
    def rows(self) -> int:
        return self._rows

    def select(self, probe: Probe) -> RowSet:
        """The rows that the probe matches, deleted ones included."""
        match probe:
            case Present():
                present = self._present(probe.path)
                if len(present) == self._rows:
                    return RowSet(self._rows, bits=bitset.full(self._rows))
                return bitset.set_of_rows(present)
            case Null():
                return bitset.set_of_rows(self._nulls(probe.path))
            case Equal():
                pieces = self._equal(probe)
            case Within():
                pieces = self._within(probe)
            case Prefix():
                pieces = self._prefixed(probe)
            case Search():
                pieces = self._searched(probe)
            case Sized():
                return self._union(self._sized(probe), lists=False)
        return self._union(pieces, len(self._lists(probe.path)) > 0)

    def count(self, probe: Probe) -> Estimate:
        """How many rows the probe matches, exactly."""
        found = self.select(probe).count
        return Estimate(found, found)

    def paths(self) -> Mapping[str, ColumnInfo]:
        """Every path that a row has, with the number of those rows and the types seen."""
        return {path: ColumnInfo(len(self._present(path)), self._type_names(path)) for path in self._paths()}

    def value_counts(self, path: str, rows: RowSet | None = None) -> dict[tuple[str, Scalar], int]:
        """(kind, value) -> rows that have it, within `rows` (None = all).

        The kind is part of the key because True and 1 are one key of a dict; int and float are one kind, "number".
        Timestamps come as aware datetimes in UTC.
        """
        counts: dict[tuple[str, Scalar], int] = {}
        wanted = self._mask(rows)
        types = list(self._types(path))
        if {"int", "float"} <= set(types) and len(self._lists(path)):
            types = [stored for stored in types if KIND_OF[stored] != "number"]
            counts = {("number", value): number for value, number in self._mixed_numbers(path, wanted).items()}
        for stored in types:
            values, _, word = self._postings(path, stored, wanted)
            distinct, times = np.unique(values, return_counts=True)
            for value, number in zip(distinct.tolist(), times.tolist(), strict=True):
                key = KIND_OF[stored], decode(stored, word(value))
                counts[key] = counts.get(key, 0) + number
        return counts

    def min_max(self, path: str, rows: RowSet | None = None) -> dict[str, tuple[Scalar, Scalar]]:
        """kind -> (lowest, highest) value within `rows`; the kinds "number", "timestamp", "string" in this order."""
        wanted = self._mask(rows)
        found: dict[str, tuple[Scalar, Scalar]] = {}
        types = set(self._types(path))
        for kind in ORDERED_KINDS:
            extremes: list[Any] = []
            for stored in KINDS[kind]:
                if stored in types:
                    extremes += self._extremes(path, stored, wanted)
            if extremes:
                found[kind] = (min(extremes), max(extremes))
        return found

    def order_keys(self, path: str, rows: I32) -> list[tuple[int, Any]]:
        """For each of `rows` (unique) a key that sorts across segments: (rank of the kind, value).

        A list has the key of its smallest element; a row without a value has the last rank.
        """
        keys: list[tuple[int, Any]] = [(MISSING_RANK, 0)] * len(rows)
        wanted = np.zeros(self._rows, np.bool_)
        wanted[rows] = True
        places = np.zeros(self._rows, np.int64)
        places[rows] = np.arange(len(rows))
        for stored in self._types(path):
            rank = RANKS[KIND_OF[stored]]
            values, posted, word = self._postings(path, stored, wanted)
            for place, value in zip(places[posted].tolist(), values.tolist(), strict=True):
                key = (rank, word(value))
                if key < keys[place]:
                    keys[place] = key
        return keys

    def _union(self, pieces: Sequence[Piece], lists: bool) -> RowSet:
        """One set of pieces of rows; with lists a row may be in several places."""
        if len(pieces) == 1 and isinstance(pieces[0], Scan) and not lists and len(pieces[0].rows) == self._rows:
            # One value for every row: the mask of the postings is the mask of the rows.
            return bitset.set_of_bits(bitset.from_mask(pieces[0].mask))
        found = [piece.rows[piece.mask] if isinstance(piece, Scan) else piece for piece in pieces]
        found = [piece for piece in found if len(piece)]
        if not found:
            return bitset.set_of_rows(np.empty(0, np.int32))
        if len(found) == 1 and self._ascending(found[0]):
            return bitset.set_of_rows(found[0])
        if sum(map(len, found)) >= self._rows / ROWS_DENSITY:
            mask = np.zeros(self._rows, np.bool_)
            for piece in found:
                mask[piece.astype(np.intp)] = True  # NumPy's own conversion of int32 indexes is twice as slow
            return bitset.set_of_bits(bitset.from_mask(mask))
        rows = np.concatenate(found)
        return bitset.set_of_rows(np.unique(rows) if lists else np.sort(rows))

    @staticmethod
    def _ascending(rows: I32) -> bool:
        return len(rows) < 2 or bool((rows[1:] > rows[:-1]).all())

    def _mask(self, rows: RowSet | None) -> NDArray[np.bool_] | None:
        return None if rows is None else bitset.to_mask(bitset.bits_of(rows, self._rows), self._rows)

    def _postings(
        self, path: str, stored: str, wanted: NDArray[np.bool_] | None
    ) -> tuple[AnyArray, I32, Callable[[Any], Any]]:
        """(values or codes, rows, what turns one of the former into a value), within the mask `wanted`."""
        if stored in NUMERIC:
            values, rows = self._numeric(path, stored)
            word: Callable[[Any], Any] = bool if stored == "bool" else _as_is
        else:
            text = self._text(path, stored)
            values, rows, word = text.codes, text.rows, _decoder(stored, text)
        if wanted is not None:
            chosen = wanted[rows]
            values, rows = values[chosen], rows[chosen]
        return values, rows, word

    def _mixed_numbers(self, path: str, wanted: NDArray[np.bool_] | None) -> dict[Scalar, int]:
        """Counts of numbers where one list may hold 1 and 1.0, which are one value."""
        pairs: set[tuple[Scalar, int]] = set()
        for stored in KINDS["number"]:
            values, rows, _ = self._postings(path, stored, wanted)
            pairs.update(zip(values.tolist(), rows.tolist(), strict=True))
        counts: dict[Scalar, int] = {}
        for value, _ in pairs:
            counts[value] = counts.get(value, 0) + 1
        return counts

    def _extremes(self, path: str, stored: str, wanted: NDArray[np.bool_] | None) -> list[Scalar]:
        values, _, word = self._postings(path, stored, wanted)
        if not len(values):
            return []
        if stored in NUMERIC or self._text(path, stored).sorted:
            return [decode(stored, word(values.min().item())), decode(stored, word(values.max().item()))]
        words = [word(code) for code in np.unique(values).tolist()]
        return [min(words), max(words)]

    def _type_names(self, path: str) -> tuple[str, ...]:
        extra = [("null", self._nulls(path)), ("list", self._lists(path))]
        return (*self._types(path), *(name for name, rows in extra if len(rows)))

    @abstractmethod
    def _paths(self) -> Iterable[str]: ...

    @abstractmethod
    def _types(self, path: str) -> Iterable[str]:
        """The stored types that have postings; empty for an unknown path."""

    @abstractmethod
    def _present(self, path: str) -> I32: ...

    @abstractmethod
    def _nulls(self, path: str) -> I32: ...

    @abstractmethod
    def _lists(self, path: str) -> I32: ...

    @abstractmethod
    def _numeric(self, path: str, stored: str) -> tuple[AnyArray, I32]: ...

    @abstractmethod
    def _text(self, path: str, stored: str) -> Text: ...

    @abstractmethod
    def _equal(self, probe: Equal) -> Sequence[Piece]: ...

    @abstractmethod
    def _within(self, probe: Within) -> Sequence[Piece]: ...

    @abstractmethod
    def _prefixed(self, probe: Prefix) -> Sequence[Piece]: ...

    @abstractmethod
    def _searched(self, probe: Search) -> Sequence[Piece]: ...

    @abstractmethod
    def _sized(self, probe: Sized) -> Sequence[Piece]: ...


def _as_is(value: Any) -> Any:
    return value


def _decoder(stored: str, text: Text) -> Callable[[Any], Any]:
    """Sealed words are bytes; a string's are UTF-8."""
    if stored == "string" and text.sorted:
        return lambda code: text.word(code).decode()
    return text.word
