"""A database per test, without a maintenance thread: what happens is what the test does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vecdb


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def db(path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(path, maintenance="manual") as database:
        yield database


@pytest.fixture
def docs(db: vecdb.Database) -> vecdb.Collection:
    return db.create_collection("docs", dim=3, metric="l2")
