"""The constants that FORMAT.md names are those of the code.

Under the heading "Constants" stands a table `| name | value |`: the name is a path inside the package, such as
`storage.schema.FORMAT_VERSION`, the value a Python literal; the value of a struct is its format string.
"""

from __future__ import annotations

import ast
import importlib
import re
import struct
from typing import Any

from tests.rules.source import ROOT

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


def test_constants_are_those_of_the_code() -> None:
    table = documented()
    assert table.keys() >= REQUIRED
    assert {name: in_code(name) for name in table} == table
