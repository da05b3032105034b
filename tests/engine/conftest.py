"""The database that verification and repair are shown: made once, copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.engine import damage


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    damage.make(place / "db")
    return place / "killed"


@pytest.fixture
def db(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "db")
    return tmp_path / "db"
