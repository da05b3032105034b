"""Goal: whatever a file of a database was turned into, it is a typed error or a true answer; nothing else, ever.

A part of the cases is here, of every file and every damage; `make malformed` runs all of them, for writers and readers,
and a grid of offsets.

Method: a server process damages copies of one database, each in a child that has little memory and little time; what
it answers is compared with all that the database holds.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

import vecdb
from tests.malformed import crafted, damage, template
from tests.malformed.conftest import Server
from tests.malformed.rules import allowed_outcomes, complaint

ROLES = list(damage.ROLES)
FILES = [case for n, case in enumerate(damage.default_cases()) if (n + ROLES.index(case.role)) % 2 == 0]
CRAFTED = [(name, ("rw", "r")[number // 4 % 2]) for number, name in enumerate(crafted.CASES) if number % 4 == 0]


@pytest.mark.parametrize("case", FILES, ids=[case.name for case in FILES])
def test_a_damaged_file(server: Server, case: damage.Case) -> None:
    answer = server.ask([case.damage, case.role], case.mode)
    assert complaint(answer, allowed_outcomes(case), case.role) is None, answer


@pytest.mark.parametrize(("name", "mode"), CRAFTED, ids=[f"{name}-{mode}" for name, mode in CRAFTED])
def test_a_file_made_on_purpose(server: Server, name: str, mode: str) -> None:
    answer = server.ask(["crafted", name], mode)
    assert complaint(answer, crafted.CASES[name].outcomes) is None, answer


def test_a_part_has_every_file_and_every_damage() -> None:
    assert {case.role for case in FILES} == set(damage.ROLES)
    assert {case.damage for case in FILES} == set(damage.DAMAGES)
    assert len(list(damage.default_cases())) + len(crafted.CASES) > 500


def test_every_file_of_a_database_has_a_role(server: Server) -> None:
    root = server.template
    known = {damage.place_of(root, role) for role in damage.ROLES}
    alike = {*root.glob("segments/2-*/**/*.npy"), *root.glob("segments/3-*/**/*.npy")}
    found = {path for path in root.rglob("*") if path.is_file()}
    kinds = {path.name for path in known}
    assert found - known <= alike
    assert {path.name for path in found} == kinds


@pytest.mark.parametrize(
    ("role", "kind"), [("graph.links", "middle"), ("graph.records", "half"), ("flat.codes", "half")]
)
def test_a_damaged_index_is_built_again(
    server: Server, tmp_path: Path, role: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(server.template, tmp_path / "db")
    damage.DAMAGES[kind](damage.place_of(tmp_path / "db", role))
    with caplog.at_level(logging.WARNING, "vecdb"), vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.get_collection("docs")
        template.check_answers(docs, template.EXPECTED.docs[-1])
        db.optimize()
    assert "set aside" in caplog.text
    with vecdb.open(tmp_path / "db", mode="r") as db:
        template.probe(db)
        (segment,) = db.stats().collections["docs"].segments
        assert sorted(segment.indexes["vector"]) == ["flat", "hnsw"]
