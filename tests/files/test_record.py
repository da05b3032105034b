"""Goal: a record is read as it was written, or not at all; a damaged length is never followed.

Method: records of many sizes, one after the other, flipped at every byte; headers of other files mixed in.
"""

from __future__ import annotations

import pytest

from vecdb.files.record import (
    ALIGN,
    BATCH,
    COMMIT,
    FILE_FORMAT,
    FILE_HEADER_SIZE,
    RECORD_HEADER_SIZE,
    FileHeader,
    decode_file_header,
    encode_record,
    highest_synced,
    read_records,
)

SALT = 0x1234_5678_9ABC_DEF0
SIZES = (0, 1, 7, 8, 9, 300)


def log_of(sizes: tuple[int, ...] = SIZES, salt: int = SALT) -> bytes:
    parts: list[bytes | memoryview] = []
    for lsn, size in enumerate(sizes, 1):
        parts += encode_record(salt, BATCH, COMMIT, lsn, 10 * lsn, lsn, bytes([lsn]) * size)
    return b"".join(parts)


def test_records_come_back_padded() -> None:
    data = log_of()
    found = list(read_records(memoryview(data), SALT, 0))
    assert [(r.lsn, len(r.payload), r.synced_upto) for r in found] == [
        (i + 1, n, 10 * i + 10) for i, n in enumerate(SIZES)
    ]
    assert all(r.offset % ALIGN == 0 and r.end % ALIGN == 0 for r in found)
    assert found[-1].end == len(data)


def test_a_flip_ends_the_reading_at_its_record() -> None:
    data = log_of()
    whole = list(read_records(memoryview(data), SALT, 0))
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        hit = next(i for i, record in enumerate(whole) if record.offset <= at < record.end)
        padding = at >= whole[hit].offset + RECORD_HEADER_SIZE + SIZES[hit]
        found = list(read_records(memoryview(flipped), SALT, 0))
        assert len(found) == (len(whole) if padding else hit)


def test_records_of_another_file_and_zeros_are_not_records() -> None:
    data = log_of((5, 5))
    assert list(read_records(memoryview(data + log_of(salt=SALT + 1)), SALT, 0))[-1].end == len(data)
    assert list(read_records(memoryview(data + bytes(640)), SALT, 0))[-1].end == len(data)
    assert list(read_records(memoryview(bytes(640)), SALT, 0)) == []
    assert list(read_records(memoryview(b""), SALT, 0)) == []


def test_synced_marks_are_found_beyond_damage() -> None:
    data = bytearray(log_of((16, 16, 16)))
    assert highest_synced(memoryview(bytes(data)), SALT, 0) == 30
    data[60:90] = bytes(30)
    assert highest_synced(memoryview(bytes(data)), SALT, 0) == 30
    assert highest_synced(memoryview(bytes(data)), SALT + 1, 0) == 0
    assert highest_synced(memoryview(bytes(data)), SALT, len(data) - 8) == 0


def test_file_headers() -> None:
    header = FileHeader(bytes(range(16)), 3, 17, SALT, 99, 4096)
    data = header.encode()
    assert len(data) == FILE_HEADER_SIZE
    assert decode_file_header(data) == header
    assert decode_file_header(data[:-1]) is None
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1
        assert decode_file_header(bytes(flipped)) is None


@pytest.mark.parametrize("changed", [FILE_FORMAT + 1, 900])
def test_a_header_of_another_format_is_told(changed: int) -> None:
    import zlib

    data = bytearray(FileHeader(bytes(16), 1, 1, SALT).encode())
    data[8:10] = changed.to_bytes(2, "little")
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    assert decode_file_header(bytes(data)) == changed
