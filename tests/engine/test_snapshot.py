"""Snapshots and restores in one process: contents, forms, what is shared, what is refused."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.engine.stepping import DIM, Stepped, check, stepped
from tests.faults import PassingDisk
from vecdb.engine import registry
from vecdb.errors import StorageFailed
from vecdb.files.disk import Disk, LocalDisk
from vecdb.files.lock import WriterLock
from vecdb.files.workplace import abandoned

FORMS = ("directory", "file", "store")
MIXED = {**dict.fromkeys(range(2, 40), 0), **dict.fromkeys(range(40, 60), 1), **dict.fromkeys(range(60, 80), 0)}


def place_of(form: str, root: Path, name: str = "snap") -> str:
    """Where a snapshot of this form goes; the store is that of local files."""
    if form == "store":
        pytest.importorskip("fsspec")
    return {"directory": f"{root}/{name}", "file": f"{root}/{name}.vecdb", "store": f"file://{root}/store/{name}"}[form]


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Stepped]:
    """Records in a segment with an index, others in the log alone, deletions of both kinds."""
    with stepped(tmp_path / "db") as made:
        made.write(0, 60)
        made.docs.delete([0])
        while made.step() is not None:
            pass
        made.write(40, 60, version=1)
        made.docs.delete([1])
        made.write(60, 80)
        yield made


def restored(place: str, target: Path) -> vecdb.Database:
    report = vecdb.restore(place, target)
    assert report.path == str(target)
    return vecdb.open(target, maintenance="manual")


@pytest.mark.parametrize("form", FORMS)
def test_restored_database_is_what_was_there(mixed: Stepped, form: str, tmp_path: Path) -> None:
    info = mixed.db.snapshot(place_of(form, tmp_path))
    assert (info.form, info.lsn, info.uuid) == (form, mixed.db.stats().last_lsn, mixed.db.stats().uuid)
    mixed.write(0, 10, version=2)
    with restored(info.path, tmp_path / "back") as back:
        check(back.get_collection("docs"), MIXED)
        assert back.stats().last_lsn == info.lsn
        back.get_collection("docs").upsert([1000], np.ones((1, DIM)), [{"version": 9}])
        assert back.get_collection("docs").count() == len(MIXED) + 1
    with vecdb.open(tmp_path / "back") as back:
        back.optimize()
        assert back.get_collection("docs").count() == len(MIXED) + 1


@pytest.mark.parametrize("form", FORMS)
def test_report_counts_what_was_restored(mixed: Stepped, form: str, tmp_path: Path) -> None:
    info = mixed.db.snapshot(place_of(form, tmp_path))
    report = vecdb.restore(info.path, tmp_path / "back")
    assert (report.records, report.lsn, report.files, report.bytes) == (len(MIXED), info.lsn, info.files, info.bytes)
    assert report.replayed == info.lsn - mixed.db.stats().applied_lsn
    assert report.queries >= 2
    assert report.seconds > 0
    assert report.uuid != info.uuid


@pytest.mark.parametrize("form", FORMS)
def test_verify_reads_all_of_it_and_tells_the_same(mixed: Stepped, form: str, tmp_path: Path) -> None:
    info = mixed.db.snapshot(place_of(form, tmp_path))
    assert vecdb.verify_snapshot(info.path) == info


def test_directory_opens_in_place_and_stays_as_it_is(mixed: Stepped, tmp_path: Path) -> None:
    info = mixed.db.snapshot(tmp_path / "snap")
    before = {path: path.stat().st_mtime_ns for path in Path(info.path).rglob("*")}
    with vecdb.open(info.path, mode="r") as db:
        check(db.get_collection("docs"), MIXED)
        db.refresh()
        with pytest.raises(vecdb.ReadOnly):
            db.get_collection("docs").delete([5])
    assert {path: path.stat().st_mtime_ns for path in Path(info.path).rglob("*")} == before
    assert vecdb.verify_snapshot(info.path) == info


def test_snapshot_is_not_opened_for_writing(mixed: Stepped, tmp_path: Path) -> None:
    info = mixed.db.snapshot(tmp_path / "snap")
    with pytest.raises(vecdb.ReadOnly, match="snapshot"):
        vecdb.open(info.path)
    assert vecdb.verify_snapshot(info.path) == info


def test_directory_links_what_never_changes(mixed: Stepped, tmp_path: Path) -> None:
    info = mixed.db.snapshot(tmp_path / "snap")
    shared = list(Path(info.path).glob("segments/**/*.npy"))
    assert shared
    for path in shared:
        assert path.samefile(mixed.path / path.relative_to(info.path))
    assert info.new_bytes == info.bytes - sum(path.stat().st_size for path in shared)


def test_snapshot_outlives_the_database(mixed: Stepped, tmp_path: Path) -> None:
    info = mixed.db.snapshot(tmp_path / "snap")
    mixed.docs.delete(sorted(MIXED))
    while mixed.step() is not None:
        pass
    mixed.db.close()
    shutil.rmtree(mixed.path)
    with vecdb.open(info.path, mode="r") as db:
        check(db.get_collection("docs"), MIXED)


@pytest.mark.parametrize("form", FORMS)
def test_empty_database(tmp_path: Path, form: str) -> None:
    with vecdb.open(tmp_path / "db") as db:
        info = db.snapshot(place_of(form, tmp_path))
    report = vecdb.restore(info.path, tmp_path / "back")
    assert (report.records, report.lsn, report.queries) == (0, 0, 0)
    with vecdb.open(tmp_path / "back") as back:
        assert back.list_collections() == []


@pytest.mark.parametrize("form", FORMS)
def test_several_collections_fields_dtypes_and_id_types(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(1)
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        fields = {"title": vecdb.VectorField(8, "dot", dtype="float16"), "body": vecdb.VectorField(4, "l2")}
        one, two = db.create_collection("one", fields=fields), db.create_collection("two", metric="cosine")
        for n in range(3):
            vectors = {"title": rng.standard_normal((20, 8)), "body": rng.standard_normal((20, 4))}
            one.upsert([f"{n}-{i}" for i in range(20)], vectors, [{"n": n, "i": i, "x": [1.5, i]} for i in range(20)])
            two.upsert(list(range(n, n + 5)), np.zeros((5, 6)) + np.arange(5)[:, None])
            if n == 0:
                db.optimize()
        db.create_collection("none yet".replace(" ", "-"))
        db.rename_collection("two", "zwei")
        info = db.snapshot(place_of(form, tmp_path))
        expected = [record.payload for record in one.get()], [record.id for record in two.get()]
        distances = one.search(np.ones(8), k=7, field="title", exact=True).distances
    with restored(info.path, tmp_path / "back") as back:
        assert back.list_collections() == ["none-yet", "one", "zwei"]
        one, two = back.get_collection("one"), back.get_collection("zwei")
        assert ([record.payload for record in one.get()], [record.id for record in two.get()]) == expected
        np.testing.assert_array_equal(one.search(np.ones(8), k=7, field="title", exact=True).distances, distances)


def test_dropped_collection_is_purged_after_restore(mixed: Stepped, tmp_path: Path) -> None:
    mixed.db.create_collection("other", dim=DIM)
    mixed.db.delete_collection("docs")
    info = mixed.db.snapshot(tmp_path / "snap.vecdb")
    with restored(info.path, tmp_path / "back") as back:
        assert back.list_collections() == ["other"]
        back.optimize()
        assert not list((tmp_path / "back" / "segments").iterdir())


# ---- building on an earlier one -------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["file", "store"])
def test_base_holds_what_has_not_changed(mixed: Stepped, form: str, tmp_path: Path) -> None:
    first = mixed.db.snapshot(place_of(form, tmp_path, "first"))
    mixed.write(100, 120)
    second = mixed.db.snapshot(place_of(form, tmp_path, "second"), base=first.path)
    mixed.write(120, 140)
    while mixed.step() is not None:
        pass
    third = mixed.db.snapshot(place_of(form, tmp_path, "third"), base=second.path)
    segments = sum(path.stat().st_size for path in mixed.path.glob("segments/**/*.npy"))
    assert first.bases == ()
    assert second.bases == (Path(first.path).name,)  # itself, not a chain
    assert second.bytes - second.new_bytes > 0
    assert third.new_bytes >= segments / 2  # everything was merged anew
    for info, count in ((first, 78), (second, 98), (third, 118)):
        assert vecdb.verify_snapshot(info.path) == info
        assert vecdb.restore(info.path, tmp_path / f"back-{count}").records == count


def test_base_of_a_base_is_named_itself(mixed: Stepped, tmp_path: Path) -> None:
    places = [tmp_path / f"{n}.vecdb" for n in range(3)]
    mixed.db.snapshot(places[0])
    mixed.db.snapshot(places[1], base=places[0])
    third = mixed.db.snapshot(places[2], base=places[1])
    assert third.bases == ("0.vecdb",)
    places[1].unlink()
    assert vecdb.restore(places[2], tmp_path / "back").records == len(MIXED)


def test_missing_base_is_named(mixed: Stepped, tmp_path: Path) -> None:
    mixed.db.snapshot(tmp_path / "a.vecdb")
    mixed.db.snapshot(tmp_path / "b.vecdb", base=tmp_path / "a.vecdb")
    (tmp_path / "a.vecdb").unlink()
    with pytest.raises(vecdb.Corrupted, match=r"its base a\.vecdb is missing"):
        vecdb.restore(tmp_path / "b.vecdb", tmp_path / "back")
    assert not (tmp_path / "back").exists()


class NoLinks(PassingDisk):
    """Another file system: links out of the database fail."""

    def __init__(self, inner: Disk, root: Path) -> None:
        super().__init__(inner)
        self.root = root

    def link(self, source: Path, target: Path) -> None:
        if source.is_relative_to(self.root):
            raise StorageFailed(18, f"cannot link {source}: another file system")  # EXDEV
        self.inner.link(source, target)


def test_directory_elsewhere_is_copied_and_linked_to_its_base(
    mixed: Stepped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = mixed.engine
    monkeypatch.setattr(engine, "seams", replace(engine.seams, disk=NoLinks(engine.seams.disk, mixed.path)))
    first = mixed.db.snapshot(tmp_path / "first")
    second = mixed.db.snapshot(tmp_path / "second", base=tmp_path / "first")
    assert first.new_bytes == first.bytes
    assert second.new_bytes < second.bytes
    for path in (tmp_path / "second").glob("segments/**/*.npy"):
        there = path.relative_to(tmp_path / "second")
        assert path.samefile(tmp_path / "first" / there)
        assert not path.samefile(mixed.path / there)
    with vecdb.open(tmp_path / "second", mode="r") as db:
        check(db.get_collection("docs"), MIXED)


def test_damaged_file_is_not_copied_into_a_snapshot(mixed: Stepped, tmp_path: Path) -> None:
    victim = next(mixed.path.glob("segments/*/field-1/vectors.npy"))
    data = bytearray(victim.read_bytes())
    data[-3] ^= 1
    victim.write_bytes(data)
    with pytest.raises(vecdb.Corrupted, match="damaged in the database"):
        mixed.db.snapshot(tmp_path / "snap.vecdb")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db"]


def test_missing_index_is_left_out_and_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb.engine import wanted

    monkeypatch.setattr(wanted, "CODED_ROWS_MIN", 16)
    with stepped(tmp_path / "db") as made:
        made.write(0, 60)
        while made.step() is not None:
            pass
        next(made.path.glob("segments/*/field-1/index-*/codes.npy")).unlink()
        info = made.db.snapshot(tmp_path / "snap")
        assert vecdb.verify_snapshot(info.path) == info
    with restored(info.path, tmp_path / "back") as back:
        check(back.get_collection("docs"), dict.fromkeys(range(60), 0))
        back.optimize()
        assert back.get_collection("docs").stats().segments[0].indexes == {"vector": ["flat"]}


# ---- what is refused ------------------------------------------------------------------------------------------------
def test_nothing_is_written_over(mixed: Stepped, tmp_path: Path) -> None:
    mixed.db.snapshot(tmp_path / "snap.vecdb")
    for taken in ("db", "snap.vecdb"):
        with pytest.raises((vecdb.AlreadyExists, vecdb.InvalidInput)):
            mixed.db.snapshot(tmp_path / taken)
        with pytest.raises(vecdb.AlreadyExists):
            vecdb.restore(tmp_path / "snap.vecdb", tmp_path / taken)
    (tmp_path / "empty").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "broken")
    for taken in ("empty", "broken"):
        with pytest.raises(vecdb.AlreadyExists):
            vecdb.restore(tmp_path / "snap.vecdb", tmp_path / taken)
    check(mixed.docs, MIXED)


def test_bad_arguments_are_refused(mixed: Stepped, tmp_path: Path) -> None:
    for bad in (None, 3, b"bytes", "", "a\0b"):
        with pytest.raises(vecdb.InvalidInput):
            mixed.db.snapshot(bad)  # type: ignore[arg-type]
        with pytest.raises(vecdb.InvalidInput):
            vecdb.restore(bad, tmp_path / "back")  # type: ignore[arg-type]
    with pytest.raises(vecdb.InvalidInput, match="in the database"):
        mixed.db.snapshot(mixed.path / "snap")
    with pytest.raises(vecdb.InvalidInput, match="does not exist"):
        mixed.db.snapshot(tmp_path / "no" / "snap")
    with pytest.raises(vecdb.NotFound, match="no snapshot"):
        vecdb.restore(tmp_path / "nothing", tmp_path / "back")
    with pytest.raises(vecdb.NotFound, match="no snapshot"):
        vecdb.restore(mixed.path, tmp_path / "back")
    mixed.db.snapshot(tmp_path / "snap")
    with pytest.raises(vecdb.InvalidInput, match="same form"):
        mixed.db.snapshot(tmp_path / "snap.vecdb", base=tmp_path / "snap")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "snap"]


def test_closed_handle_takes_no_snapshot(mixed: Stepped, tmp_path: Path) -> None:
    mixed.db.close()
    with pytest.raises(vecdb.Closed):
        mixed.db.snapshot(tmp_path / "snap")


def test_a_foreign_workplace_is_not_touched(mixed: Stepped, tmp_path: Path) -> None:
    (tmp_path / "snap.tmp").mkdir()
    (tmp_path / "snap.tmp" / "thesis.tex").write_text("mine")
    with pytest.raises(vecdb.InvalidInput, match="something else"):
        mixed.db.snapshot(tmp_path / "snap")
    assert (tmp_path / "snap.tmp" / "thesis.tex").read_text() == "mine"


def test_a_database_under_the_name_of_a_workplace_is_not_touched(mixed: Stepped, tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "snap.tmp") as db:
        db.create_collection("mine", dim=2).upsert([1], [[1.0, 2.0]])
    mixed.db.snapshot(tmp_path / "other.tmp")
    for name in ("snap", "other"):
        with pytest.raises(vecdb.InvalidInput, match="something else"):
            mixed.db.snapshot(tmp_path / name)
    with vecdb.open(tmp_path / "snap.tmp", mode="r") as db:
        assert db.get_collection("mine").count() == 1
    vecdb.verify_snapshot(tmp_path / "other.tmp")


def test_what_a_killed_process_left_is_cleared(mixed: Stepped, tmp_path: Path) -> None:
    """As far as a restore can come: the database is whole, and has not got its name."""
    mixed.db.snapshot(tmp_path / "snap")
    vecdb.restore(tmp_path / "snap", tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "new.tmp")
    WriterLock(tmp_path / "new.tmp" / "LOCK", "new").release()
    assert abandoned(LocalDisk(), tmp_path / "new.tmp")
    vecdb.restore(tmp_path / "snap", tmp_path / "new")
    assert not (tmp_path / "new.tmp").exists()
    with vecdb.open(tmp_path / "new") as db:
        assert db.list_collections() == mixed.db.list_collections()
    assert not abandoned(LocalDisk(), tmp_path / "new")


def test_a_full_disk_is_told_before_anything_is_written(
    mixed: Stepped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed.db.snapshot(tmp_path / "snap.vecdb")
    free = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize = 1, free.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with pytest.raises(StorageFailed, match="are needed"):
        vecdb.restore(tmp_path / "snap.vecdb", tmp_path / "back")
    assert not list(tmp_path.glob("back*"))


# ---- beside writers and maintenance ---------------------------------------------------------------------------------
def test_holds_every_acknowledged_batch_and_a_prefix(tmp_path: Path) -> None:
    """Threads write numbered batches all the time. Each snapshot holds the first n of every thread, at least those
    acknowledged before the call, and all of a batch or none."""
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", dim=DIM)
        acknowledged, stop = [0, 0], threading.Event()

        def write(thread: int) -> None:
            while not stop.is_set() and acknowledged[thread] < 400:
                number = acknowledged[thread]
                ids = [f"{thread}-{number}-{i}" for i in range(3)]
                docs.upsert(ids, np.ones((3, DIM)), [{"thread": thread, "number": number}] * 3)
                acknowledged[thread] = number + 1

        threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        taken = []
        for n in range(6):
            before = list(acknowledged)
            if n == 3:
                db.optimize()
            place = tmp_path / (f"{n}.vecdb" if n % 2 else str(n))
            taken.append((before, db.snapshot(place)))
        stop.set()
        for thread in threads:
            thread.join()
    for n, (before, info) in enumerate(taken):
        vecdb.restore(info.path, tmp_path / f"back-{n}")
        with vecdb.open(tmp_path / f"back-{n}", maintenance="manual") as back:
            docs = back.get_collection("docs")
            for thread in range(2):
                found = docs.get(where={"thread": thread})
                numbers = sorted(record.payload["number"] for record in found)
                last = max(numbers, default=-1)
                assert numbers == sorted([*range(last + 1)] * 3)
                assert last + 1 >= before[thread]


def on_a_thread(call: Callable[[], object]) -> None:
    """The disk below keeps per thread which database it is at."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


