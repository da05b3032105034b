"""Reading a snapshot of any form: its manifest first, and then the files that it names, piece by piece.

Nothing is believed that the manifest does not say, and every file must be as long as it says before any is read.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from vecdb.errors import Corrupted, NotFound, UnsupportedFormat
from vecdb.files import names
from vecdb.files.arrays import DIGEST_SIZE
from vecdb.files.disk import Disk
from vecdb.files.seams import Seams
from vecdb.storage.manifest import (
    ANOTHER,
    MANIFEST_HEADER,
    MANIFEST_MAX,
    Manifest,
    ManifestEntry,
    decode_manifest,
    digest_of,
)
from vecdb.storage.snapshot_forms import (
    CONTAINER_FOOTER,
    CONTAINER_FORMAT,
    CONTAINER_HEADER,
    CONTAINER_MAGIC,
    PIECE,
)
from vecdb.storage.snapshot_store import Store, is_uri, open_store

LIMIT = MANIFEST_HEADER.size + MANIFEST_MAX + DIGEST_SIZE


class Holder(Protocol):
    """What has files of a snapshot: the snapshot itself, or one that it builds on."""

    @property
    def place(self) -> str: ...
    def size_of(self, entry: ManifestEntry) -> int | None: ...
    def pieces(self, entry: ManifestEntry) -> Iterator[bytes]: ...


class Source(Holder, Protocol):
    """A snapshot to read. `own` are the files that lie in it, `name` is what others call it, beside it in `parent`."""

    name: str
    parent: str
    manifest: Manifest
    digest: bytes
    own: dict[ManifestEntry, int]

    def beside(self, name: str) -> Holder: ...


def open_source(seams: Seams, place: str) -> Source:
    """The snapshot at a path or URI, with its manifest read and checked. NotFound if there is none."""
    if is_uri(place):
        return StoreSource(open_store(place))
    path = Path(os.path.abspath(Path(place).expanduser()))
    if seams.disk.kind(path) == "directory":
        return DirectorySource(seams.disk, path)
    return FileSource(seams.disk, path)


def _offsets(manifest: Manifest, start: int) -> dict[ManifestEntry, int]:
    found = {}
    for entry in manifest.entries:
        if entry.at == 0:
            found[entry] = start
            start += entry.size
    return found


class DirectorySource:
    def __init__(self, disk: Disk, path: Path) -> None:
        self.disk, self.path = disk, path
        self.place, self.name, self.parent = str(path), path.name, str(path.parent)
        if disk.size(path / names.MANIFEST) is None:
            raise NotFound(f"{path} holds no snapshot: there is no file {names.MANIFEST} in it")
        data = _read_whole(disk, path / names.MANIFEST)
        self.manifest, self.digest = decode_manifest(data, str(path / names.MANIFEST)), digest_of(data)
        if self.manifest.form != "directory":
            raise Corrupted(path, 0, f"the manifest is not that of a directory; {ANOTHER}")
        self.own = _offsets(self.manifest, 0)

    def size_of(self, entry: ManifestEntry) -> int | None:
        return self.disk.size(self.path / entry.path)

    def pieces(self, entry: ManifestEntry) -> Iterator[bytes]:
        return _read(self.disk, self.path / entry.path, 0, entry.size)

    def beside(self, name: str) -> Holder:
        return DirectorySource(self.disk, self.path.with_name(name))


class FileSource:
    def __init__(self, disk: Disk, path: Path) -> None:
        self.disk, self.path = disk, path
        self.place, self.name, self.parent = str(path), path.name, str(path.parent)
        size = disk.size(path)
        if size is None:
            raise NotFound(f"there is no snapshot at {path}")
        self.manifest, self.digest, at = _read_container(disk, path, size)
        self.own = _offsets(self.manifest, CONTAINER_HEADER.size)
        end = CONTAINER_HEADER.size + self.manifest.own_size
        if end != at or self.manifest.form != "file":
            raise Corrupted(path, at, f"the files in it have {end} bytes by its manifest, not {at}; {ANOTHER}")

    def size_of(self, entry: ManifestEntry) -> int | None:
        return entry.size if entry in self.own else None

    def pieces(self, entry: ManifestEntry) -> Iterator[bytes]:
        return _read(self.disk, self.path, self.own[entry], entry.size)

    def beside(self, name: str) -> Holder:
        return FileSource(self.disk, self.path.with_name(name))


class StoreObjects:
    """Objects below one URI, with a manifest or, once it was pruned, without: others may still need them."""

    def __init__(self, store: Store) -> None:
        self.store, self.place = store, store.uri
        self.sizes: dict[str, int] | None = None

    def size_of(self, entry: ManifestEntry) -> int | None:
        if self.sizes is None:
            self.sizes = self.store.sizes()
        return self.sizes.get(entry.path)

    def pieces(self, entry: ManifestEntry) -> Iterator[bytes]:
        return self.store.read(entry.path, entry.size)


class StoreSource(StoreObjects):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.name, self.parent = store.name, store.parent
        size = store.size(names.MANIFEST)
        if size is None:
            raise NotFound(f"there is no snapshot at {store.uri}: it has no object {names.MANIFEST}")
        if size > LIMIT:
            raise Corrupted(store.uri, 0, f"the manifest has {size} bytes; {ANOTHER}")
        data = b"".join(store.read(names.MANIFEST, size))
        self.manifest, self.digest = decode_manifest(data, f"{store.uri}/{names.MANIFEST}"), digest_of(data)
        if self.manifest.form != "store":
            raise Corrupted(store.uri, 0, f"the manifest is not that of a store; {ANOTHER}")
        self.own = _offsets(self.manifest, 0)

    def beside(self, name: str) -> Holder:
        return StoreObjects(self.store.beside(name))


def _read_whole(disk: Disk, path: Path) -> bytes:
    size = disk.size(path) or 0
    if size > LIMIT:
        raise Corrupted(path, 0, f"the manifest has {size} bytes; {ANOTHER}")
    return b"".join(_read(disk, path, 0, size))


def _read(disk: Disk, path: Path, offset: int, size: int) -> Iterator[bytes]:
    file = disk.open(path)
    try:
        while size > 0:
            piece = file.read_at(min(PIECE, size), offset)
            if not piece:
                raise Corrupted(path, offset, f"the file ends here, {size} bytes are missing; {ANOTHER}")
            yield piece
            offset, size = offset + len(piece), size - len(piece)
    finally:
        file.close()


def _read_container(disk: Disk, path: Path, size: int) -> tuple[Manifest, bytes, int]:
    """(manifest, its digest, where it begins)"""
    head, foot = CONTAINER_HEADER.size, CONTAINER_FOOTER.size
    if size < head + foot:
        raise Corrupted(path, 0, f"the file has {size} bytes and is no snapshot; {ANOTHER}")
    file = disk.open(path)
    try:
        first, last = file.read_at(head, 0), file.read_at(foot, size - foot)
        magic, version, flags, _, crc = CONTAINER_HEADER.unpack(first)
        if magic != CONTAINER_MAGIC or zlib.crc32(first[:-4]) != crc:
            raise Corrupted(path, 0, f"this is not a snapshot in one file; {ANOTHER}")
        if version != CONTAINER_FORMAT or flags:
            raise UnsupportedFormat(version, CONTAINER_FORMAT, CONTAINER_FORMAT)
        magic, at, length, crc = CONTAINER_FOOTER.unpack(last)
        if magic != CONTAINER_MAGIC or zlib.crc32(last[:-4]) != crc:
            raise Corrupted(path, size - foot, f"the end of the file is damaged or cut off; {ANOTHER}")
        if length > LIMIT or at < head or at + length + foot != size:
            raise Corrupted(path, size - foot, f"the manifest lies beyond the file; {ANOTHER}")
        data = file.read_at(length, at)
    finally:
        file.close()
    return decode_manifest(data, str(path)), digest_of(data), at


class Resolved:
    """Where every file of a snapshot really lies, its own or that of a base. All sizes are compared at once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        manifest = source.manifest
        self.owners: list[Holder] = [source, *(self._base(source, name) for name in manifest.bases)]
        for entry in manifest.entries:
            owner, own = self._owner(entry)
            found = owner.size_of(own)
            if found is None:
                raise Corrupted(owner.place, 0, f"{entry.path} is missing; {ANOTHER}")
            if found != entry.size:
                raise Corrupted(owner.place, 0, f"{entry.path} has {found} bytes instead of {entry.size}; {ANOTHER}")

    @staticmethod
    def _base(source: Source, name: str) -> Holder:
        try:
            return source.beside(name)
        except NotFound as error:
            raise Corrupted(source.place, 0, f"its base {name} is missing from {source.parent}; {ANOTHER}") from error

    def _owner(self, entry: ManifestEntry) -> tuple[Holder, ManifestEntry]:
        return self.owners[entry.at], ManifestEntry(entry.path, entry.size, entry.digest)

    def bytes_of(self, prefix: str) -> tuple[ManifestEntry, bytes]:
        """The one file whose path begins so, whole: the superblock, the log, the catalog."""
        entry = self.source.manifest.find(prefix)
        assert entry is not None  # a manifest that was decoded names one
        return entry, b"".join(self.pieces(entry))

    def pieces(self, entry: ManifestEntry) -> Iterator[bytes]:
        """The content, and Corrupted at its end unless it is what the manifest says."""
        owner, own = self._owner(entry)
        digest, size = hashlib.blake2b(digest_size=DIGEST_SIZE), 0
        for piece in owner.pieces(own):
            digest.update(piece)
            size += len(piece)
            if size > entry.size:
                break
            yield piece
        if size != entry.size or digest.digest() != entry.digest:
            raise Corrupted(owner.place, 0, f"{entry.path} is not what was written; {ANOTHER}")
