"""Goal: every class of damage is found, told where it is with its remedy, and a sound database has no findings.

Method: one database with everything, copied and damaged in one place per test; catalogs are edited with lmdb itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest

import vecdb
from tests.engine import damage
from tests.golden import make as golden
from tests.rules.source import ROOT
from vecdb.engine.findings import REBUILD, RESTORE
from vecdb.files.arrays import ArrayEntry, write_array
from vecdb.files.disk import LocalDisk
from vecdb.storage.schema import (
    collection_key,
    decode_collection,
    decode_file,
    deletion_key,
    encode_collection,
    encode_file,
    file_key,
    id_key,
    record_key,
    segment_key,
)
from vecdb.storage.snapshot import Table

BIG, SMALL = 1, 2
GRAPH = "field-1/index-2"


def picture(path: Path) -> dict[str, bytes]:
    """Every file but the reader table of LMDB, which any reader writes."""
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock.mdb"}


def findings(path: Path, deep: bool = False) -> list[vecdb.Finding]:
    report = vecdb.verify(path, deep=deep)
    assert report.ok == (not report.findings)
    assert str(len(report.findings)) in str(report)
    return list(report.findings)


def only(path: Path, deep: bool = False) -> vecdb.Finding:
    found = findings(path, deep)
    assert len(found) == 1, found
    assert found[0].what in str(found[0])
    return found[0]


# ---- sound ----------------------------------------------------------------------------------------------------------
def named(value: object) -> str:
    """The id of a parameter: that of a function would be another in every process."""
    return "change" if callable(value) else str(value)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_database_has_no_findings_and_is_not_touched(db: Path, deep: bool) -> None:
    before, told = picture(db), []
    report = vecdb.verify(db, deep=deep, progress=lambda done, total: told.append((done, total)))
    assert report.ok
    assert report.findings == ()
    assert picture(db) == before
    assert (report.collections, report.records, report.batches) == (2, 1450, 3)
    assert {check.kind for check in report.indexes} == {"flat", "hnsw"}
    for check in report.indexes:
        assert (check.recall is not None) == deep
        assert not deep or check.recall >= 0.95
    assert "sound" in str(report)
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) <= 2


def test_a_snapshot_that_is_a_directory_is_verified_too(db: Path, tmp_path: Path) -> None:
    with vecdb.open(db, maintenance="manual") as writer:
        writer.snapshot(tmp_path / "snapshot")
    report = vecdb.verify(tmp_path / "snapshot", deep=True)
    assert report.ok, str(report)
    assert report.records + report.batches > 1450


def test_progress_may_stop_it(db: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vecdb.verify(db, progress=stop)
    assert vecdb.verify(db).ok


def test_handles_verify_what_they_have_open(db: Path) -> None:
    with vecdb.open(db, maintenance="manual") as writer:
        assert writer.verify(deep=True).ok
        assert vecdb.verify(db).ok
        with vecdb.open(db, mode="r") as reader:
            assert reader.verify().ok
        writer.get_collection("big").upsert([1], [damage.vector_of(9)])
        damage.checkpoint_now(writer)
        writer.optimize()
        assert writer.verify(deep=True).ok
    with vecdb.open(db, mode="r") as reader:
        assert reader.verify().batches == 0
    with pytest.raises(vecdb.Closed):
        reader.verify()


def test_a_reader_in_another_process_verifies_while_the_writer_merges(db: Path) -> None:
    """Merges take files away, compactions the catalog: neither is damage."""
    done = threading.Event()
    reports: list[str] = []
    program = "import sys, vecdb; report = vecdb.verify(sys.argv[1]); print(report); sys.exit(not report.ok)"

    def look() -> None:
        while not done.is_set():
            command = [sys.executable, "-c", program, str(db)]
            run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            reports.append(run.stdout + run.stderr if run.returncode else "")

    looking = threading.Thread(target=look)
    with vecdb.open(db, maintenance="manual") as writer:
        looking.start()
        big = writer.get_collection("big")
        turn = 0
        while len(reports) < 2:
            turn += 1
            for number in range(3):
                ids = list(range(number, 3000, 11))
                big.upsert(ids, np.stack([damage.vector_of(i + turn) for i in ids]))
                damage.checkpoint_now(writer)
            writer.optimize()
            writer._engine.catalog.compact()  # type: ignore[union-attr]
        done.set()
        looking.join()
        assert writer.verify().ok
    assert not any(reports), reports


def test_what_cannot_be_opened_is_raised(db: Path, tmp_path: Path) -> None:
    with pytest.raises(vecdb.NotFound):
        vecdb.verify(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(vecdb.NotFound):
        vecdb.verify(tmp_path / "empty")
    with pytest.raises(vecdb.InvalidInput):
        vecdb.verify(7)  # type: ignore[arg-type]
    if os.geteuid():
        next(db.glob("catalog-*/data.mdb")).chmod(0)
        with pytest.raises(vecdb.StorageFailed, match="permission"):
            vecdb.verify(db)


# ---- files ----------------------------------------------------------------------------------------------------------
def array_files() -> list[tuple[int, str]]:
    """Every kind of file that a segment has."""
    big = ["sequences", "order", "ids", "field-1/vectors", "field-1/inverse_norms"]
    flat = [f"field-1/index-1/{name}" for name in ("codes", "add", "scale", "centre")]
    graph = [f"{GRAPH}/{name}" for name in ("records", "levels", "links", "upper", "twins", "centre")]
    small = ["id_offsets", "id_bytes", "field-1/rows", "field-2/vectors", "columns/0/int_values", "columns/0/int_rows"]
    return [(BIG, name) for name in (*big, *flat, *graph)] + [(SMALL, name) for name in small]


@pytest.mark.parametrize(("collection", "name"), array_files())
def test_a_flipped_bit_in_any_array_is_found(db: Path, collection: int, name: str) -> None:
    path = f"segments/{collection}-1/{name}.npy"
    damage.flip(db / path)
    found = only(db)
    assert found.path == path
    assert found.offset == (os.path.getsize(db / path) - 1) // 65536 * 65536
    assert found.remedy == (REBUILD if "index-" in name else RESTORE)


@pytest.mark.parametrize("way", ["header", "missing", "short", "long", "link", "directory"])
def test_a_file_that_is_not_what_the_catalog_says_is_found(db: Path, way: str) -> None:
    file = damage.sealed_file(db, BIG, 1, "field-1/vectors.npy")
    if way == "header":
        damage.flip(file, 20)
    elif way == "short":
        os.truncate(file, 5000)
    elif way == "long":
        os.truncate(file, file.stat().st_size + 1)
    else:
        file.rename(db.parent / "elsewhere.npy")
        if way == "link":
            file.symlink_to(db.parent / "elsewhere.npy")
        elif way == "directory":
            file.mkdir()
    assert only(db).path == "segments/1-1/field-1/vectors.npy"


def test_swapped_files_are_found(db: Path) -> None:
    """Of one size and header, so that only checksums tell."""
    one = damage.sealed_file(db, BIG, 1, "field-1/index-1/add.npy")
    two = damage.sealed_file(db, BIG, 1, "field-1/index-1/scale.npy")
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    assert {found.path for found in findings(db)} == {f"segments/1-1/field-1/index-1/{n}.npy" for n in ("add", "scale")}


def test_a_digest_is_compared_when_it_is_deep(db: Path) -> None:
    key = file_key(BIG, 1, "ids.npy")
    stored = dict(damage.entries(db, Table.FILES))[key]
    entry = decode_file(key, stored)
    changed = ArrayEntry(entry.dtype, entry.shape, entry.size, bytes(32), entry.crcs)
    damage.put(db, Table.FILES, key, encode_file(key, changed), sealed=False)
    assert vecdb.verify(db).ok
    assert [found.path for found in findings(db, deep=True)] == ["segments/1-1/ids.npy"]


def resealed(db: Path, collection: int, name: str, change: Callable[[np.ndarray], None], segment: int = 1) -> None:
    """Changes an array together with its entry: every checksum is right, and the content is wrong."""
    file = damage.sealed_file(db, collection, segment, f"{name}.npy")
    array = np.load(file)
    change(array)
    file.unlink()
    entry = write_array(LocalDisk(), file, array)
    key = file_key(collection, segment, f"{name}.npy")
    damage.put(db, Table.FILES, key, encode_file(key, entry), sealed=False)


def set_at(place: object, value: object) -> Callable[[np.ndarray], None]:
    return lambda array: array.__setitem__(place, value)


@pytest.mark.parametrize(
    ("collection", "name", "change", "told"),
    [
        (BIG, "order", set_at(0, 1), "not an order"),
        (BIG, "order", set_at(slice(0, 2), [1, 0]), "ascending"),
        (BIG, "sequences", set_at(-1, 9999), "catalog says"),
        (SMALL, "id_offsets", set_at(3, 10**6), "does not fit"),
        (SMALL, "field-1/rows", set_at(0, 1000), "ascending rows"),
        (SMALL, "columns/0/int_rows", set_at(0, 2**30), "out of range"),
        (SMALL, "columns/0/int_values", set_at(0, 2**40), "not in order"),
        (BIG, f"{GRAPH}/links", set_at((5, 0), ROWS_OUTSIDE := 10**6), "outside"),
        (BIG, f"{GRAPH}/links", set_at((5, 0), 5), "itself"),
        (BIG, f"{GRAPH}/links", set_at(slice(None), -1), "cannot be reached"),
        (BIG, f"{GRAPH}/twins", set_at(3, 3 + 1), "holds an id|cannot be reached|other vectors"),
        (BIG, f"{GRAPH}/twins", set_at(slice(None), -1), "cannot be reached"),
        (BIG, f"{GRAPH}/levels", set_at(0, 24), "upper|highest"),
        (BIG, f"{GRAPH}/centre", set_at(0, np.nan), "not a number"),
        (BIG, "field-1/index-1/scale", set_at(0, np.inf), "not a number"),
    ],
    ids=named,
)
def test_arrays_that_contradict_are_found(
    db: Path, collection: int, name: str, change: Callable[[np.ndarray], None], told: str
) -> None:
    import re

    resealed(db, collection, name, change)
    found = findings(db)
    assert found
    assert re.search(told, found[0].what), found
    assert found[0].path.startswith(f"segments/{collection}-1")
    assert found[0].remedy == (REBUILD if "index-" in name else RESTORE)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("slots", set_at(0, 10**6)),
        ("slots", set_at(slice(0, 2), 7)),
        ("starts", set_at(1, 0)),
        ("sizes", set_at(0, 0)),
        ("centroids", set_at((0, 0), np.nan)),
        ("scale", set_at(0, np.nan)),
    ],
    ids=named,
)
def test_lists_that_contradict_are_found(tmp_path: Path, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Every row is in one list, once: else searches would lose it."""
    path = golden.unpacked(golden.PLACE, "closed", tmp_path)
    file = next(path.glob(f"segments/*/*/*/{name}.npy" if name != "scale" else "segments/*/*/*/slots.npy"))
    collection, segment = (int(part) for part in file.parents[2].name.split("-"))
    index = "/".join(file.parts[-3:-1])
    resealed(path, collection, f"{index}/{name}", change, segment)
    found = only(path)
    assert found.path == f"segments/{collection}-{segment}/{index}"
    assert found.remedy == REBUILD


