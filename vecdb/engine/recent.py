"""Payloads that were read lately: a record that is hit again costs a copy of its dict, no read, checksum or msgpack."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from vecdb.storage.payload import unpack, unpack_all

Read = Callable[[Sequence[int]], list[bytes]]
MANY = 256  # records of one call beyond which nothing is kept: whoever lists a collection would push out all else
ATOMS = frozenset((NoneType, bool, int, float, str, bytes, dt.datetime, dt.date))
TURNS = 4  # calls that read, of which one keeps what it read: to keep takes as long as to read
OBJECT_BYTES, NESTED_BYTES = 800, 100  # what an entry weighs besides twice its packed bytes, or once if they are nested


class Nested(bytes):
    """A packed payload with objects in it: to copy these one by one takes as long as to unpack them."""


# The payload with tuples for lists, the keys of these, and its weight. Tuples, and dicts of plain values, are nothing
# that the garbage collector has to look at again and again, as it has at lists.
Plain = tuple[dict[str, Any], tuple[str, ...], int]
Entry = Nested | Plain
Generation = dict[int, dict[int, Entry]]  # by collection and sequence
_NOTHING: dict[int, Entry] = {}


class RecentPayloads:
    """Those of sealed records, of one database. A version of a record never changes and its sequence is never used
    again, so nothing here goes stale.

    What is kept enters the young generation; when that weighs half of `limit` bytes, it becomes the old one, and what
    was in that and not asked for since is dropped. Lookups take no lock: threads that race read a record twice.
    """

    __slots__ = ("_lock", "_old", "_reads", "_weights", "_young", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._reads = 0
        self._lock = threading.Lock()
        self._young: Generation = {}
        self._old: Generation = {}
        self._weights = [0, 0]  # of the young and of the old generation

    @property
    def nbytes(self) -> int:
        """About what it holds, by the packed sizes."""
        return sum(self._weights)

    def payloads(self, collection: int, sequences: Sequence[int], read: Read) -> list[dict[str, Any]]:
        """A payload for each sequence, the caller's own. `read` gives the packed bytes of those that are not here."""
        if not self.limit or len(sequences) > MANY:
            return unpack_all(read(sequences))
        entries: list[Any] = list(map(self._young.get(collection, _NOTHING).get, sequences))
        if None in entries:
            return self._learn(collection, sequences, entries, read)
        return list(map(_copy, entries))

    def _learn(
        self, collection: int, sequences: Sequence[int], entries: list[Entry | None], read: Read
    ) -> list[dict[str, Any]]:
        """Reads what is not here, and keeps it when it is its turn."""
        old = self._old.get(collection)
        if old is not None:
            entries = [old.get(s) if entry is None else entry for s, entry in zip(sequences, entries, strict=True)]
        absent = [s for s, entry in zip(sequences, entries, strict=True) if entry is None]
        packed = read(absent) if absent else []
        payloads = unpack_all(packed)
        self._reads += 1
        if self._reads % TURNS == 0:
            kept = dict(zip(absent, map(_kept, packed, payloads), strict=True))
            self._put(collection, {s: entry for s, entry in zip(sequences, entries, strict=True) if entry} | kept)
        fresh = iter(payloads)
        return [next(fresh) if entry is None else _copy(entry) for entry in entries]

    def _put(self, collection: int, entries: dict[int, Entry]) -> None:
        added = sum(map(_weight, entries.values()))
        if added * 2 > self.limit:
            return
        with self._lock:
            if (self._weights[0] + added) * 2 > self.limit:
                self._old, self._young = self._young, {}
                self._weights = [0, self._weights[0]]
            young = self._young.setdefault(collection, {})
            self._weights[0] += added - sum(_weight(young[s]) for s in entries if s in young)
            young.update(entries)


def _kept(packed: bytes, payload: dict[str, Any]) -> Entry:
    kept, lists = payload.copy(), []
    for key, value in payload.items():
        if type(value) is list:
            if not ATOMS.issuperset(map(type, value)):
                return Nested(packed)
            kept[key] = tuple(value)
            lists.append(key)
        elif type(value) not in ATOMS:
            return Nested(packed)
    return kept, tuple(lists), OBJECT_BYTES + 2 * len(packed)


def _copy(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Nested):
        return unpack(entry)
    payload: dict[str, Any] = entry[0].copy()
    for key in entry[1]:
        payload[key] = list(payload[key])
    return payload


def _weight(entry: Entry) -> int:
    return NESTED_BYTES + len(entry) if isinstance(entry, Nested) else entry[2]
