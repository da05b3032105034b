"""The records of a damaged segment, row by row, as far as its files pass their checksums.

Whether a row lives is told by three: its payload is in the catalog, its id leads to it, no deletion names it. Two of
the three decide, so that one damaged entry neither loses a record nor brings a deleted one back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vecdb.engine.inspection import UNREADABLE
from vecdb.engine.salvage_entries import Entries
from vecdb.files import names
from vecdb.files.disk import Disk
from vecdb.storage.array_salvage import DamagedArray
from vecdb.storage.catalog import Table
from vecdb.storage.ids import IdColumn
from vecdb.storage.schema import (
    FieldEntry,
    SegmentEntry,
    segment_key,
    unseal,
)
from vecdb.storage.sealed import Files
from vecdb.types import I64, AnyArray

ROWS = 512  # records read at a time


@dataclass(slots=True)
class Salvaged:
    """One record. `payload` None: it is lost; `lost_fields`: numbers of fields whose vector is lost."""

    key: bytes
    payload: dict[str, Any] | None
    vectors: dict[int, AnyArray] = field(default_factory=dict)
    lost_fields: tuple[int, ...] = ()


def is_live(votes: Sequence[bool | None]) -> bool:
    """What most of those say that can tell; the first of them where they are even."""
    told = [vote for vote in votes if vote is not None]
    return bool(told) and (sum(told) * 2 > len(told) or (sum(told) * 2 == len(told) and told[0]))


class SegmentSalvage:
    """A segment as far as its files pass their checksums."""

    def __init__(self, disk: Disk, root: Path, collection: int, entries: Entries, entry: SegmentEntry, files: Files):
        self.collection, self.entries, self.entry = collection, entries, entry
        place = root / names.SEGMENT_DIRECTORY / names.segment(collection, entry.number)
        self.arrays = {
            path: DamagedArray(disk, place / path, file)
            for path, file in files.items()
            if PurePosixPath(path).parts[0] != "columns" and len(PurePosixPath(path).parts) < 3
        }
        self.sequences, self.good_sequences = self._whole_or_known("sequences.npy")
        self.keys = self._keys()
        self.deleted, self.deletions_known = self._deletions()
        self.rows_of = {field.number: self._field_rows(field) for field in entry.fields}

    def close(self) -> None:
        for array in self.arrays.values():
            array.close()

    def _whole_or_known(self, path: str) -> tuple[I64, AnyArray]:
        array = self.arrays.get(path)
        rows = self.entry.rows
        if array is None or array.entry.dtype != "<i8" or array.rows != rows:
            return np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
        return array.read(0, rows), array.good

    def _keys(self) -> list[bytes | None]:
        """The id of each row, None where its bytes are damaged."""
        rows = self.entry.rows
        if self.entry.integer_ids:
            ids, good = self._whole_or_known("ids.npy")
            column = IdColumn(ids)
            return [column.key(row) if good[row] else None for row in range(rows)]
        offsets, data = self.arrays.get("id_offsets.npy"), self.arrays.get("id_bytes.npy")
        if offsets is None or data is None or offsets.rows != rows + 1:
            return [None] * rows
        ends, raw = offsets.read(0, rows + 1), data.read(0, data.rows).tobytes()
        bad = np.concatenate([[0], np.cumsum(~data.good)])
        known = offsets.good[1:] & offsets.good[:-1]
        known[known] &= bad[ends[1:][known]] == bad[ends[:-1][known]]
        return [raw[ends[row] : ends[row + 1]] if known[row] else None for row in range(rows)]

    def _deletions(self) -> tuple[set[int], bool]:
        found: set[int] = set()
        known = True
        for key, value in self.entries.under(Table.DELETIONS, segment_key(self.collection, self.entry.number)):
            try:
                found.update(np.frombuffer(unseal(key, value), "<i8").tolist())
            except UNREADABLE:
                known = False
        return found, known

    def _field_rows(self, field: FieldEntry) -> AnyArray | None:
        """int64 (rows,): the field row of each row, -1 where it has none; None if that cannot be told."""
        rows = self.entry.rows
        if not field.sparse:
            return np.arange(rows) if field.rows == rows else None
        array = self.arrays.get(f"{names.field_directory(field.number)}/rows.npy")
        found = None if array is None else array.whole()
        if found is None or len(found) != field.rows or (len(found) and not 0 <= found.min() <= found.max() < rows):
            return None
        placed = np.full(rows, -1, np.int64)
        placed[found] = np.arange(field.rows)
        return placed

    def records(self) -> Iterator[tuple[int, Salvaged]]:
        """(sequence, record) of every live row whose id is known, in order."""
        for start in range(0, self.entry.rows, ROWS):
            last = min(start + ROWS, self.entry.rows)
            blocks = {field.number: self._block(field, start, last) for field in self.entry.fields}
            for row in range(start, last):
                found = self._record(row)
                if found is not None:
                    sequence, record = found
                    self._add_vectors(record, row, blocks)
                    yield sequence, record

    def _record(self, row: int) -> tuple[int, Salvaged] | None:
        key = self.keys[row]
        leads = self.entries.sequence(self.collection, key)
        if self.good_sequences[row]:
            sequence = int(self.sequences[row])
        elif leads is not None and self.entry.first_sequence <= leads <= self.entry.last_sequence:
            sequence = leads
        else:
            return None
        there, told, payload = self.entries.record(self.collection, sequence)
        key = told if told is not None else key
        deletion = None if not self.deletions_known else sequence not in self.deleted
        votes = (there, None if leads is None else leads == sequence, deletion)
        return (sequence, Salvaged(key, payload)) if key is not None and is_live(votes) else None

    def _block(self, field: FieldEntry, first: int, last: int) -> tuple[AnyArray, AnyArray, int] | None:
        """(vectors, good, first field row) of the field rows that records first..last have."""
        placed = self.rows_of[field.number]
        array = self.arrays.get(f"{names.field_directory(field.number)}/vectors.npy")
        if placed is None or array is None or array.entry.shape != (field.rows, field.dim):
            return None
        here = placed[first:last]
        here = here[here >= 0]
        low, high = (int(here[0]), int(here[-1]) + 1) if len(here) else (0, 0)
        block = array.read(low, high)
        return block, array.good[low:high] & np.isfinite(block).all(axis=1), low

    def _add_vectors(
        self, record: Salvaged, row: int, blocks: dict[int, tuple[AnyArray, AnyArray, int] | None]
    ) -> None:
        lost = []
        for number, block in blocks.items():
            placed = self.rows_of[number]
            if placed is None or block is None:
                if placed is None or placed[row] >= 0:
                    lost.append(number)
            elif placed[row] >= 0:
                vectors, good, low = block
                if good[placed[row] - low]:
                    record.vectors[number] = vectors[placed[row] - low]
                else:
                    lost.append(number)
        record.lost_fields = tuple(lost)