@pytest.mark.parametrize(
    "name", ["field-1/vectors", "field-1/inverse_norms", "field-1/index-1/codes", f"{GRAPH}/links"]
)
def test_values_and_searches_are_looked_at_when_it_is_deep(db: Path, name: str) -> None:
    def spoil(array: np.ndarray) -> None:
        if name.endswith("vectors"):
            array[7, 0] = np.nan
        elif name.endswith("links"):  # a ring: everything is reached, and nothing is near
            array[:] = -1
            array[:, 0] = (np.arange(len(array)) + 1) % len(array)
        else:
            array[:] = array[::-1].copy()

    resealed(db, BIG, name, spoil)
    quick = findings(db)
    assert not quick or name.endswith("vectors")  # a vector that differs from its twin is found without looking deep
    found = findings(db, deep=True)
    assert found
    assert any("recall" in f.what or "nearest" in f.what or "finite" in f.what or "lengths" in f.what for f in found)


# ---- catalog --------------------------------------------------------------------------------------------------------
def first(db: Path, table: Table, prefix: bytes = b"") -> bytes:
    return damage.entries(db, table, prefix)[0][0]


@pytest.mark.parametrize("table", list(Table), ids=lambda table: table.name)
@pytest.mark.parametrize("way", ["checksum", "content"])
def test_a_damaged_value_of_any_table_is_found(db: Path, table: Table, way: str) -> None:
    key, value = damage.entries(db, table)[0]
    if way == "checksum":
        damage.put(db, table, key, value[:-1] + bytes([value[-1] ^ 1]), sealed=False)
    else:
        damage.put(db, table, key, b"\xc1")
    found = findings(db)
    assert found
    assert f"table {table.name.lower()}" in found[0].path


