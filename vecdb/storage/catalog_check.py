"""What is looked at before a catalog is handed to LMDB: its pages, its tables, and in small ones every value.

    up to 1 MiB    structure, the order of keys, and the checksum of every value: a change of any used byte is found
    up to 64 MiB   structure: every page and node that LMDB can reach, and the list of free pages
    beyond         structure down to the numbers of the leaf pages; LMDB's own checks stand behind that

Values are read with their checksums everywhere. A key that was changed in a larger catalog is found by the count that
a collection is opened with, or by verification.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from vecdb.errors import Corrupted, StorageFailed
from vecdb.files.disk import Disk
from vecdb.storage.catalog_pages import SUB_TREE, TREE, Nodes, Pages, Tree
from vecdb.storage.schema import unseal
from vecdb.storage.snapshot import Table

Look = Literal["values", "pages", "nothing"]
DATA, LOCK = "data.mdb", "lock.mdb"
VALUES_CHECKED = 1 << 20  # bytes of a catalog whose values are all read: some milliseconds
LEAVES_CHECKED = 64 << 20  # bytes of a catalog whose leaf pages are all looked at
ATTEMPTS = 20  # another process may commit while its pages are looked at


def check_catalog(disk: Disk, directory: Path, map_size: int, look: Look = "values") -> None:
    """Corrupted when LMDB must not open the catalog in `directory`.

    map_size   what a writer would map, in bytes
    look       "values": all that is described above; "pages": the structure, by whoever reads every value himself;
               "nothing": by whoever reads in a process that may die of it
    """
    path = directory / DATA
    if look == "nothing":
        return
    disk.size(directory / LOCK)  # StorageFailed for a link, a pipe, a directory
    for attempt in range(ATTEMPTS):
        size = disk.size(path)
        if not size:
            raise Corrupted(path, 0, "the catalog is missing" if size is None else "the catalog is empty")
        try:
            pages = Pages(path, disk.map(path, size))
        except StorageFailed:
            if attempt == ATTEMPTS - 1 or disk.size(path) == size:
                raise
            continue
        try:
            _check(pages, map_size, look == "values")
        except Corrupted:
            if attempt == ATTEMPTS - 1 or not _moved_on(disk, size, pages):
                raise
            continue
        return


def _moved_on(disk: Disk, size: int, pages: Pages) -> bool:
    """Whether the file was written to since its meta page was read: pages of an older picture are used again."""
    return disk.size(pages.path) != size or Pages(pages.path, pages.data).meta != pages.meta


def _check(pages: Pages, map_size: int, values: bool) -> None:
    meta = pages.meta
    if (meta.last_page + 1) * meta.page_size > map_size:
        raise pages.fail(0, f"the catalog is said to have {meta.last_page + 1} pages")
    short = meta.last_page + 1 > pages.count  # legitimate when the last pages are free
    deep = short or len(pages.data) <= LEAVES_CHECKED
    for tree in _tables(pages):
        _check_tree(pages, tree, deep)
        if values and len(pages.data) <= VALUES_CHECKED:
            _check_values(pages, tree)
    if deep:
        _check_free_list(pages)


def _tables(pages: Pages) -> list[Tree]:
    """The trees of the tables, which must be exactly those that a catalog has."""
    found: dict[bytes, Tree] = {}
    for nodes in _leaf_nodes(pages, pages.meta.main):
        if (nodes.flags != SUB_TREE).any() or (nodes.data_size != TREE.size).any():
            raise pages.fail(pages.meta.main.root, "the list of tables is damaged")
        found |= {key: Tree.decode(value) for key, value in pages.entries(nodes)}
    if sorted(found) != [b"%d" % table for table in Table]:
        raise pages.fail(pages.meta.main.root, "the list of tables is not that of a catalog")
    return list(found.values())


def _leaf_nodes(pages: Pages, tree: Tree) -> Iterator[Nodes]:
    for leaves in pages.leaves(tree):
        yield pages.leaf_nodes(leaves)


def _check_tree(pages: Pages, tree: Tree, deep: bool) -> None:
    if tree.flags:
        raise pages.fail(pages.meta.main.root, f"a table has the unknown flags {tree.flags:#x}")
    if not deep:
        for _ in pages.leaves(tree):
            pass
        return
    entries = overflow = 0
    for nodes in _leaf_nodes(pages, tree):
        if (nodes.flags & SUB_TREE).any():
            raise pages.fail(tree.root, "a table holds another table")
        entries += len(nodes.at)
        overflow += pages.overflow_pages(nodes)
    if entries != tree.entries or overflow != tree.overflow_pages:
        raise pages.fail(max(tree.root, 0), f"a table has {entries} entries, and should have {tree.entries}")


def _check_values(pages: Pages, tree: Tree) -> None:
    """Keys are in order and where lookups expect them; every value has its checksum. The structure was checked."""
    last: bytes | None = None
    for leaf, low, high in pages.bounded_leaves(tree):
        entries = pages.entries(pages.leaf_nodes(np.array([leaf], np.int64)))
        keys = [key for key, _ in entries]
        if keys[0] < low or (high is not None and keys[-1] >= high):
            raise pages.fail(leaf, "the keys of the catalog are not where lookups expect them")
        if (last is not None and keys[0] <= last) or any(a >= b for a, b in pairwise(keys)):
            raise pages.fail(leaf, "the keys of the catalog are out of order")
        last = keys[-1]
        try:
            for key, stored in entries:
                unseal(key, stored)
        except Corrupted as error:
            raise pages.fail(leaf, error.reason) from error


def _check_free_list(pages: Pages) -> None:
    """What a writer will take for new pages is in range, and used by nothing."""
    for nodes in _leaf_nodes(pages, pages.meta.free):
        pages.overflow_pages(nodes)
        for _, value in pages.entries(nodes):
            ids = np.frombuffer(value, "<u8", len(value) // 8)
            count = int(ids[0]) if len(ids) else 0
            free = ids[1 : count + 1]
            wrong = len(free) != count or bool((free < 2).any()) or bool((free > pages.meta.last_page).any())
            if wrong or bool((free[1:] >= free[:-1]).any()):
                raise pages.fail(pages.meta.free.root, "the list of free pages is damaged")
            known = free[free < pages.count].astype(np.int64)
            if pages.seen[known].any():
                raise pages.fail(int(known[pages.seen[known]][0]), "a page is used, and listed as free")
            pages.seen[known] = True
