"""What the catalog says, as frozen values with their keys and bytes. `FORMAT.md` describes every one of them.

Every value carries a CRC-32 of its key and itself, because LMDB pages have none.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import msgpack

from vecdb.errors import Corrupted, UnsupportedFormat
from vecdb.files.arrays import ArrayEntry
from vecdb.options import Columns, IndexOptions, index_from_dict, index_to_dict
from vecdb.storage.plausible import check_collection, check_file, check_segment, number, reading
from vecdb.types import VECTOR_DTYPES, Metric

FORMAT_VERSION = 1
FORMAT_OLDEST = 1
SUPERBLOCK = struct.Struct("<8sIIQQ16sQII")  # magic format 0 must_know read_only uuid time_ns 0 crc
SUPERBLOCK_MAGIC = b"VECDB\x00\x00\x01"
STATE_KEY = b"state"
UUID_KEY = b"uuid"  # of the database, so that the catalog of another is not taken for its own

_NUMBER = struct.Struct(">I")
_LONG = struct.Struct(">Q")
_RECORD = struct.Struct(">IQ")
INDEX_VALUES = attrgetter("number", "kind", "options", "quantiser", "indexed_rows", "parameters")


@dataclass(frozen=True, slots=True)
class Superblock:
    """The identity of a database. An unknown bit in `must_know` refuses it; one in `read_only` refuses to write.

    version   the newest format that anything in the database may have; older values may stand beside newer ones
    """

    uuid: bytes
    time_ns: int
    must_know: int = 0
    read_only: int = 0
    version: int = field(default_factory=lambda: FORMAT_VERSION)

    def encode(self) -> bytes:
        fields = (SUPERBLOCK_MAGIC, self.version, 0, self.must_know, self.read_only, self.uuid, self.time_ns, 0)
        return SUPERBLOCK.pack(*fields, zlib.crc32(SUPERBLOCK.pack(*fields, 0)[:-4]))

    @staticmethod
    def decode(data: bytes, path: str) -> Superblock:
        if len(data) != SUPERBLOCK.size or data[:8] != SUPERBLOCK_MAGIC:
            raise Corrupted(path, 0, "this is not the superblock of a vecdb database")
        _, version, _, must_know, read_only, identity, time_ns, _, crc = SUPERBLOCK.unpack(data)
        if zlib.crc32(data[:-4]) != crc:
            raise Corrupted(path, 0, "the checksum of the superblock does not match")
        if not FORMAT_OLDEST <= version <= FORMAT_VERSION:
            raise UnsupportedFormat(version, FORMAT_OLDEST, FORMAT_VERSION)
        if must_know:
            raise UnsupportedFormat(f"{version} with unknown features {must_know:#x}", FORMAT_OLDEST, FORMAT_VERSION)
        return Superblock(identity, time_ns, must_know, read_only, version)


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """`applied_lsn`: every batch up to it is in the catalog and the segments, none after it is."""

    applied_lsn: int = 0
    next_collection: int = 1


@dataclass(frozen=True, slots=True)
class FieldMeta:
    """A named vector of a collection. `index` None is "auto"; `dtype`, one of VECTOR_DTYPES, never changes."""

    number: int
    name: str
    dim: int | None
    metric: Metric
    dtype: str
    index: IndexOptions | None

    def __post_init__(self) -> None:
        if self.dtype not in VECTOR_DTYPES:
            raise ValueError(f"field {self.name!r} has the unknown dtype {self.dtype!r}")


@dataclass(frozen=True, slots=True)
class CollectionMeta:
    """A collection as of `applied_lsn`.

    paths     payload path of each path number, by position
    columns   which payload paths become columns; never changes
    """

    number: int
    name: str
    uuid: bytes
    fields: tuple[FieldMeta, ...]
    next_sequence: int = 1
    next_segment: int = 1
    records: int = 0
    paths: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)

    def field(self, name: str) -> FieldMeta | None:
        return next((field for field in self.fields if field.name == name), None)

    def with_field(self, changed: FieldMeta) -> CollectionMeta:
        return replace(self, fields=tuple(changed if f.number == changed.number else f for f in self.fields))


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """An index of one field of one segment.

    quantiser     id of the way its codes were made; what it needs is in `parameters`
    indexed_rows  field rows that it covers, from the first
    """

    number: int
    kind: str
    options: Mapping[str, Any]
    quantiser: str
    indexed_rows: int
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FieldEntry:
    """A field of a segment: `rows` records have it; `sparse`: not all, so rows.npy tells which."""

    number: int
    rows: int
    dim: int
    sparse: bool
    indexes: tuple[IndexEntry, ...] = ()
    next_index: int = 1


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A sealed segment. `calibration` keeps measured planner constants."""

    number: int
    rows: int
    first_sequence: int
    last_sequence: int
    integer_ids: bool
    fields: tuple[FieldEntry, ...]
    paths: tuple[int, ...]
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def field(self, number: int) -> FieldEntry | None:
        return next((field for field in self.fields if field.number == number), None)

    def with_field(self, changed: FieldEntry) -> SegmentEntry:
        return replace(self, fields=tuple(changed if f.number == changed.number else f for f in self.fields))


# ---- keys -----------------------------------------------------------------------------------------------------------
def collection_key(collection: int) -> bytes:
    return _NUMBER.pack(collection)