@pytest.mark.parametrize("table", [Table.SEGMENTS, Table.FILES, Table.IDS, Table.RECORDS, Table.DELETIONS])
def test_a_missing_entry_is_found(db: Path, table: Table) -> None:
    """Of any table but that of collections: what is left of one looks like a collection that was dropped."""
    damage.drop(db, table, first(db, table))
    assert findings(db)


def test_a_dropped_collection_that_waits_for_its_purge_is_no_damage(db: Path) -> None:
    with vecdb.open(db, maintenance="manual") as writer:
        writer.delete_collection("small")
        report = writer.verify(deep=True)
        assert report.ok
        assert report.collections == 1
        writer.optimize()
        assert writer.verify(deep=True).ok


def test_ids_that_dangle_are_found(db: Path) -> None:
    damage.put(db, Table.IDS, id_key(BIG, b"sghost"), (10**9).to_bytes(8, "big"))
    found = only(db)
    assert found.path == "catalog, table ids"
    assert "'ghost'" in found.what


def test_ids_of_other_records_are_found(db: Path) -> None:
    (one, first_value), (two, second_value) = damage.entries(db, Table.IDS, id_key(BIG, b"i"))[:2]
    damage.put(db, Table.IDS, one, second_value[4:])
    damage.put(db, Table.IDS, two, first_value[4:])
    told = [found.what for found in findings(db)]
    assert any("records of other ids" in what for what in told)
    assert any("no id leads to" in what for what in told)


