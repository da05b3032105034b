"""Goal: one writer, and one maker of a target; whoever loses is told who won, and nothing that was opened stays open.

Method: locks are taken twice, on files that others hold, replaced or filled with anything; the system refuses calls.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Call, FaultyDisk, no_space
from vecdb.errors import Locked, StorageFailed
from vecdb.files import lock as lock_module
from vecdb.files import names
from vecdb.files.disk import LocalDisk
from vecdb.files.lock import QuietLock, WriterLock, making
from vecdb.files.workplace import Workplace, abandoned


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    yield
    after = os.listdir("/proc/self/fd") if before else []
    assert len(after) == len(before)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "LOCK"


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_module.fcntl, "flock", flock)


def test_the_loser_is_told_who_holds_it(place: Path) -> None:
    held = WriterLock(place)
    with pytest.raises(Locked, match=f"process {os.getpid()} on "):
        WriterLock(place)
    with pytest.raises(Locked, match="is open for writing"):
        QuietLock(place)
    held.release()
    held.release()  # once more does nothing
    WriterLock(place).release()


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[1, 2]", b'{"pid": 7}', b"null"])
def test_a_lock_file_that_says_nothing_useful_still_locks(place: Path, text: bytes) -> None:
    place.write_bytes(text)
    descriptor = os.open(place, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(Locked, match="in another process"):
            WriterLock(place)
        assert making(place) == ""
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", [WriterLock, QuietLock])
def test_what_the_system_says_of_a_lock_is_told(place: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place.touch()
    refuse(monkeypatch, errno.ENOLCK)
    with pytest.raises(StorageFailed, match=os.strerror(errno.ENOLCK)):
        kind(place)


def test_only_a_regular_file_is_locked(place: Path) -> None:
    os.mkfifo(place)
    with pytest.raises(StorageFailed, match="not a regular file"):
        WriterLock(place)


def test_a_file_that_is_replaced_while_it_is_locked_is_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def replace(descriptor: int, how: int) -> None:
        flock(descriptor, how)
        place.unlink()
        place.touch()

    monkeypatch.setattr(lock_module.fcntl, "flock", replace)
    with pytest.raises(Locked, match="was replaced"):
        WriterLock(place)


def test_a_child_gives_up_the_descriptor_and_the_parent_keeps_the_lock(place: Path) -> None:
    held = WriterLock(place)
    child = os.fork()
    if child == 0:
        held.abandon()
        held.abandon()
        os._exit(held.descriptor + 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(Locked):
        WriterLock(place)
    held.abandon()
    held.abandon()  # once more does nothing
    WriterLock(place).release()


def test_there_is_nothing_to_wait_for_without_a_file(place: Path) -> None:
    quiet = QuietLock(place)
    quiet.release()
    assert not place.exists()


# ---- making a target ------------------------------------------------------------------------------------------------
def test_a_target_is_made_by_one_at_a_time(tmp_path: Path) -> None:
    target, disk = tmp_path / "snapshot", LocalDisk()
    with Workplace(disk, target) as first:
        with pytest.raises(Locked, match="is being made by another process"), Workplace(disk, target):
            pass
        assert not abandoned(disk, first.path)
        assert json.loads((first.path / names.LOCK).read_text())["making"] == "snapshot"
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_that_cannot_be_cleared_stays_unlocked(tmp_path: Path) -> None:
    target = tmp_path / "snapshot"
    left = tmp_path / "snapshot.tmp"
    left.mkdir()
    WriterLock(left / names.LOCK, "snapshot").release()
    (left / names.MANIFEST).touch()

    def refuse_removal(call: Call) -> None:
        if call.name == "remove":
            raise no_space(call.path)

    with pytest.raises(StorageFailed), Workplace(FaultyDisk(LocalDisk(), refuse_removal), target):
        pass
    assert abandoned(LocalDisk(), left)
    with Workplace(LocalDisk(), target) as work:
        assert [path.name for path in work.path.iterdir()] == [names.LOCK]


def test_what_others_keep_under_such_a_name_is_not_abandoned(tmp_path: Path) -> None:
    place = tmp_path / "mine.tmp"
    place.mkdir()
    (place / "thesis.txt").touch()
    assert not abandoned(LocalDisk(), place)
    assert not abandoned(LocalDisk(), tmp_path)
