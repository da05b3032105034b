"""The immutable picture that a query runs on: segments with their deletions and indexes, at one lsn.

A view is published by one attribute assignment. Whoever took it keeps everything that it names: maps, arrays, indexes,
and the catalog transaction that still knows the payloads of superseded versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.engine.excerpts import Excerpts
from vecdb.engine.recent import TOGETHER, RecentRecords
from vecdb.engine.slots import IndexSlot
from vecdb.errors import Closed, Corrupted
from vecdb.files.pacing import give_way
from vecdb.index.growing import GrowingFlat
from vecdb.kernels import bitset
from vecdb.storage.catalog import Reader, Table
from vecdb.storage.columns import GrowingReader, SealedColumns
from vecdb.storage.growing import REMOVED, Growing
from vecdb.storage.keys import decode_key
from vecdb.storage.payload import unpack_all
from vecdb.storage.plausible import reading
from vecdb.storage.records import stored_records
from vecdb.storage.schema import CollectionMeta, decode_sequence, id_key
from vecdb.storage.sealed import Sealed
from vecdb.types import F32, I32, I64, U64, Id, Matrix

SLICE = 64  # ids looked up between two offers of a turn to other threads


@dataclass(frozen=True, slots=True)
class FieldView:
    """One field of one segment: the matrix, and what searches it.

    rows_of   record row of each field row; None: they are the same
    indexes   complete ones by kind; "flat" scans codes, another kind may walk a graph
    growing   codes of a growing segment, which follow its rows
    """

    matrix: Matrix
    rows_of: I32 | None = None
    indexes: Mapping[str, IndexSlot] | None = None
    growing: GrowingFlat | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as of a view. `deleted` has bits of rows below `rows` only."""

    storage: Sealed | Growing
    rows: int
    fields: Mapping[int, FieldView]
    deleted: U64 | None = None
    deleted_count: int = 0
    # Made for this very segment, and not to outlive it: plans, the ways that searches take by them, and copies of the
    # codes of a filter's rows.
    plans: dict[Any, Any] = dataclass_field(default_factory=dict, compare=False)
    ways: dict[Any, Any] = dataclass_field(default_factory=dict, compare=False)
    excerpts: Excerpts = dataclass_field(default_factory=Excerpts, compare=False)

    @property
    def live(self) -> int:
        return self.rows - self.deleted_count

    def columns(self) -> SealedColumns | GrowingReader:
        storage = self.storage
        return storage.columns if isinstance(storage, Sealed) else storage.columns.at(self.rows)

    def with_deleted(self, rows: I32) -> Segment:
        """The segment without `rows` (unique, ascending or not)."""
        old = self.deleted
        bits = (
            self.storage.deleted_bits(self.rows, old) if isinstance(self.storage, Growing) else _grown(old, self.rows)
        )
        for row in rows.tolist() if len(rows) < 64 else ():
            bits[row >> 6] |= np.uint64(1 << (row & 63))
        if len(rows) >= 64:
            bits |= bitset.from_rows(rows, len(bits) * bitset.WORD_BITS)
        return self.changed(deleted=bits, deleted_count=bitset.count(bits))

    def changed(self, **changes: Any) -> Segment:
        """Another segment: what was made for this one is not for it."""
        return replace(self, plans={}, ways={}, excerpts=Excerpts(), **changes)

    def live_bits(self) -> U64:
        """The rows that are not deleted."""
        bits = bitset.full(self.rows)
        if self.deleted is not None:
            bits &= ~self.deleted[: len(bits)]
        return bits


def _grown(bits: U64 | None, rows: int) -> U64:
    return bitset.empty(rows) if bits is None else bits.copy()