def test_ids_of_deleted_records_are_found(db: Path) -> None:
    key, _ = damage.entries(db, Table.DELETIONS)[0]
    sequences = np.frombuffer(dict(damage.entries(db, Table.DELETIONS))[key][4:], "<i8")
    damage.put(db, Table.IDS, id_key(BIG, b"i" + (2**63).to_bytes(8, "big")), int(sequences[0]).to_bytes(8, "big"))
    assert "deleted" in only(db).what


def test_payloads_of_nobody_and_of_others_are_found(db: Path) -> None:
    payload = msgpack.packb({})
    damage.put(db, Table.RECORDS, record_key(BIG, 10**9), b"\x02\x00sx" + payload)
    assert "no segment has" in only(db).what
    damage.drop(db, Table.RECORDS, record_key(BIG, 10**9))
    sequence = int.from_bytes(first(db, Table.RECORDS)[4:], "big")
    damage.put(db, Table.RECORDS, record_key(BIG, sequence), b"\x02\x00sx" + payload)
    assert "other ids" in only(db).what


def test_payloads_are_unpacked_when_it_is_deep(db: Path) -> None:
    damage.rewrite(db, Table.RECORDS, first(db, Table.RECORDS), lambda value: value[:-1])
    assert vecdb.verify(db).ok
    assert "cannot be unpacked" in only(db, deep=True).what


def test_deletions_out_of_range_are_found(db: Path) -> None:
    damage.put(db, Table.DELETIONS, deletion_key(BIG, 1, 1), np.array([10**9], "<i8").tobytes())
    assert "does not have" in only(db).what


def test_counts_that_are_wrong_are_found(db: Path) -> None:
    key = collection_key(BIG)
    meta = decode_collection(key, dict(damage.entries(db, Table.COLLECTIONS))[key])
    from dataclasses import replace

    damage.put(db, Table.COLLECTIONS, key, encode_collection(replace(meta, records=7)), sealed=False)
    assert "the catalog says 7" in only(db).what
    damage.put(db, Table.COLLECTIONS, key, encode_collection(replace(meta, next_segment=1)), sealed=False)
    assert "yet to be given out" in findings(db)[0].what


