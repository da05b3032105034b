"""What a path has as a whole: its types, its values with their counts, the extremes, and the order of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels import bitset
from vecdb.storage.column_order import MISSING, Keys, Order, common
from vecdb.storage.column_reader import ColumnReader, Text
from vecdb.storage.column_values import (
    KIND_OF,
    KINDS,
    NUMERIC,
    ORDERED_KINDS,
    RANKS,
    decode,
)
from vecdb.types import I32, AnyArray, ColumnInfo, RowSet, Scalar


class ColumnSummaries(ColumnReader):
    """A `ColumnReader` that also sums up its paths."""

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
            distinct, times = self._distinct(path, stored, wanted)
            for value, number in zip(distinct, times.tolist(), strict=True):
                key = KIND_OF[stored], decode(stored, value)
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

    def order(self, path: str, rows: I32) -> Order:
        """The places of `rows` (unique) in the order of the path."""
        wanted = np.zeros(self._rows, np.bool_)
        wanted[rows] = True
        places = np.zeros(self._rows, np.int64)
        places[rows] = np.arange(len(rows))
        postings = [(stored, *self._postings(path, stored, wanted)) for stored in self._types(path)]
        codes = np.full(len(rows), MISSING, np.int64)
        ranks = {RANKS[KIND_OF[stored]] for stored, *_ in postings}
        numbers = common([values for _, values, _, _ in postings]) if len(ranks) == 1 and _numeric(postings) else None
        if numbers is not None:
            distinct, found = np.unique(np.concatenate(numbers), return_inverse=True)
            posted = np.concatenate([rows for _, _, rows, _ in postings])
            np.minimum.at(codes, places[posted], found)
            return Order(codes, lambda used: Keys(min(ranks), distinct[used]))
        keys = _Pairs(postings)
        for posted, found in keys.codes:
            np.minimum.at(codes, places[posted], found)
        return Order(codes, lambda used: Keys(pairs=[keys.pairs[code] for code in used.tolist()]))

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

    def _distinct(self, path: str, stored: str, wanted: NDArray[np.bool_] | None) -> tuple[list[Any], AnyArray]:
        """The distinct values of a type within the mask `wanted`, and the number of rows that have each."""
        values, _, word = self._postings(path, stored, wanted)
        distinct, times = np.unique(values, return_counts=True)
        return [word(value) for value in distinct.tolist()], times

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


Posted = tuple[str, AnyArray, I32, Callable[[Any], Any]]  # type, values or codes, rows, codes to values


def _numeric(postings: list[Posted]) -> bool:
    return all(stored in NUMERIC for stored, *_ in postings)


class _Pairs:
    """The keys of postings of any types as (rank of the kind, value), in order.

    pairs   the keys
    codes   for the postings of each type: rows, and the place of each one's key in `pairs`
    """

    def __init__(self, postings: list[Posted]) -> None:
        listed = []
        for stored, values, _, word in postings:
            distinct, found = np.unique(values, return_inverse=True)
            rank = RANKS[KIND_OF[stored]]
            listed.append(([(rank, word(value)) for value in distinct.tolist()], found))
        self.pairs = sorted({key for keys, _ in listed for key in keys})
        position = {key: place for place, key in enumerate(self.pairs)}
        self.codes = [
            (rows, np.array([position[key] for key in keys], np.int64)[found])
            for (_, _, rows, _), (keys, found) in zip(postings, listed, strict=True)
        ]


def _as_is(value: Any) -> Any:
    return value


def _decoder(stored: str, text: Text) -> Callable[[Any], Any]:
    """Sealed words are bytes; a string's are UTF-8."""
    if stored == "string" and text.sorted:
        return lambda code: text.word(code).decode()
    return text.word
