"""Goal: any number of processes read what one writes; fork, spawn, exit, interrupts and media change nothing of that.

Method: real processes that run a few lines each, in step with the test through their pipes.
"""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.crash.ledger import DIM, check_prefix, make_batch, states_of, write
from vecdb.errors import Closed, Locked, ReadOnly, StorageFailed

ROOT = Path(__file__).parents[2]
HEAD = """
import os, signal, sys, time
import numpy as np
import vecdb
from tests.crash.ledger import DIM, check_prefix, make_batch, states_of, write
path = sys.argv[1]
def tell(*words): print(*words, flush=True)
def wait(): return sys.stdin.readline().strip()
"""


class Other:
    """Another process that runs `code`; `ask` writes a line to it and returns its next line."""

    def __init__(self, code: str, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD + code, str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate()[1]
        return line

    def ask(self, line: str = "") -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self, code: int = 0) -> str:
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == code, errors
        return errors


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[str], Other]]:
    started: list[Other] = []

    def begin(code: str) -> Other:
        started.append(Other(code, tmp_path / "db"))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.communicate()


def filled(path: Path, batches: int = 3, **options: str) -> vecdb.Database:
    db = vecdb.open(path, **options)  # type: ignore[arg-type]
    docs = db.get_or_create_collection("docs", dim=DIM)
    for seed in range(batches):
        write(docs, make_batch(seed))
    return db


STATES = states_of([make_batch(seed) for seed in range(40)])

READER = """
with vecdb.open(path, mode="r") as db:
    docs = db.get_collection("docs")
    tell("open")
    states = states_of([make_batch(seed) for seed in range(40)])
    while (line := wait()) != "end":
        db.refresh()
        check_prefix(docs, states, int(line))
        tell("seen", docs.count())
    tell("end")
"""


def test_a_second_process_sees_what_the_first_writes(tmp_path: Path, other: Callable[[str], Other]) -> None:
    with filled(tmp_path / "db", maintenance="manual") as db:
        docs = db.get_collection("docs")
        reader = other(READER)
        assert reader.hear() == "open"
        assert reader.ask("3") == f"seen {len(STATES[3])}"
        for seed in range(3, 12):
            write(docs, make_batch(seed))
            if seed % 3 == 0:
                db.optimize()
            assert reader.ask(str(seed + 1)) == f"seen {len(STATES[seed + 1])}"
        db.create_collection("later", dim=2).upsert([1], [[1.0, 2.0]])
        assert reader.ask("end") == "end"
        reader.end()


def test_a_reader_sees_every_write_of_a_killed_writer(tmp_path: Path, other: Callable[[str], Other]) -> None:
    writer = other(
        """
db = vecdb.open(path)
docs = db.create_collection("docs", dim=DIM)
for seed in range(7):
    write(docs, make_batch(seed))
tell("written")
wait()
"""
    )
    assert writer.hear() == "written"
    writer.process.send_signal(signal.SIGKILL)
    writer.end(-signal.SIGKILL)
    with vecdb.open(tmp_path / "db", mode="r") as db:
        check_prefix(db.get_collection("docs"), STATES[:8], 7)
    with vecdb.open(tmp_path / "db") as db:
        check_prefix(db.get_collection("docs"), STATES[:8], 7)


def test_a_second_writer_is_refused_with_the_pid_of_the_first(tmp_path: Path, other: Callable[[str], Other]) -> None:
    second = """
try:
    vecdb.open(path)
except vecdb.Locked as error:
    tell(error)
"""
    with filled(tmp_path / "db"):
        told = other(second).hear()
        assert f"process {os.getpid()} on" in told
        assert 'mode="r"' in told
    assert (tmp_path / "db" / "LOCK").exists()  # permanent: removing it would let two writers in
    writer = other('db = vecdb.open(path)\ntell("open")\nwait()\ndb.close()\ntell("closed")')
    assert writer.hear() == "open"
    with pytest.raises(Locked, match=f"process {writer.process.pid} on"):
        vecdb.open(tmp_path / "db")
    assert writer.ask() == "closed"
    writer.end()
    filled(tmp_path / "db").close()


