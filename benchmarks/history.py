"""Where figures are kept: one line of JSON a run, with the commit and the machine."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT

HISTORY = ROOT / "benchmarks" / "results" / "history.jsonl"


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.platform()}


def commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def line_of(benchmark: str, figures: dict[str, Any]) -> dict[str, Any]:
    """`figures` with what identifies the run. The commit is that of now: make it before a long measurement."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return {"benchmark": benchmark, "time": now, "commit": commit(), "machine": machine(), **figures}


def append(line: dict[str, Any]) -> None:
    HISTORY.parent.mkdir(exist_ok=True)
    with HISTORY.open("a", encoding="utf-8") as history:
        history.write(json.dumps(line) + "\n")
