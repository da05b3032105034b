"""A disk in memory that knows what is durable: a `Disk` of vecdb.files, and the picture that a crash starts from.

What the model says, and `crash.py` makes states of:

    data         a file has versions: [0] is on disk, the others are what the cache held after each write or truncate
                 since the last sync. The process sees the newest. A sync leaves one version.
    names        a directory has entries that are on disk, and a journal of operations since (link, unlink, rename).
                 A file may have several names; what it holds is the same under each.
                 Syncing a file does not make its entry durable, unless the personality says so; syncing its directory
                 does. Data and names know nothing of each other beyond that.
    size         is metadata: it may be on disk before the bytes are, which then read as zeros or as old bytes.
    failed sync  the cache forgets that the bytes were dirty: some of them are on disk, the others never will be, and
                 the next sync succeeds. The process goes on seeing them ("kept") or sees the old ones ("reverted").
    catalog      the file of a catalog holds the tables of the twin; a commit replaces them at once and durably. A
                 copy of a catalog is a write like any other: lost unless synced.

A state never changes once it was taken: mappings are copied when they change, contents are immutable.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Literal

from vecdb.files.disk import Bytes, File, Kind, failing

ROOT = 0  # number of the database directory itself
SECTOR = 512  # bytes that a disk writes whole


@dataclass(frozen=True, slots=True)
class Content:
    """`view`: what the process sees. `tables`: (on disk, in the view) of a catalog file, else None."""

    versions: tuple[bytes, ...] = (b"",)
    view: bytes = b""
    tables: tuple[Any, Any] | None = None

    @property
    def dirty(self) -> bool:
        return len(self.versions) > 1 or (self.tables is not None and self.tables[0] is not self.tables[1])


@dataclass(frozen=True, slots=True)
class Link:
    """`name` of `directory` means `node` from now on."""

    directory: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Unlink:
    directory: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Rename:
    directory: int
    name: str
    target: int
    new_name: str
    node: int


Operation = Link | Unlink | Rename
Entries = Mapping[int, Mapping[str, int]]  # of each directory


@dataclass(frozen=True, slots=True)
class Personality:
    """How a file system treats what was not synced.

    names        "any": every pending operation on names survives or not by itself; "prefix": in their order
    file_entry   what syncing a file does to pending operations: nothing, those of the file itself, or all of them
    data         "any": each sector of each file has any of its versions; "ordered": a file grows in order, size last
    stale        what never reached the disk reads as bytes of removed files, not as zeros
    failed_sync  what the process sees after a failed sync
    torn_rename  renaming a file may leave both names (a directory never has two)
    """

    name: str
    names: Literal["any", "prefix"]
    file_entry: Literal["nothing", "own", "all"]
    data: Literal["any", "ordered"]
    stale: bool = False
    failed_sync: Literal["kept", "reverted"] = "kept"
    torn_rename: bool = False


STRICT = Personality("strict POSIX", "any", "nothing", "any", torn_rename=True)
ORDERED = Personality("ext4 ordered", "prefix", "all", "ordered")
WRITEBACK = Personality("ext4 writeback", "prefix", "all", "any", stale=True)
COPY_ON_WRITE = Personality("btrfs", "any", "own", "ordered", failed_sync="reverted")
PERSONALITIES = (STRICT, ORDERED, WRITEBACK, COPY_ON_WRITE)


@dataclass(slots=True)
class State:
    """Everything on a simulated machine's disk and in its cache."""

    files: dict[int, Content] = field(default_factory=dict)
    entries: dict[int, Mapping[str, int]] = field(default_factory=lambda: {ROOT: {}})
    durable: dict[int, Mapping[str, int]] = field(default_factory=lambda: {ROOT: {}})
    journal: tuple[Operation, ...] = ()
    next_node: int = 1
    removed: bytes = b""  # of a file that is gone: what stale sectors show

    def copy(self) -> State:
        return State(
            dict(self.files), dict(self.entries), dict(self.durable), self.journal, self.next_node, self.removed
        )


def apply(entries: dict[int, Mapping[str, int]], operation: Operation) -> None:
    """One operation on names, as far as what is there allows."""
    here = dict(entries.get(operation.directory, {}))
    if isinstance(operation, Link):
        here[operation.name] = operation.node
    elif here.get(operation.name) == operation.node:
        del here[operation.name]
    entries[operation.directory] = here
    if isinstance(operation, Rename):
        entries[operation.target] = {**entries.get(operation.target, {}), operation.new_name: operation.node}


