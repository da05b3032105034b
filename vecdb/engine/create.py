"""Making a database. The superblock comes last: without it, creation never finished and may be done again."""

from __future__ import annotations

from pathlib import Path

from vecdb.errors import InvalidInput
from vecdb.files import names
from vecdb.files.disk import remove_tree, write_file
from vecdb.files.seams import Seams
from vecdb.storage.catalog import create_catalog
from vecdb.storage.schema import Superblock, new_uuid


def prepare_directory(seams: Seams, path: Path) -> None:
    """The directory of a database that is about to be created or opened for writing."""
    if path.is_dir():
        return
    if path.exists() or path.is_symlink():
        raise InvalidInput(f"{path} is not a directory; give the path of a database, or of one to be created")
    if not path.parent.is_dir():
        raise InvalidInput(f"{path.parent} does not exist; create it first")
    seams.disk.make_directory(path)
    seams.disk.sync_directory(path.parent)


def create_database(seams: Seams, path: Path) -> None:
    """A new, empty database in `path`. Held: the writer's lock. What an earlier attempt left is removed."""
    disk = seams.disk
    ours = {names.LOCK, names.WAL_DIRECTORY, names.SEGMENT_DIRECTORY, names.SUPERBLOCK + names.TEMPORARY}
    found = disk.list(path)
    strange = [name for name in found if name not in ours and names.catalog_generation(name) is None]
    if strange:
        raise InvalidInput(
            f"{path} holds no vecdb database, but {strange[0]!r} and other files; choose an empty or a new directory"
        )
    for name in found:
        if name != names.LOCK:
            remove_tree(disk, path / name)
    create_catalog(seams, path)
    disk.make_directory(path / names.WAL_DIRECTORY)
    disk.make_directory(path / names.SEGMENT_DIRECTORY)
    disk.sync_directory(path)
    superblock = Superblock(new_uuid(seams.random.bytes(16)), seams.clock.time_ns())
    temporary = path / (names.SUPERBLOCK + names.TEMPORARY)
    write_file(disk, temporary, superblock.encode())
    disk.rename(temporary, path / names.SUPERBLOCK)
    disk.sync_directory(path)
