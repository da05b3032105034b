"""FAISS: lists of float32 vectors, of 4-bit product codes with rescoring, and of 8-bit product codes without."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import faiss

from benchmarks.graphs import F32, Rows
from benchmarks.lists import ITERATIONS, SAMPLE_EACH, ListEngine, probes

FACTORS = (5, 20)  # rows rescored over k
ID_BYTES, FLOAT_BYTES = 8, 4
METRICS = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
FLAT, FAST, BYTES = "faiss IVFFlat", "faiss IVFPQ 4-bit, rescored", "faiss IVFPQ 8-bit"


class Built:
    """An index of FAISS that several engines search. `alike`: k-means as vecdb's, for trainings that are compared."""

    def __init__(self, dim: int, recipe: str, metric: str, alike: bool = False) -> None:
        self.dim, self.recipe, self.metric, self.alike = dim, recipe, metric, alike
        self.index: Any = None
        self.vectors: F32 | None = None  # that it was built over

    def train(self, vectors: F32) -> None:
        self.index = faiss.index_factory(self.dim, self.recipe, METRICS[self.metric])
        lists = faiss.extract_index_ivf(self.index)
        if self.alike:
            lists.cp.max_points_per_centroid, lists.cp.niter = SAMPLE_EACH, ITERATIONS
        if hasattr(lists, "pq"):
            lists.pq.cp.min_points_per_centroid = 1  # a warning for each part of a vector
        self.index.train(vectors)

    def build(self, vectors: F32, threads: int) -> tuple[float, float]:
        """Seconds of training and of adding."""
        faiss.omp_set_num_threads(threads)
        begin = time.perf_counter()
        self.train(vectors)
        trained = time.perf_counter()
        self.index.add(vectors)
        added = time.perf_counter()
        faiss.omp_set_num_threads(1)
        self.vectors = vectors
        return trained - begin, added - trained

    def centroids(self) -> F32:
        lists = faiss.extract_index_ivf(self.index)
        found: F32 = lists.quantizer.reconstruct_n(0, lists.nlist)
        return found


class FaissLists:
    def __init__(self, family: str, built: Built, nlist: int, factor: int = 0) -> None:
        code = built.recipe.removeprefix(f"IVF{nlist},").removesuffix(",RFlat")
        self.name = f"faiss {code} {built.metric}" + (f" x{factor}" if factor else "")
        self.family, self.stored = family, f"faiss {built.recipe} {built.metric}"
        self.version = f"{faiss.__version__} ({faiss.get_compile_options().strip()})"
        self.built, self.nlist, self.factor = built, nlist, factor

    def efforts(self, k: int, rows: int) -> list[int]:
        return probes(self.nlist)

    def build(self, vectors: F32, threads: int) -> float:
        """0 when another engine has built the same over these vectors."""
        return 0.0 if self.built.vectors is vectors else sum(self.built.build(vectors, threads))

    def ready(self, queries: F32) -> F32:
        return queries

    def search(self, queries: F32, k: int, ef: int) -> Rows:
        index = self.built.index
        faiss.extract_index_ivf(index).nprobe = ef
        if self.factor:
            index.k_factor = self.factor
        _, rows = index.search(queries, k)
        return rows

    def save(self, file: Path) -> None:
        faiss.write_index(self.built.index, str(file))

    def load(self, file: Path, vectors: F32) -> None:
        if self.built.vectors is not vectors:
            self.built.index, self.built.vectors = faiss.read_index(str(file)), vectors
        faiss.omp_set_num_threads(1)

    def bytes_per_vector(self) -> float:
        """Codes, 8-byte ids and centroids; float32 that is rescored is left out, though FAISS has it in memory."""
        lists = faiss.extract_index_ivf(self.built.index)
        return float(lists.code_size + ID_BYTES + FLOAT_BYTES * lists.d * lists.nlist / max(1, lists.ntotal))


def recipes(dim: int, nlist: int) -> dict[str, tuple[str, ...]]:
    """Product codes of 2 bits a dimension, as those of vecdb's default."""
    fast = tuple(f"IVF{nlist},PQ{dim // 2}x{code},RFlat" for code in ("4fsr", "4fs"))
    return {FLAT: (f"IVF{nlist},Flat",), FAST: fast, BYTES: (f"IVF{nlist},PQ{dim // 4}x8",)}


def engines(metric: str, dim: int, nlist: int) -> list[ListEngine]:
    """Vectors of unit length are compared by both metrics, for one or the other is faster."""
    found: list[ListEngine] = []
    for family, variants in recipes(dim, nlist).items():
        for recipe in variants:
            for compared in ("ip", "l2") if metric == "cosine" else ("l2",):
                built = Built(dim, recipe, compared)
                factors = FACTORS if family == FAST else (0,)
                found += [FaissLists(family, built, nlist, factor) for factor in factors]
    return found
