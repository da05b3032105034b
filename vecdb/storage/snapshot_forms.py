"""Where the files of a snapshot go, one place for each form. All of them hash what they write.

DirectoryForm   a database directory and its manifest; immutable files are linked where they can be
FileForm        one file: header | files end to end | manifest | footer
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path

from vecdb.files import names
from vecdb.files.arrays import DIGEST_SIZE
from vecdb.files.disk import Bytes, Disk, File, remove_tree, write_file
from vecdb.files.workplace import DATA, Workplace
from vecdb.storage.manifest import Manifest, ManifestEntry, encode_manifest
from vecdb.threads import Pool

CONTAINER_MAGIC = b"VECDBONE"
CONTAINER_FORMAT = 1
CONTAINER_HEADER = struct.Struct("<8sII16sI")  # magic format 0 uuid crc of what is before
CONTAINER_FOOTER = struct.Struct("<8sQQI")  # magic, offset and length of the manifest, crc of what is before
PIECE = 1 << 20  # bytes written at a time
SYNCERS = 4  # files synced at a time, while others are written or checked

Pieces = Iterable[Bytes]


def pieces_of(data: memoryview) -> Iterable[memoryview]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


class Hashed:
    """A file that is written once, from its current end on, and hashed on the way."""

    def __init__(self, file: File, end: int = 0) -> None:
        self.file, self.end = file, end
        self.start, self.digest = end, hashlib.blake2b(digest_size=DIGEST_SIZE)

    def write(self, piece: Bytes) -> None:
        self.file.write_at(piece, self.end)
        self.digest.update(piece)
        self.end += len(piece)

    def entry(self, path: str) -> ManifestEntry:
        return ManifestEntry(path, self.end - self.start, self.digest.digest())


class DirectoryForm:
    """Fills a workplace with a database directory. Threads may put files whose directories are there."""

    form = "directory"

    def __init__(self, disk: Disk, work: Workplace) -> None:
        self.disk, self.root, self.work = disk, work.path, work
        self.made: list[Path] = []
        self.syncing: list[Future[None]] = []
        self.pool = Pool(SYNCERS, "vecdb-sync")

    def place_of(self, path: str) -> Path:
        """Where a file belongs; directories on the way are made."""
        place = self.root / path
        missing, parent = [], place.parent
        while parent != self.root and parent not in self.made:
            missing.append(parent)
            parent = parent.parent
        for directory in reversed(missing):
            self.disk.make_directory(directory)
            self.made.append(directory)
        return place

    def write(self, path: str, fill: Callable[[Callable[[Bytes], None]], None]) -> ManifestEntry:
        """A new file; `fill` is called with what takes its pieces. It is synced by the time `settle` returns."""
        file = Hashed(self.disk.create(self.place_of(path)))
        try:
            fill(file.write)
        except BaseException:
            file.file.close()
            raise
        self.syncing.append(self.pool.submit(_sync_and_close, file.file))
        return file.entry(path)

    def put(self, path: str, pieces: Pieces) -> ManifestEntry:
        def fill(take: Callable[[Bytes], None]) -> None:
            for piece in pieces:
                take(piece)

        return self.write(path, fill)

    def forget(self, kept: set[str]) -> None:
        """Removes what an earlier attempt made and this one does not name."""
        for directory in list(self.made):
            for name in self.disk.list(directory):
                path = directory / name
                if path.suffix == ".npy" and path.relative_to(self.root).as_posix() not in kept:
                    self.disk.remove(path)
        for directory in list(self.made):
            number = names.catalog_generation(directory.name)
            if number is not None and not any(name.startswith(f"{directory.name}/") for name in kept):
                remove_tree(self.disk, directory)
                self.made.remove(directory)

    def complete(self) -> None:
        """The superblock gets its name: the workplace holds a database, which may not be on disk yet."""
        for required in (names.WAL_DIRECTORY, names.SEGMENT_DIRECTORY):
            self.place_of(f"{required}/-")
        superblock = self.root / names.SUPERBLOCK
        self.disk.rename(superblock.with_name(names.SUPERBLOCK + names.TEMPORARY), superblock)

    def settle(self) -> None:
        """Everything is on disk when this returns, but the name of the workplace."""
        while self.syncing:
            self.syncing.pop().result()
        for directory in sorted(self.made, key=lambda path: -len(path.parts)):
            self.disk.sync_directory(directory)

    def close(self) -> None:
        """Files that were begun are closed."""
        self.pool.shutdown(wait=True)

    def finish(self, manifest: Manifest) -> bytes:
        data = encode_manifest(manifest)
        write_file(self.disk, self.root / names.MANIFEST, data)
        self.settle()
        self.disk.reach("snapshot:written", manifest.lsn)
        self.complete()
        self.work.place()
        self.disk.reach("snapshot:placed", manifest.lsn)
        return data


def _sync_and_close(file: File) -> None:
    try:
        file.sync()
    finally:
        file.close()


class FileForm:
    """Fills the file of a workplace. Files follow each other without gaps, in the order of the manifest."""

    form = "file"

    def __init__(self, disk: Disk, work: Workplace, uuid: bytes) -> None:
        self.disk, self.work = disk, work
        self.file = disk.create(work.path / DATA)
        head = CONTAINER_HEADER.pack(CONTAINER_MAGIC, CONTAINER_FORMAT, 0, uuid, 0)[:-4]
        head += zlib.crc32(head).to_bytes(4, "little")
        self.file.write_at(head, 0)
        self.end = len(head)

    def put(self, path: str, pieces: Pieces) -> ManifestEntry:
        file = Hashed(self.file, self.end)
        for piece in pieces:
            file.write(piece)
        self.end = file.end
        return file.entry(path)

    def finish(self, manifest: Manifest) -> bytes:
        data = encode_manifest(manifest)
        foot = CONTAINER_FOOTER.pack(CONTAINER_MAGIC, self.end, len(data), 0)[:-4]
        self.file.write_at(data + foot + zlib.crc32(foot).to_bytes(4, "little"), self.end)
        self.file.sync()
        self.disk.reach("snapshot:written", manifest.lsn)
        self.work.place_file()
        self.disk.reach("snapshot:placed", manifest.lsn)
        return data

    def close(self) -> None:
        self.file.close()