class SimulatedFile:
    """An open file. It stays usable when its name goes."""

    def __init__(self, disk: SimulatedDisk, node: int, path: Path, *, writable: bool) -> None:
        self.disk, self.node, self.path, self.writable = disk, node, path, writable

    @property
    def _content(self) -> Content:
        return self.disk.state.files[self.node]

    def read_at(self, size: int, offset: int) -> bytes:
        self.disk.reading("read_at", self.path)
        return self._content.view[offset : offset + size]

    def write_at(self, data: Bytes, offset: int) -> None:
        self.disk.changing("write_at", self.path)
        self._check("write")
        self._put(_patched(self._content.view, bytes(data), offset))
        self.disk.changed("write_at", self.path)

    def truncate(self, size: int) -> None:
        self.disk.changing("truncate", self.path)
        self._check("truncate")
        self._put(self._content.view[:size].ljust(size, b"\0"))
        self.disk.changed("truncate", self.path)

    def _check(self, action: str) -> None:
        if not self.writable:
            with failing(action, self.path):
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _put(self, view: bytes) -> None:
        content = self._content
        self.disk.state.files[self.node] = replace(content, versions=(*content.versions, view), view=view)

    def sync(self) -> None:
        self.disk.changing("sync", self.path)
        self.disk.sync_node(self.node)
        self.disk.changed("sync", self.path)

    def close(self) -> None:
        """Closing writes nothing."""


def _patched(old: bytes, data: bytes, offset: int) -> bytes:
    if offset > len(old):
        old = old.ljust(offset, b"\0")
    return old[:offset] + data + old[offset + len(data) :]


