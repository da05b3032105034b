"""Docstrings are collected by parsing: nothing is imported, nothing in a file can stop it."""

from __future__ import annotations

import textwrap
from pathlib import Path

from vecdb.cli import corpus

SOURCE = '''
"""A module that raises when it is imported."""
raise SystemExit("imported")

class Shape:
    """A shape with an area and more."""
    def area(self, unit="m2", *, digits: int = 2) -> float:
        """The area, rounded to some digits."""
    def _hidden(self):
        """Short."""

async def fetch(url, /, timeout):
    """Fetches what is at the address."""
    def inner():
        """Functions inside functions are left out."""
'''


def write(folder: Path, text: str) -> Path:
    path = folder / "shapes.py"
    path.write_text(textwrap.dedent(text))
    return path


def test_definitions_become_records(tmp_path: Path) -> None:
    records = {one.id: one.payload for one in corpus.parse_file(write(tmp_path, SOURCE), "pkg.shapes")}
    assert list(records) == ["pkg.shapes", "pkg.shapes.Shape", "pkg.shapes.Shape.area", "pkg.shapes.fetch"]
    assert [one["kind"] for one in records.values()] == ["module", "class", "method", "function"]
    area = records["pkg.shapes.Shape.area"]
    assert area["package"] == "pkg"
    assert area["name"] == "Shape.area"
    assert (area["parameters"], area["parameter_names"], area["has_default"]) == (2, ["unit", "digits"], True)
    assert area["length"] == len(area["text"])
    fetch = records["pkg.shapes.fetch"]
    assert (fetch["parameters"], fetch["has_default"], fetch["is_async"]) == (2, False, True)
    assert "parameters" not in records["pkg.shapes.Shape"]


def test_unreadable_sources_are_passed_over(tmp_path: Path) -> None:
    for text in ("def broken(:", "x = '\0'"):
        assert list(corpus.parse_file(write(tmp_path, text), "m")) == []
    assert list(corpus.parse_file(tmp_path / "missing.py", "m")) == []


def test_collect_is_capped_unique_and_repeatable() -> None:
    calls: list[tuple[int, int]] = []
    records = corpus.collect(300, lambda done, total: calls.append((done, total)))
    assert len(records) == 300
    assert len({one.id for one in records}) == 300
    assert len({one.payload["text"] for one in records}) == 300
    assert calls[-1] == (300, 300)
    assert [one.id for one in corpus.collect(300)] == [one.id for one in records]
