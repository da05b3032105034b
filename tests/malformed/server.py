"""A process that damages copies of a database and opens each in a child of its own, so that a crash ends only that.

It is asked through its standard input, one JSON object a line, and answers likewise:
    {"damage": [kind, ...], "mode": "rw" | "r"}  ->  {"outcome": ..., "detail": ...}

Outcomes: "answer" (all of it true), "prefix" (true, without the newest batches of the log), "error" (typed), and those
that are never right: "untyped", "wrong", "changed", "killed", "hang".
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import vecdb
from tests.malformed import crafted, damage, template

SECONDS = 60  # a child that lives longer hangs
MEMORY = 512 << 20  # bytes that a child may allocate beyond what the server has


def serve(root: Path) -> None:
    prepare(root)
    print("ready", flush=True)
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        print(json.dumps(run(root, number, asked["damage"], asked["mode"])), flush=True)


def prepare(root: Path) -> None:
    """The database, another one to take foreign files from, and every kernel that a child will want."""
    template.build(root / "template")
    template.build(root / "foreign", salt=11)
    with vecdb.open(root / "template", mode="r") as db:
        template.probe(db)


def copy(root: Path, target: Path) -> None:
    """What is never written again is linked, the rest is copied."""
    shutil.copytree(root / "template", target, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    (os.link if source.endswith(".npy") else shutil.copyfile)(source, target)


def run(root: Path, number: int, kind: list[Any], mode: str) -> dict[str, str]:
    database = root / f"case-{number}" / "db"
    database.parent.mkdir()
    (database.parent / "foreign").symlink_to(root / "foreign")
    copy(root, database)
    try:
        apply(database, kind)
    except (AssertionError, LookupError, OSError) as error:  # there is no such file, or it is not what it was
        shutil.rmtree(database.parent)
        return {"outcome": "not made", "detail": repr(error)}
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        status = 1
        try:
            os.write(write_end, json.dumps(examine(database, mode)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    found = _await(child, read_end)
    shutil.rmtree(database.parent)
    return found


def apply(database: Path, kind: list[Any]) -> None:
    """["flip", role, offset, bit], ["cut", role, bytes], [name of a damage, role], or ["crafted", name]."""
    name, *rest = kind
    if name == "crafted":
        crafted.CASES[rest[0]].make(database)
        return
    path = damage.place_of(database, rest[0])
    if name == "flip":
        damage.flip(path, rest[1], rest[2])
    elif name == "cut":
        damage.put(path, path.read_bytes()[: rest[1]])
    else:
        damage.DAMAGES[name](path)


def _await(child: int, pipe: int) -> dict[str, str]:
    data, deadline = b"", time.monotonic() + SECONDS
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(pipe, 65536)
        if not part:
            break
        data += part
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(pipe)
        return {"outcome": "hang", "detail": f"no answer in {SECONDS} s"}
    os.close(pipe)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not data:
        return {"outcome": "killed", "detail": f"exit code {code}"}
    answer: dict[str, str] = json.loads(data)
    return answer


def examine(database: Path, mode: str) -> dict[str, str]:
    """What the database says to everything that it is asked. In a child, with little memory."""
    limit = _data_size() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before = _stamps(database)
    opened = False
    try:
        options: dict[str, Any] = {"maintenance": "manual"} if mode == "rw" else {}
        with vecdb.open(database, mode=mode, **options) as db:  # type: ignore[arg-type]
            opened = True
            batches = template.probe(db)
    except vecdb.VecdbError as error:
        if not opened and _stamps(database) != before:
            return {"outcome": "changed", "detail": f"a refused open changed files: {error}"}
        return {"outcome": "error", "kind": type(error).__name__, "detail": str(error)}
    except template.Wrong as error:
        return {"outcome": "wrong", "detail": str(error)}
    except BaseException:  # noqa: BLE001  whatever it is, it is the finding
        return {"outcome": "untyped", "detail": traceback.format_exc(limit=-6)}
    return {"outcome": "answer" if batches == template.TAIL else "prefix", "detail": str(batches)}


def _data_size() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData"))


def _stamps(database: Path) -> dict[str, tuple[int, int]]:
    """Of every file but those that say who has the database open."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in database.rglob("*")
        if path.name not in ("LOCK", "lock.mdb") and not path.is_dir()
    }


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