@pytest.mark.parametrize("form", ["directory", "file"])
@pytest.mark.parametrize(
    "point", ["checkpoint:frozen", "checkpoint:written", "checkpoint:committed", "merge:written", "merge:committed"]
)
def test_taken_in_the_middle_of_a_step(tmp_path: Path, form: str, point: str) -> None:
    with stepped(tmp_path / "db") as made:
        made.write(0, 30)
        if point.startswith("merge"):
            assert made.step() == "checkpoint"
            made.write(20, 50, version=1)
            assert made.step() == "checkpoint"
        place = place_of(form, tmp_path)
        made.disk.hooks[point] = lambda: on_a_thread(lambda: made.db.snapshot(place))
        while made.step() is not None:
            pass
        assert point in made.disk.reached
    expected = dict.fromkeys(range(30), 0)
    if point.startswith("merge"):
        expected |= dict.fromkeys(range(20, 50), 1)
    with restored(place, tmp_path / "back") as back:
        check(back.get_collection("docs"), expected)


@pytest.mark.parametrize("form", ["directory", "file"])
def test_everything_moves_on_while_it_is_taken(tmp_path: Path, form: str) -> None:
    """Writes, and a checkpoint on the maintenance thread, between the moment that counts and the catalog."""
    with stepped(tmp_path / "db") as made:
        made.write(0, 30)

        def move() -> None:
            on_a_thread(go_on)

        def go_on() -> None:
            made.write(10, 20, version=1)
            assert made.step() == "checkpoint"
            made.write(30, 40)

        made.disk.hooks["snapshot:begun"] = move
        info = made.db.snapshot(place_of(form, tmp_path))
        assert info.lsn == 2  # the catalog was ahead; what came after it is not in
        made.check({**dict.fromkeys(range(40), 0), **dict.fromkeys(range(10, 20), 1)})
    with restored(info.path, tmp_path / "back") as back:
        check(back.get_collection("docs"), {**dict.fromkeys(range(30), 0), **dict.fromkeys(range(10, 20), 1)})


def test_a_reading_handle_takes_snapshots(mixed: Stepped, tmp_path: Path) -> None:
    with vecdb.open(mixed.path, mode="r") as reader:
        info = reader.snapshot(tmp_path / "snap")
    with vecdb.open(info.path, mode="r") as db:
        check(db.get_collection("docs"), MIXED)


def test_snapshot_of_a_snapshot(mixed: Stepped, tmp_path: Path) -> None:
    first = mixed.db.snapshot(tmp_path / "first")
    with vecdb.open(first.path, mode="r") as db:
        second = db.snapshot(tmp_path / "second.vecdb")
    assert (second.lsn, second.uuid) == (first.lsn, first.uuid)
    assert vecdb.restore(second.path, tmp_path / "back").records == len(MIXED)


def test_restored_twice_are_two_databases(mixed: Stepped, tmp_path: Path) -> None:
    info = mixed.db.snapshot(tmp_path / "snap")
    one, two = (vecdb.restore(info.path, tmp_path / name) for name in ("one", "two"))
    assert one.uuid != two.uuid
    assert not set(os.listdir(tmp_path / "one" / "wal")) & set(os.listdir(tmp_path / "two" / "wal"))
    assert registry._find(tmp_path / "one") is None  # nothing is left open
