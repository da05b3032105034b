"""Goal: a process whose kernels cannot be loaded says so and answers with NumPy all the same.

Method: loading is made to fail; the searches, the log message and the error of whoever must wait are looked at.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.engine import kernels
from vecdb.index.warm import warm_up


def test_searches_go_on_when_the_kernels_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*, dtype: str) -> None:
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
    def half_broken(*, dtype: str) -> None:
        if dtype == "float16":
            raise ImportError("no float16")
        warm_up(dtype=dtype)

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
