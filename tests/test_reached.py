"""Goal: `make coverage` adds up what was reached, and names what was not where all of it shall be."""

from __future__ import annotations

from typing import Any

from tests.reached import PARTS, WHOLE, table
from tests.rules.source import ROOT, SOURCES


def found(lines: int, of: int, missing: list[list[int]]) -> dict[str, Any]:
    summary = {"covered_lines": lines, "num_statements": of, "covered_branches": 4 - len(missing), "num_branches": 4}
    return {"summary": summary, "missing_lines": [7] * (of - lines), "missing_branches": missing}


def test_shares_are_added_up_and_gaps_named() -> None:
    report = {
        "files": {
            "vecdb/storage/wal.py": found(9, 10, [[3, 5]]),
            "vecdb/files/disk.py": found(10, 10, []),
            "vecdb/engine/build.py": found(1, 10, [[1, 2]]),
            "vecdb/errors.py": found(0, 0, []),
        }
    }
    lines = table(report)
    assert "| all | 20 of 30, 66.7 % | 14 of 16, 87.5 % |" in lines
    assert "| storage | 9 of 10, 90.0 % | 3 of 4, 75.0 % |" in lines
    assert "| the rest | none | 4 of 4, 100.0 % |" in lines
    assert lines[-1] == "- vecdb/storage/wal.py: lines [7], branches [[3, 5]]"
    del report["files"]["vecdb/storage/wal.py"]
    assert table(report)[-1] == "Every branch of storage, files, engine/recover.py is reached."


def test_every_part_is_there() -> None:
    paths = [str(path.relative_to(ROOT)) for path in SOURCES]
    assert set(WHOLE) <= set(PARTS)
    for starts in PARTS.values():
        assert not starts or any(path.startswith(starts) for path in paths)
