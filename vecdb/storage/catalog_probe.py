"""Whether the pages of a catalog can be read at all, found out in a process that may die of it.

LMDB pages carry no checksums. A file that was cut short ends the process that touches what is missing, and some damage
makes LMDB abort; both end a child here. The child loads nothing but the binding of LMDB, so it costs little.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vecdb.files import names
from vecdb.storage.catalog import MAP_FACTOR, MAP_MIN, READER_FACTOR

# Touches every entry of every table; what goes wrong is the last line that it prints.
PROGRAM = """
import lmdb, os, sys
path, least, factor, locked = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "locked"
size = max(least, factor * os.path.getsize(os.path.join(path, "data.mdb")))
try:
    options = dict(map_size=size, readonly=True, create=False, lock=locked, mode=0o600, max_dbs=32, max_readers=1024)
    environment = lmdb.open(path, **options)
    with environment.begin() as transaction:
        names = list(transaction.cursor().iternext(values=False))
    tables = [environment.open_db(name, create=False) for name in names]
    with environment.begin() as transaction:
        for table in tables:
            for key, value in transaction.cursor(db=table):
                value[:1], value[-1:]
except lmdb.Error as error:
    print(error)
    sys.exit(1)
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a catalog cannot be read to its end; `fatal`: trying ends the process."""

    reason: str
    fatal: bool


def probe(directory: Path, generation: int, *, locked: bool) -> Fault | None:
    """Reads every entry of a catalog in a child process. None if that works, else what went wrong."""
    path = directory / names.catalog(generation)
    sizes = [str(MAP_MIN), str(MAP_FACTOR * READER_FACTOR)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), *sizes, "locked" if locked else "alone"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return Fault(f"reading its pages ends the process ({signal.Signals(-done.returncode).name})", True)
    told = (done.stdout.strip() or done.stderr.strip() or "they cannot be read").splitlines()[-1]
    return Fault(f"its pages are damaged: {told}", False)
