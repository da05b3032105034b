"""The rows of a catalog as a checksummed stream, which is what snapshots carry where LMDB pages would not do.

    header (20 bytes), then frames: header (16 bytes) | payload

A frame holds rows of one table in order of their keys; the last frame counts the rows. Nothing is believed before its
checksum matched, and no length is followed that is not below a limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import msgpack

from vecdb.errors import Corrupted, UnsupportedFormat
from vecdb.storage.catalog import Reader, Table
from vecdb.storage.manifest import ANOTHER, decoding
from vecdb.storage.schema import unseal

STREAM_MAGIC = b"VECDBSTR"
STREAM_FORMAT = 1
STREAM_HEADER = struct.Struct("<8sIII")  # magic format 0 crc of what is before
STREAM_FRAME = struct.Struct("<IBBHII")  # magic kind table 0 length crc of what is before and the payload
STREAM_FRAME_MAGIC = 0x53434556  # "VECS"
ROWS, END = 1, 2
FRAME_BYTES = 256 * 1024  # of rows, after which the next frame begins
STREAM_FRAME_MAX = 4 * 1024 * 1024  # of a payload; a row has at most 1 MiB and some
KEY_MAX = 511  # bytes, of LMDB
PAGE_ROWS = 1024

Rows = list[tuple[bytes, bytes]]


def write_stream(reader: Reader) -> Iterator[bytes]:
    """The whole catalog as `reader` sees it, a frame at a time."""
    head = STREAM_HEADER.pack(STREAM_MAGIC, STREAM_FORMAT, 0, 0)[:-4]
    yield head + zlib.crc32(head).to_bytes(4, "little")
    counts = []
    for table in Table:
        count = 0
        for rows in _pages(reader, table):
            count += len(rows)
            yield _frame(ROWS, table, msgpack.packb([part for row in rows for part in row]))
        counts.append(count)
    yield _frame(END, 0, msgpack.packb(counts))


def _pages(reader: Reader, table: Table) -> Iterator[Rows]:
    """Rows of about FRAME_BYTES."""
    after: bytes | None = None
    rows, size = Rows(), 0
    while page := reader.page(table, b"", after, PAGE_ROWS):
        for row in page:
            rows.append(row)
            size += len(row[0]) + len(row[1])
            if size >= FRAME_BYTES:
                yield rows
                rows, size = Rows(), 0
        after = page[-1][0]
    if rows:
        yield rows


def _frame(kind: int, table: int, payload: bytes) -> bytes:
    head = STREAM_FRAME.pack(STREAM_FRAME_MAGIC, kind, table, 0, len(payload), 0)[:-4]
    return head + zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little") + payload


class _Cursor:
    """Reads exact counts of bytes from pieces of any length."""

    def __init__(self, pieces: Iterable[bytes], place: str) -> None:
        self.pieces, self.place = iter(pieces), place
        self.rest, self.offset = b"", 0

    def take(self, count: int) -> bytes:
        parts, missing = [self.rest], count - len(self.rest)
        while missing > 0:
            piece = next(self.pieces, None)
            if piece is None:
                raise Corrupted(self.place, self.offset, f"the stream is cut off; {ANOTHER}")
            parts.append(piece)
            missing -= len(piece)
        data = b"".join(parts)
        self.rest, self.offset = data[count:], self.offset + count
        return data[:count]

    def at_end(self) -> bool:
        return not self.rest and not any(self.pieces)


def read_stream(pieces: Iterable[bytes], place: str) -> Iterator[tuple[Table, Rows]]:
    """Rows frame by frame, in order of table and key. Corrupted names the byte where it is no stream any more."""
    cursor = _Cursor(pieces, place)
    _read_header(cursor)
    counts, last = dict.fromkeys(Table, 0), (-1, b"")
    while True:
        at = cursor.offset
        kind, number, payload = _read_frame(cursor)
        with decoding(place):
            values = msgpack.unpackb(payload)
            if kind == END:
                break
            table, rows = Table(number), list(zip(values[::2], values[1::2], strict=True))
        for key, value in rows:
            if type(key) is not bytes or type(value) is not bytes or not 0 < len(key) <= KEY_MAX:
                raise Corrupted(place, at, f"the stream holds a row that no catalog has; {ANOTHER}")
            if (table, key) <= last:
                raise Corrupted(place, at, f"the rows of the stream are not in order; {ANOTHER}")
            unseal(key, value)
            last = (table, key)
        counts[table] += len(rows)
        yield table, rows
    if values != list(counts.values()) or not cursor.at_end():
        raise Corrupted(place, at, f"the stream does not end where it says; {ANOTHER}")


def _read_header(cursor: _Cursor) -> None:
    head = cursor.take(STREAM_HEADER.size)
    magic, version, flags, crc = STREAM_HEADER.unpack(head)
    if magic != STREAM_MAGIC or zlib.crc32(head[:-4]) != crc:
        raise Corrupted(cursor.place, 0, f"this is not a stream of a catalog; {ANOTHER}")
    if version != STREAM_FORMAT or flags:
        raise UnsupportedFormat(version, STREAM_FORMAT, STREAM_FORMAT)


def _read_frame(cursor: _Cursor) -> tuple[int, int, bytes]:
    at = cursor.offset
    head = cursor.take(STREAM_FRAME.size)
    magic, kind, table, _, length, crc = STREAM_FRAME.unpack(head)
    if magic != STREAM_FRAME_MAGIC or kind not in (ROWS, END) or length > STREAM_FRAME_MAX:
        raise Corrupted(cursor.place, at, f"the stream is damaged; {ANOTHER}")
    payload = cursor.take(length)
    if zlib.crc32(payload, zlib.crc32(head[:-4])) != crc:
        raise Corrupted(cursor.place, at, f"the checksum of a frame of the stream does not match; {ANOTHER}")
    return kind, table, payload
