"""Records that were read lately: what is hit again costs a copy of its dict, and no read, checksum or msgpack."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from vecdb.storage.keys import decode_key
from vecdb.storage.payload import unpack, unpack_all
from vecdb.types import Id

Read = Callable[[Sequence[int]], list[tuple[bytes, bytes]]]  # sequences -> (encoded id, packed payload) of each
Payload = dict[str, Any]
MANY = 256  # records of one call beyond which nothing is kept: whoever lists a collection would push out all else
ATOMS = frozenset((NoneType, bool, int, float, str, bytes, dt.datetime, dt.date))
ONCE_BYTES = 1024  # of the bound, for each record of which it is known that it was read once
TOGETHER = 64  # searches that read ids and payloads in one go, after one whose payloads were asked for
ENTRY_BYTES = 800  # what an entry weighs besides twice its packed bytes

# The id; the payload with tuples for lists, or packed if it has objects in it; the keys of the lists, None if it is
# packed; the weight. Tuples, and dicts of plain values, are nothing that the garbage collector has to look at again and
# again, as it has at lists.
Entry = tuple[Id, Any, tuple[str, ...] | None, int]
Generation = dict[int, dict[int, Entry]]  # by collection and sequence
_NOTHING: dict[int, Entry] = {}


class RecentRecords:
    """Those of sealed segments, of one database. A version of a record never changes and its sequence is never used
    again, so nothing here goes stale.

    A record is kept when it is read again, for to keep it takes as long as to read it. What is kept enters the young
    generation; when that weighs half of `limit` bytes, it becomes the old one, and what was in that and not asked for
    since is dropped. Lookups take no lock: threads that race read a record twice.

    credit   searches whose ids are to be read with their payloads: who asked for both will ask for both
    """

    __slots__ = ("_lock", "_old", "_once", "_weights", "_young", "credit", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.credit = 0
        self._once: dict[int, set[int]] = {}  # by collection, the sequences that were read once
        self._lock = threading.Lock()
        self._young: Generation = {}
        self._old: Generation = {}
        self._weights = [0, 0]  # of the young and of the old generation

    @property
    def nbytes(self) -> int:
        """About what it holds, by the packed sizes."""
        return sum(self._weights)

    def close(self) -> None:
        """Views that are still held read payloads from the catalog, which says that it is closed."""
        self.limit, self._young, self._old, self._once, self._weights = 0, {}, {}, {}, [0, 0]

    def records(self, collection: int, sequences: Sequence[int], read: Read) -> tuple[list[Id], list[Payload]]:
        """Id and payload of each sequence, the payload the caller's own. `read` gives those that are not here."""
        if not self.limit or len(sequences) > MANY:
            stored = read(sequences)
            return [decode_key(key) for key, _ in stored], unpack_all([packed for _, packed in stored])
        entries: list[Any] = list(map(self._young.get(collection, _NOTHING).get, sequences))
        if None in entries:
            return self._learn(collection, sequences, entries, read)
        return [entry[0] for entry in entries], list(map(_copy, entries))

    def _learn(
        self, collection: int, sequences: Sequence[int], entries: list[Entry | None], read: Read
    ) -> tuple[list[Id], list[Payload]]:
        """Reads what is not here, and keeps what was read before."""
        old, kept = self._old.get(collection), {}
        if old is not None:
            entries = [old.get(s) if entry is None else entry for s, entry in zip(sequences, entries, strict=True)]
            kept = {s: entry for s, entry in zip(sequences, entries, strict=True) if entry is not None and s in old}
        absent = [s for s, entry in zip(sequences, entries, strict=True) if entry is None]
        stored = read(absent) if absent else []
        payloads, ids = unpack_all([packed for _, packed in stored]), [decode_key(key) for key, _ in stored]
        again = self._again(collection, absent)
        if again:
            read_again = zip(absent, ids, payloads, stored, strict=True)
            kept |= {s: _kept(value, payload, pair) for s, value, payload, pair in read_again if s in again}
        if kept:
            self._put(collection, kept)
        if len(absent) == len(sequences):
            return ids, payloads
        fresh = iter(zip(ids, payloads, strict=True))
        both = [next(fresh) if entry is None else (entry[0], _copy(entry)) for entry in entries]
        return [value for value, _ in both], [payload for _, payload in both]

    def _again(self, collection: int, sequences: Sequence[int]) -> set[int]:
        """Those that were read before; the others were now."""
        once = self._once.setdefault(collection, set())
        again = once.intersection(sequences)
        once -= again
        if len(once) >= self.limit // ONCE_BYTES:
            once.clear()
        once.update(s for s in sequences if s not in again)
        return again

    def _put(self, collection: int, entries: dict[int, Entry]) -> None:
        added = sum(entry[3] for entry in entries.values())
        if added * 2 > self.limit:
            return
        with self._lock:
            if (self._weights[0] + added) * 2 > self.limit:
                self._old, self._young = self._young, {}
                self._weights = [0, self._weights[0]]
            young = self._young.setdefault(collection, {})
            self._weights[0] += added - sum(young[s][3] for s in entries if s in young)
            young.update(entries)


def _kept(value: Id, payload: Payload, stored: tuple[bytes, bytes]) -> Entry:
    packed = stored[1]
    weight = ENTRY_BYTES + 2 * len(packed)
    kept, lists = payload.copy(), []
    for key, held in payload.items():
        if type(held) is list:
            if not ATOMS.issuperset(map(type, held)):
                return value, packed, None, weight
            kept[key] = tuple(held)
            lists.append(key)
        elif type(held) not in ATOMS:
            return value, packed, None, weight
    return value, kept, tuple(lists), weight


def _copy(entry: Entry) -> Payload:
    _, kept, lists, _ = entry
    if lists is None:  # to copy objects one by one takes as long as to unpack them
        return unpack(kept)
    payload: Payload = kept.copy()
    for key in lists:
        payload[key] = list(payload[key])
    return payload
