"""The unit of a write: physical effects only, decided before they are logged. Replay decides nothing.

A batch has one part per collection. A part appends records with consecutive sequences, ends the versions that they
supersede, and removes ids. `encode` and `decode` are the only place that knows its bytes:

    msgpack head, its length before it | vectors of each field, row-major | superseded sequences, int64
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np

from vecdb.storage.plausible import MALFORMED, number, require
from vecdb.types import I32, I64, VECTOR_DTYPES, Vectors

_LENGTH = struct.Struct("<I")
ALIGN = 8


@dataclass(frozen=True, slots=True)
class FieldBlock:
    """New vectors of one field.

    values  float32 or float16 (n, dim), as the field stores them
    rows    int32 (n,), which of the part's records they belong to, ascending; None: all of them
    """

    values: Vectors
    rows: I32 | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What a batch does to one collection.

    first_sequence  sequence of the first new record; the others follow
    keys, payloads  of the new records: encoded ids, packed payloads
    superseded      int64 sequences whose version ends with this batch
    removed         keys that have no current version any more
    flats           payloads flattened to columns, where the writer has them; not stored
    """

    collection: int
    first_sequence: int
    keys: Sequence[bytes] = ()
    payloads: Sequence[bytes] = ()
    vectors: Mapping[int, FieldBlock] = field(default_factory=dict)
    superseded: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    removed: Sequence[bytes] = ()
    flats: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    lsn: int
    time_ns: int
    parts: Sequence[Part]


def encode(parts: Sequence[Part]) -> list[bytes | memoryview]:
    """The payload of a batch, as buffers to be written one after the other."""
    heads, blocks = [], []
    for part in parts:
        fields = []
        for place, block in part.vectors.items():
            rows = None if block.rows is None else block.rows.astype("<i4").tobytes()
            values = np.ascontiguousarray(block.values, block.values.dtype.newbyteorder("<"))
            fields.append([place, values.shape[0], values.shape[1], rows, values.dtype.name])
            blocks.append(memoryview(values).cast("B") if values.size else b"")
        blocks.append(part.superseded.astype("<i8").tobytes())
        heads.append(
            {
                "c": part.collection,
                "q": part.first_sequence,
                "k": list(part.keys),
                "p": list(part.payloads),
                "f": fields,
                "s": len(part.superseded),
                "r": list(part.removed),
            }
        )
    head: bytes = msgpack.packb(heads)
    head += bytes(-(len(head) + _LENGTH.size) % ALIGN)
    return [_LENGTH.pack(len(head)), head, *blocks]


def decode(payload: bytes | memoryview) -> list[Part]:
    """The parts of a batch; vectors are views on `payload`. ValueError when the bytes are not a batch."""
    try:
        return _decode(memoryview(payload))
    except MALFORMED as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _decode(data: memoryview) -> list[Part]:
    (length,) = _LENGTH.unpack_from(data)
    offset, parts = _LENGTH.size + length, []
    require(offset <= len(data), "the head is longer than the batch")
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) + 1, strict_map_key=False)
    unpacker.feed(data[_LENGTH.size : offset])
    heads = unpacker.unpack()
    padding = bytes(data[_LENGTH.size + unpacker.tell() : offset])
    require(isinstance(heads, list) and padding == bytes(len(padding)) and len(padding) < ALIGN, "no list of parts")
    for head in heads:
        number(head["c"], 1)
        number(head["q"])
        vectors = {}
        for field_number, count, dim, rows, dtype in head["f"]:
            require(dtype in VECTOR_DTYPES, f"vectors of the unknown dtype {dtype!r}")
            number(count)
            number(dim)
            values = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), count * dim, offset).reshape(count, dim)
            vectors[field_number] = FieldBlock(values, None if rows is None else np.frombuffer(rows, "<i4"))
            offset += values.nbytes
        superseded = np.frombuffer(data, "<i8", number(head["s"]), offset)
        offset += superseded.nbytes
        parts.append(Part(head["c"], head["q"], head["k"], head["p"], vectors, superseded, head["r"]))
    require(offset == len(data), "bytes are left over")
    return parts
