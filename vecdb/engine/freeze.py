"""C0 and C1 of a checkpoint: nothing more goes into the growing segments; the log goes on in a new file."""

from __future__ import annotations

from vecdb.engine.apply import publish
from vecdb.engine.interrupts import held_interrupts
from vecdb.engine.state import Engine, Frozen


def freeze(engine: Engine) -> bool:
    """Freezes every growing segment at the last batch. False if the catalog covers that. Held: sync_lock, append_lock.

    There may be no growing segment and yet a log to retire: that of a collection that was dropped. Ctrl-C waits: a new
    log file that this process does not know of would stand in the way of the batches that it writes next.
    """
    with held_interrupts():
        return _freeze(engine)


def _freeze(engine: Engine) -> bool:
    growing = {n: state.growing for n, state in engine.collections.items() if state.growing is not None}
    covered = engine.frozen[-1].lsn if engine.frozen else engine.state.applied_lsn
    if engine.last_lsn == covered:
        return False
    assert engine.wal is not None
    engine.wal.sync()
    engine.seams.disk.reach("log:synced", engine.last_lsn)
    publish(engine, engine.last_lsn)
    if engine.wal.handle is not None:
        engine.wal.rotate()
    engine.seams.disk.reach("checkpoint:frozen", engine.last_lsn)
    sequences = {number: engine.collections[number].next_sequence for number in growing}
    engine.frozen.append(Frozen(engine.last_lsn, growing, sequences))
    for number in growing:
        engine.collections[number].growing = None
        engine.collections[number].flats = {}
    engine.dirty_since = None
    return True
