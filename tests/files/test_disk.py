"""Goal: only regular files are opened and linked, and what this system lacks is done without.

Method: pipes, directories and links in the place of files; systems that have no list of mounts, no pipes of another
size, no priorities of threads.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vecdb.errors import StorageFailed
from vecdb.files import kept, media, pipe, priority
from vecdb.files.disk import LocalDisk
from vecdb.files.pipe import relay
from vecdb.files.seams import Seams, uuid7_batch


def test_a_directory_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(StorageFailed, match="not a regular file"):
            LocalDisk().open(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_links_get_no_second_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(StorageFailed, match="follows no links"):
        LocalDisk().link(tmp_path / "link", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_file_is_closed_once(tmp_path: Path) -> None:
    file = LocalDisk().create(tmp_path / "file")
    file.write_at(b"data", 0)
    file.close()
    other = os.open(tmp_path / "file", os.O_RDONLY)  # gets the number of the closed descriptor
    file.close()
    assert os.read(other, 4) == b"data"
    os.close(other)


@pytest.mark.parametrize("lines", ["", "22 1 999:999 / /elsewhere rw - ext4 /dev/x rw\n", "no dash\n"])
def test_a_file_system_that_no_mount_names_is_not_known(
    tmp_path: Path, lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(lines)
    monkeypatch.setattr(media, "MOUNTS", tmp_path / "mounts")
    assert media.file_system_of(tmp_path) is None


def test_mounts_that_cannot_be_read_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MOUNTS", tmp_path)  # a directory
    assert media.file_system_of(tmp_path) is None


def test_pipes_keep_their_size_where_it_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_SET_SIZE", None)
    pieces: list[bytes] = []
    relay(lambda sink: os.write(sink, b"some bytes"), pieces.append)  # type: ignore[arg-type, return-value]
    assert b"".join(pieces) == b"some bytes"


def test_priorities_stay_where_threads_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority.os.path, "isdir", lambda path: False)
    found: list[int] = []

    def lowered() -> None:
        priority.lower_priority()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=lowered)
    thread.start()
    thread.join()
    assert found == [os.getpriority(os.PRIO_PROCESS, 0)]


@pytest.mark.parametrize("told", [None, "vendor_id : somebody\n"])
def test_a_processor_that_is_not_told_has_a_name_too(
    told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: str, **options: object) -> object:
        if told is None:
            raise FileNotFoundError(path)
        (tmp_path / "cpuinfo").write_text(told)
        return (tmp_path / "cpuinfo").open()

    monkeypatch.setattr(kept, "open", opened, raising=False)
    monkeypatch.setattr(kept.platform, "processor", lambda: "")
    monkeypatch.setattr(kept.platform, "machine", lambda: "a machine")
    assert kept.processor.__wrapped__() == "a machine"  # what was found before is kept


def test_no_ids_are_none() -> None:
    assert uuid7_batch(Seams(), 0) == []
