"""Goal: opening finds every acknowledged batch or says what is damaged, changes nothing then, and can be tried again.

Method: directories as a killed process leaves them (copies taken while the database is open), damaged in one place.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.crash.ledger import DIM, check_prefix, make_batch, states_of, write
from tests.crash.test_sweep import step_until_idle
from tests.faults import OrderingDisk, PassingDisk, PointDisk
from vecdb.engine import registry, rewrite
from vecdb.errors import Corrupted, Poisoned, UnsupportedFormat
from vecdb.storage.growing import Growing

STATES = states_of([make_batch(seed) for seed in range(60)])


def killed(place: Path, batches: int, *, sealed: int = 0, sync: str = "full") -> Path:
    """What a process leaves that wrote `batches`, of which the first `sealed` are in segments, and was killed."""
    db = vecdb.open(place / "writing", maintenance="manual", sync=sync)  # type: ignore[arg-type]
    docs = db.create_collection("docs", dim=DIM)
    for number in range(batches):
        write(docs, make_batch(number))
        if number + 1 == sealed:
            step_until_idle(db)
    shutil.copytree(place / "writing", place / "db")
    db.close()
    shutil.rmtree(place / "writing")
    return place / "db"


def picture(path: Path) -> dict[str, bytes]:
    return {
        str(found.relative_to(path)): found.read_bytes()
        for found in sorted(path.rglob("*"))
        if found.is_file() and found.name not in ("lock.mdb", "LOCK")
    }


@pytest.mark.parametrize("part", ["superblock", "log header", "log body", "missing log", "catalog", "foreign log"])
def test_damage_is_refused_and_nothing_changes(place: Path, part: str) -> None:
    path = killed(place, 8, sealed=3)
    log = next(found for found in (path / "wal").iterdir())
    good = log.read_bytes()
    data = bytearray(good)
    if part == "superblock":
        (path / "VECDB").write_bytes(b"\x01" + (path / "VECDB").read_bytes()[1:])
    elif part == "log header":
        data[20] ^= 1
        log.write_bytes(data)
    elif part == "log body":
        data[200] ^= 1
        log.write_bytes(data)
    elif part == "missing log":
        log.unlink()
    elif part == "catalog":
        shutil.rmtree(path / "catalog-1")
    else:
        (place / "other").mkdir()
        foreign = killed(place / "other", 2)
        shutil.copy(next((foreign / "wal").iterdir()), path / "wal")
    before = picture(path)
    for mode in ("rw", "r", "rw"):
        with pytest.raises(Corrupted):
            vecdb.open(path, mode=mode)  # type: ignore[arg-type]
        assert picture(path) == before
    if part == "log body":  # healed, it opens in the same process: the failed attempts hold nothing
        log.write_bytes(good)
        with vecdb.open(path) as db:
            check_prefix(db.get_collection("docs"), STATES[:9], 8)


def test_an_unknown_format_is_told(place: Path) -> None:
    import zlib

    path = killed(place, 1)
    data = bytearray((path / "VECDB").read_bytes())
    data[8] = 7
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    (path / "VECDB").write_bytes(data)
    with pytest.raises(UnsupportedFormat, match="format 7"):
        vecdb.open(path)


def test_a_half_made_database_is_made_again(place: Path) -> None:
    path = killed(place, 1)
    (path / "VECDB").unlink()
    with vecdb.open(path) as db:
        assert db.list_collections() == []
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(vecdb.InvalidInput, match="thesis"):
        vecdb.open(place / "mine")
    assert (place / "mine" / "thesis.txt").read_text() == "dear"


@pytest.mark.parametrize("way", ["write", "flush", "close"])
def test_a_doubtful_tail_is_written_anew_before_anything_counts_on_it(place: Path, way: str) -> None:
    path = killed(place, 6)
    old = {found.name for found in (path / "wal").iterdir()}
    with vecdb.open(path, maintenance="manual") as db:
        assert {found.name for found in (path / "wal").iterdir()} == old
        docs = db.get_collection("docs")
        check_prefix(docs, STATES[:7], 6)
        if way == "write":
            write(docs, make_batch(6))
        elif way == "flush":
            db.flush()
        if way != "close":
            assert not old & {found.name for found in (path / "wal").iterdir()}
    assert not old & {found.name for found in (path / "wal").iterdir()}
    with vecdb.open(path, maintenance="manual") as db:
        assert not db._engine.doubtful  # type: ignore[union-attr]
        check_prefix(db.get_collection("docs"), STATES[:8], 7 if way == "write" else 6)


def test_many_short_sessions_leave_few_log_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "FILES_MAX", 5)
    for number in range(14):
        with vecdb.open(place / "db", maintenance="manual") as db:
            write(db.get_or_create_collection("docs", dim=DIM), make_batch(number))
        assert len(list((place / "db" / "wal").iterdir())) <= 5
    with vecdb.open(place / "db") as db:
        check_prefix(db.get_collection("docs"), STATES[:15], 14)


def test_replay_into_more_than_one_growing_segment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log larger than a growing segment is frozen on the way, and sealed after."""
    path = killed(place, 20)
    monkeypatch.setattr("vecdb.storage.growing.ROWS_MAX", 60)
    with vecdb.open(path, mode="r") as db:
        check_prefix(db.get_collection("docs"), STATES[:21], 20)
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.get_collection("docs")
        assert len(db._engine.frozen) > 1  # type: ignore[union-attr]
        check_prefix(docs, STATES[:21], 20)
        assert db.maintain() == "checkpoint"
        write(docs, make_batch(20))
        step_until_idle(db)
        check_prefix(docs, STATES[:22], 21)
    with vecdb.open(path) as db:
        check_prefix(db.get_collection("docs"), STATES[:22], 21)


def test_memory_that_runs_out_after_the_append_ends_writing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has the batch, memory has not: the handle stops, and the next open has it."""
    with vecdb.open(place / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=DIM)
        write(docs, make_batch(0))
        with monkeypatch.context() as patch:
            patch.setattr(Growing, "stage", _no_memory)
            with pytest.raises(MemoryError):
                write(docs, make_batch(1))
        with pytest.raises(Poisoned, match="taken into memory"):
            write(docs, make_batch(2))
        check_prefix(docs, STATES[:2], 1)
    with vecdb.open(place / "db", maintenance="manual") as db:
        check_prefix(db.get_collection("docs"), STATES[:3], 1)


def _no_memory(*arguments: object) -> None:
    raise MemoryError


def test_a_write_beside_a_schema_change_is_not_lost(
    place: Path, ordering: OrderingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is staged while another thread changes the schema is published, with the new schema."""
    changing = False

    def at(point: str, lsn: int) -> None:
        nonlocal changing
        if point == "log:appended" and changing:
            changing = False
            db.get_collection("docs").set_index("flat")

    usual = registry.DEFAULT_SEAMS
    disk: PassingDisk = PointDisk(ordering, at)
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=disk))
    with vecdb.open(place / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=2)
        docs.upsert([1, 2], np.eye(2))
        changing = True
        docs.upsert([1], [[5.0, 5.0]])
        assert docs.count() == 2
        assert docs.info()["fields"]["vector"]["index"]["kind"] == "flat"
        docs.upsert([2], [[6.0, 6.0]])
        assert docs.count() == 2
        assert [r.vector.tolist() for r in docs.get([1, 2], include=("vectors",))] == [[5, 5], [6, 6]]
