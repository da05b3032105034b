"""Ids and payloads of sealed records: many at once from the catalog, each with its checksum compared."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zlib import crc32

from vecdb.errors import Corrupted
from vecdb.storage.catalog_protocol import Reader
from vecdb.storage.schema import record_key
from vecdb.storage.snapshot import Table

HEAD = struct.Struct("<IH")  # checksum of the key and of what follows it, length of the encoded id
CHECKSUM_SIZE = 4


def stored_records(reader: Reader, collection: int, sequences: Sequence[int]) -> list[tuple[bytes, bytes]]:
    """(encoded id, packed payload) of each record. Corrupted when one is missing or damaged."""
    keys = [record_key(collection, sequence) for sequence in sequences]
    records = []
    for key, stored in zip(keys, reader.get_many(Table.RECORDS, keys), strict=True):
        if stored is None or len(stored) < HEAD.size:
            raise Corrupted("catalog", 0, f"the record at key {key.hex()} is missing")
        checksum, id_length = HEAD.unpack_from(stored)
        if crc32(stored[CHECKSUM_SIZE:], crc32(key)) != checksum:
            raise Corrupted("catalog", 0, f"the checksum of the value at key {key.hex()} does not match")
        start = HEAD.size + id_length
        records.append((stored[HEAD.size : start], stored[start:]))
    return records
