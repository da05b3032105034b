"""Making a database. The superblock comes last: without it, creation never finished and may be done again."""

from __future__ import annotations

from pathlib import Path

from vecdb.errors import InvalidInput
from vecdb.files import names
from vecdb.files.disk import Disk, remove_tree, write_file
from vecdb.files.seams import Seams
from vecdb.storage.catalog import create_catalog
from vecdb.storage.schema import Superblock, new_uuid


def prepare_directory(seams: Seams, path: Path) -> None:
    """The directory of a database that is about to be created or opened for writing."""
    kind = seams.disk.kind(path)
    if kind == "directory":
        if seams.disk.size(path / names.SUPERBLOCK) is None:
            _check_unused(seams.disk, path)
        return
    if kind is not None:
        raise InvalidInput(f"{path} is not a directory; give the path of a database, or of one to be created")
    if seams.disk.kind(path.parent) != "directory":
        raise InvalidInput(f"{path.parent} does not exist; create it first")
    seams.disk.make_directory(path)
    seams.disk.sync_directory(path.parent)


def _check_unused(disk: Disk, path: Path) -> None:
    """InvalidInput unless there is nothing but what a creation that never finished leaves: no log, no segment."""
    for name in disk.list(path):
        if name in (names.WAL_DIRECTORY, names.SEGMENT_DIRECTORY) and disk.kind(path / name) == "directory":
            held = [f"{name}/{entry}" for entry in disk.list(path / name)]
        elif name in (names.LOCK, names.SUPERBLOCK + names.TEMPORARY) or names.catalog_generation(name) is not None:
            held = []
        else:
            held = [name]
        if held:
            raise InvalidInput(
                f"{path} has no {names.SUPERBLOCK} file, so it is no vecdb database, but it holds {held[0]!r}; "
                f"choose an empty or a new directory, or put the {names.SUPERBLOCK} file back if it was lost"
            )


def create_database(seams: Seams, path: Path) -> None:
    """A new, empty database in `path`. Held: the writer's lock. What an earlier attempt left is removed."""
    disk = seams.disk
    _check_unused(disk, path)
    for name in disk.list(path):
        if name != names.LOCK:
            remove_tree(disk, path / name)
    superblock = Superblock(new_uuid(seams.random.bytes(16)), seams.clock.time_ns())
    create_catalog(seams, path, superblock.uuid)
    disk.make_directory(path / names.WAL_DIRECTORY)
    disk.make_directory(path / names.SEGMENT_DIRECTORY)
    disk.sync_directory(path)
    temporary = path / (names.SUPERBLOCK + names.TEMPORARY)
    write_file(disk, temporary, superblock.encode())
    disk.rename(temporary, path / names.SUPERBLOCK)
    disk.sync_directory(path)