def test_entries_of_nobody_are_found(db: Path) -> None:
    damage.put(db, Table.IDS, id_key(99, b"sx"), bytes(8))
    damage.put(db, Table.FILES, file_key(BIG, 77, "order.npy"), msgpack.packb(["<i4", [1], 1, b"", b""]))
    told = [found.what for found in findings(db)]
    assert any("collection 99" in what for what in told)
    assert any("segment 77" in what for what in told)


def test_a_segment_of_another_collection_is_found(db: Path) -> None:
    """Two segments of one collection that change places: every file is whole, and stands in the wrong directory."""
    one, two = db / "segments" / "1-1", db / "segments" / "1-2"
    one.rename(db / "segments" / "1-99")
    two.rename(one)
    (db / "segments" / "1-99").rename(two)
    assert len(findings(db)) > 5
    damage.drop(db, Table.SEGMENTS, segment_key(BIG, 1))
    assert any("files of segment 1" in found.what for found in findings(db))


@pytest.mark.parametrize("way", ["cut", "empty", "meta", "gone", "garbage"])
def test_a_catalog_that_cannot_be_read_is_found(db: Path, way: str) -> None:
    data = next(db.glob("catalog-*/data.mdb"))
    if way == "cut":
        os.truncate(data, data.stat().st_size // 2)
    elif way == "empty":
        os.truncate(data, 0)
    elif way == "meta":
        data.write_bytes(bytes(8192) + data.read_bytes()[8192:])
    elif way == "gone":
        shutil.rmtree(data.parent)
    else:
        data.write_bytes(os.urandom(data.stat().st_size))
    found = only(db)
    assert "catalog" in found.path or "catalog" in found.what
    assert found.remedy == RESTORE


# ---- superblock and log ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["flip", "gone", "link"])
def test_a_damaged_superblock_is_found(db: Path, way: str) -> None:
    if way == "flip":
        damage.flip(db / "VECDB", 30)
    else:
        (db / "VECDB").rename(db.parent / "VECDB")
        if way == "link":
            (db / "VECDB").symlink_to(db.parent / "VECDB")
    assert only(db).path == "VECDB"


@pytest.mark.parametrize("way", ["header", "body", "gone", "all gone", "foreign"])
def test_a_damaged_log_is_found(db: Path, whole: Path, way: str) -> None:
    file = sorted((db / "wal").iterdir())[-1]
    if way == "header":
        damage.flip(file, 20)
    elif way == "body":
        damage.flip(file, 200)
    elif way == "gone":
        file.unlink()
    elif way == "all gone":
        shutil.rmtree(db / "wal")
    else:
        data = bytearray(file.read_bytes())
        data[20:36] = bytes(16)
        file.write_bytes(data)
    found = only(db)
    assert found.path.startswith("wal")
    assert found.remedy == RESTORE


def test_a_torn_tail_is_no_damage(db: Path) -> None:
    file = sorted((db / "wal").iterdir())[-1]
    os.truncate(file, file.stat().st_size - 5)
    report = vecdb.verify(db)
    assert report.ok
    assert report.batches == 2


# ---- the command ----------------------------------------------------------------------------------------------------
def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "vecdb", "verify", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT)


def test_the_command_tells_by_its_exit_code(db: Path, tmp_path: Path) -> None:
    sound = command(str(db), "--deep", "--json")
    assert sound.returncode == 0, sound.stderr
    told = json.loads(sound.stdout)
    assert told["ok"] is True
    assert told["records"] == 1450
    damage.flip(damage.sealed_file(db, BIG, 1, "ids.npy"))
    damaged = command(str(db))
    assert damaged.returncode == 1
    assert "segments/1-1/ids.npy, byte 0" in damaged.stdout
    assert RESTORE in damaged.stdout
    missing = command(str(tmp_path / "nothing"))
    assert missing.returncode == 2
    assert "no database" in missing.stderr
