"""Maintenance as explicit steps, and the thread that takes them.

`next_step` looks at what there is and names one thing to do; `run_step` does it. Nothing else decides. Long steps call
`breathe` many times a second: it stops them when the database closes, and seals a frozen segment that writers wait for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from vecdb.engine import policy
from vecdb.engine.build import complete, find_missing
from vecdb.engine.calibrate import calibrate, find_unmeasured
from vecdb.engine.checkpoint import checkpoint
from vecdb.engine.interrupts import held_interrupts, poisoning, taking_over
from vecdb.engine.load import committed_deletions
from vecdb.engine.merge import merge
from vecdb.engine.purge import purge_collection
from vecdb.engine.schema import take_snapshot
from vecdb.engine.state import CollectionState, Engine, log
from vecdb.errors import Closed, Poisoned
from vecdb.kernels import bitset
from vecdb.storage.sealed import Sealed
from vecdb.threads import Ending

TICK_SECONDS = 0.05  # while there was work or a write lately
REST_SECONDS = 1.0
RETRY_SECONDS_MAX = 60.0
MARK_SECONDS = 1.0  # idle time after which the log says how much of it is durable
KERNEL_ROWS = 4096  # unindexed rows that make loading the kernels worth while


class Stopped(Closed):
    """A long step was told to stop: the database closes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    name: str
    run: Callable[[], object]


def next_step(engine: Engine, *, force: bool = False) -> Step | None:
    """What is to be done now. `force`: as if the database had been idle for long. Held: maintenance_lock."""
    if engine.frozen or _checkpoint_due(engine, force):
        return Step("checkpoint", lambda: checkpoint(engine))
    if engine.purge:
        dropped = min(engine.purge)
        return Step("purge", lambda: purge_collection(engine, dropped))
    for state in list(engine.collections.values()):
        if state.dropped:
            continue
        step = _merge_step(engine, state, force) or _index_step(engine, state)
        if step is not None:
            return step
    if policy.compaction_due(engine.catalog.size(), engine.catalog.free_bytes()):
        return Step("compact", lambda: compact_catalog(engine))
    return None if force else _measure_step(engine)


def _checkpoint_due(engine: Engine, force: bool) -> bool:
    changes = lost = rows = 0
    for state in list(engine.collections.values()):
        view = state.view
        for segment in view.segments:
            if isinstance(segment.storage, Sealed):
                rows += segment.rows
        if state.growing is not None:
            ended = sum(len(deletion.sequences) for deletion in state.growing.deletions)
            changes += state.growing.rows + ended
            lost += ended
    if engine.log_bytes() > policy.LOG_TRIGGER and engine.last_lsn > engine.state.applied_lsn:
        return True  # even if all of it is of a collection that was dropped
    now = engine.seams.clock.monotonic()
    dirty = now - engine.dirty_since if engine.dirty_since is not None else 0.0
    idle = now - engine.last_write
    share = lost / rows if rows else 0.0
    return (force and changes > 0) or policy.checkpoint_due(engine.log_bytes(), changes, dirty, idle, share)


def _merge_step(engine: Engine, state: CollectionState, force: bool) -> Step | None:
    storages = [s.storage for s in state.view.segments if isinstance(s.storage, Sealed)]
    if not storages:
        return None
    sizes = [_size(engine, state, storage) for storage in storages]
    run = policy.choose_merge(sizes, engine.seams.clock.monotonic() - engine.last_write, force=force)
    if run is None:
        return None
    chosen = [storages[i] for i in run]
    return Step("merge", lambda: merge(engine, state, chosen, breathe(engine)))