def segment_key(collection: int, segment: int) -> bytes:
    return _NUMBER.pack(collection) + _NUMBER.pack(segment)


def file_key(collection: int, segment: int, path: str) -> bytes:
    return segment_key(collection, segment) + path.encode()


def file_path(key: bytes) -> str:
    return key[8:].decode()


def id_key(collection: int, key: bytes) -> bytes:
    return _NUMBER.pack(collection) + key


def record_key(collection: int, sequence: int) -> bytes:
    return _RECORD.pack(collection, sequence)


def deletion_key(collection: int, segment: int, lsn: int) -> bytes:
    return segment_key(collection, segment) + _LONG.pack(lsn)


# ---- values ---------------------------------------------------------------------------------------------------------
def seal(key: bytes, value: bytes) -> bytes:
    """The value as stored: its checksum, then itself."""
    return zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "little") + value


def unseal(key: bytes, stored: bytes) -> bytes:
    value = stored[4:]
    if zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "little") != stored[:4]:
        raise Corrupted("catalog", 0, f"the checksum of the value at key {key.hex()} does not match")
    return value


def _pack(key: bytes, value: Any) -> bytes:
    return seal(key, msgpack.packb(value))


def _unpack(key: bytes, stored: bytes) -> Any:
    return msgpack.unpackb(unseal(key, stored), strict_map_key=False)


def encode_state(state: DatabaseState) -> bytes:
    return _pack(STATE_KEY, [state.applied_lsn, state.next_collection])


def decode_state(stored: bytes | None) -> DatabaseState:
    with reading("catalog", "the state of the database"):
        lsn, collection = (0, 1) if stored is None else _unpack(STATE_KEY, stored)
        return DatabaseState(number(lsn), number(collection, 1))


def encode_collection(meta: CollectionMeta) -> bytes:
    fields = [
        [f.number, f.name, f.dim, int(f.metric), f.dtype, f.index and index_to_dict(f.index)] for f in meta.fields
    ]
    value = [meta.name, meta.uuid, fields, meta.next_sequence, meta.next_segment, meta.records, list(meta.paths)]
    value.append([meta.columns.only, meta.columns.exclude])
    return _pack(collection_key(meta.number), value)


def decode_collection(key: bytes, stored: bytes) -> CollectionMeta:
    with reading("catalog", "the description of a collection"):
        name, identity, fields, sequence, segment, records, paths, (only, exclude) = _unpack(key, stored)
        metas = tuple(
            FieldMeta(field, title, dim, Metric(metric), dtype, index_from_dict(index) if index else None)
            for field, title, dim, metric, dtype, index in fields
        )
        (collection,) = _NUMBER.unpack(key)
        columns = Columns(None if only is None else tuple(only), tuple(exclude))
        numbers = (sequence, segment, records)
        return check_collection(CollectionMeta(collection, name, identity, metas, *numbers, tuple(paths), columns))


def encode_segment(collection: int, entry: SegmentEntry) -> bytes:
    fields = [
        [f.number, f.rows, f.dim, f.sparse, f.next_index, [INDEX_VALUES(index) for index in f.indexes]]
        for f in entry.fields
    ]
    value = [entry.rows, entry.first_sequence, entry.last_sequence, entry.integer_ids]
    return _pack(segment_key(collection, entry.number), [*value, fields, list(entry.paths), dict(entry.calibration)])


def decode_segment(key: bytes, stored: bytes) -> SegmentEntry:
    with reading("catalog", "the description of a segment"):
        rows, first, last, integer_ids, fields, paths, calibration = _unpack(key, stored)
        entries = tuple(
            FieldEntry(field, count, dim, sparse, tuple(IndexEntry(*index) for index in indexes), next_index)
            for field, count, dim, sparse, next_index, indexes in fields
        )
        (segment,) = _NUMBER.unpack(key[4:8])
        return check_segment(SegmentEntry(segment, rows, first, last, integer_ids, entries, tuple(paths), calibration))


def encode_file(key: bytes, entry: ArrayEntry) -> bytes:
    return _pack(key, entry.to_list())


def decode_file(key: bytes, stored: bytes) -> ArrayEntry:
    with reading("catalog", "the entry of a file"):
        return check_file(ArrayEntry.from_list(_unpack(key, stored)))


def encode_sequence(key: bytes, sequence: int) -> bytes:
    return seal(key, _LONG.pack(sequence))


def decode_sequence(key: bytes, stored: bytes) -> int:
    value = unseal(key, stored)
    if len(value) != _LONG.size:
        raise Corrupted("catalog", 0, f"the sequence of an id has {len(value)} bytes")
    return int(_LONG.unpack(value)[0])


def encode_record(key: bytes, id_bytes: bytes, payload: bytes) -> bytes:
    return seal(key, len(id_bytes).to_bytes(2, "little") + id_bytes + payload)


def decode_record(key: bytes, stored: bytes) -> tuple[bytes, bytes]:
    """(encoded id, packed payload)"""
    value = unseal(key, stored)
    end = 2 + int.from_bytes(value[:2], "little")
    return value[2:end], value[end:]


def new_uuid(random: bytes) -> bytes:
    return uuid.UUID(bytes=random, version=4).bytes
