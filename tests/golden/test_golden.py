"""Goal: every database that a release ever wrote is read by this one, with the same records and the same hits.

Method: directories kept since they were written (make.py), unpacked, opened in every way, and compared with what they
are known to hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.golden import make
from vecdb.storage.schema import FORMAT_OLDEST, FORMAT_VERSION

GOLDEN = sorted(make.HERE.glob("format-*"))
SIZE_MAX = 300_000  # bytes of all of them


def expected(golden: Path, shape: str) -> Any:
    return json.loads((golden / make.EXPECTED).read_text(encoding="utf-8"))[shape]


def check(found: Any, wanted: Any) -> None:
    """The same; distances to the precision that they are kept with."""
    assert list(found) == list(wanted)
    for name, told in wanted.items():
        found_searches = {key: value for key, value in found[name].items() if key.startswith("searches")}
        for key, hits in found_searches.items():
            for (ids, distances), (told_ids, told_distances) in zip(hits, told[key], strict=True):
                assert ids == told_ids
                np.testing.assert_allclose(distances, told_distances, rtol=1e-4, atol=1e-4)
        rest = {key: value for key, value in found[name].items() if key not in found_searches}
        assert rest == {key: value for key, value in told.items() if key not in found_searches}


def as_json(path: Path) -> Any:
    return json.loads(json.dumps(make.contents(path)))


def test_there_is_one_for_each_format_that_is_read() -> None:
    assert [golden.name for golden in GOLDEN] == [f"format-{n}" for n in range(FORMAT_OLDEST, FORMAT_VERSION + 1)]
    assert sum(file.stat().st_size for golden in GOLDEN for file in golden.iterdir()) < SIZE_MAX


@pytest.mark.parametrize("shape", make.SHAPES)
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_it_is_read_as_it_was_written(golden: Path, shape: str, tmp_path: Path) -> None:
    path = make.unpacked(golden, shape, tmp_path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    check(as_json(path), expected(golden, shape))
    assert {file: file.read_bytes() for file in before} == before
    report = vecdb.verify(path, deep=True)
    assert report.ok, str(report)
    kinds = {check.kind for check in report.indexes}
    assert shape == "fresh" or kinds == set(make.INDEXES)


@pytest.mark.parametrize("shape", make.SHAPES)
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_it_can_be_written_on(golden: Path, shape: str, tmp_path: Path) -> None:
    """Opened for writing it says the same, also after maintenance has rewritten it in the present format."""
    path = make.unpacked(golden, shape, tmp_path)
    with vecdb.open(path, maintenance="manual") as db:
        db.create_collection("new", dim=2).upsert(["x"], [[1, 2]])
        assert db.stats().format == FORMAT_VERSION
    with vecdb.open(path, maintenance="manual") as db:
        db.optimize()
        db.delete_collection("new")
        db.optimize()
    found, wanted = as_json(path), expected(golden, shape)
    if shape != "fresh":  # a merge may have dropped columns that only deleted records had, so these are not compared
        assert {name: found[name].pop("columns").keys() for name in found} == {
            name: wanted[name].pop("columns").keys() for name in wanted
        }
    check(found, wanted)
    assert vecdb.verify(path, deep=True).ok


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_its_snapshot_is_restored(golden: Path, tmp_path: Path) -> None:
    vecdb.restore(golden / make.SNAPSHOT, tmp_path / "restored")
    check(as_json(tmp_path / "restored"), expected(golden, "closed"))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_it_is_repaired_without_loss(golden: Path, tmp_path: Path) -> None:
    report = vecdb.repair(make.unpacked(golden, "killed", tmp_path), tmp_path / "new")
    assert report.ok
    found, wanted = as_json(tmp_path / "new"), expected(golden, "killed")
    for name, told in wanted.items():
        assert found[name]["records"] == told["records"]
        assert found[name]["fields"] == told["fields"]


def test_it_is_made_by_one_command(tmp_path: Path) -> None:
    """What make.py writes now says what the kept one of this format says, so it can replace it before a release."""
    make.write_golden(tmp_path)
    check(expected(tmp_path, "killed"), expected(make.PLACE, "killed"))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in make.PLACE.iterdir())
