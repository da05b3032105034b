"""sync="interval": a thread of its own syncs the log. Maintenance may be in a step of minutes, or there may be none."""

from __future__ import annotations

import threading

from vecdb.engine.commit import sync_log
from vecdb.engine.state import Engine, log
from vecdb.errors import Poisoned, StorageFailed


class IntervalSync:
    """Syncs every `interval_ms` until it is stopped, or a failed sync ended writing."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="vecdb-sync", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        if self.thread is not threading.current_thread() and self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        while not self.stopping.wait(self.engine.options.interval_ms / 1000):
            try:
                sync_log(self.engine)
            except Poisoned as error:
                log.warning("syncing by interval stopped: %s", error)
                return
            except StorageFailed as error:
                log.warning("the log could not be synced and will be tried again: %s", error)
