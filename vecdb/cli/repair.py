"""`vecdb repair`: a new database from a damaged one. Exit codes: 0 nothing was lost, 1 something was, 2 impossible."""

from __future__ import annotations

import sys
from pathlib import Path

import vecdb
from vecdb.cli import terminal
from vecdb.errors import VecdbError

COMPLETE, PARTIAL, IMPOSSIBLE = 0, 1, 2


def repair(path: Path, new: Path) -> int:
    try:
        report = vecdb.repair(path, new)
    except VecdbError as error:
        print(f"vecdb: {error}", file=sys.stderr)
        return IMPOSSIBLE
    terminal.say(str(report))
    return COMPLETE if report.ok else PARTIAL
