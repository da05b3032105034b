"""Programs that use vecdb can be checked: the package says that it is typed, and its signatures mean what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import vecdb

ROOT = Path(vecdb.__file__).parent

PROGRAM = """
import uuid
from collections.abc import Iterator
from typing import assert_type

import numpy as np

import vecdb

with vecdb.open("data", maintenance="manual", sync="none") as db:
    assert_type(db, vecdb.Database)
    docs = db.get_or_create_collection("docs", dim=3, metric="l2", index=vecdb.HNSW(m=8))
    assert_type(docs, vecdb.Collection)
    fields = {"title": vecdb.VectorField(2), "body": vecdb.VectorField(3, "dot", vecdb.Flat(bits=8))}
    both = db.create_collection("both", fields=fields)
    assert_type(docs.upsert(["a", 1, uuid.UUID(int=1)], np.eye(3), [{"n": 1}, None, {}]), list[str | int | uuid.UUID])
    docs.add(vectors=[[1.0, 2.0, 3.0]], on_conflict="skip")
    both.upsert([1], {"title": [[1, 2]], "body": [[1, 2, 3]]})
    assert_type(docs.update(["a"], payloads=[{"n": vecdb.REMOVE}]), int)
    assert_type(docs.update(where={"n": 1}, payloads={"n": 2}), int)
    assert_type(docs.delete(where=vecdb.F("n") >= 2), int)
    where = (vecdb.F("n") == 1) & ~vecdb.F("tag").in_(["x"])
    for hit in docs.search([1, 2, 3], k=5, where=where, include=("payloads",)):
        print(hit.id, hit.distance, hit.score, hit.payload["n"])
    records = docs.get(["a"], order_by="-n", include=("vectors",))
    assert_type(records, vecdb.Records)
    assert_type(records[0], vecdb.Record)
    assert_type(records[:2], list[vecdb.Record])
    assert_type(docs.scroll({"n": {"$lt": 3}}), Iterator[vecdb.Record])
    assert_type(docs.count(), int)
    assert_type(docs.stats(), vecdb.CollectionStats)
    assert_type(db.stats(), vecdb.DatabaseStats)
    assert_type(docs.explain([1, 2, 3]), vecdb.Explanation)
    assert_type(db.maintain(), str | None)
    try:
        docs.add(["a"])
    except vecdb.AlreadyExists as error:
        print(error)
"""

WRONG = """
import vecdb

db = vecdb.open("data", mode="w")
docs = db.create_collection("docs", dim="3")
docs.add(["a"], on_conflict="ignore")
docs.update(payloads=[{}])
docs.delete(where="n = 1")
docs.get(limit="5")
docs.nothing()
"""


def check(directory: Path, name: str, program: str) -> subprocess.CompletedProcess[str]:
    file = directory / f"{name}.py"
    file.write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(directory / "cache"), str(file)]
    config = ["--config-file", str(ROOT.parent / "pyproject.toml"), "--follow-imports", "silent"]
    return subprocess.run([*command, *config], capture_output=True, text=True, check=False, cwd=ROOT.parent)


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "py.typed").is_file()


def test_programs_are_checked(tmp_path: Path) -> None:
    good = check(tmp_path, "good", PROGRAM)
    assert good.returncode == 0, good.stdout + good.stderr
    wrong = check(tmp_path, "wrong", WRONG)
    lines = {int(line.split(":")[1]) for line in wrong.stdout.splitlines() if ": error:" in line}
    assert lines == {4, 5, 6, 7, 8, 9, 10}, wrong.stdout
