"""Which rows of a segment may be returned: the filter's rows without the deleted, as the plan wants them, cached."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.engine.view import FieldView, Segment
from vecdb.filter.evaluate import estimate, evaluate
from vecdb.filter.expression import Node
from vecdb.kernels import bitset
from vecdb.types import I32, U64, Estimate, Probe, RowSet

CACHE_BYTES = 64 * 1024 * 1024
ENTRY_BYTES = 512  # what an entry weighs besides its rows


@dataclass(frozen=True, slots=True)
class _Entry:
    """The rows that a filter matches, and those of them that are not in `deleted`.

    `storage` and `rows` are those of the segment that was asked. The storage may go while the entry stays, and its id()
    be given to another; the entry keeps `deleted` alive.
    """

    storage: weakref.ref[Any]
    rows: int
    matching: RowSet
    deleted: U64 | None
    allowed: RowSet

    def fits(self, segment: Segment) -> bool:
        """Whether the filter matches these rows of the segment, whatever was deleted since."""
        return self.storage() is segment.storage and self.rows == segment.rows

    @property
    def weight(self) -> int:
        sets = [self.matching] if self.allowed is self.matching else [self.matching, self.allowed]
        arrays = [array for found in sets for array in (found.rows, found.bits) if array is not None]
        return ENTRY_BYTES + sum(array.nbytes for array in arrays)


class FilterCache:
    """What filters matched, of one database. The least recently used go first when they weigh more than 64 MiB."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: OrderedDict[tuple[int, Node], _Entry] = OrderedDict()
        self.bytes = 0

    def get(self, segment: Segment, node: Node) -> _Entry | None:
        """What was found for this segment; its deletions may be older ones."""
        key = (id(segment.storage), node)
        with self.lock:
            entry = self.entries.get(key)
            if entry is None or not entry.fits(segment):
                return None
            self.entries.move_to_end(key)
            return entry

    def put(self, segment: Segment, node: Node, matching: RowSet, allowed: RowSet) -> None:
        entry = _Entry(weakref.ref(segment.storage), segment.rows, matching, segment.deleted, allowed)
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
    entry = cache.get(segment, node)
    if entry is not None and entry.deleted is segment.deleted:
        return entry.allowed
    matching = entry.matching if entry is not None else evaluate(node, segment.columns())
    allowed = _without_deleted(matching, segment)
    cache.put(segment, node, matching, allowed)
    return allowed


@dataclass(frozen=True, slots=True)
class _Live:
    """The columns of a segment without its deleted rows, for estimates."""

    segment: Segment

    @property
    def rows(self) -> int:
        return self.segment.live

    def count(self, probe: Probe) -> Estimate:
        columns, deleted = self.segment.columns(), self.segment.deleted
        return columns.count(probe) if deleted is None else columns.count_without(probe, deleted)


def estimated(cache: FilterCache, segment: Segment, node: Node | None) -> Estimate:
    """Bounds on the number of allowed rows, without finding them; exact for one condition or its negation.

    The conditions of a path whose lists hold several of the values asked for have bounds only.
    """
    if node is None or segment.live == 0:
        return Estimate(segment.live, segment.live)
    entry = cache.get(segment, node)
    if entry is not None and entry.deleted is segment.deleted:
        return Estimate(entry.allowed.count, entry.allowed.count)
    return estimate(node, _Live(segment))


def _without_deleted(found: RowSet, segment: Segment) -> RowSet:
    if segment.deleted is None or segment.deleted_count == 0:
        return found
    if found.rows is not None:
        return bitset.set_of_rows(found.rows[~RowSet(0, bits=segment.deleted).holds(found.rows)])
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