def test_opening_twice_in_one_process_shares_the_engine(tmp_path: Path) -> None:
    first = filled(tmp_path / "db")
    second = vecdb.open(tmp_path / "db")
    linked = tmp_path / "link"
    linked.symlink_to(tmp_path / "db")
    third = vecdb.open(linked, mode="r")
    with pytest.raises(ReadOnly):
        third.get_collection("docs").upsert([1], np.ones((1, DIM)))
    write(second.get_collection("docs"), make_batch(3))
    check_prefix(first.get_collection("docs"), STATES[:5], 4)
    check_prefix(third.get_collection("docs"), STATES[:5], 4)
    first.close()
    first.close()
    write(second.get_collection("docs"), make_batch(4))
    second.close()
    check_prefix(third.get_collection("docs"), STATES[:6], 5)
    third.close()
    with vecdb.open(tmp_path / "db", mode="r") as a, vecdb.open(tmp_path / "db", mode="r") as b:
        assert a.get_collection("docs").count() == b.get_collection("docs").count() == len(STATES[5])


@pytest.mark.filterwarnings("ignore:This process")  # fork beside threads is what this is about
def test_handles_are_closed_in_a_forked_child_and_the_parent_goes_on(tmp_path: Path) -> None:
    db = filled(tmp_path / "db")
    docs = db.get_collection("docs")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            refused = 0
            for attempt in (
                docs.count,
                lambda: docs.search(np.ones(DIM)),
                lambda: write(docs, make_batch(9)),
                db.flush,
            ):
                try:
                    attempt()
                except Closed:
                    refused += 1
            db.close()
            code = 0 if refused == 4 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    write(docs, make_batch(3))
    db.optimize()
    check_prefix(docs, STATES[:5], 4)
    code = f"import vecdb; vecdb.open({str(tmp_path / 'db')!r})"
    second = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "vecdb.errors.Locked" in second.stderr  # the child's exit did not release the lock
    db.close()
    with vecdb.open(tmp_path / "db") as db:
        check_prefix(db.get_collection("docs"), STATES[:5], 4)


def test_pickled_handles_reopen_read_only(tmp_path: Path, other: Callable[[str], Other]) -> None:
    with filled(tmp_path / "db") as db:
        data = pickle.dumps((db, db.get_collection("docs")))
        spawned = other(
            f"""
import pickle
db, docs = pickle.loads({data!r})
check_prefix(docs, states_of([make_batch(seed) for seed in range(3)]), 3)
for attempt in (lambda: write(docs, make_batch(3)), lambda: db.create_collection("more", dim=2), db.optimize):
    try:
        attempt()
    except vecdb.ReadOnly as error:
        tell("refused")
docs._database.close()
db.close()
"""
        )
        assert [spawned.hear() for _ in range(3)] == ["refused"] * 3
        spawned.end()


@pytest.mark.parametrize("sync", ["full", "interval", "none"])
def test_exit_without_close_keeps_everything(tmp_path: Path, other: Callable[[str], Other], sync: str) -> None:
    errors = other(
        f"""
db = vecdb.open(path, sync={sync!r})
docs = db.create_collection("docs", dim=DIM)
for seed in range(5):
    write(docs, make_batch(seed))
"""
    ).end()
    assert "Traceback" not in errors
    with vecdb.open(tmp_path / "db") as db:
        check_prefix(db.get_collection("docs"), STATES[:6], 5)


def test_a_dropped_handle_warns_and_lets_go(tmp_path: Path) -> None:
    filled(tmp_path / "db").close()
    with pytest.warns(ResourceWarning, match="without close"):
        vecdb.open(tmp_path / "db")
    gc.collect()
    told = vecdb.open(tmp_path / "db")
    told.close()


STORM = """
signal.signal(signal.SIGINT, signal.default_int_handler)
db = vecdb.open(path)
docs = db.get_or_create_collection("docs", dim=DIM)
seed = interrupts = 0
tell("open")
deadline = time.monotonic() + 30
batches = []
while interrupts < 15 and time.monotonic() < deadline:
    before, batch = len(batches), None
    try:
        lsn = db.stats().last_lsn
        batch = make_batch(seed)
        seed += 1
        write(docs, batch)
        batches.append(batch)
        if seed % 5 == 0:
            db.optimize()
    except KeyboardInterrupt:
        interrupts += 1
        if batch is not None and len(batches) == before and db.stats().last_lsn > lsn:
            batches.append(batch)  # written, and interrupted on the way back
states = states_of(batches)
signal.signal(signal.SIGINT, signal.SIG_IGN)
check_prefix(docs, states, len(batches))
db.close()
db = vecdb.open(path)
check_prefix(db.get_collection("docs"), states, len(batches))
db.close()
tell("interrupts", interrupts)
"""


