"""Reading a catalog whose pages are damaged, without dying of it.

A file that was cut short is copied and filled up with zeros, which LMDB reports as damage instead of ending the
process.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from vecdb.engine.recover import find_newest_catalog, may_lock
from vecdb.errors import Corrupted, StorageFailed
from vecdb.files import names
from vecdb.files.disk import remove_tree
from vecdb.files.seams import Seams
from vecdb.storage.catalog import DATA, LmdbCatalog
from vecdb.storage.catalog_probe import probe

COPY_BLOCK = 4 * 1024 * 1024
PAGE_SIZES = tuple(1 << shift for shift in range(9, 17))
PAGE_SIZE_AT, LAST_PAGE_AT = 40, 136  # bytes from the start of a meta page of LMDB 0.9 (64 bits)
GROWTH_MAX = 64  # times the size of what is left; a damaged number must not fill the disk


@contextlib.contextmanager
def readable_catalog(seams: Seams, source: Path, beside: Path) -> Iterator[LmdbCatalog]:
    """The newest catalog of `source`. `beside`: a name next to which a copy may be put meanwhile.

    Corrupted when it cannot be read at all.
    """
    generation = find_newest_catalog(seams.disk, source)
    copy = beside.with_name(f"{beside.name}-catalog")
    place, number, locked = source, generation, may_lock(seams.disk, source)
    try:
        fault = probe(source, generation, locked=locked)
        if fault is not None and fault.fatal:
            _copy_filled(seams, source / names.catalog(generation) / DATA, copy)
            place, number, locked = copy, 1, False
            fault = probe(copy, 1, locked=False)
        if fault is not None and fault.fatal:
            raise hopeless(source, fault.reason)
        try:
            catalog = LmdbCatalog(seams, place, number, writable=False, locked=locked, look="nothing")
        except StorageFailed as error:
            if isinstance(error.__cause__, OSError):
                raise  # the disk failed, which tells nothing of the catalog
            raise hopeless(source, str(error)) from error
        try:
            yield catalog
        finally:
            catalog.close()
    finally:
        remove_tree(seams.disk, copy)


def hopeless(source: Path, reason: str) -> Corrupted:
    told = f"the catalog cannot be read, and nothing can be told apart without it ({reason}); restore a snapshot"
    return Corrupted(source, 0, told)


def _copy_filled(seams: Seams, data: Path, directory: Path) -> None:
    """The catalog in `directory`, as large as its meta pages say that it was."""
    disk = seams.disk
    remove_tree(disk, directory)  # an attempt that could not clear it away may have left one
    disk.make_directory(directory)
    disk.make_directory(directory / names.catalog(1))
    source, target = disk.open(data), disk.create(directory / names.catalog(1) / DATA)
    try:
        size = disk.size(data) or 0
        for start in range(0, size, COPY_BLOCK):
            target.write_at(source.read_at(min(COPY_BLOCK, size - start), start), start)
        wanted = max((_size_told(source.read_at(256, start)) for start in (0, 4096)), default=0)
        if size < wanted <= GROWTH_MAX * size:
            target.truncate(wanted)
    finally:
        source.close()
        target.close()


def _size_told(meta: bytes) -> int:
    if len(meta) < LAST_PAGE_AT + 8:
        return 0
    (page,) = struct.unpack_from("<I", meta, PAGE_SIZE_AT)
    (last,) = struct.unpack_from("<Q", meta, LAST_PAGE_AT)
    return (last + 1) * page if page in PAGE_SIZES else 0
