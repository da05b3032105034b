"""`vecdb snapshot`: every action through the command line, in text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.cli.main import main


@pytest.fixture
def database(tmp_path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path / "db", maintenance="manual", wal_archive=tmp_path / "archive") as db:
        docs = db.create_collection("docs", dim=4)
        docs.upsert(list(range(50)), np.random.default_rng(0).standard_normal((50, 4)))
        db.optimize()
        yield db


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert main(["snapshot", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    return json.loads(run(capsys, *arguments, "--json"))


@pytest.mark.parametrize("flags", [(), ("--file",)])
def test_a_generation_and_back(
    database: vecdb.Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    made = run_json(capsys, "create", tmp_path / "db", home, *flags)
    assert Path(made["path"]).parent == home
    assert made["form"] == ("file" if flags else "directory")
    assert run_json(capsys, "list", home) == [made]
    assert run_json(capsys, "verify", made["path"]) == made
    report = run_json(capsys, "restore", made["path"], tmp_path / "back")
    assert (report["records"], report["lsn"]) == (50, made["lsn"])
    assert run_json(capsys, "prune", home)["kept"] == [Path(made["path"]).name]


def test_text_says_what_was_done(database: vecdb.Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    place = run(capsys, "create", tmp_path / "db", home).splitlines()[0]
    assert Path(place).is_dir()
    assert Path(place).name in run(capsys, "list", home)
    assert "is whole" in run(capsys, "verify", place)
    assert "50 records" in run(capsys, "restore", place, tmp_path / "back")
    assert "0 removed, 1 kept" in run(capsys, "prune", home)
    assert run(capsys, "list", tmp_path / "archive") == "no snapshots\n"


def test_restore_until(database: vecdb.Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "create", tmp_path / "db", tmp_path / "home")
    docs = database.get_collection("docs")
    for number in (100, 101):
        docs.upsert([number], np.ones((1, 4)))
    archives = ("--wal-archive", tmp_path / "archive", "--wal-archive", tmp_path / "db" / "wal")
    report = run_json(capsys, "restore", made["path"], tmp_path / "a", "--until", made["lsn"] + 1, *archives)
    assert report["records"] == 51
    report = run_json(capsys, "restore", made["path"], tmp_path / "b", "--until", "2999-01-01", *archives)
    assert report["records"] == 52


def test_failures_have_a_reason_and_a_code(
    database: vecdb.Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run_json(capsys, "create", tmp_path / "db", tmp_path / "home")
    assert "nothing is ever written over" in run(capsys, "restore", made["path"], tmp_path / "db", code=1)
    (Path(made["path"]) / "VECDB").write_bytes(b"x" * 64)
    assert "VECDB" in run(capsys, "verify", made["path"], code=1)
    assert "no snapshot" in run(capsys, "verify", tmp_path / "db", code=1)
    assert "no directory" in run(capsys, "list", tmp_path / "nowhere", code=1)
    for wrong in (["restore", "a", "b", "--until", "soon"], ["prune", "home", "--daily", "-1"], []):
        with pytest.raises(SystemExit) as stopped:
            main(["snapshot", *wrong])
        assert stopped.value.code == 2
