"""Kernels compile through one gate, with one set of flags; nothing in the package can run code that it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.rules.source import PACKAGE, ROOT, SOURCES, tree_of

GATE = PACKAGE / "kernels" / "jit.py"
COMPILERS = frozenset({"jit", "njit", "vectorize", "guvectorize", "cfunc", "stencil", "jitclass", "generated_jit"})
BANNED_CALLS = frozenset({"eval", "exec", "__import__", "compile", "marshal.load", "marshal.loads"})
BANNED_MODULES = frozenset({"pickle", "shelve", "dill", "cloudpickle"})
NUMPY_FILES = frozenset({"load", "save", "savez", "savez_compressed", "fromfile", "tofile", "memmap", "open_memmap"})


def calls(path: Path) -> Iterator[tuple[int, str, ast.Call]]:
    """(line, dotted name as written, call) of every call in a file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def names(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name | ast.Attribute):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names)


def place(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def test_every_kernel_goes_through_the_gate() -> None:
    found = [
        place(path, line, name)
        for path in SOURCES
        if path != GATE
        for line, name in names(path)
        if name.rpartition(".")[2] in COMPILERS
    ]
    assert not found, "\n".join(found)


def test_no_parallel_loops_and_no_bare_fastmath() -> None:
    """Threads are the engine's; bare fastmath deletes the checks for NaN."""
    found = []
    for path in SOURCES:
        found += [place(path, line, name) for line, name in names(path) if name.rpartition(".")[2] == "prange"]
        for line, _, call in calls(path):
            for keyword in call.keywords:
                switched_on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if keyword.arg in ("parallel", "fastmath") and switched_on:
                    found.append(place(path, line, f"{keyword.arg}=True"))
    assert not found, "\n".join(found)


def test_nothing_runs_what_it_reads() -> None:
    found = []
    for path in SOURCES:
        for line, name, _ in calls(path):
            root, _, last = name.rpartition(".")
            if name in BANNED_CALLS or (root in ("np", "numpy", "np.lib.format") and last in NUMPY_FILES):
                found.append(place(path, line, name))
        for node in ast.walk(tree_of(path)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [place(path, node.lineno, name) for name in modules if name.partition(".")[0] in BANNED_MODULES]
    assert not found, "\n".join(found)
