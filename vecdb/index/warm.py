"""Compile, or load from the cache, every kernel of the default path, with the types it is really called with."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from vecdb.index.base import Index, load_kind
from vecdb.index.growing import FIRST_ROWS, GrowingFlat
from vecdb.kernels import bitset
from vecdb.options import HNSW, IVF, IVFPQ, Flat, parse_dtype
from vecdb.types import F32, I32, U64, Matrix, Metric, Progress, Vectors

ROWS, DIM = FIRST_ROWS + 1, 256  # the least that takes the code paths of large collections


def warm_up(
    progress: Progress | None = None, *, dtype: str = "float32", lists: bool = False, builds: bool = True
) -> Path | None:
    """Make every kernel ready for vectors of one dtype; what reads vectors is compiled for each of the two apart.

    progress  gets (steps done, steps), now and then within a step too; it may raise to stop
    dtype     of the stored vectors, "float32" or "float16"
    lists     whether IVF and IVFPQ are made ready too, which else compile when the first of them is built
    builds    whether those that build indexes are made ready, and not only those that search the default ones

    Returns the directory that keeps the compiled kernels; None when they are kept in memory only.
    """
    matrix = _tiny_matrix(parse_dtype(dtype))
    allow = bitset.full(matrix.rows)
    rows = np.arange(8, dtype=np.int32)
    runs = [_walks, _flat, _growing, *((_graph, _carried_graph) if builds else ()), *((_lists,) if lists else ())]
    for step, run in enumerate(runs):
        with nullcontext() if progress is None else _told(progress, step, len(runs)):
            run(matrix, allow, rows)
    if progress is not None:
        progress(len(runs), len(runs))
    # Loaded by now, and by name: importing this module must not bring the compiler.
    cache: Path | None = sys.modules["vecdb.kernels.jit"].CACHE
    return cache


def _told(progress: Progress, step: int, steps: int) -> AbstractContextManager[None]:
    from vecdb.kernels.compiling import checked

    progress(step, steps)
    return checked(lambda: progress(step, steps))


def _tiny_matrix(dtype: str) -> Matrix:
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIM), dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    stored: Vectors = vectors.astype(dtype)
    return Matrix(stored, np.asarray(1 / norms, np.float32), Metric.COSINE)


def _queries(matrix: Matrix) -> F32:
    return matrix.vectors[:2].astype(np.float32)


def _search(index: Index, matrix: Matrix, allow: U64, rows: I32) -> None:
    queries = _queries(matrix)
    index.search(queries, 2)
    index.search(queries, 2, allow=allow)
    index.search(queries, 2, rows=rows)


def _walks(matrix: Matrix, allow: U64, rows: I32) -> None:
    """A graph without links is walked by the same kernels as any other, and needs none to be built."""
    from vecdb.index.code_quality import Codes
    from vecdb.index.gather import rows_in
    from vecdb.index.graph_builder import empty_graph
    from vecdb.index.hnsw import HnswIndex

    levels, twins = np.zeros(matrix.rows, np.uint8), np.full(matrix.rows, -1, np.int32)
    centre = np.zeros(matrix.dim, np.float32)
    options = HNSW(ef=16)
    graph = empty_graph(matrix.rows, matrix.dim, options.m, levels, twins, centre, Codes(2, True))
    index = HnswIndex(matrix, options, graph, 0, {})
    _search(index, matrix, allow, rows)
    every = rows_in(allow, matrix.rows)
    index.gather(_queries(matrix), 2, every)
    index.excerpt(every).search(_queries(matrix), 2)


def _flat(matrix: Matrix, allow: U64, rows: I32) -> None:
    _search(load_kind("flat").build(matrix, Flat()), matrix, allow, rows)


def _growing(matrix: Matrix, allow: U64, rows: I32) -> None:
    growing = GrowingFlat(matrix.rows, matrix.dim, matrix.metric)
    growing.extend(matrix)
    growing.search(matrix, _queries(matrix), 2, allow=allow)


def _graph(matrix: Matrix, allow: U64, rows: I32) -> None:
    _search(load_kind("hnsw").build(matrix, HNSW(ef_construction=16)), matrix, allow, rows)
    few = Matrix(matrix.vectors[:40], None, Metric.DOT)  # under dot links are chosen in a space of its own
    load_kind("hnsw").build(few, HNSW(m=4, ef_construction=8))


def _carried_graph(matrix: Matrix, allow: U64, rows: I32) -> None:
    """A part of the graph is gone, one row of that comes back under another number, and many are new."""
    assert matrix.inverse_norms is not None
    part = np.r_[matrix.rows - 1, np.arange(200)]
    fewer = Matrix(matrix.vectors[part], matrix.inverse_norms[part], matrix.metric)
    new_rows = np.arange(-1, 200, dtype=np.int32)
    new_rows[:40] = -1
    load_kind("hnsw").build(fewer, HNSW(ef_construction=16)).carried(matrix, new_rows)


def _lists(matrix: Matrix, allow: U64, rows: I32) -> None:
    """Clustering by levels and, of few dimensions, by values; codes of levels and of products."""
    from vecdb.index.grouped import PROBES, GroupedCentroids

    for options in (IVF(nlist=4), IVFPQ(nlist=4, rotation=True)):
        _search(load_kind(options.kind).build(matrix, options), matrix, allow, rows)
    vectors: Vectors = matrix.vectors[:300, :8].copy()
    load_kind("ivf").build(Matrix(vectors, None, Metric.L2), IVF(nlist=4))
    every = matrix.vectors.astype(np.float32)
    for centroids in (every[:PROBES], every[:PROBES, :8].copy()):
        forms = GroupedCentroids.of(centroids, np.arange(PROBES + 1, dtype=np.int32))
        forms.nearest(every[:, : centroids.shape[1]].copy(), 0, 1, np.zeros(1, np.int32), np.zeros(1, np.float32))
