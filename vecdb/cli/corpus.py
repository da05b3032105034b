"""Real text that every machine has: the docstrings of the standard library and of the installed packages.

Source files are parsed, never imported, so collecting has no side effects.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.types import Progress

TEXT_MIN = 20  # characters: shorter docstrings say nothing to search for
TEXT_MAX = 4000
FILES_PER_TASK = 24
TESTS = frozenset({"test", "tests", "testing", "idlelib", "lib2to3"})
FIRST = ("numpy", "numba", "pyarrow", "lmdb", "msgpack")  # after the standard library: installed with vecdb itself

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.Module | ast.ClassDef | Function


@dataclass(frozen=True, slots=True)
class Record:
    """One documented definition. `id` is its qualified name; `payload` holds the docstring and what is known of it."""

    id: str
    payload: dict[str, Any]

    @property
    def text(self) -> str:
        """What is embedded: the name says as much as the docstring does."""
        return f"{self.payload['name']}\n{self.payload['text']}"


def collect(limit: int, progress: Progress | None = None) -> list[Record]:
    """At most `limit` records, unique by id and by text: the standard library first, then packages, then tests."""
    files = [(str(path), module) for path, module in sources()]
    tasks = [files[at : at + FILES_PER_TASK] for at in range(0, len(files), FILES_PER_TASK)]
    records: dict[str, Record] = {}
    seen: set[str] = set()
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(parse_files, tasks):
            for record in found:
                if record.payload["text"] not in seen and len(records) < limit:
                    seen.add(record.payload["text"])
                    records.setdefault(record.id, record)
            if progress is not None:
                progress(len(records), limit)
            if len(records) >= limit:
                pool.shutdown(cancel_futures=True)
                break
    return list(records.values())


def sources() -> Iterator[tuple[Path, str]]:
    """(file, module name) of every Python source, in a fixed order."""
    library = Path(sysconfig.get_path("stdlib"))
    packages = [Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    found = [(root, path) for root in (library, *packages) if root.is_dir() for path in root.rglob("*.py")]

    def rank(item: tuple[Path, Path]) -> tuple[bool, int, int, str]:
        root, path = item
        parts = path.relative_to(root).parts
        top = parts[0].removesuffix(".py")
        nearness = FIRST.index(top) if top in FIRST else len(FIRST)
        return not TESTS.isdisjoint(parts), (library, *packages).index(root), nearness, str(path)

    for root, path in sorted(found, key=rank):
        parts = path.relative_to(root).with_suffix("").parts
        if root == library and not {"site-packages", "dist-packages"}.isdisjoint(parts):
            continue
        yield path, ".".join(part for part in parts if part != "__init__") or parts[0]


def parse_files(files: list[tuple[str, str]]) -> list[Record]:
    return [record for path, module in files for record in parse_file(Path(path), module)]


def parse_file(path: Path, module: str) -> Iterator[Record]:
    """The documented definitions of one file; nothing for a file that this Python cannot parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the sources read: invalid escapes and the like
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError, RecursionError):
            return
    yield from describe(tree, module, "", "module")


def describe(node: Definition, module: str, name: str, kind: str) -> Iterator[Record]:
    """The record of a definition, then those of what it contains."""
    text = ast.get_docstring(node)
    if text is not None and len(text) >= TEXT_MIN:
        qualified = f"{module}.{name}" if name else module
        payload = {
            "package": module.partition(".")[0],
            "module": module,
            "name": name or module,
            "kind": kind,
            "public": not any(part.startswith("_") for part in qualified.split(".")),
            "length": len(text),
            **signature(node),
            "text": text[:TEXT_MAX],
        }
        yield Record(qualified, payload)
    if isinstance(node, Function):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function):
            inner = "class" if isinstance(child, ast.ClassDef) else "method" if name else "function"
            yield from describe(child, module, f"{name}.{child.name}" if name else child.name, inner)


def signature(node: Definition) -> dict[str, Any]:
    """Parameters (without self and cls), whether some have defaults, and their names."""
    if not isinstance(node, Function):
        return {}
    given = node.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names = [name for name in names if name not in ("self", "cls")]
    defaults = bool(given.defaults) or any(one is not None for one in given.kw_defaults)
    return {
        "parameters": len(names),
        "parameter_names": names,
        "has_default": defaults,
        "is_async": isinstance(node, ast.AsyncFunctionDef),
    }
