"""From an older format to this one, in place: a release reads the values of several formats and writes its own.

So nothing has to be rewritten: what must not happen is that an older release meets a value that it cannot read, without
being told. The superblock says so first, and is replaced by a rename.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vecdb.files import names
from vecdb.files.disk import remove_tree, write_file
from vecdb.files.seams import Seams
from vecdb.storage import schema
from vecdb.storage.schema import Superblock


def raise_format(seams: Seams, path: Path, superblock: Superblock) -> Superblock:
    """The superblock of this format, on disk before anything of this format is. Held: the writer's lock."""
    if superblock.version == schema.FORMAT_VERSION:
        return superblock
    disk, raised = seams.disk, replace(superblock, version=schema.FORMAT_VERSION)
    temporary = path / (names.SUPERBLOCK + names.TEMPORARY)
    remove_tree(disk, temporary)  # of an attempt that was killed
    write_file(disk, temporary, raised.encode())
    disk.rename(temporary, path / names.SUPERBLOCK)
    disk.sync_directory(path)
    disk.reach("upgrade:raised")
    return raised
