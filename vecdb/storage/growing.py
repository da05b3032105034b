"""The growing segment: new records of one collection, in arrays that never move and that readers may look at.

All arrays are reserved once at full capacity (memory that nobody touched costs nothing). A writer, under the append
lock, fills rows beyond every published view; a view shows the first `rows`. Rows are in order of sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vecdb.files.pacing import give_way
from vecdb.kernels import bitset
from vecdb.storage.batch import Part
from vecdb.storage.columns import GrowingColumns
from vecdb.storage.payload import flatten, unpack
from vecdb.storage.schema import CollectionMeta, FieldMeta
from vecdb.types import F32, I32, I64, U64, Matrix, Metric, Vectors

ROWS_MAX = 131_072
SLICE = 64  # ids taken between two offers of a turn to other threads
VECTOR_BYTES_MAX = 256 * 1024 * 1024


class Version(NamedTuple):
    """What a batch made of an id: the sequence of its new version, or REMOVED; and what it was before, here."""

    lsn: int
    sequence: int
    before: Version | None


REMOVED = -1


def capacity_for(fields: Sequence[FieldMeta], rows: int) -> int:
    """Records that a growing segment holds: bounded in rows and in bytes of vectors, at least `rows`."""
    row_bytes = sum((field.dim or 0) * np.dtype(field.dtype).itemsize for field in fields)
    bounded = min(ROWS_MAX, VECTOR_BYTES_MAX // row_bytes) if row_bytes else ROWS_MAX
    return max(rows, bounded)


class GrowingField:
    """The vectors of one field. `rows_of[i]` is the record row of field row i; while every record has the field
    they are equal."""

    def __init__(self, meta: FieldMeta, dim: int, capacity: int) -> None:
        self.meta, self.dim = meta, dim
        self.vectors: Vectors = np.empty((capacity, dim), meta.dtype)
        self.inverse_norms: F32 | None = np.empty(capacity, np.float32) if meta.metric is Metric.COSINE else None
        self.rows_of: I32 = np.empty(capacity, np.int32)
        self.count = 0

    def append(self, values: Vectors, rows: I32) -> None:
        start, end = self.count, self.count + len(values)
        self.vectors[start:end] = values
        if self.inverse_norms is not None:
            self.inverse_norms[start:end] = inverse_norms(values)
        self.rows_of[start:end] = rows
        self.count = end

    def rows_until(self, record_rows: int) -> int:
        """Field rows of the first `record_rows` records."""
        return int(np.searchsorted(self.rows_of[: self.count], np.int32(record_rows)))  # of its type: no copy

    def matrix(self, field_rows: int) -> Matrix:
        vectors = self.vectors[:field_rows]
        vectors.flags.writeable = False
        norms = None
        if self.inverse_norms is not None:
            norms = self.inverse_norms[:field_rows]
            norms.flags.writeable = False
        return Matrix(vectors, norms, self.meta.metric)


def inverse_norms(values: Vectors) -> F32:
    """1 / |row| and 0 for a zero row; in float64, because squares of float32 overflow. At most the largest float32."""
    wide = np.einsum("ij,ij->i", values, values, dtype=np.float64)
    with np.errstate(divide="ignore"):
        inverse = 1.0 / np.sqrt(wide)
    inverse[wide == 0] = 0
    narrow: F32 = np.minimum(inverse, np.finfo(np.float32).max).astype(np.float32)
    return narrow


@dataclass(frozen=True, slots=True)
class Deletion:
    """Sequences whose version ended with batch `lsn`."""

    lsn: int
    sequences: I64


class Growing:
    """The records that batches append, with the ids they changed and the versions they ended."""

    def __init__(self, meta: CollectionMeta, first_sequence: int, rows: int) -> None:
        self.first_sequence = first_sequence
        self.capacity = capacity_for(meta.fields, rows)
        self.rows = 0
        self.keys: list[bytes] = []
        self.payloads: list[bytes] = []
        self.columns = GrowingColumns(meta.columns)
        self.fields: dict[int, GrowingField] = {}
        self.overlay: dict[bytes, Version] = {}
        self.deletions: list[Deletion] = []
        self.last_lsn = 0

    def room(self, rows: int) -> bool:
        return self.rows + rows <= self.capacity

    def reserve(self, meta: CollectionMeta, part: Part) -> dict[int, GrowingField]:
        """The fields of `part` that are new here, with their arrays; nothing changes. MemoryError."""
        wanted = {number: block.values.shape[1] for number, block in part.vectors.items() if number not in self.fields}
        metas = {field.number: field for field in meta.fields}
        return {number: GrowingField(metas[number], dim, self.capacity) for number, dim in wanted.items()}

    def stage(self, lsn: int, part: Part, reserved: Mapping[int, GrowingField]) -> None:
        """Takes the effects of one part, and the fields of `reserve`. Its rows stay unseen until a view counts them."""
        first = self.rows
        assert part.first_sequence == self.first_sequence + first or not part.keys
        self.fields.update(reserved)
        self._append_vectors(part, first)
        flats = part.flats if part.flats is not None else [flatten(unpack(data)) for data in part.payloads]
        self.columns.append(first, flats)
        self.payloads.extend(part.payloads)
        self.keys.extend(part.keys)
        overlay = self.overlay
        for sequence, key in enumerate(part.keys, part.first_sequence):
            overlay[key] = Version(lsn, sequence, overlay.get(key))
            if sequence % SLICE == 0:
                give_way()
        for key in part.removed:
            overlay[key] = Version(lsn, REMOVED, overlay.get(key))
        if len(part.superseded):
            self.deletions.append(Deletion(lsn, part.superseded))
        self.rows = first + len(part.keys)
        self.last_lsn = lsn

    def _append_vectors(self, part: Part, first: int) -> None:
        for number, block in part.vectors.items():
            rows = np.arange(len(block.values), dtype=np.int32) if block.rows is None else block.rows
            self.fields[number].append(block.values, rows + np.int32(first))

    # ---- what a view shows of it ----------------------------------------------------------------------------------
    def sequence_of(self, rows: I32) -> I64:
        return rows.astype(np.int64) + self.first_sequence

    def rows_of_sequences(self, sequences: I64) -> I32:
        """Row of each sequence, -1 where it is not here."""
        rows = sequences - self.first_sequence
        inside = (rows >= 0) & (rows < self.rows)
        return np.where(inside, rows, -1).astype(np.int32)

    def version_at(self, key: bytes, lsn: int) -> Version | None:
        """The newest version of `key` that batches up to `lsn` made here."""
        version = self.overlay.get(key)
        while version is not None and version.lsn > lsn:
            version = version.before
        return version

    def deleted_bits(self, rows: int, deleted: U64 | None) -> U64:
        """The bits of deleted rows as an array of full length, for `rows` rows of an older bitset."""
        bits = bitset.empty(self.capacity)
        if deleted is not None:
            bits[: len(deleted)] = deleted
        return bits
