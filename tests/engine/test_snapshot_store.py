"""Snapshots in stores: a server that speaks S3 on this machine, memory, and what fails underway."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.engine.stepping import Stepped, check, stepped
from vecdb.storage.manifest import decode_manifest, encode_manifest
from vecdb.storage.snapshot_source import LIMIT
from vecdb.storage.snapshot_store import open_store

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Stepped]:
    with stepped(tmp_path / "db") as made:
        made.write(0, 40)
        while made.step() is not None:
            pass
        made.write(30, 60, version=1)
        yield made


EXPECTED = {**dict.fromkeys(range(30), 0), **dict.fromkeys(range(30, 60), 1)}


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """moto's server on the loopback interface, and s3fs told to talk to it."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        patch.setenv("NO_PROXY", "127.0.0.1")
        fsspec.filesystem("s3").mkdir("bucket")
        yield
        fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


def test_over_the_protocol_of_s3(mixed: Stepped, s3: None, tmp_path: Path) -> None:
    home = f"s3://bucket/{uuid.uuid4().hex}"
    first = mixed.db.snapshot(f"{home}/first")
    mixed.write(60, 70)
    second = mixed.db.snapshot(f"{home}/second", base=f"{home}/first")
    assert second.bases == ("first",)
    assert second.new_bytes < first.new_bytes
    assert [info.path for info in vecdb.list_snapshots(home)] == [first.path, second.path]
    assert vecdb.verify_snapshot(second.path) == second
    for info, expected in ((first, EXPECTED), (second, EXPECTED | dict.fromkeys(range(60, 70), 0))):
        target = tmp_path / info.path.rpartition("/")[2]
        vecdb.restore(info.path, target)
        with vecdb.open(target, maintenance="manual") as back:
            check(back.get_collection("docs"), expected)
    with pytest.raises(vecdb.AlreadyExists):
        mixed.db.snapshot(f"{home}/first")
    with pytest.raises(vecdb.NotFound):
        vecdb.restore(f"{home}/third", tmp_path / "third")


def test_generations_over_the_protocol_of_s3(mixed: Stepped, s3: None) -> None:
    home = f"s3://bucket/{uuid.uuid4().hex}"
    first = mixed.db.snapshot_generation(home)
    mixed.write(60, 70)
    second = mixed.db.snapshot_generation(home)
    report = vecdb.prune_snapshots(home, hourly=0, daily=1)
    assert (len(report.kept), len(report.removed)) == (1, 1)
    assert [info.path for info in vecdb.list_snapshots(home)] == [second.path] != [first.path]
    assert vecdb.verify_snapshot(second.path) == second


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_in_memory(mixed: Stepped, memory: Any, tmp_path: Path) -> None:
    info = mixed.db.snapshot("memory://snaps/one")
    assert "/snaps/one/SNAPSHOT" in memory.store
    assert vecdb.restore(info.path, tmp_path / "back").records == len(EXPECTED)


def test_a_cut_off_upload_is_no_snapshot(
    mixed: Stepped, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, opened = type(memory).open, []

    def failing(self: Any, path: str, *rest: Any, **options: Any) -> Any:
        opened.append(path)
        if len(opened) == 6:
            raise RuntimeError("the line is dead")
        return usual(self, path, *rest, **options)

    monkeypatch.setattr(type(memory), "open", failing)
    with pytest.raises(vecdb.StorageFailed, match="the line is dead"):
        mixed.db.snapshot("memory://snaps/one")
    monkeypatch.setattr(type(memory), "open", usual)
    assert vecdb.list_snapshots("memory://snaps") == []
    with pytest.raises(vecdb.NotFound):
        vecdb.restore("memory://snaps/one", tmp_path / "back")
    with pytest.raises(vecdb.AlreadyExists):
        mixed.db.snapshot("memory://snaps/one")
    check(mixed.docs, EXPECTED)


def test_an_object_that_changed_is_found(mixed: Stepped, memory: Any, tmp_path: Path) -> None:
    info = mixed.db.snapshot("memory://snaps/one")
    victim = next(path for path in memory.store if path.endswith("vectors.npy"))
    data = bytearray(memory.cat(victim))
    data[-1] ^= 1
    memory.pipe(victim, bytes(data))
    for call in (vecdb.verify_snapshot, lambda place: vecdb.restore(place, tmp_path / "back")):
        with pytest.raises(vecdb.Corrupted, match=r"vectors\.npy"):
            call(info.path)
    memory.pipe(victim, bytes(data) + b"more")
    with pytest.raises(vecdb.Corrupted, match="bytes instead of"):
        vecdb.verify_snapshot(info.path)
    memory.rm(victim)
    with pytest.raises(vecdb.Corrupted, match="missing"):
        vecdb.verify_snapshot(info.path)
    assert not list(tmp_path.glob("back*"))


def test_a_manifest_that_is_none_is_told(mixed: Stepped, memory: Any, tmp_path: Path) -> None:
    info = mixed.db.snapshot("memory://snaps/one")
    path = "/snaps/one/SNAPSHOT"
    sound = decode_manifest(memory.cat(path), path)
    memory.pipe(path, encode_manifest(replace(sound, form="file")))
    with pytest.raises(vecdb.Corrupted, match="not that of a store"):
        vecdb.verify_snapshot(info.path)
    memory.pipe(path, bytes(LIMIT + 1))
    with pytest.raises(vecdb.Corrupted, match=f"the manifest has {LIMIT + 1} bytes"):
        vecdb.restore(info.path, tmp_path / "back")
    assert not list(tmp_path.glob("back*"))


def test_a_store_that_answers_more_than_it_was_asked_is_told(
    mixed: Stepped, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may ignore the range, and answer without end."""
    info = mixed.db.snapshot("memory://snaps/one")
    usual, answers = type(memory).cat_file, []

    def generous(self: Any, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        found = bytes(usual(self, path, start=start, end=end, **options))
        if not path.endswith("vectors.npy"):
            return found
        answers.append(path)
        return found + b"more"

    monkeypatch.setattr(type(memory), "cat_file", generous)
    with pytest.raises(vecdb.Corrupted, match=r"vectors\.npy is not what was written"):
        vecdb.restore(info.path, tmp_path / "back")
    assert len(answers) == 1
    assert not list(tmp_path.glob("back*"))


def test_unknown_stores_are_refused(mixed: Stepped) -> None:
    with pytest.raises(vecdb.InvalidInput, match="cannot be used"):
        mixed.db.snapshot("nowhere://at/all")


def test_without_the_library_the_remedy_is_told(mixed: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(vecdb.InvalidInput, match=r"pip install 'vecdb-engine\[cloud\]'"):
        mixed.db.snapshot("memory://snaps/one")


def test_errors_of_what_is_uploaded_stay_what_they_are(mixed: Stepped, memory: Any) -> None:
    """A damaged file of the database is not the fault of the store."""

    def pieces() -> Iterator[bytes]:
        yield b"some"
        raise vecdb.Corrupted("a file", 0, "it is damaged")

    with pytest.raises(vecdb.Corrupted, match="it is damaged"):
        open_store("memory://snaps/one").write("vectors.npy", pieces())
