"""Ids and payloads of sealed records: what was stored, or the record that is damaged by its key."""

from __future__ import annotations

import pytest

from vecdb.errors import Corrupted
from vecdb.storage.memory_catalog import MemoryCatalog
from vecdb.storage.payload import pack
from vecdb.storage.records import stored_records
from vecdb.storage.schema import encode_record, record_key
from vecdb.storage.snapshot import Table

COLLECTION = 7
PACKED = {sequence: pack({"n": sequence, "text": "x" * (sequence % 100)}) for sequence in (1, 5, 9, 2**40)}


def catalog_with(changed: dict[int, bytes | None]) -> MemoryCatalog:
    """The records of PACKED, some of them replaced or (None) left out."""
    catalog = MemoryCatalog()
    with catalog.write() as writer:
        for sequence, payload in PACKED.items():
            key = record_key(COLLECTION, sequence)
            stored = changed.get(sequence, encode_record(key, b"sid", payload))
            if stored is not None:
                writer.put(Table.RECORDS, key, stored)
    return catalog


def test_payloads_come_in_the_order_asked_for() -> None:
    asked = [9, 1, 2**40, 9]
    found = stored_records(catalog_with({}).read(), COLLECTION, asked)
    assert found == [(b"sid", PACKED[sequence]) for sequence in asked]


KEY = record_key(COLLECTION, 5)
GOOD = encode_record(KEY, b"sid", PACKED[5])


@pytest.mark.parametrize(
    "stored",
    [None, b"", GOOD[:5], GOOD[:-1], GOOD + b"x", encode_record(record_key(COLLECTION, 6), b"sid", PACKED[5])]
    + [GOOD[:at] + bytes([GOOD[at] ^ 1]) + GOOD[at + 1 :] for at in range(len(GOOD))],
)
def test_a_record_that_is_not_as_written_is_refused_by_its_key(stored: bytes | None) -> None:
    with pytest.raises(Corrupted, match=KEY.hex()):
        stored_records(catalog_with({5: stored}).read(), COLLECTION, [1, 5, 9])
