"""Files and functions stay small. Exceptions are listed with their size of today, and may only shrink."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.rules.source import ROOT, SOURCES, tree_of

FILE_LINES = 300
FUNCTION_LINES = 60
KERNEL_LINES = 80

# "path" or "path:function" -> lines of today. Lower the number when it shrinks; drop the row at the limit.
EXCEPTIONS: dict[str, int] = {}

MEASURED = [*SOURCES, *sorted((ROOT / "benchmarks").rglob("*.py"))]


def limit_of(path: Path) -> int:
    return KERNEL_LINES if "kernels" in path.parts else FUNCTION_LINES


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, the docstring not counted."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def too_long() -> dict[str, int]:
    found = {}
    for path in MEASURED:
        name = str(path.relative_to(ROOT))
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            found[name] = lines
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length_of(node) > limit_of(path):
                found[f"{name}:{node.name}"] = length_of(node)
    return found


def test_files_and_functions_are_small() -> None:
    new = {name: lines for name, lines in too_long().items() if lines > EXCEPTIONS.get(name, 0)}
    assert not new, f"split these (lines): {new}"


def test_exceptions_only_shrink() -> None:
    found = too_long()
    stale = {name: (lines, found.get(name)) for name, lines in EXCEPTIONS.items() if found.get(name) != lines}
    assert not stale, f"lower or drop these exceptions (listed, found): {stale}"
