"""What the threat model (docs/security.md) says is never done is nowhere in the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.rules.source import ROOT, SOURCES, tree_of

# They run, or may be made to run, what a file says; or write where its entries say.
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "tarfile", "zipfile", "tempfile"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
# numpy.load allocates what a header says, and unpickles if it is told to.
NUMPY = {"load", "save", "savez", "savez_compressed", "memmap", "loadtxt", "genfromtxt", "fromfile"}
KEYWORDS = {"allow_pickle": True, "writemap": True, "parallel": True, "shell": True}
EXCEPTIONS = {
    ("vecdb/cli/demo.py", "import tempfile"),  # a directory of its own, and it says so
    ("vecdb/filter/parse.py", "import marshal"),  # writes a key of a cache, and reads nothing
}


def uses() -> Iterator[tuple[str, str]]:
    """(file, what it does that it must not)"""
    for path in SOURCES:
        place = str(path.relative_to(ROOT))
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                yield from ((place, f"import {name}") for name in names if name.split(".")[0] in MODULES)
            elif isinstance(node, ast.Call):
                yield from ((place, found) for found in wrong_call(node))


def wrong_call(call: ast.Call) -> Iterator[str]:
    function = call.func
    if isinstance(function, ast.Name) and function.id in BUILTINS:
        yield f"{function.id}()"
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        if function.value.id in ("np", "numpy") and function.attr in NUMPY:
            yield f"numpy.{function.attr}()"
        if (function.value.id, function.attr) == ("os", "system"):
            yield "os.system()"
    for keyword in call.keywords:
        value = keyword.value
        if isinstance(value, ast.Constant) and keyword.arg in KEYWORDS and value.value is KEYWORDS[keyword.arg]:
            yield f"{keyword.arg}={value.value}"


def test_nothing_forbidden_is_used() -> None:
    assert set(uses()) - EXCEPTIONS == set()


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("eval(text)", "eval()"),
        ("np.load(path)", "numpy.load()"),
        ("open_it(path, allow_pickle=True)", "allow_pickle=True"),
        ("njit(parallel=True)", "parallel=True"),
    ],
)
def test_the_rule_finds_what_it_looks_for(program: str, found: str) -> None:
    expression = ast.parse(program, mode="eval").body
    assert isinstance(expression, ast.Call)
    assert list(wrong_call(expression)) == [found]
