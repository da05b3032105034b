"""`vecdb verify`: whether a database is what was written to it. Exit codes: 0 sound, 1 damage, 2 cannot be opened."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import vecdb
from vecdb.cli import terminal
from vecdb.errors import VecdbError

SOUND, DAMAGED, NOT_OPENED = 0, 1, 2


def verify(path: Path, deep: bool, as_json: bool) -> int:
    try:
        with terminal.Bar("verifying") as bar:
            report = vecdb.verify(path, deep=deep, progress=bar if sys.stderr.isatty() else None)
    except VecdbError as error:
        print(f"vecdb: {error}", file=sys.stderr)
        return NOT_OPENED
    if as_json:
        print(json.dumps({"ok": report.ok, **asdict(report)}, indent=2))
    else:
        terminal.say(str(report))
    return SOUND if report.ok else DAMAGED
