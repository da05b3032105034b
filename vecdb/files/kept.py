"""Small facts about this machine, kept in the user's cache directory: lost or damaged, they are measured again.

A file is JSON with a digest of what it says. Anything else in its place is not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import stat
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger("vecdb")
FORMAT = 1
BYTES_MAX = 65_536


@cache
def processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as told:
            for line in told:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Hardware", "cpu model"):
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def place_of(directory: Path, about: str) -> Path:
    """The file that keeps facts about `about`."""
    return directory / f"costs-{hashlib.blake2b(about.encode(), digest_size=12).hexdigest()}.json"


def read_facts(directory: Path, about: str) -> Any:
    """What was kept about `about`; None when there is nothing, or nothing to believe (the log says so)."""
    path = place_of(directory, about)
    try:
        content = _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read (%s); costs are measured again", path, error)
        return None
    try:
        told = json.loads(content)
        if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("about") != about:
            raise ValueError("it is about something else")
        if told.get("digest") != _digest(about, told.get("facts")):
            raise ValueError("its digest does not fit")
        return told["facts"]
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8 too
        log.warning("%s is not believed (%s); costs are measured again", path, error)
        return None


def write_facts(directory: Path, about: str, facts: Any) -> None:
    """Keeps them in the place of what was kept before. Failing that, the log says so."""
    path = place_of(directory, about)
    told = {"format": FORMAT, "about": about, "digest": _digest(about, facts), "facts": facts}
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(told, indent=1).encode())
        beside.replace(path)
    except OSError as error:
        log.warning("%s cannot be written (%s); costs are measured again by the next process", path, error)


def _read(path: Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > BYTES_MAX:
            raise OSError("it is no small file")
        return file.read(BYTES_MAX)


def _digest(about: str, facts: Any) -> str:
    written = json.dumps([FORMAT, about, facts], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(written.encode(), digest_size=16).hexdigest()
