"""The postings of one path of a growing segment: arrays that only grow, and the dictionary of its strings."""

from __future__ import annotations

import bisect
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vecdb.storage import seal_columns
from vecdb.storage.column_values import NUMERIC, SIZE, TEXT, encode, stored_type
from vecdb.storage.payload import Elements, FlatValue, microseconds
from vecdb.storage.text_search import search_list
from vecdb.types import I32, AnyArray, Search, Within

_FIRST_CAPACITY = 256
_TAIL = 1024  # values of a dictionary that may wait to be sorted
_SEARCHES = 16  # searched texts whose answers a dictionary keeps


class Growable:
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


class Words:
    """A dictionary of strings (or bytes) that grows: value <-> code in order of arrival."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.codes: dict[Any, int] = {}
        self._sorted: tuple[list[Any], list[int]] = ([], [])
        self._searches: dict[Search, AnyArray] = {}

    def encode(self, values: Sequence[Any]) -> AnyArray:
        codes = self.codes
        found = list(map(codes.get, values))
        if None in found:
            for value in values:
                if value not in codes:
                    self.values.append(value)  # before its code is known, so that a reader can look it up
                    codes[value] = len(self.values) - 1
            found = list(map(codes.get, values))
        return np.array(found, np.int32)

    def within(self, probe: Within) -> AnyArray:
        """For every code, whether its value lies between the bounds."""
        ordered, codes = self._ordered()
        below = bisect.bisect_right if probe.low_open else bisect.bisect_left
        above = bisect.bisect_left if probe.high_open else bisect.bisect_right
        low, high = probe.low, probe.high
        first = 0 if low is None else below(ordered, low)
        last = len(ordered) if high is None else above(ordered, high)
        return _marked(codes, codes[first:last], [_inside(value, probe) for value in self.values[len(codes) :]])

    def prefixed(self, text: str) -> AnyArray:
        """For every code, whether its value starts with `text`."""
        ordered, codes = self._ordered()
        first = bisect.bisect_left(ordered, text)
        last = bisect.bisect_right(ordered, text, lo=first, key=lambda value: value[: len(text)])
        return _marked(codes, codes[first:last], [value.startswith(text) for value in self.values[len(codes) :]])

    def searched(self, probe: Search) -> AnyArray:
        """For every code, whether its value matches; values that came since the last time are added to the answer."""
        known = self._searches.get(probe, np.zeros(0, np.bool_))
        if len(known) < len(self.values):
            known = np.append(known, search_list(self.values[len(known) :], probe))
            if len(self._searches) >= _SEARCHES:
                self._searches = {}
            self._searches[probe] = known
        return known

    def _ordered(self) -> tuple[list[Any], list[int]]:
        """The first values in ascending order with their codes; the rest, at most an eighth, stays a tail."""
        ordered, codes = self._sorted
        count = len(self.values)
        if count - len(codes) > max(_TAIL, len(codes) // 8):
            # Sorting a sorted list with a tail is nearly linear.
            tail = self.values[len(codes) : count]
            pairs = sorted([*zip(ordered, codes, strict=True), *zip(tail, range(len(codes), count), strict=True)])
            ordered, codes = [value for value, _ in pairs], [code for _, code in pairs]
            self._sorted = (ordered, codes)
        return ordered, codes


class GrowingColumn:
    """One path of a growing segment."""

    def __init__(self) -> None:
        self.present = Growable("<i4")
        self.nulls = Growable("<i4")
        self.sizes = Growable("<i4")  # elements of each list in `lists`, published before it
        self.lists = Growable("<i4")
        self.postings: dict[str, tuple[Growable, Growable]] = {}  # stored type -> values (or codes), rows
        self.words: dict[str, Words] = {}  # text type -> its dictionary

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
        nulls, lists, sizes = [], [], []
        for row, value in zip(rows.tolist(), values, strict=True):
            if value is None:
                nulls.append(row)
                continue
            elements: Iterable[Any] = (value,)
            if isinstance(value, list | tuple):
                if isinstance(value, list):
                    lists.append(row)
                    sizes.append(value.length if isinstance(value, Elements) else len(value))
                elements = _distinct(value)
            for element in elements:
                bucket = buckets.setdefault(stored_type(type(element)), ([], []))
                bucket[0].append(element)
                bucket[1].append(row)
        for stored, (elements, posted) in buckets.items():
            self._post(stored, elements, np.array(posted, np.int32))
        self.nulls.append(np.array(nulls, np.int32))
        self.sizes.append(np.array(sizes, np.int32))
        self.lists.append(np.array(lists, np.int32))

    def _post(self, stored: str, values: Sequence[Any], rows: I32) -> None:
        if stored in TEXT:
            if stored not in self.words:
                self.words[stored] = Words()
            encoded = self.words[stored].encode(values)
        else:
            encoded = encode(stored, values)
        if stored == "float":
            known = ~np.isnan(encoded)  # NaN equals nothing and lies in no range: it is only present
            encoded, rows = encoded[known], rows[known]
        if stored not in self.postings:
            self.postings[stored] = (Growable(NUMERIC.get(stored, "<i4")), Growable("<i4"))
        posted_values, posted_rows = self.postings[stored]
        posted_values.append(encoded)
        posted_rows.append(rows)

    def sealed(self, rows: int, renumbered: I32 | None) -> dict[str, AnyArray]:
        present, nulls = (seal_columns.renumber(growing.array(), renumbered) for growing in (self.present, self.nulls))
        if not len(present):
            return {}
        lists = seal_columns.renumber(self.lists.array(), renumbered, drop=False)
        arrays = seal_columns.presence(rows, present, nulls)
        arrays |= seal_columns.numeric(SIZE, self.sizes.array()[lists >= 0], lists[lists >= 0])
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


def _inside(value: Any, probe: Within) -> bool:
    above = probe.low is None or (value > probe.low if probe.low_open else value >= probe.low)
    return above and (probe.high is None or (value < probe.high if probe.high_open else value <= probe.high))


def _marked(codes: list[int], chosen: list[int], tail: list[bool]) -> AnyArray:
    """The mask of chosen codes, with the tail behind."""
    return np.append(mask_of(len(codes), chosen), np.array(tail, np.bool_))


def mask_of(count: int, chosen: list[int]) -> AnyArray:
    mask = np.zeros(count, np.bool_)
    mask[chosen] = True
    return mask