class SimulatedDisk:
    """A `Disk` below one directory. `on_call` is asked before every call, `on_change` told after those that change.

    Both get the name of the call and the path. What `on_call` raises, the caller of the disk gets, and nothing happens.
    """

    def __init__(self, root: Path, personality: Personality, state: State | None = None) -> None:
        self.root, self.personality = root, personality
        self.state = state if state is not None else State()
        self.on_call: Callable[[str, Path], None] | None = None
        self.on_change: Callable[[str, Path], None] | None = None
        self.on_point: Callable[[str, int], None] | None = None
        self.prefix = len(str(root)) + 1
        self.syncs = 0

    # ---- telling ----------------------------------------------------------------------------------------------------
    def reading(self, name: str, path: Path) -> None:
        if self.on_call is not None:
            self.on_call(name, path)

    changing = reading

    def changed(self, name: str, path: Path) -> None:
        if self.on_change is not None:
            self.on_change(name, path)

    def reach(self, point: str, lsn: int = 0) -> None:
        if self.on_point is not None:
            self.on_point(point, lsn)

    # ---- names ------------------------------------------------------------------------------------------------------
    def _find(self, path: Path) -> int | None:
        node: int | None = ROOT
        entries = self.state.entries
        for name in _parts(str(path), self.prefix):
            node = entries[node].get(name) if node in entries else None
        return node

    def _node(self, action: str, path: Path, code: int = errno.ENOENT) -> int:
        node = self._find(path)
        if node is None:
            with failing(action, path):
                raise OSError(code, os.strerror(code))
            raise AssertionError
        return node

    def _change(self, operation: Operation) -> None:
        state = self.state
        entries = dict(state.entries)
        apply(entries, operation)
        state.entries, state.journal = entries, (*state.journal, operation)

    def _refuse(self, action: str, path: Path, code: int) -> None:
        with failing(action, path):
            raise OSError(code, os.strerror(code))

    def kind(self, path: Path) -> Kind | None:
        self.reading("kind", path)
        node = self._find(path)
        return None if node is None else "file" if node in self.state.files else "directory"

    def mode(self, path: Path) -> int:
        """Permission bits: what the real disk gives to what vecdb creates."""
        return 0o600 if self._node("examine", path) in self.state.files else 0o700

    def list(self, path: Path) -> list[str]:
        self.reading("list", path)
        node = self._node("list", path)
        return sorted(self.state.entries[node])

    def size(self, path: Path) -> int | None:
        self.reading("size", path)
        node = self._find(path)
        if node is None:
            return None
        if node not in self.state.files:
            self._refuse("examine", path, errno.EINVAL)
        return len(self.state.files[node].view)

    def _new(self, path: Path, action: str) -> int:
        if self._find(path) is not None:
            self._refuse(action, path, errno.EEXIST)
        parent = self._node(action, path.parent)
        node = self.state.next_node
        self.state.next_node += 1
        self._change(Link(parent, path.name, node))
        return node

    def make_directory(self, path: Path) -> None:
        self.changing("make_directory", path)
        node = self._new(path, "create the directory")
        self.state.entries[node] = {}
        self.state.durable[node] = {}
        self.changed("make_directory", path)

    def create(self, path: Path) -> File:
        self.changing("create", path)
        node = self._new(path, "create")
        self.state.files[node] = Content()
        self.changed("create", path)
        return SimulatedFile(self, node, path, writable=True)

    def open(self, path: Path) -> File:
        self.reading("open", path)
        return SimulatedFile(self, self._file("open", path), path, writable=False)

    def _file(self, action: str, path: Path) -> int:
        node = self._node(action, path)
        if node not in self.state.files:
            self._refuse(action, path, errno.EINVAL)
        return node

    def map(self, path: Path, size: int) -> memoryview:
        self.reading("map", path)
        view = self.state.files[self._file("map", path)].view
        if len(view) != size:
            self._refuse("map", path, errno.EINVAL)
        return memoryview(view)

    def rename(self, source: Path, target: Path) -> None:
        self.changing("rename", target)
        node = self._node("rename", source)
        places = self._node("rename", source.parent), self._node("rename", target.parent)
        self._change(Rename(places[0], source.name, places[1], target.name, node))
        self.changed("rename", target)

    def link(self, source: Path, target: Path) -> None:
        self.changing("link", target)
        node = self._file("link", source)
        if self._find(target) is not None:
            self._refuse("link", target, errno.EEXIST)
        self._change(Link(self._node("link", target.parent), target.name, node))
        self.changed("link", target)

    def _names_of(self, node: int) -> int:
        return sum(child == node for names in self.state.entries.values() for child in names.values())

    def remove(self, path: Path) -> None:
        self.changing("remove", path)
        node = self._file("remove", path)
        if self.personality.stale and self._names_of(node) == 1:  # its sectors are free now
            self.state.removed = self.state.files[node].versions[0] or self.state.removed
        self._change(Unlink(self._node("remove", path.parent), path.name, node))
        self.changed("remove", path)

    def remove_directory(self, path: Path) -> None:
        self.changing("remove_directory", path)
        node = self._node("remove the directory", path)
        if self.state.entries[node]:
            self._refuse("remove the directory", path, errno.ENOTEMPTY)
        self._change(Unlink(self._node("remove the directory", path.parent), path.name, node))
        self.changed("remove_directory", path)

    # ---- durability -------------------------------------------------------------------------------------------------
    def sync_directory(self, path: Path) -> None:
        self.changing("sync_directory", path)
        node = self._node("sync the directory", path)
        whole = self.personality.names == "prefix"
        self._settle(lambda operation: whole or node in _directories(operation))
        self.changed("sync_directory", path)

    def sync_node(self, node: int) -> None:
        """The data of a file is on disk; its entries too if this file system does that."""
        self.syncs += 1
        content = self.state.files[node]
        tables = None if content.tables is None else (content.tables[1], content.tables[1])
        durable = content.versions[-1]
        self.state.files[node] = Content((durable,), content.view, tables)
        if self.personality.file_entry != "nothing":
            whole = self.personality.file_entry == "all"
            self._settle(lambda operation: whole or operation.node == node)

    def _settle(self, chosen: Callable[[Operation], bool]) -> None:
        """The chosen operations on names are on disk now."""
        state, durable, kept = self.state, dict(self.state.durable), []
        for operation in state.journal:
            if chosen(operation):
                apply(durable, operation)
            else:
                kept.append(operation)
        state.durable, state.journal = durable, tuple(kept)

    def lose_dirty(self, path: Path, random: Random) -> None:
        """What a failed sync of a file leaves: nothing of it is dirty any more, and only a part is on disk."""
        node = self._find(path)
        if node is None or node not in self.state.files:
            return
        content = self.state.files[node]
        durable = torn(content.versions, random)
        view = durable if self.personality.failed_sync == "reverted" else content.view
        self.state.files[node] = replace(content, versions=(durable,), view=view)

    # ---- catalogs ---------------------------------------------------------------------------------------------------
    def tables(self, path: Path) -> Any:
        """The tables of the catalog file, as the process sees them; None for a damaged one."""
        content = self.state.files[self._file("open", path)]
        return None if content.tables is None else content.tables[1]

    def put_tables(self, path: Path, tables: Any, *, durable: bool) -> None:
        """A commit (durable), or the copy of a catalog (a write that nothing has synced)."""
        name = "commit" if durable else "copy"
        self.changing(name, path)
        node = self._file(name, path)
        old = self.state.files[node].tables
        before = None if old is None else old[0]
        self.state.files[node] = replace(self.state.files[node], tables=(tables if durable else before, tables))
        self.changed(name, path)


@lru_cache(4096)
def _parts(path: str, prefix: int) -> tuple[str, ...]:
    rest = path[prefix:]
    return tuple(rest.split("/")) if rest else ()


def _directories(operation: Operation) -> tuple[int, ...]:
    if isinstance(operation, Rename):
        return operation.directory, operation.target
    return (operation.directory,)


def torn(versions: tuple[bytes, ...], random: Random, stale: bytes = b"", *, zeros: float = 0.3) -> bytes:
    """Every sector has the bytes of some version, or reads as zeros (or stale bytes) where that version had none."""
    size = len(versions[random.randrange(len(versions))])
    parts = []
    hole = random.random() < zeros
    for start in range(0, size, SECTOR):
        end = min(start + SECTOR, size)
        version = versions[0] if hole else versions[random.randrange(len(versions))]
        part = version[start:end]
        if len(part) < end - start:
            part += stale[start + len(part) : end] if stale else b""
            part = part.ljust(end - start, b"\0")
        parts.append(part)
    return b"".join(parts)
