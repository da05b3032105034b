"""Which rows of a segment may be returned: the filter's rows without the deleted, as the plan wants them, cached."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.engine.view import FieldView, Segment
from vecdb.filter.evaluate import evaluate
from vecdb.filter.expression import Node
from vecdb.kernels import bitset
from vecdb.types import I32, U64, RowSet

CACHE_BYTES = 64 * 1024 * 1024
ENTRY_BYTES = 512  # what an entry weighs besides its rows


@dataclass(frozen=True, slots=True)
class _Entry:
    """`storage`, rows and `deleted` are those of the segment that `allowed` was made for.

    The storage may go while the entry stays, and its id() be given to another; the entry keeps `deleted` alive.
    """

    storage: weakref.ref[Any]
    segment_rows: int
    deleted: U64 | None
    allowed: RowSet

    def fits(self, segment: Segment) -> bool:
        same = self.storage() is segment.storage and self.deleted is segment.deleted
        return same and self.segment_rows == segment.rows

    @property
    def weight(self) -> int:
        parts = (self.allowed.rows, self.allowed.bits)
        return ENTRY_BYTES + sum(part.nbytes for part in parts if part is not None)


class FilterCache:
    """The least recently used filters go first when the rows kept pass 64 MiB."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: OrderedDict[tuple[int, Node], _Entry] = OrderedDict()
        self.bytes = 0

    def get(self, segment: Segment, node: Node) -> RowSet | None:
        """The allowed rows, if they were found for this segment with these deletions."""
        key = (id(segment.storage), node)
        with self.lock:
            entry = self.entries.get(key)
            if entry is None or not entry.fits(segment):
                return None
            self.entries.move_to_end(key)
            return entry.allowed

    def put(self, segment: Segment, node: Node, allowed: RowSet) -> None:
        entry = _Entry(weakref.ref(segment.storage), segment.rows, segment.deleted, allowed)
        key = (id(segment.storage), node)
        with self.lock:
            old = self.entries.pop(key, None)
            self.bytes += entry.weight - (old.weight if old else 0)
            self.entries[key] = entry
            while self.bytes > CACHE_BYTES and len(self.entries) > 1:
                _, gone = self.entries.popitem(last=False)
                self.bytes -= gone.weight

    def forget(self, storages: set[int]) -> None:
        """Segments that are gone: their rows need not wait for their turn."""
        with self.lock:
            for key in [key for key in self.entries if key[0] in storages]:
                self.bytes -= self.entries.pop(key).weight


def allowed_rows(cache: FilterCache, segment: Segment, node: Node | None) -> RowSet | None:
    """The live rows that match; None for all rows of the segment."""
    if node is None:
        return None if segment.deleted_count == 0 else RowSet(segment.live, bits=segment.live_bits())
    found = cache.get(segment, node)
    if found is None:
        found = _without_deleted(evaluate(node, segment.columns()), segment)
        cache.put(segment, node, found)
    return found


def _without_deleted(found: RowSet, segment: Segment) -> RowSet:
    if segment.deleted_count == 0:
        return found
    if found.rows is not None:
        assert segment.deleted is not None
        gone = (segment.deleted[found.rows >> 6] >> (found.rows & 63).astype(np.uint64)) & np.uint64(1)
        return bitset.set_of_rows(found.rows[gone == 0])
    assert found.bits is not None
    return bitset.set_of_bits(found.bits & segment.live_bits())


def in_field(allowed: RowSet | None, field: FieldView, record_rows: int) -> RowSet | None:
    """The same records as rows of one field: those that have it."""
    if allowed is None or field.rows_of is None:
        return allowed
    if allowed.rows is not None:
        at = np.searchsorted(field.rows_of, allowed.rows)
        inside = at < len(field.rows_of)
        inside[inside] = field.rows_of[at[inside]] == allowed.rows[inside]
        rows: I32 = at[inside].astype(np.int32)
        return bitset.set_of_rows(rows)
    mask = bitset.to_mask(bitset.bits_of(allowed, record_rows), record_rows)
    return bitset.set_of_bits(bitset.from_mask(mask[field.rows_of]))