@dataclass(frozen=True, slots=True)
class View:
    """A collection at `lsn`.

    segments   sealed ones, then frozen and growing ones; sequences of a later growing one are larger
    memtables  the growing and frozen segments whose ids the catalog does not know yet, oldest first
    recent     records of sealed segments that were read lately, of the whole database
    """

    lsn: int
    meta: CollectionMeta
    segments: tuple[Segment, ...]
    memtables: tuple[Growing, ...]
    snapshot: Reader
    recent: RecentRecords

    @property
    def records(self) -> int:
        return sum(segment.live for segment in self.segments)

    # ---- ids ------------------------------------------------------------------------------------------------------
    def sequences_of_keys(self, keys: Sequence[bytes]) -> list[int]:
        """The current sequence of each key, -1 for an id that has none."""
        found: list[int] = []
        missing: list[int] = []
        for i, key in enumerate(keys):
            if i % SLICE == 0:
                give_way()
            sequence = self._overlaid(key)
            if sequence is None:
                missing.append(i)
                sequence = REMOVED
            found.append(sequence)
        if missing and self.meta.records:
            catalog_keys = [id_key(self.meta.number, keys[i]) for i in missing]
            values = self.snapshot.get_many(Table.IDS, catalog_keys)
            for i, catalog_key, value in zip(missing, catalog_keys, values, strict=True):
                if value is not None:
                    found[i] = decode_sequence(catalog_key, value)
        return found

    def _overlaid(self, key: bytes) -> int | None:
        for growing in reversed(self.memtables):
            version = growing.version_at(key, self.lsn)
            if version is not None:
                return version.sequence
        return None

    def locate(self, sequences: I64) -> tuple[I32, I32]:
        """(segment, row) of each sequence; segment -1 where no segment has it."""
        at = np.full(len(sequences), -1, np.int32)
        rows = np.full(len(sequences), -1, np.int32)
        for number, segment in enumerate(self.segments):
            found = segment.storage.rows_of_sequences(sequences)
            inside = (found >= 0) & (found < segment.rows)
            at[inside], rows[inside] = number, found[inside]
        return at, rows

    def sequences_of_rows(self, at: I32, rows: I32) -> I64:
        sequences = np.empty(len(rows), np.int64)
        for number in np.unique(at).tolist():
            chosen = at == number
            sequences[chosen] = self.segments[number].storage.sequence_of(rows[chosen])
        return sequences

    # ---- records (results.RecordSource) ---------------------------------------------------------------------------
    def ids(self, at: I32, rows: I32) -> NDArray[Any]:
        parts = set(at.tolist())
        if len(parts) == 1:
            return self._segment_ids(parts.pop(), rows)
        ids = np.empty(len(rows), object)
        for number in parts:
            chosen = np.flatnonzero(at == number)
            ids[chosen] = self._segment_ids(number, rows[chosen])
        values = ids.tolist()
        return np.array(values, np.int64) if all(type(value) is int for value in values) else ids

    def _segment_ids(self, number: int, rows: I32) -> NDArray[Any]:
        storage = self.segments[number].storage
        if isinstance(storage, Sealed):
            return storage.ids.take(rows)
        values = [decode_key(storage.keys[row]) for row in rows.tolist()]
        if all(type(value) is int for value in values):
            return np.array(values, np.int64)
        ids = np.empty(len(rows), object)
        ids[:] = values
        return ids

    def keys(self, at: I32, rows: I32) -> list[bytes]:
        storages = [segment.storage for segment in self.segments]
        return [
            storage.ids.key(row) if isinstance(storage := storages[number], Sealed) else storage.keys[row]
            for number, row in zip(at.tolist(), rows.tolist(), strict=True)
        ]

    def payloads(self, at: I32, rows: I32) -> list[dict[str, Any]]:
        self.recent.credit = TOGETHER
        found = self._sealed_records(at, rows)
        if found is not None:
            return found[1]
        with reading("catalog", "a payload"):
            return unpack_all(self.packed_payloads(at, rows))

    def records_together(self, at: I32, rows: I32) -> tuple[NDArray[Any], list[dict[str, Any]]] | None:
        """Ids and payloads in one go; None where that saves nothing, or when payloads were not asked for lately."""
        if self.recent.credit <= 0:
            return None
        self.recent.credit -= 1
        try:
            found = self._sealed_records(at, rows, texts=True)
        except (Corrupted, Closed):  # ids alone may be told; whoever asks for the payloads learns why not
            return None
        if found is None:
            return None
        ids = np.empty(len(rows), object)
        ids[:] = found[0]
        return ids, found[1]

    def _sealed_records(
        self, at: I32, rows: I32, *, texts: bool = False
    ) -> tuple[list[Id], list[dict[str, Any]]] | None:
        """Ids and payloads when all rows are of one sealed segment, `texts` if its ids are not integers only."""
        parts = set(at.tolist())
        storage = self.segments[parts.pop()].storage if len(parts) == 1 else None
        if not isinstance(storage, Sealed) or (texts and storage.ids.integers is not None):
            return None
        with reading("catalog", "a payload"):
            return self.recent.records(self.meta.number, storage.sequences[rows].tolist(), self._stored_records)

    def packed_payloads(self, at: I32, rows: I32) -> list[bytes]:
        parts = set(at.tolist())
        if len(parts) == 1:
            return self._segment_payloads(parts.pop(), rows)
        packed: list[bytes] = [b""] * len(rows)
        for number in parts:
            chosen = np.flatnonzero(at == number)
            for i, data in zip(chosen.tolist(), self._segment_payloads(number, rows[chosen]), strict=True):
                packed[i] = data
        return packed

    def _segment_payloads(self, number: int, rows: I32) -> list[bytes]:
        storage = self.segments[number].storage
        if isinstance(storage, Growing):
            return [storage.payloads[row] for row in rows.tolist()]
        return [packed for _, packed in self._stored_records(storage.sequences[rows].tolist())]

    def _stored_records(self, sequences: Sequence[int]) -> list[tuple[bytes, bytes]]:
        return stored_records(self.snapshot, self.meta.number, sequences)

    def vectors(self, field: int, at: I32, rows: I32) -> list[F32 | None]:
        return [self._vector(field, number, row) for number, row in zip(at.tolist(), rows.tolist(), strict=True)]

    def _vector(self, field: int, number: int, row: int) -> F32 | None:
        found = self.segments[number].fields.get(field)
        if found is None:
            return None
        if found.rows_of is not None:
            at = int(np.searchsorted(found.rows_of, row))
            if at >= len(found.rows_of) or found.rows_of[at] != row:
                return None
            row = at
        if row >= found.matrix.rows:
            return None
        vector: F32 = found.matrix.vectors[row].astype(np.float32)
        return vector


def growing_segment(growing: Growing, rows: int, flats: Mapping[int, GrowingFlat], before: Segment | None) -> Segment:
    """The first `rows` rows of a growing segment; deletions of `before`, an older view of it, are kept."""
    fields = {}
    for number, field in growing.fields.items():
        count = field.rows_until(rows)
        rows_of = None
        if count != rows:
            rows_of = field.rows_of[:count]
            rows_of.flags.writeable = False
        fields[number] = FieldView(field.matrix(count), rows_of, None, flats.get(number))
    deleted, count = (None, 0) if before is None else (before.deleted, before.deleted_count)
    return Segment(growing, rows, fields, deleted, count)
