"""tests/RESULTS.md: what the long runs did last, one section for each target. Written by them, never by hand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.rules.source import ROOT

FILE = ROOT / "tests" / "RESULTS.md"
TARGETS = "`make crash`, `make soak`, `make faults`, `make malformed`, `make mutation` and `make coverage`"
HEAD = f"# Results\n\nWritten by {TARGETS}: what the last run of each did.\n"


def write_section(title: str, lines: Sequence[str], file: Path = FILE) -> None:
    """Replaces the section `title`, or adds it; the others stay as they are."""
    text = file.read_text(encoding="utf-8") if file.exists() else HEAD
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    body = "\n".join([f"## {title}", "", f"{when}, commit {_commit()}.", "", *lines, ""])
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |^<!--|\Z)", re.DOTALL | re.MULTILINE)
    found = pattern.search(text)
    text = text[: found.start()] + body + "\n" + text[found.end() :] if found else f"{text.rstrip()}\n\n{body}"
    file.write_text(text.rstrip() + "\n", encoding="utf-8")


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
