"""What FORMAT.md says is what the code does: constants, tables of the catalog, arrays, versions.

Under the heading "Constants" stands a table `| name | value |`: the name is a path inside the package, such as
`storage.schema.FORMAT_VERSION`, the value a Python literal; the value of a struct is its format string.
"""

from __future__ import annotations

import ast
import datetime as dt
import importlib
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.rules.source import ROOT
from vecdb.engine.checkpoint import checkpoint
from vecdb.index.base import KINDS, load_kind
from vecdb.options import index_from_dict
from vecdb.storage import schema
from vecdb.storage.snapshot import Table
from vecdb.types import Matrix, Metric

ROW = re.compile(r"^\|\s*`([\w.]+)`\s*\|\s*`(.+?)`\s*\|", re.MULTILINE)
# Whatever else is listed, a reader of the files cannot do without these.
REQUIRED = {"storage.schema.FORMAT_VERSION", "storage.schema.SUPERBLOCK", "storage.schema.SUPERBLOCK_MAGIC"}


def documented() -> dict[str, Any]:
    text = (ROOT / "FORMAT.md").read_text(encoding="utf-8")
    section = re.search(r"^#+ Constants\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, "FORMAT.md has no section called Constants"
    return {name: ast.literal_eval(value) for name, value in ROW.findall(section[1])}


def in_code(name: str) -> Any:
    module, _, constant = name.rpartition(".")
    value = getattr(importlib.import_module(f"vecdb.{module}"), constant)
    return value.format if isinstance(value, struct.Struct) else value


def text() -> str:
    return (ROOT / "FORMAT.md").read_text(encoding="utf-8")


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the table whose first heading cell is `heading`."""
    table = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text(), re.MULTILINE)
    assert table, f"FORMAT.md has no table {heading!r}"
    lines = table[1].replace(" \\| ", " or ").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_in(cell: str) -> list[str]:
    """`add, scale` -> add, scale; `bool_, int_ + values, rows` -> bool_values, bool_rows, int_values, int_rows"""
    stems, _, ends = cell.partition(" + ")
    if not ends:
        return re.split(r",\s*", cell)
    return [stem + end for stem in re.split(r",\s*", stems) for end in re.split(r",\s*", ends)]


def test_tables_of_the_catalog_are_those_of_the_code() -> None:
    documented = {int(row[0].split()[0]): row[0].split()[1] for row in rows_below("database")}
    assert documented == {int(table): table.name.lower() for table in Table}


def test_every_format_has_a_line_of_history() -> None:
    """Which release writes it, and which read it: what an old database needs can be looked up."""
    lines = {int(row[0]): row for row in rows_below("format")}
    assert set(lines) >= set(range(schema.FORMAT_OLDEST, schema.FORMAT_VERSION + 1))
    assert all(re.match(r"\d+\.\d+\.\d+", cell) for row in lines.values() for cell in row[1:3])
    written = re.findall(r"\d+", lines[schema.FORMAT_VERSION][1])
    assert [int(part) for part in written] <= [int(part) for part in vecdb.__version__.split(".")]


def matrix(rows: int = 80, dim: int = 256) -> Matrix:
    vectors = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    return Matrix(vectors, (1 / np.linalg.norm(vectors, axis=1)).astype(np.float32), Metric.COSINE)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_an_index_are_documented(kind: str) -> None:
    """Each with its dtype; and the quantiser is named."""
    rows = rows_below(f'file of index "{kind}"')
    documented = {name: row[1] for row in rows for name in names_in(row[0])}
    index = load_kind(kind).build(matrix(), index_from_dict({"kind": kind}))
    arrays = index.arrays()
    assert set(arrays) <= set(documented)
    wrong = {name: array.dtype.name for name, array in arrays.items() if array.dtype.name not in documented[name]}
    assert not wrong
    assert index.parameters()["quantiser"].rsplit("-", 2)[0] in text()


def test_arrays_of_a_segment_are_documented(tmp_path: Path) -> None:
    """Every file that sealing writes, with its dtype."""
    rows = rows_below("file")
    documented = {name: row[1] for row in rows for name in names_in(row[0])}
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", fields={"a": vecdb.VectorField(2), "b": vecdb.VectorField(3, "l2")})
        when = dt.datetime(2020, 1, 1)
        payload = {"b": True, "i": 1, "f": 0.5, "s": "x", "y": b"x", "t": when, "n": None, "l": [1, 2]}
        docs.upsert(["x", 1, 2], {"a": np.eye(3, 2)}, [payload, {}, {"i": 2}])
        docs.upsert(["z"], {"b": np.ones((1, 3))}, [payload])
        other = db.create_collection("other", dim=2)
        other.upsert([1, 2], np.eye(2))
        db.optimize()
        checkpoint(db._engine)  # type: ignore[arg-type]
    files = list(tmp_path.rglob("segments/**/*.npy"))
    assert len({file.stem for file in files}) > 20
    for file in files:
        assert file.stem in documented, file
        assert np.load(file).dtype.name in documented[file.stem], file


def test_constants_are_those_of_the_code() -> None:
    table = documented()
    assert table.keys() >= REQUIRED
    assert {name: in_code(name) for name in table} == table
