"""Goal: a process whose kernels cannot be loaded says so and answers with NumPy all the same.

Method: loading is made to fail; the searches, the log message and the error of whoever must wait are looked at.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.engine import kernels
from vecdb.index.warm import warm_up
from vecdb.types import Progress


def test_searches_go_on_when_the_kernels_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(progress: Progress, *, dtype: str, builds: bool) -> None:
        raise ImportError("no compiler on this machine")

    monkeypatch.setattr(kernels, "warm_up", broken)
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    with caplog.at_level(logging.WARNING, "vecdb"), vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=8)
        docs.upsert(list(range(50)), rows)
        for row in range(5):
            assert docs.search(rows[row], k=3)[0].id == row
        with pytest.raises(ImportError, match="no compiler"):
            db._engine.kernels.wait("float32")  # type: ignore[union-attr]
        assert docs.search(rows[7], k=3)[0].id == 7
    assert "NumPy goes on answering" in caplog.text


def test_each_dtype_has_kernels_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_broken(progress: Progress, *, dtype: str, builds: bool) -> None:
        if dtype == "float16":
            raise ImportError("no float16")
        warm_up(progress, dtype=dtype, builds=builds)

    monkeypatch.setattr(kernels, "warm_up", half_broken)
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        both = [db.create_collection(dtype, dim=8, dtype=dtype) for dtype in ("float32", "float16")]  # type: ignore[arg-type]
        for docs in both:
            docs.upsert(list(range(50)), rows)
        loaded = db._engine.kernels  # type: ignore[union-attr]
        loaded.wait("float32")
        with pytest.raises(ImportError, match="no float16"):
            loaded.wait("float16")
        assert (loaded.ready("float32"), loaded.ready("float16")) == (True, False)
        for docs in both:
            assert [docs.search(row, k=1)[0].id for row in rows[:5]] == list(range(5))


def test_builders_are_loaded_when_something_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[bool] = []

    def told(progress: Progress, *, dtype: str, builds: bool) -> None:
        loaded.append(builds)
        warm_up(progress, dtype=dtype, builds=builds)

    monkeypatch.setattr(kernels, "warm_up", told)
    rows = np.random.default_rng(0).standard_normal((5_000, 32)).astype(np.float32)
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=32, index=vecdb.HNSW(m=4))
        docs.upsert(list(range(5_000)), rows)
        docs.explain(rows[0])
        assert loaded == [False]
        db.optimize()
        assert loaded == [False, True]
        docs.search(rows[0])
    assert loaded == [False, True]


SEARCHES_AND_ENDS = """
import sys, time
import numpy as np
import vecdb
db = vecdb.open(sys.argv[1])
docs = db.create_collection("docs", dim=8)
docs.upsert(range(20), np.eye(20, 8, dtype=np.float32))
for _ in range(3):  # the second begins to load the kernels
    docs.search([1.0] * 8, k=2)
time.sleep(float(sys.argv[2]))
if sys.argv[3] == "close":
    db.close()
"""


@pytest.mark.parametrize("ending", ["close", "leave"])
@pytest.mark.parametrize("cache", ["warm", "cold"])
@pytest.mark.parametrize("seconds", [0, 0.1, 0.25, 0.5, 0.8])
def test_a_process_that_ends_while_kernels_are_loaded_ends_well(
    tmp_path: Path, ending: str, cache: str, seconds: float
) -> None:
    """The loading thread must be gone before the interpreter is: stopped inside the compiler it would abort."""
    environment = dict(os.environ)
    if cache == "cold":
        environment["VECDB_CACHE_DIR"] = str(tmp_path / "cache")
    arguments = [sys.executable, "-c", SEARCHES_AND_ENDS, str(tmp_path / "db"), str(seconds), ending]
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
