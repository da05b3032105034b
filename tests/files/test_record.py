"""Goal: a record is read as it was written, or not at all; a damaged length is never followed.

Method: records of many sizes, one after the other, flipped at every byte; headers of other files mixed in.
"""

from __future__ import annotations

import struct
import zlib

import pytest

from vecdb.files.record import (
    ALIGN,
    BATCH,
    CLOSE,
    COMMIT,
    FILE_FORMAT,
    FILE_HEADER_SIZE,
    MARK,
    RECORD_HEADER_SIZE,
    FileHeader,
    decode_file_header,
    encode_record,
    highest_synced,
    next_record,
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
    data = bytearray(FileHeader(bytes(16), 1, 1, SALT).encode())
    data[8:10] = changed.to_bytes(2, "little")
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    assert decode_file_header(bytes(data)) == changed


def test_a_header_with_a_flag_that_nobody_knows_is_of_another_format() -> None:
    data = bytearray(FileHeader(bytes(16), 1, 1, SALT).encode())
    data[10] = 1
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    found = decode_file_header(bytes(data))
    assert isinstance(found, int)
    assert found != FILE_FORMAT


def test_the_bytes_of_a_file_header_are_those_of_format_1() -> None:
    """As FORMAT.md tells them: databases of this format are there, and stay readable."""
    head = b"VECDBWAL" + struct.pack("<HHI16sQQQI", 1, 0, 3, bytes(range(16)), 17, 4096, SALT, 99)
    data = head + zlib.crc32(head).to_bytes(4, "little")
    assert FileHeader(bytes(range(16)), 3, 17, SALT, 99, 4096).encode() == data
    assert decode_file_header(data + b"what follows") == FileHeader(bytes(range(16)), 3, 17, SALT, 99, 4096)
    assert FileHeader(bytes(range(16)), 3, 17, SALT, 99, 4096).checksum == zlib.crc32(head)
    first = b"VECDBWAL" + struct.pack("<HHI16sQQQI", 1, 0, 1, bytes(16), 1, 0, SALT, 0)
    assert FileHeader(bytes(16), 1, 1, SALT).encode()[:60] == first  # nothing is before it


@pytest.mark.parametrize(("kind", "number"), [(BATCH, 1), (MARK, 2), (CLOSE, 3)])
@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_of_a_record_are_those_of_format_1(kind: int, number: int, size: int) -> None:
    payload = bytes([7]) * size
    fields = struct.pack("<BBHIIQQQI", number, COMMIT, 0, size, zlib.crc32(payload), 5, 6, 8, 0)
    head = b"VECW" + fields
    checksum = zlib.crc32(head, SALT & 0xFFFF_FFFF)
    expected = head + checksum.to_bytes(4, "little") + payload + bytes(-size % 8)
    assert COMMIT == 1
    assert b"".join(encode_record(SALT, kind, COMMIT, 5, 6, 8, payload)) == expected


def test_a_frame_has_at_most_16_mib() -> None:
    """Nothing larger was ever written, so a longer one is damage, and no memory is taken for it."""
    largest = b"".join(encode_record(SALT, BATCH, COMMIT, 1, 0, 0, bytes(16 << 20)))
    assert [len(record.payload) for record in read_records(memoryview(largest), SALT, 0)] == [16 << 20]
    larger = b"".join(encode_record(SALT, BATCH, COMMIT, 1, 0, 0, bytes((16 << 20) + 1)))
    assert list(read_records(memoryview(larger), SALT, 0)) == []


def test_a_record_without_all_of_its_padding_is_torn() -> None:
    data = log_of((8, 9))
    for missing in range(1, 8):
        assert [record.lsn for record in read_records(memoryview(data[:-missing]), SALT, 0)] == [1]


def test_the_next_record_is_found_from_any_offset() -> None:
    data = log_of()
    starts = [record.offset for record in read_records(memoryview(data), SALT, 0)]
    for offset in range(len(data) + 1):
        assert next_record(memoryview(data), SALT, offset) == next((at for at in starts if at >= offset), None)
    assert next_record(memoryview(data), SALT + 1, 0) is None


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_records_are_found_beyond_what_looks_like_one(kind: type[bytes] | type[bytearray]) -> None:
    """The mark of a record may stand anywhere in what was damaged, right before a whole record too."""
    record = log_of((16,))
    for before in (b"VECW", b"VECW" * 2, b"VECW" * 9, b"\0" * 4 + b"VECW"):
        for shift in range(8):
            data = kind(bytes(shift) + before + bytes(-(shift + len(before)) % 8) + record)
            assert next_record(memoryview(data), SALT, 0) == len(data) - len(record)
            assert highest_synced(memoryview(data), SALT, 0) == 10


def test_a_record_that_is_not_aligned_is_none() -> None:
    for shift in range(1, 8):
        data = bytes(shift) + log_of((16,))
        assert next_record(memoryview(data), SALT, 0) is None
        assert highest_synced(memoryview(data), SALT, 0) == 0
