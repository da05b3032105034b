"""What a value must be like before it is used, although its checksum fits: a checksum is no proof of who wrote it.

Everything that is wrong is a ValueError or TypeError here; `reading` turns it into Corrupted.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from vecdb.errors import Corrupted
from vecdb.files.arrays import CHECKSUM_BLOCK, DIGEST_SIZE, ArrayEntry
from vecdb.options import DIM_MAX
from vecdb.storage.keys import INT, STR, STR_MAX, UUID
from vecdb.storage.payload import flatten, unpack
from vecdb.types import I64, VECTOR_DTYPES

if TYPE_CHECKING:
    from vecdb.storage.batch import FieldBlock, Part
    from vecdb.storage.schema import CollectionMeta, SegmentEntry

ROWS_MAX = 2**31 - 1
NUMBER_MAX = 2**63 - 1
KEY_SIZES = {INT: (9, 9), STR: (2, STR_MAX + 1), UUID: (17, 17)}
MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    struct.error,
    msgpack.exceptions.UnpackException,
)


class reading:
    """Corrupted, naming `path`, for whatever bytes of the wrong form raise inside."""

    __slots__ = ("path", "what")

    def __init__(self, path: str, what: str) -> None:
        self.path, self.what = path, what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MALFORMED):
            reason = str(error) or type(error).__name__
            raise Corrupted(self.path, 0, f"{self.what} cannot be read: {reason[:200]}") from error


def require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def number(value: Any, low: int = 0, high: int = NUMBER_MAX) -> int:
    require(type(value) is int and low <= value <= high, f"{value!r} is no number from {low} to {high}")
    return int(value)


# ---- the catalog: each function returns what it was given -----------------------------------------------------------
def check_collection(meta: CollectionMeta) -> CollectionMeta:
    require(isinstance(meta.name, str) and isinstance(meta.uuid, bytes) and len(meta.uuid) == 16, "bad name or uuid")
    for value in (meta.next_sequence, meta.next_segment, meta.records):
        number(value)
    require(all(isinstance(path, str) for path in meta.paths), "a payload path is no text")
    for field in meta.fields:
        number(field.number, 1, ROWS_MAX)
        require(isinstance(field.name, str), "the name of a field is no text")
        if field.dim is not None:
            number(field.dim, 1, DIM_MAX)
    require(len({field.number for field in meta.fields}) == len(meta.fields), "two fields have one number")
    return meta


def check_segment(entry: SegmentEntry) -> SegmentEntry:
    """Indexes are not looked at: what is wrong with them sets them aside when they are opened."""
    rows = number(entry.rows, 1, ROWS_MAX)
    require(number(entry.first_sequence) <= number(entry.last_sequence), "sequences end before they begin")
    require(type(entry.integer_ids) is bool, "integer_ids is no bool")
    for path in entry.paths:
        number(path)
    for field in entry.fields:
        number(field.number, 1, ROWS_MAX)
        number(field.dim, 1, DIM_MAX)
        require(type(field.sparse) is bool, "sparse is no bool")
        require(number(field.rows, 1, rows) == rows or field.sparse, "a field lacks rows")
    return entry


def check_file(entry: ArrayEntry) -> ArrayEntry:
    dtype = np.dtype(entry.dtype)
    require(isinstance(entry.dtype, str) and dtype.kind in "biuf" and dtype.names is None, "impossible dtype")
    for length in entry.shape:
        number(length)
    blocks = -(-number(entry.size, 1) // CHECKSUM_BLOCK)
    require(isinstance(entry.digest, bytes) and len(entry.digest) == DIGEST_SIZE, "the digest has a wrong length")
    require(
        isinstance(entry.crcs, bytes) and len(entry.crcs) == 4 * blocks, "there are not as many checksums as blocks"
    )
    return entry


def decode_deletions(value: bytes) -> I64:
    """Sequences that one checkpoint found deleted from a segment."""
    if len(value) % 8:
        raise Corrupted("catalog", 0, f"a list of deletions has {len(value)} bytes")
    return np.frombuffer(value, "<i8")


# ---- batches --------------------------------------------------------------------------------------------------------
def check_part(meta: CollectionMeta, next_sequence: int, part: Part) -> Part:
    """The part of a logged batch, if it can be applied to its collection, with its payloads flattened to columns."""
    count = len(part.keys)
    require(part.first_sequence == next_sequence, f"records begin at {part.first_sequence}, {next_sequence} is next")
    require(len(part.payloads) == count, f"{count} ids and {len(part.payloads)} payloads")
    for key in (*part.keys, *part.removed):
        check_key(key)
    require(all(isinstance(payload, bytes) for payload in part.payloads), "a payload is not bytes")
    flats = [flatten(unpack(payload)) for payload in part.payloads]
    ended = part.superseded
    require(not len(ended) or (int(ended.min()) >= 1 and int(ended.max()) < next_sequence), "a version ends too early")
    for field, block in part.vectors.items():
        _check_block(meta, field, block, count)
    return replace(part, flats=flats)


def check_key(key: Any) -> None:
    require(isinstance(key, bytes), "an id is not bytes")
    low, high = KEY_SIZES.get(key[:1], (1, 0))
    require(low <= len(key) <= high, f"{key[:16]!r} is no id")
    if key[:1] == STR:
        key[1:].decode()


def _check_block(meta: CollectionMeta, number_of_field: int, block: FieldBlock, count: int) -> None:
    field = next((field for field in meta.fields if field.number == number_of_field), None)
    if field is None:
        raise ValueError(f"there is no field {number_of_field!r}")
    values, rows = block.values, block.rows
    number(values.shape[1], 1, DIM_MAX)
    require(field.dim in (None, values.shape[1]), f"vectors of {values.shape[1]} dimensions, not {field.dim}")
    require(field.dtype in VECTOR_DTYPES and values.dtype == field.dtype, f"vectors of {values.dtype}")
    require(bool(np.isfinite(values).all()), "a vector is not finite")
    if rows is None:
        require(len(values) == count, f"{len(values)} vectors for {count} records")
        return
    inside = len(rows) == len(values) and (not len(rows) or (int(rows[0]) >= 0 and int(rows[-1]) < count))
    require(inside and bool((rows[1:] > rows[:-1]).all()), "vectors are placed outside the batch")