def _size(engine: Engine, state: CollectionState, storage: Sealed) -> policy.Size:
    deleted = committed_deletions(state.meta.number, storage, engine.snapshot)
    dead = 0 if deleted is None else bitset.count(deleted)
    return policy.Size(storage.rows, dead, dead, max(1, storage.size_bytes // max(1, storage.rows)))


def _index_step(engine: Engine, state: CollectionState) -> Step | None:
    missing = find_missing(state)
    if missing is None:
        return None
    return Step("index", lambda: complete(engine, missing, breathe(engine)))


def _measure_step(engine: Engine) -> Step | None:
    """When nobody writes: what is measured meanwhile would not hold."""
    idle = engine.seams.clock.monotonic() - engine.last_write
    if engine.scheduler is not None and idle < policy.IDLE_SECONDS:
        return None
    unmeasured = find_unmeasured(engine)
    return None if unmeasured is None else Step("measure", lambda: calibrate(engine, unmeasured, breathe(engine)))


def compact_catalog(engine: Engine) -> None:
    """Copies the catalog without its free pages; writers go on into the log. Held: maintenance_lock."""
    with engine.catalog_lock, held_interrupts():
        with poisoning(engine):
            engine.catalog.compact()
        with taking_over(engine):
            take_snapshot(engine)


def run_step(engine: Engine, *, force: bool = False) -> str | None:
    """Takes one step and returns its name; None when there is nothing to do."""
    with engine.maintenance_lock:
        engine.check_writable()
        step = next_step(engine, force=force)
        if step is None:
            return None
        step.run()
        return step.name


def optimize(engine: Engine) -> None:
    """Returns when nothing is left to do: all sealed, merged, indexed and reclaimed."""
    while run_step(engine, force=True) is not None:
        pass


def breathe(engine: Engine) -> Callable[[int, int], None]:
    """The progress callback of long steps."""

    def progress(done: int, total: int) -> None:
        scheduler = engine.scheduler
        if scheduler is not None and scheduler.stopping.is_set():
            raise Stopped("the database was closed meanwhile; open it again")
        if engine.frozen and not engine.inside_checkpoint:
            engine.inside_checkpoint = True
            try:
                checkpoint(engine)
            finally:
                engine.inside_checkpoint = False

    return progress


def close_checkpoint(engine: Engine) -> None:
    """At close: many changes are sealed, few are left to the log. Codes wait when the kernels are not loaded."""
    with engine.maintenance_lock:
        changes = sum(
            state.growing.rows + sum(len(d.sequences) for d in state.growing.deletions)
            for state in list(engine.collections.values())
            if state.growing is not None
        )
        dtypes = {field.dtype for state in list(engine.collections.values()) for field in state.meta.fields}
        loaded = all(engine.kernels.ready(dtype) for dtype in dtypes)
        while engine.frozen or changes >= policy.CLOSE_CHANGES:
            if not checkpoint(engine, codes=loaded):
                return
            if not engine.frozen:
                return


class Scheduler:
    """The one maintenance thread of a database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stopping = threading.Event()
        self.awake = threading.Event()
        self.thread = threading.Thread(target=self._run, name="vecdb-maintenance", daemon=True)
        self.retry_at, self.retry_seconds = 0.0, 0.0

    def start(self) -> None:
        self.thread.start()

    def wake(self) -> None:
        self.awake.set()

    def stop(self) -> None:
        """Returns when the thread has ended; a long step is given up, and done again after the next open."""
        self.stopping.set()
        self.awake.set()
        if self.thread is not threading.current_thread() and self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                worked = self._tick()
            except (Stopped, Ending):
                return
            if not worked:
                idle = self.engine.seams.clock.monotonic() - self.engine.last_write
                self.awake.wait(TICK_SECONDS if idle < 2 * policy.IDLE_SECONDS else REST_SECONDS)
                self.awake.clear()

    def _tick(self) -> bool:
        engine, now = self.engine, self.engine.seams.clock.monotonic()
        if engine.poisoned or now < self.retry_at:
            return False
        try:
            self._small_duties(now)
            worked = run_step(engine) is not None
        except (Stopped, Ending):
            raise
        except (Closed, Poisoned) as error:
            log.warning("maintenance stopped: %s", error)
            engine.trouble = error
            return False
        except Exception as error:  # noqa: BLE001  whatever it was, writers are told, and it is tried again
            log.warning("maintenance failed and will be tried again: %s", error, exc_info=True)
            engine.trouble = error
            self.retry_seconds = min(max(1.0, 2 * self.retry_seconds), RETRY_SECONDS_MAX)
            self.retry_at = now + self.retry_seconds
            with engine.append_lock:
                engine.room.notify_all()
            return False
        engine.trouble, self.retry_seconds = None, 0.0
        return worked

    def _small_duties(self, now: float) -> None:
        """Codes of new rows, and the mark of an idle log."""
        engine = self.engine
        self._code_new_rows()
        if now - engine.last_write >= MARK_SECONDS and engine.wal is not None:
            with engine.both_locks():
                engine.wal.mark()

    def _code_new_rows(self) -> None:
        engine = self.engine
        for state in list(engine.collections.values()):
            for segment in state.view.segments:
                for field in segment.fields.values():
                    if field.growing is None or field.matrix.rows - field.growing.coded_rows < KERNEL_ROWS:
                        continue
                    engine.kernels.start_all(field.matrix.vectors.dtype.name)  # an index is to be built before long
                    if engine.kernels.ready(field.matrix.vectors.dtype.name):
                        field.growing.extend(field.matrix)
