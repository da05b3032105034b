"""What an open database holds in memory, and the locks around it.

    maintenance_lock  one maintenance step at a time
    catalog_lock      one change of the catalog at a time, with what memory takes over from it
    removal_lock      no file that a commit named is removed; a snapshot holds it while it links or maps them
    sync_lock         one thread syncs the log for a group
    append_lock       resolve, log, stage, publish: all that changes a view. Held for microseconds to milliseconds

They are taken in this order, and any may be left out.

Readers take no lock: they take `CollectionState.view` once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vecdb.engine.costs import CostBook
from vecdb.engine.kernels import Kernels
from vecdb.engine.recent import RecentRecords
from vecdb.engine.view import View
from vecdb.errors import Closed, NotFound, Poisoned, ReadOnly
from vecdb.files import names
from vecdb.files.lock import WriterLock
from vecdb.files.seams import Seams
from vecdb.index.growing import GrowingFlat
from vecdb.options import DatabaseOptions
from vecdb.storage.archive import Archive
from vecdb.storage.catalog import Catalog, Reader
from vecdb.storage.growing import Growing
from vecdb.storage.schema import (
    CollectionMeta,
    DatabaseState,
    FieldEntry,
    Superblock,
    collection_key,
    decode_collection,
)
from vecdb.storage.wal import Wal
from vecdb.threads import Pool

log = logging.getLogger("vecdb")
IndexPlace = tuple[int, int, int, int]  # collection, segment, field, index


@dataclass(slots=True)
class CollectionState:
    """One collection while it is open.

    view     what readers see
    staged   the newest view, of batches that are logged and perhaps not yet durable; writers resolve against it
    """

    meta: CollectionMeta
    view: View
    staged: View
    next_sequence: int
    growing: Growing | None = None
    flats: dict[int, GrowingFlat] = field(default_factory=dict)
    dropped: bool = False
    next_segment: int = 1

    def let_go(self) -> None:
        """After close: handles that are still held keep no maps and no memory. Views that others took live on."""
        self.view = self.staged = replace(self.view, segments=(), memtables=())
        self.growing, self.flats = None, {}

    def take_segment_number(self) -> int:
        """A number that no segment of this collection ever had."""
        self.next_segment += 1
        return self.next_segment - 1

    def check_exists(self) -> None:
        if self.dropped:
            raise NotFound(f"the collection {self.meta.name!r} was deleted; create it again")

    def stored_meta(self, stored: bytes) -> CollectionMeta:
        return decode_collection(collection_key(self.meta.number), stored)


@dataclass(frozen=True, slots=True)
class Frozen:
    """The growing segments that one checkpoint seals: everything up to batch `lsn`. By collection number."""

    lsn: int
    growings: dict[int, Growing]
    next_sequences: dict[int, int]


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch that is logged and not yet published."""

    lsn: int
    views: tuple[tuple[CollectionState, View], ...]


class Engine:
    """An open database. Its parts are set by `recover.py`; the other files of this room work on it."""

    def __init__(self, path: Path, seams: Seams, options: DatabaseOptions, *, writable: bool) -> None:
        self.path, self.seams, self.options, self.writable = path, seams, options, writable
        self.append_lock = threading.RLock()
        self.sync_lock = threading.RLock()
        self.maintenance_lock = threading.RLock()
        self.catalog_lock = threading.RLock()
        self.removal_lock = threading.RLock()
        self.room = threading.Condition(self.append_lock)  # a frozen segment was sealed
        self.superblock: Superblock
        self.lock: WriterLock | None = None
        self.catalog: Catalog
        self.snapshot: Reader
        self.state = DatabaseState()
        self.wal: Wal | None = None
        self.archive: Archive | None = None  # where the log goes when it is retired
        self.collections: dict[int, CollectionState] = {}
        self.names: dict[str, int] = {}
        self.pending: deque[Pending] = deque()
        self.frozen: list[Frozen] = []
        self.last_lsn = 0
        self.published_lsn = 0
        self.doubtful = False  # the log's tail was only seen in the page cache
        self.kernels = Kernels(options.threads)
        self.executor: Pool | None = None
        self.scheduler: Any = None
        self.syncer: Any = None  # with sync="interval"
        self.trouble: Exception | None = None  # why the last maintenance step failed
        self.filters: Any = None
        self.recent = RecentRecords(options.payload_cache)
        self.costs = CostBook()
        self.last_write = seams.clock.monotonic()
        self.dirty_since: float | None = None
        self.damaged: set[IndexPlace] = set()  # set aside
        self.index_numbers: dict[tuple[int, int, int], int] = {}
        self.purge: set[int] = set()  # dropped collections whose rows the catalog still has
        self.inside_checkpoint = False
        self.references = 0
        self.closed = False
        self.forked = False

    # ---- checks ---------------------------------------------------------------------------------------------------
    def check_open(self) -> None:
        if self.forked:
            raise Closed("this handle belongs to the process that forked; open the database again in this process")
        if self.closed:
            raise Closed("the database was closed; open it again")

    def check_writable(self) -> None:
        self.check_open()
        if not self.writable:
            raise ReadOnly('the database was opened with mode="r"; open it with mode="rw" to write')
        if self.wal is not None:
            self.wal.check()

    @property
    def poisoned(self) -> bool:
        return self.wal is not None and self.wal.poison is not None

    def poison(self, reason: str) -> Poisoned:
        """No write after this; views go on serving."""
        if self.wal is not None and self.wal.poison is None:
            self.wal.poison = reason
        return Poisoned(reason)

    # ---- places ---------------------------------------------------------------------------------------------------
    @property
    def wal_directory(self) -> Path:
        return self.path / names.WAL_DIRECTORY

    @property
    def segment_root(self) -> Path:
        return self.path / names.SEGMENT_DIRECTORY

    def segment_directory(self, collection: int, segment: int) -> Path:
        return self.segment_root / names.segment(collection, segment)

    def number_of(self, name: str) -> int:
        number = self.names.get(name)
        if number is None:
            known = ", ".join(sorted(self.names)) or "none"
            raise NotFound(f"there is no collection {name!r}; this database has: {known}")
        return number

    @contextmanager
    def both_locks(self) -> Iterator[None]:
        """sync_lock and append_lock, in their order."""
        with self.sync_lock, self.append_lock:
            yield

    def take_index_number(self, collection: int, segment: int, field: FieldEntry) -> int:
        """A number that no index of this field ever had, in this process or in the catalog."""
        place = (collection, segment, field.number)
        number = max(field.next_index, self.index_numbers.get(place, 0))
        self.index_numbers[place] = number + 1
        return number

    def log_bytes(self) -> int:
        return 0 if self.wal is None else self.wal.size


class ReadOnlyHandle(Engine):
    """The same engine for a handle that was opened with mode="r" where the process also writes: all state is shared."""

    def __init__(self, engine: Engine) -> None:
        self.__dict__ = engine.__dict__

    def check_writable(self) -> None:
        self.check_open()
        raise ReadOnly('this handle was opened with mode="r"; write through the handle that has mode="rw"')
