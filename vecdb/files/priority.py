"""The priority of threads: index builds leave the processors to searches."""

from __future__ import annotations

import os
import threading

BUILD_NICENESS = 15


def lower_priority() -> None:
    """Makes the calling thread, and those it starts, give way to others. Linux has priorities by thread; elsewhere
    they are those of the process and stay as they are."""
    if not hasattr(os, "setpriority") or not os.path.isdir("/proc/self/task"):
        return
    thread = threading.get_native_id()
    now = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, max(now, BUILD_NICENESS))
