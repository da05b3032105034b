"""Imports go down only, and a library is known to one room only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.rules.source import ROOT, SOURCES, Import, imports_of, name_of

# What each room may import: rooms ("files") with everything in them, or single modules ("kernels.bitset").
BASE = {"errors", "types", "options", "threads", "memory"}
BELOW_ENGINE = {*BASE, "kernels", "files", "storage", "index", "filter", "planner"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "options": {"errors", "types"},
    "threads": {"errors"},
    "memory": {"types"},
    "results": {"errors", "types"},
    "kernels": BASE,
    "files": BASE,
    "storage": {*BASE, "files", "kernels.bitset"},
    "index": {*BASE, "files.arrays", "kernels"},
    "filter": {*BASE, "kernels.bitset"},
    "planner": {*BASE, "filter.expression"},
    "engine": {*BELOW_ENGINE, "results"},
    "collection": {*BELOW_ENGINE, "results", "engine"},
    "database": {*BELOW_ENGINE, "results", "engine", "collection"},
    "cli": {"errors", "types", ""},  # "" is the public surface: `import vecdb`
    "__init__": {*BELOW_ENGINE, "results", "engine", "collection", "database"},
    "__main__": {"cli"},
}

# The only places that may import a library; and those that may do it while they are imported themselves.
OWNERS: dict[str, tuple[str, ...]] = {
    "numba": ("vecdb.kernels",),
    "llvmlite": ("vecdb.kernels",),
    "lmdb": ("vecdb.storage.catalog",),
    "msgpack": ("vecdb.storage",),
}
ON_USE_ONLY = ("pyarrow", "pandas", "polars", "sentence_transformers", "fsspec")

ALL = [found for path in SOURCES for found in imports_of(path)]


def room_of(module: str) -> str:
    """vecdb.files.disk -> files; vecdb -> "" when imported, and its own file is __init__."""
    return module.split(".")[1] if "." in module else ""


def within(module: str, places: set[str] | tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def where(found: Import) -> str:
    return f"{found.file.relative_to(ROOT)}:{found.line} imports {found.module}"


def test_every_room_has_a_row() -> None:
    rooms = {room_of(name_of(path)) or "__init__" for path in SOURCES}
    assert rooms <= set(MAY_IMPORT), f"no row for {rooms - set(MAY_IMPORT)}"


def test_imports_go_down_only() -> None:
    """Imports inside functions count too: that is where two-way edges hide."""
    wrong = []
    for found in (one for one in ALL if within(one.module, ("vecdb",))):
        room, target = room_of(name_of(found.file)) or "__init__", room_of(found.module)
        inner = found.module.partition(".")[2]
        allowed = MAY_IMPORT[room]
        if target != room and target not in allowed and not within(inner, allowed - {""}):
            wrong.append(where(found))
    assert not wrong, "\n".join(["not allowed by DESIGN's order of rooms:", *wrong])


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_one_owner(library: str) -> None:
    strangers = [
        where(one) for one in ALL if within(one.module, (library,)) and not within(name_of(one.file), OWNERS[library])
    ]
    assert not strangers, "\n".join(strangers)


@pytest.mark.parametrize("library", ON_USE_ONLY)
def test_heavy_libraries_are_imported_on_use(library: str) -> None:
    early = [where(one) for one in ALL if within(one.module, (library,)) and not one.inside]
    assert not early, "\n".join(early)


def test_importing_vecdb_loads_nothing_heavy() -> None:
    """`import vecdb` is light: neither the compiler nor a data frame comes with it."""
    program = "import sys, vecdb; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"numba", "llvmlite", *ON_USE_ONLY} & set(loaded.stdout.split())
    assert not heavy, f"import vecdb loads {heavy}"
