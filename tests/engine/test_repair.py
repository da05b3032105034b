"""Goal: a repaired database holds everything that can be read, and the report names exactly what it lacks.

Method: the database of damage.py, damaged in one place per test; what must be found is worked out from the place.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.engine import damage
from tests.rules.source import ROOT
from vecdb.files.arrays import CHECKSUM_BLOCK
from vecdb.storage.keys import encode_key
from vecdb.storage.schema import STATE_KEY, collection_key, file_key, id_key, record_key, segment_key
from vecdb.storage.snapshot import Table

BIG, SMALL = 1, 2
Records = dict[Any, tuple[dict[str, Any], Any]]


def contents(path: Path) -> dict[str, Records]:
    """Every record of every collection, in order: id -> (payload, its vector or None, or several by field)."""
    found: dict[str, Records] = {}
    with vecdb.open(path, mode="r") as db:
        for name in db.list_collections():
            docs = db.get_collection(name)
            fields = list(docs.info()["fields"])
            vectors = {
                field: [plain(r.vector) for r in docs.get(field=field, include=("vectors",))] for field in fields
            }
            for i, record in enumerate(docs.get(include=("payloads",))):
                several = {field: vectors[field][i] for field in fields}
                one = several if len(fields) > 1 else several[fields[0]]
                found.setdefault(name, {})[record.id] = (record.payload, one)
    return found


def plain(vector: Any) -> Any:
    return None if vector is None else vector.tolist()


@pytest.fixture(scope="module")
def expected(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Records]:
    copy = tmp_path_factory.mktemp("expected") / "db"
    shutil.copytree(whole, copy)
    return contents(copy)


def repaired(path: Path) -> tuple[vecdb.RepairReport, dict[str, Records]]:
    """Repairs to a new directory; the damaged one must stay as it is, and the new one must be sound."""
    before = {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock.mdb"}
    new = path.with_name("new")
    report = vecdb.repair(path, new)
    assert before == {
        str(file): file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock.mdb"
    }
    assert report.sound
    assert vecdb.verify(new, deep=True).ok
    assert sorted(found.name for found in new.parent.iterdir() if "new" in found.name) == ["new"]
    assert ("nothing was lost" in str(report)) == report.ok
    return report, contents(new)


def collection(report: vecdb.RepairReport, name: str) -> vecdb.RepairedCollection:
    return next(one for one in report.collections if one.name == name)


def sequence_of(path: Path, collection_number: int, name: Any) -> int:
    key = id_key(collection_number, encode_key(name))
    return int.from_bytes(dict(damage.entries(path, Table.IDS))[key][4:], "big")


def nothing(path: Path) -> None:
    """No damage."""


def every_index(path: Path) -> None:
    for file in path.glob("segments/*/*/index-*/*.npy"):
        damage.flip(file)


def flipped(collection_number: int, *files: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        for name in files:
            damage.flip(damage.sealed_file(path, collection_number, 1, name))

    return spoil


def headers(path: Path) -> None:
    for file in path.glob("segments/*/*.npy"):
        damage.flip(file, 8)
    for file in path.glob("segments/*/field-*/*.npy"):
        damage.flip(file, 20)


def without(name: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        found = path / name
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return spoil


def changed(table: Table, key: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        value = dict(damage.entries(path, table))[key]
        damage.put(path, table, key, bytes([value[0] ^ 1]) + value[1:], sealed=False)

    return spoil


def dropped(table: Table, key: bytes) -> Callable[[Path], None]:
    return lambda path: damage.drop(path, table, key)


def all_of(table: Table, prefix: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        for key, _ in damage.entries(path, table, prefix):
            damage.drop(path, table, key)

    return spoil


ID_7 = id_key(BIG, encode_key(7))


@pytest.mark.parametrize(
    "spoil",
    [
        nothing,
        every_index,
        headers,
        flipped(BIG, "ids.npy"),
        flipped(BIG, "sequences.npy"),
        flipped(BIG, "order.npy", "field-1/inverse_norms.npy"),
        flipped(SMALL, "id_bytes.npy", "columns/0/int_values.npy"),
        flipped(SMALL, "id_offsets.npy"),
        without("VECDB"),
        without("LOCK"),
        changed(Table.DATABASE, STATE_KEY),
        changed(Table.SEGMENTS, segment_key(BIG, 1)),
        dropped(Table.SEGMENTS, segment_key(SMALL, 1)),
        changed(Table.IDS, ID_7),
        dropped(Table.IDS, ID_7),
        changed(Table.FILES, file_key(BIG, 1, "ids.npy")),
        changed(Table.FILES, file_key(BIG, 1, "sequences.npy")),
        all_of(Table.IDS, collection_key(SMALL)),
        all_of(Table.DELETIONS, b""),
    ],
    ids=lambda spoil: spoil.__qualname__.split(".")[0],
)
def test_what_is_written_twice_is_not_lost(
    db: Path, expected: dict[str, Records], spoil: Callable[[Path], None]
) -> None:
    spoil(db)
    report, found = repaired(db)
    assert found == expected
    assert [list(found[name]) for name in found] == [list(expected[name]) for name in expected]
    assert report.ok


def test_options_of_collections_stay(db: Path) -> None:
    repaired(db)
    with vecdb.open(db, mode="r") as old, vecdb.open(db.with_name("new"), mode="r") as new:
        for name in old.list_collections():
            assert new.get_collection(name).info()["fields"] == old.get_collection(name).info()["fields"]


def test_a_damaged_block_loses_the_vectors_that_it_holds(db: Path, expected: dict[str, Records]) -> None:
    file = damage.sealed_file(db, BIG, 1, "field-1/vectors.npy")
    damage.flip(file)
    size, row = file.stat().st_size, 4 * damage.DIM
    first = ((size - 1) // CHECKSUM_BLOCK * CHECKSUM_BLOCK - (size - damage.ROWS * row)) // row
    report, found = repaired(db)
    gone = [name for name in range(first, damage.ROWS) if name in expected["big"]]
    assert list(collection(report, "big").without_vectors) == gone
    assert (report.ok, collection(report, "big").lost, collection(report, "big").lost_unnamed) == (False, (), 0)
    for name, (payload, vector) in expected["big"].items():
        assert found["big"][name] == (payload, None if name in gone else vector)
    assert found["small"] == expected["small"]
    assert "without one or more of their vectors" in str(report)


def test_a_row_that_nobody_can_name_keeps_its_payload(db: Path, expected: dict[str, Records]) -> None:
    flipped(BIG, "ids.npy", "sequences.npy")(db)
    report, found = repaired(db)
    gone = set(collection(report, "big").without_vectors)
    assert gone
    assert gone < set(range(damage.ROWS))
    assert {name: record[0] for name, record in found["big"].items()} == {
        name: record[0] for name, record in expected["big"].items()
    }
    assert all(found["big"][name][1] == (None if name in gone else expected["big"][name][1]) for name in found["big"])


@pytest.mark.parametrize("way", [changed, dropped])
def test_a_lost_payload_leaves_the_record(db: Path, expected: dict[str, Records], way: Any) -> None:
    way(Table.RECORDS, record_key(BIG, sequence_of(db, BIG, 7)))(db)
    report, found = repaired(db)
    assert collection(report, "big").without_payload == (7,)
    assert found["big"] == {**expected["big"], 7: ({}, expected["big"][7][1])}


def test_a_record_of_which_nothing_is_left_is_named(db: Path, expected: dict[str, Records]) -> None:
    changed(Table.RECORDS, record_key(BIG, sequence_of(db, BIG, 7)))(db)
    flipped(BIG, "ids.npy", "sequences.npy")(db)
    damage.flip(damage.sealed_file(db, BIG, 1, "ids.npy"), 200)
    damage.flip(damage.sealed_file(db, BIG, 1, "sequences.npy"), 200)
    report, found = repaired(db)
    assert collection(report, "big").lost == (7,)
    assert set(found["big"]) == set(expected["big"]) - {7}
    assert "1 lost: 7" in str(report)


def test_a_missing_segment_leaves_the_payloads(db: Path, expected: dict[str, Records]) -> None:
    shutil.rmtree(db / "segments" / "1-1")
    report, found = repaired(db)
    assert {name: payload for name, (payload, _) in found["big"].items()} == {
        name: payload for name, (payload, _) in expected["big"].items()
    }
    gone = set(collection(report, "big").without_vectors)
    assert gone == {name for name in expected["big"] if name < damage.ROWS and name != 1}  # 1 is in the log once more
    assert all(found["big"][name][1] == expected["big"][name][1] for name in set(found["big"]) - gone)


def test_a_missing_file_entry_loses_the_vectors(db: Path, expected: dict[str, Records]) -> None:
    damage.drop(db, Table.FILES, file_key(SMALL, 1, "field-2/vectors.npy"))
    report, found = repaired(db)
    gone = collection(report, "small").without_vectors
    assert gone
    for name, (payload, vectors) in expected["small"].items():
        assert found["small"][name] == (payload, {**vectors, "b": None} if name in gone else vectors)


def test_a_lost_description_is_guessed(db: Path, expected: dict[str, Records]) -> None:
    changed(Table.COLLECTIONS, collection_key(BIG))(db)
    report, found = repaired(db)
    assert found["recovered-1"] == expected["big"]
    assert found["small"] == expected["small"]
    assert not report.ok
    assert collection(report, "recovered-1").guessed
    assert "guesses" in str(report)


def test_no_deleted_record_comes_back(db: Path, expected: dict[str, Records]) -> None:
    """Neither entry of a deletion, a payload or an id alone makes a record live."""
    changed(Table.DELETIONS, damage.entries(db, Table.DELETIONS)[0][0])(db)
    gone = next(name for name in range(damage.ROWS) if name not in expected["big"])
    damage.put(db, Table.RECORDS, record_key(BIG, gone + 1), b"\x09\x00" + encode_key(gone) + b"\x80")
    report, found = repaired(db)
    assert report.ok
    assert found["small"] == expected["small"]
    assert set(found["big"]) - set(expected["big"]) <= {gone}


# ---- log ------------------------------------------------------------------------------------------------------------
def test_a_damaged_log_is_taken_up_to_the_damage(db: Path, expected: dict[str, Records]) -> None:
    """The second batch of three is damaged: the third is read, and not taken."""
    from vecdb.files.record import FILE_HEADER_SIZE, decode_file_header, read_records

    file = sorted((db / "wal").iterdir())[-1]
    data = file.read_bytes()
    header = decode_file_header(data)
    records = list(read_records(memoryview(data), header.salt, FILE_HEADER_SIZE))  # type: ignore[union-attr]
    batches = [record for record in records if record.kind == 1]
    assert len(batches) == 3
    damage.flip(file, batches[1].offset + 60)
    report, found = repaired(db)
    assert report.batches == 1
    assert report.lost_batches == (batches[1].lsn, batches[2].lsn)
    assert found["big"] == expected["big"]
    small = collection(report, "small")
    assert small.outdated == ("late",)
    assert "late" not in found["small"]
    assert "id-2" in found["small"]  # its deletion is lost
    assert f"batches {batches[1].lsn} to {batches[2].lsn} are lost" in str(report)


@pytest.mark.parametrize("way", ["header", "gone", "foreign", "directory"])
def test_a_lost_log_leaves_the_segments(db: Path, expected: dict[str, Records], way: str) -> None:
    file = sorted((db / "wal").iterdir())[-1]
    data = bytearray(file.read_bytes())
    if way == "header":
        damage.flip(file, 40)
    elif way == "gone":
        file.unlink()
    elif way == "foreign":
        import zlib

        data[20:36] = bytes(16)
        data[60:64] = zlib.crc32(data[:60]).to_bytes(4, "little")
        file.write_bytes(data)
    else:
        shutil.rmtree(db / "wal")
    report, found = repaired(db)
    assert report.batches == 0
    assert report.lost_batches is not None
    assert set(found["big"]) == set(expected["big"]) - {5000}
    assert "late" not in found["small"]


def test_a_torn_tail_is_no_loss(db: Path, expected: dict[str, Records]) -> None:
    file = sorted((db / "wal").iterdir())[-1]
    os.truncate(file, file.stat().st_size - 5)
    report, found = repaired(db)
    assert report.ok
    assert report.batches == 2
    assert set(found["small"]) == set(expected["small"]) - {"late"}


# ---- catalog --------------------------------------------------------------------------------------------------------
def flip_page_headers(data: Path, seed: int) -> None:
    """A bit in the header of a page that holds something, as far as one can tell."""
    content = bytearray(data.read_bytes())
    chance = random.Random(seed)
    content[chance.randrange(2, len(content) // 4096) * 4096 + chance.randrange(8, 40)] ^= 1 << chance.randrange(8)
    data.write_bytes(content)


@pytest.mark.parametrize("way", ["cut a little", 0, 1, 2, 3, 6, 8])
def test_damaged_pages_lose_what_the_report_says(db: Path, expected: dict[str, Records], way: Any) -> None:
    data = next(db.glob("catalog-*/data.mdb"))
    if way == "cut a little":
        os.truncate(data, int(data.stat().st_size * 0.97))
    else:
        flip_page_headers(data, way)
    report, found = repaired(db)
    assert {one.name for one in report.collections} == set(expected)
    for one in report.collections:
        assert set(found[one.name]) <= set(expected[one.name]), "nothing is made up"
        lacking = {*one.without_payload, *one.without_vectors}
        whole = set(found[one.name]) - lacking
        assert all(found[one.name][key] == expected[one.name][key] for key in whole)
        missing = set(expected[one.name]) - set(found[one.name])
        assert missing >= set(one.lost)
        assert len(missing) == len(one.lost) + one.lost_unnamed


@pytest.mark.parametrize("way", ["garbage", "gone", "cut"])
def test_without_a_catalog_nothing_is_written(db: Path, way: str) -> None:
    data = next(db.glob("catalog-*/data.mdb"))
    if way == "garbage":
        data.write_bytes(os.urandom(data.stat().st_size))
    elif way == "gone":
        shutil.rmtree(data.parent)
    else:
        os.truncate(data, data.stat().st_size // 2)
    with pytest.raises(vecdb.Corrupted, match="catalog"):
        vecdb.repair(db, db.with_name("new"))
    assert sorted(found.name for found in db.parent.iterdir()) == ["db"]


# ---- refusals and the command ---------------------------------------------------------------------------------------
def test_repair_refuses_what_it_must_not_touch(db: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(vecdb.InvalidInput, match="exists"):
        vecdb.repair(db, tmp_path / "there")
    with pytest.raises(vecdb.InvalidInput, match="does not exist"):
        vecdb.repair(db, tmp_path / "no" / "where")
    (tmp_path / "new.tmp").mkdir()
    with pytest.raises(vecdb.InvalidInput, match="move it away"):
        vecdb.repair(db, tmp_path / "new")
    (tmp_path / "new.tmp").rmdir()
    with pytest.raises(vecdb.NotFound):
        vecdb.repair(tmp_path / "nothing", tmp_path / "new")
    with vecdb.open(db), pytest.raises(vecdb.InvalidInput, match="open in this process"):
        vecdb.repair(db, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_repair_keeps_writers_away(db: Path, tmp_path: Path) -> None:
    program = "import sys, vecdb; db = vecdb.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(db)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(vecdb.Locked):
            vecdb.repair(db, tmp_path / "new")
        writer.communicate("")
    assert vecdb.repair(db, tmp_path / "new").ok


def test_the_command_tells_by_its_exit_code(db: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "vecdb", "repair", *arguments]
        return subprocess.run(line, capture_output=True, text=True, cwd=ROOT)

    assert run(str(db), str(tmp_path / "one")).returncode == 0
    refused = run(str(db), str(tmp_path / "one"))
    assert refused.returncode == 2
    assert "exists" in refused.stderr
    damage.flip(damage.sealed_file(db, SMALL, 1, "field-1/vectors.npy"))
    partial = run(str(db), str(tmp_path / "two"))
    assert partial.returncode == 1
    assert "segments/2-1/field-1/vectors.npy" in partial.stdout
