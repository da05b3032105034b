"""The write path from a resolved part to a published view: log, stage, sync as a group, publish.

W1 encode, reserve, W2 append, stage        under append_lock
W3 sync, W4 publish                         the first of a group does it for all (sync="full")
"""

from __future__ import annotations

from collections.abc import Callable

from vecdb.engine.apply import enough_memory, publish, reserve, stage
from vecdb.engine.freeze import freeze
from vecdb.engine.interrupts import Interrupts, held_interrupts
from vecdb.engine.policy import LOG_TRIGGER
from vecdb.engine.rewrite import settle_doubtful_log
from vecdb.engine.state import CollectionState, Engine
from vecdb.errors import InvalidInput, StorageFailed
from vecdb.storage.batch import Batch, Part, encode
from vecdb.storage.wal import BATCH_MAX

FROZEN_MAX = 2  # frozen sets in memory; writers wait for a checkpoint beyond
LOG_LIMIT = 4 * LOG_TRIGGER  # bytes of log at which failing maintenance stops writes

Resolve = Callable[[CollectionState], Part | None]


def write(engine: Engine, state: CollectionState, rows: int, resolve: Resolve) -> Part | None:
    """Resolves, logs and publishes one batch of at most `rows` new records.

    `resolve` is called under the append lock and sees every earlier write; None means there is nothing to do. When
    this returns the batch is as durable as `sync` says, and every later search sees it.
    """
    with held_interrupts() as interrupts:
        _enter(engine, state, rows, interrupts)
        try:
            engine.check_writable()
            part = resolve(state)
            if part is None:
                return None
            lsn = _append(engine, state, part)
        finally:
            engine.append_lock.release()
        commit(engine, lsn)
    return part


def _enter(engine: Engine, state: CollectionState, rows: int, interrupts: Interrupts) -> None:
    """Takes the append lock with room for `rows` in the growing segment. Waiting for room can be interrupted."""
    while True:
        engine.append_lock.acquire()
        try:
            engine.check_writable()
            state.check_exists()
            _check_log(engine)
            growing = state.growing
            if growing is None or growing.room(rows):
                return
            if len(engine.frozen) >= FROZEN_MAX:
                if interrupts:
                    raise KeyboardInterrupt
                _await_checkpoint(engine)
        except BaseException:
            engine.append_lock.release()
            raise
        engine.append_lock.release()
        with engine.both_locks():
            if state.growing is growing and len(engine.frozen) < FROZEN_MAX:
                freeze(engine)


def _await_checkpoint(engine: Engine) -> None:
    if engine.scheduler is None:
        raise StorageFailed(
            'the growing segments are full and nothing seals them: with maintenance="manual", call maintain()'
        )
    engine.scheduler.wake()
    engine.room.wait(1.0)
    if engine.trouble is not None and len(engine.frozen) >= FROZEN_MAX:
        raise StorageFailed(f"new records cannot be sealed: {engine.trouble}") from engine.trouble


def _check_log(engine: Engine) -> None:
    if engine.trouble is not None and engine.log_bytes() > LOG_LIMIT:
        raise StorageFailed(
            f"the log has {engine.log_bytes() >> 20} MiB, and maintenance cannot move it on: {engine.trouble}"
        ) from engine.trouble


def _append(engine: Engine, state: CollectionState, part: Part) -> int:
    assert engine.wal is not None
    room = reserve(state, part)
    with enough_memory():
        payload = encode([part])
    size = sum(len(buffer) for buffer in payload)
    if size > BATCH_MAX:
        records = max(1, len(part.keys) * (BATCH_MAX // 2) // size)
        raise InvalidInput(f"one batch may have {BATCH_MAX >> 30} GiB; write about {records} records a call instead")
    settle_doubtful_log(engine)
    batch = Batch(engine.last_lsn + 1, engine.seams.clock.time_ns(), [part])
    with enough_memory():
        engine.wal.append(batch.lsn, batch.time_ns, payload)
    engine.seams.disk.reach("log:appended", batch.lsn)
    try:
        stage(engine, batch, [state], [room])
    except BaseException as error:  # small things found no memory: the log has the batch, the views have not
        engine.poison(f"a logged batch could not be taken into memory ({error!r})")
        raise
    return batch.lsn


def commit(engine: Engine, lsn: int) -> None:
    """Returns when batch `lsn` is durable as `sync` asks, and published."""
    assert engine.wal is not None
    if engine.options.sync != "full":
        with engine.append_lock:
            publish(engine, lsn)
        return
    with engine.sync_lock:
        if engine.published_lsn < lsn:
            flush_pending(engine)
    engine.seams.disk.reach("log:acknowledged", lsn)


def flush_pending(engine: Engine) -> None:
    """Makes every staged batch durable and publishes it. Held: sync_lock."""
    assert engine.wal is not None
    if not engine.pending:
        return
    with engine.append_lock:
        upto = engine.last_lsn
    engine.wal.sync()
    engine.seams.disk.reach("log:synced", upto)
    with engine.append_lock:
        publish(engine, upto)


def sync_log(engine: Engine) -> None:
    """Everything acknowledged before is on disk when this returns, whatever `sync` says."""
    assert engine.wal is not None
    with engine.sync_lock:
        flush_pending(engine)
        with engine.append_lock:
            if engine.doubtful:
                settle_doubtful_log(engine)
        engine.wal.sync()
        engine.seams.disk.reach("log:synced", engine.published_lsn)
