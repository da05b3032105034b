"""Inverted lists in memory, behind the door of benchmarks.graphs; an effort (`ef`) is the number of lists scanned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from benchmarks.graphs import F32, GraphEngine

TARGETS = (0.95, 0.98)  # recall
PROBES = (1, 2, 3, 4, 6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024)
SAMPLE_EACH, ITERATIONS = 64, 10  # of k-means where trainings are compared


class ListEngine(GraphEngine, Protocol):
    """Lists of one kind.

    family    what it is compared as: the best of a family counts
    stored    names what is built; engines with the same one share it
    """

    family: str
    stored: str
    nlist: int

    def efforts(self, k: int, rows: int) -> list[int]: ...

    def bytes_per_vector(self) -> float:
        """Of what has to be in memory, float32 vectors that are only rescored left out."""
        ...


def probes(nlist: int) -> list[int]:
    """Lists to scan, rising to all of them or to the most that is measured."""
    return sorted({min(lists, nlist) for lists in PROBES})


def engines_of(metric: str, dim: int, nlist: int) -> list[ListEngine]:
    """Ours first; FAISS where it is installed."""
    from benchmarks.lists import vecdb_lists

    found: list[ListEngine] = [*vecdb_lists.engines(metric, nlist)]
    if find_spec("faiss") is not None:
        from benchmarks.lists import faiss_lists

        found += faiss_lists.engines(metric, dim, nlist)
    return found


def file_of(cache: Path, digest: str, engine: ListEngine) -> Path:
    name = f"{digest} lists {engine.nlist} {engine.stored} {engine.version}"
    return cache / "".join(sign if sign.isalnum() else "-" for sign in name)


def prepare(
    engines: Sequence[ListEngine],
    vectors: F32,
    digest: str,
    cache: Path | None,
    threads: int,
    say: Callable[[str], object],
) -> None:
    """Every engine over `vectors`, loaded where the cache has it; `say` is told what was built."""
    from benchmarks.graphs.costs import keep

    for engine in engines:
        file = file_of(cache, digest, engine) if cache else None
        if file and file.exists():
            engine.load(file, vectors)
            continue
        seconds = engine.build(vectors, threads)
        if seconds:
            say(f"{engine.name}: {seconds:.1f} s")
        if file:
            keep(engine, file)