def test_interrupts_in_a_storm_of_writes_tear_nothing(tmp_path: Path, other: Callable[[str], Other]) -> None:
    storm = other(STORM)
    assert storm.hear() == "open"
    random = np.random.default_rng(7)
    for _ in range(200):
        time.sleep(0.005 + random.random() * 0.03)
        if storm.process.poll() is not None or _ignores_interrupts(storm.process.pid):
            break
        storm.process.send_signal(signal.SIGINT)
    assert storm.hear().startswith("interrupts 15")
    storm.end()


def _ignores_interrupts(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    return bool(ignored & 1 << (signal.SIGINT - 1))


def read_only_tree(path: Path, writable: bool) -> None:
    for place in [path, *path.rglob("*")]:
        place.chmod((0o700 if place.is_dir() else 0o600) if writable else (0o500 if place.is_dir() else 0o400))


DROPPED = "os.setgid(65534); os.setuid(65534)\n" if os.getuid() == 0 else ""


# Another user may not read the interpreter's files: everything is imported before.
WARM = """
import numpy.testing, tempfile
with tempfile.TemporaryDirectory() as warm, vecdb.open(warm + "/db") as db:
    docs = db.create_collection("docs", dim=DIM)
    for seed in range(6):
        write(docs, make_batch(seed))
    db.optimize()
    check_prefix(docs, states_of([make_batch(seed) for seed in range(6)]), 6)
"""
READ_ONLY = """
try:
    vecdb.open(path)
except vecdb.StorageFailed as error:
    tell(error)
with vecdb.open(path, mode="r") as db:
    check_prefix(db.get_collection("docs"), states_of([make_batch(seed) for seed in range(6)]), 6)
    db.refresh()
"""


def test_a_read_only_directory_can_be_read(tmp_path: Path) -> None:
    filled(tmp_path / "db", batches=6).close()
    place = Path("/dev/shm") if DROPPED and os.access("/dev/shm", os.W_OK) else tmp_path
    path = place / f"vecdb-read-only-{os.getpid()}"
    shutil.copytree(tmp_path / "db", path)
    try:
        if DROPPED:  # root may write anywhere: another user reads instead
            for found in [path, *path.rglob("*")]:
                os.chown(found, 65534, 65534)
        read_only_tree(path, writable=False)
        before = {found: (stat.S_IMODE(found.stat().st_mode), found.stat().st_mtime_ns) for found in path.rglob("*")}
        code = HEAD + WARM + DROPPED + READ_ONLY
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "permission denied" in done.stdout
        after = {found: (stat.S_IMODE(found.stat().st_mode), found.stat().st_mtime_ns) for found in path.rglob("*")}
        assert after == before
    finally:
        read_only_tree(path, writable=True)
        shutil.rmtree(path)


def test_a_reader_of_a_missing_database_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(vecdb.NotFound, match="no database"):
        vecdb.open(tmp_path / "db", mode="r")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises((StorageFailed, vecdb.InvalidInput)):
        vecdb.open(tmp_path / "not" / "there")


def test_a_lazily_opened_collection_of_a_reader_that_fell_behind(tmp_path: Path) -> None:
    with filled(tmp_path / "db", maintenance="manual") as db:
        db.optimize()
        reading = Other(
            """
with vecdb.open(path, mode="r") as db:
    tell("open")
    wait()
    docs = db.get_collection("docs")  # the files that the reader's picture names are merged away
    check_prefix(docs, states_of([make_batch(seed) for seed in range(9)]), 9)
    tell("good")
""",
            tmp_path / "db",
        )
        assert reading.hear() == "open"
        for seed in range(3, 9):
            write(db.get_collection("docs"), make_batch(seed))
            db.optimize()
        assert reading.ask() == "good"
        reading.end()


def test_two_threads_that_refresh_never_take_a_reader_back(tmp_path: Path, other: Callable[[str], Other]) -> None:
    with filled(tmp_path / "db", 1) as db:
        reader = other("""
import threading
from vecdb.engine import recover
db = vecdb.open(path, mode="r")
docs = db.get_collection("docs")
replay, looked, go_on = recover.replay, threading.Event(), threading.Event()
def pausing(engine, log):
    replay(engine, log)
    if threading.current_thread().name == "slow":
        looked.set()
        assert go_on.wait(60)
recover.replay = pausing
slow, fast = (threading.Thread(target=db.refresh, name=name) for name in ("slow", "fast"))
slow.start()
assert looked.wait(60)
tell("looked"), wait()
fast.start()
fast.join(0.5)
go_on.set()
slow.join(), fast.join()
tell(docs.count({"late": True}))
""")
        assert reader.hear() == "looked"
        db.get_collection("docs").upsert([-7], np.ones((1, DIM)), [{"late": True}])
        assert reader.ask() == "1"
        reader.end()
