"""R8: before the first acknowledgement after an unclean stop, the surviving tail of the log is written anew.

What was replayed may have been read from a page cache that the disk never got. A clean close leaves nothing in doubt.
"""

from __future__ import annotations

from vecdb.engine.interrupts import held_interrupts
from vecdb.engine.state import Engine
from vecdb.files.disk import Bytes
from vecdb.storage.wal_scan import scan

FILES_MAX = 32  # every opening that writes starts a file; so many that no checkpoint took are written as one


def settle_doubtful_log(engine: Engine) -> None:
    """Gives the log a file that may be written to. Held: append_lock. Ctrl-C waits, as in `freeze`."""
    with held_interrupts():
        _settle(engine)


def _settle(engine: Engine) -> None:
    wal = engine.wal
    assert wal is not None
    if wal.handle is not None:
        return
    if not wal.files and not engine.doubtful:
        wal.start(engine.last_lsn + 1)
    elif engine.doubtful or len(wal.files) >= FILES_MAX:
        first = engine.state.applied_lsn + 1
        tail = scan(engine.seams.disk, engine.wal_directory, engine.superblock.uuid, engine.state.applied_lsn)
        wal.rewrite(first, ((b.lsn, b.time_ns, list[Bytes]([b.payload])) for b in tail.batches))
        engine.doubtful = False
    else:
        wal.rotate()
