"""The manifest of a snapshot: which files it has, how long they are, and what their digests are.

    header (24 bytes) | msgpack body | blake2b-256 of what is before it

It is the only file of a snapshot that is believed by itself: its digest says that it is whole, its names must be those
that vecdb generates, and every other file must be what it says, before anything of a snapshot is used.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgpack

from vecdb.errors import Corrupted, UnsupportedFormat
from vecdb.files import names
from vecdb.files.arrays import DIGEST_SIZE

MANIFEST_MAGIC = b"VECDBSNP"
MANIFEST_FORMAT = 1
MANIFEST_HEADER = struct.Struct("<8sIIQ")  # magic format 0 length of the body
MANIFEST_MAX = 1 << 28  # bytes of a body; some two million files
SIZE_MAX = 1 << 62
ANOTHER = "restore another snapshot"
FORMS = ("directory", "file", "store")
BASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file. `at` 0: it lies in this snapshot; n: in the n-th of `Manifest.bases`, under the same path."""

    path: str
    size: int
    digest: bytes
    at: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot of database `uuid` at batch `lsn`; the catalog in it is that of `applied_lsn`, the log has the rest.

    form      "directory": LMDB pages, opens in place.  "file", "store": a stream of catalog rows
    written   bytes that were written for this snapshot, neither linked nor left in a base
    bases     names of other snapshots beside this one that hold some of its files
    """

    form: str
    uuid: bytes
    lsn: int
    applied_lsn: int
    time_ns: int
    written: int
    bases: tuple[str, ...]
    entries: tuple[ManifestEntry, ...]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def own_size(self) -> int:
        return sum(entry.size for entry in self.entries if entry.at == 0)

    @property
    def time(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.time_ns // 1_000_000_000, dt.UTC)

    def find(self, *prefixes: str) -> ManifestEntry | None:
        return next((entry for entry in self.entries if entry.path.startswith(prefixes)), None)


def encode_manifest(manifest: Manifest) -> bytes:
    m = manifest
    entries = [[entry.path, entry.size, entry.digest, entry.at] for entry in m.entries]
    body: bytes = msgpack.packb([m.form, m.uuid, m.lsn, m.applied_lsn, m.time_ns, m.written, list(m.bases), entries])
    return enclose(MANIFEST_MAGIC, MANIFEST_FORMAT, body)


def enclose(magic: bytes, version: int, body: bytes) -> bytes:
    """header | body | digest of both: what a manifest and a description of collections look like on disk."""
    data = MANIFEST_HEADER.pack(magic, version, 0, len(body)) + body
    return data + digest_of(data)


def disclose(data: bytes, magic: bytes, version: int, place: str) -> memoryview:
    """The body, when all of it is as it was written."""
    head = MANIFEST_HEADER.size
    if len(data) < head + DIGEST_SIZE or data[:8] != magic:
        raise Corrupted(place, 0, f"this is not the file that its name says, or it is cut off; {ANOTHER}")
    _, found, flags, length = MANIFEST_HEADER.unpack(data[:head])
    if length > MANIFEST_MAX or len(data) != head + length + DIGEST_SIZE:
        raise Corrupted(place, 0, f"it has {len(data)} bytes and is cut off or lengthened; {ANOTHER}")
    if digest_of(memoryview(data)[:-DIGEST_SIZE]) != data[-DIGEST_SIZE:]:
        raise Corrupted(place, 0, f"its checksum does not match; {ANOTHER}")
    if found != version or flags:
        raise UnsupportedFormat(found if not flags else f"{found} ({flags:#x})", version, version)
    return memoryview(data)[head:-DIGEST_SIZE]


def digest_of(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


def decode_manifest(data: bytes, place: str) -> Manifest:
    """Corrupted, or UnsupportedFormat, unless every word of it can be used as it is."""
    body = disclose(data, MANIFEST_MAGIC, MANIFEST_FORMAT, place)
    with decoding(place):
        form, identity, lsn, applied_lsn, time_ns, written, bases, entries = msgpack.unpackb(body)
        made = tuple(ManifestEntry(*entry) for entry in entries)
        manifest = Manifest(form, identity, lsn, applied_lsn, time_ns, written, tuple(bases), made)
    _check(manifest, place)
    return manifest


@contextmanager
def decoding(place: str) -> Iterator[None]:
    """Whatever a decoder says of bytes that it cannot take is Corrupted, what is Corrupted already stays so."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError, struct.error, msgpack.UnpackException) as error:
        raise Corrupted(place, 0, f"it cannot be read ({error}); {ANOTHER}") from error


def _check(manifest: Manifest, place: str) -> None:
    numbers = (manifest.lsn, manifest.applied_lsn, manifest.time_ns, manifest.written)
    if manifest.form not in FORMS or not isinstance(manifest.uuid, bytes) or len(manifest.uuid) != 16:
        raise Corrupted(place, 0, f"the manifest does not describe a snapshot; {ANOTHER}")
    if not all(_is_count(number) for number in numbers) or manifest.applied_lsn > manifest.lsn:
        raise Corrupted(place, 0, f"the manifest holds impossible numbers {numbers}; {ANOTHER}")
    for base in manifest.bases:
        if not isinstance(base, str) or not BASE_NAME.fullmatch(base):
            raise Corrupted(place, 0, f"the manifest names {base!r} as its base, which is no name of a snapshot")
    seen: set[str] = set()
    for entry in manifest.entries:
        _check_entry(entry, len(manifest.bases), seen, place)
    required = [names.SUPERBLOCK, "wal/", "catalog-" if manifest.form == "directory" else names.CATALOG_STREAM]
    for prefix in required:
        if sum(path.startswith(prefix) for path in seen) != 1:
            raise Corrupted(place, 0, f"the manifest must name one file {prefix}; {ANOTHER}")
    if manifest.size > SIZE_MAX:
        raise Corrupted(place, 0, f"the manifest names {manifest.size} bytes; {ANOTHER}")


def _check_entry(entry: ManifestEntry, bases: int, seen: set[str], place: str) -> None:
    if not isinstance(entry.path, str) or not names.is_snapshot_file(entry.path):
        raise Corrupted(place, 0, f"the manifest names {str(entry.path)[:80]!r}, which is no file of a snapshot")
    if entry.path in seen:
        raise Corrupted(place, 0, f"the manifest names {entry.path} twice; {ANOTHER}")
    seen.add(entry.path)
    if not _is_count(entry.size) or not isinstance(entry.digest, bytes) or len(entry.digest) != DIGEST_SIZE:
        raise Corrupted(place, 0, f"the manifest has no size or digest of {entry.path}; {ANOTHER}")
    if not _is_count(entry.at) or entry.at > bases:
        raise Corrupted(place, 0, f"the manifest puts {entry.path} into a base that it does not name; {ANOTHER}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= SIZE_MAX
