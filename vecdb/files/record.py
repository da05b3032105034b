"""The bytes of the write-ahead log: a file header and framed records. No file is touched here.

    file    header (64 bytes), then records, each padded to 8 bytes
    record  header (48 bytes) | payload

A record header has a checksum of its own, seeded with the salt of the file: a damaged length is never followed, and a
record of another file is never taken for one of this. Zeros are not a record.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

FILE_MAGIC = b"VECDBWAL"
FILE_FORMAT = 1
FILE_HEADER = struct.Struct(
    "<8sHHI16sQQQII"
)  # magic format flags epoch uuid start_lsn previous_length salt previous crc
FILE_HEADER_SIZE = 64
RECORD_MAGIC = 0x57434556  # "VECW"
RECORD_HEADER = struct.Struct("<IBBHIIQQQII")  # magic type flags 0 length crc lsn synced_upto time_ns 0 header_crc
RECORD_HEADER_SIZE = 48
ALIGN = 8
FRAME_MAX = 16 * 1024 * 1024  # bytes of payload in one frame

BATCH, MARK, CLOSE = 1, 2, 3
COMMIT = 1  # flag of the last frame of a batch


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The head of a log file.

    epoch            grows by one with every rewrite of a tail of doubtful durability; the highest epoch counts
    start_lsn        lsn of the first batch in the file
    previous         header checksum of the file before it in the same epoch, 0 for none
    previous_length  how much of that file is valid, in bytes
    """

    uuid: bytes
    epoch: int
    start_lsn: int
    salt: int
    previous: int = 0
    previous_length: int = 0

    def encode(self) -> bytes:
        fields = (
            FILE_MAGIC,
            FILE_FORMAT,
            0,
            self.epoch,
            self.uuid,
            self.start_lsn,
            self.previous_length,
            self.salt,
            self.previous,
        )
        head = FILE_HEADER.pack(*fields, 0)
        return FILE_HEADER.pack(*fields, zlib.crc32(head[:-4]))

    @property
    def checksum(self) -> int:
        return int.from_bytes(self.encode()[-4:], "little")


def decode_file_header(data: bytes) -> FileHeader | int | None:
    """The header; or the unknown format number, if the header is whole; or None."""
    if len(data) < FILE_HEADER_SIZE or data[:8] != FILE_MAGIC:
        return None
    _, format_number, flags, epoch, uuid, start_lsn, length, salt, previous, crc = FILE_HEADER.unpack(
        data[:FILE_HEADER_SIZE]
    )
    if zlib.crc32(data[: FILE_HEADER_SIZE - 4]) != crc:
        return None
    if format_number != FILE_FORMAT or flags:
        return int(format_number) if format_number != FILE_FORMAT else -1
    return FileHeader(uuid, epoch, start_lsn, salt, previous, length)


@dataclass(frozen=True, slots=True)
class Record:
    """One frame as found: `offset` and `end` are bytes of its file, padding included."""

    kind: int
    flags: int
    lsn: int
    synced_upto: int
    time_ns: int
    offset: int
    end: int
    payload: memoryview


def encode_record(
    salt: int, kind: int, flags: int, lsn: int, synced_upto: int, time_ns: int, payload: bytes | memoryview
) -> list[bytes | memoryview]:
    """The buffers of one record, to be written one after the other."""
    head = RECORD_HEADER.pack(
        RECORD_MAGIC, kind, flags, 0, len(payload), zlib.crc32(payload), lsn, synced_upto, time_ns, 0, 0
    )
    head = head[:-4] + zlib.crc32(head[:-4], salt & 0xFFFFFFFF).to_bytes(4, "little")
    return [head, payload, bytes(-len(payload) % ALIGN)]


def _header_at(data: memoryview, offset: int, salt: int) -> tuple[int, ...] | None:
    head = data[offset : offset + RECORD_HEADER_SIZE]
    if len(head) < RECORD_HEADER_SIZE:
        return None
    fields = RECORD_HEADER.unpack(head)
    if fields[0] != RECORD_MAGIC or zlib.crc32(head[:-4], salt & 0xFFFFFFFF) != fields[-1]:
        return None
    return fields


def read_records(data: memoryview, salt: int, offset: int) -> Iterator[Record]:
    """Whole records from `offset` on, up to the first that is not one."""
    while (fields := _header_at(data, offset, salt)) is not None:
        _, kind, flags, _, length, crc, lsn, synced_upto, time_ns, _, _ = fields
        start = offset + RECORD_HEADER_SIZE
        payload = data[start : start + length]
        end = start + length + -length % ALIGN
        if length > FRAME_MAX or len(payload) < length or end > len(data) or zlib.crc32(payload) != crc:
            return
        yield Record(kind, flags, lsn, synced_upto, time_ns, offset, end, payload)
        offset = end


def highest_synced(data: memoryview, salt: int, offset: int) -> int:
    """The largest `synced_upto` in any whole record header at or beyond `offset`, whatever lies between."""
    return max((fields[7] for _, fields in _headers_beyond(data, salt, offset)), default=0)


def next_record(data: memoryview, salt: int, offset: int) -> int | None:
    """Where the next whole record header at or beyond `offset` stands, whatever lies between."""
    return next((at for at, _ in _headers_beyond(data, salt, offset)), None)


def _headers_beyond(data: memoryview, salt: int, offset: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    found = data.obj
    raw = bytes(data) if not isinstance(found, bytes) else found
    magic = RECORD_MAGIC.to_bytes(4, "little")
    at = raw.find(magic, offset)
    while at >= 0:
        if at % ALIGN == 0 and (fields := _header_at(data, at, salt)) is not None:
            yield at, fields
        at = raw.find(magic, at + 4)
