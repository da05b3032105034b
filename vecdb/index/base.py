"""The door of every index kind: one protocol, one registry. Importing this loads no compiler.

An index borrows a segment's matrix and answers "which rows are nearest?". It knows no ids, payloads or collections.
Published indexes never change: `carried` makes a new one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np

from vecdb.types import F32, I32, I64, U64, AnyArray, Matrix, Progress, Traits

# What a search adds to its `counters`, int64 (4,): nodes visited, distances computed, rows scored with float32 or
# better, and walks that gave up: searches that another way has to answer.
VISITED, DISTANCES, RESCORED, ESCALATED = range(4)


class Index(Protocol):
    """One kind of index over one matrix."""

    kind: ClassVar[str]

    @property
    def traits(self) -> Traits: ...

    @property
    def indexed_rows(self) -> int: ...

    @classmethod
    def build(
        cls, matrix: Matrix, options: Any, *, seed: int = 0, threads: int = 1, progress: Progress | None = None
    ) -> Self:
        """An index over all rows. `progress` is called about every 50 ms, and may raise to stop the build."""
        ...

    def carried(self, matrix: Matrix, new_rows: I32, *, threads: int = 1, progress: Progress | None = None) -> Self:
        """A new index over another matrix that holds rows of this one; as good as one built anew, and made sooner.

        new_rows   int32 (indexed_rows,): where each row of this index stands in `matrix`, -1 for one that is gone; no
                   place twice. Rows of `matrix` that nobody moves to are new
        """
        ...

    def search(
        self,
        queries: F32,
        k: int,
        *,
        allow: U64 | None = None,
        rows: I32 | None = None,
        ef: int | None = None,
        nprobe: int | None = None,
        rescore: int | None = None,
        budget: int | None = None,
        counters: I64 | None = None,
    ) -> tuple[I32, F32]:
        """The k nearest rows int32 (q, k) and their distances float32 (q, k), ordered by (distance, row).

        queries   float32 (q, dim), C-contiguous
        allow     bitset of the rows that may be returned, None for all
        rows      ascending rows to look at instead of all; scored with float32, so the result is exact
        ef        candidates kept by a graph walk, at least k; None: `effort(k)`
        nprobe    lists of an inverted file to scan; None: `effort(k)`
        rescore   rows scored exactly per query
        budget    distances after which a graph walk gives up: it finds nothing and counts in counters[ESCALATED]

        Missing results are row -1, distance inf.
        """
        ...

    def effort(self, k: int, recall: float | None = None, share: float = 1.0) -> int | None:
        """The ef of a walk, or the lists to scan, that find `recall` of the k nearest, as measured; None for a scan.

        recall   0.5 to 1; None: what the options say
        share    of the rows, which `allow` lets pass
        """
        ...

    def arrays(self) -> dict[str, AnyArray]:
        """What must be stored, besides the matrix."""
        ...

    def parameters(self) -> dict[str, Any]:
        """What must be stored beside the arrays: ints, floats, strings, lists."""
        ...

    @classmethod
    def from_arrays(
        cls, matrix: Matrix, options: Any, arrays: Mapping[str, AnyArray], parameters: Mapping[str, Any]
    ) -> Self:
        """The index that was stored. Looks at shapes and types only; ValueError says what does not fit."""
        ...

    def check(self) -> None:
        """Look at every value; ValueError says what is damaged."""
        ...


_KINDS = {
    "flat": ("vecdb.index.flat", "FlatIndex"),
    "hnsw": ("vecdb.index.hnsw", "HnswIndex"),
    "ivf": ("vecdb.index.ivf", "IvfIndex"),
    "ivfpq": ("vecdb.index.ivfpq", "IvfPqIndex"),
}
KINDS: Mapping[str, str] = {kind: module for kind, (module, _) in _KINDS.items()}


def load_kind(name: str) -> type[Index]:
    """The class of a kind; loads its module, and with it the compiler, on first use."""
    if name not in _KINDS:
        raise ValueError(f"no index kind {name!r}; there are {', '.join(_KINDS)}")
    module, attribute = _KINDS[name]
    return cast("type[Index]", getattr(importlib.import_module(module), attribute))


def frozen(array: AnyArray) -> AnyArray:
    """A read-only base-class view: kernels compile one signature because all their inputs are read-only."""
    view = array.view(np.ndarray)
    view.setflags(write=False)
    return view


def expect(arrays: Mapping[str, AnyArray], name: str, dtype: Any, shape: tuple[int, ...]) -> AnyArray:
    """arrays[name], frozen; ValueError if it is missing or of another type or shape."""
    if name not in arrays:
        raise ValueError(f"array {name!r} is missing")
    found = arrays[name]
    if found.dtype != np.dtype(dtype) or found.shape != shape or not found.flags.c_contiguous:
        raise ValueError(f"array {name!r} is {found.dtype}{found.shape}, not {np.dtype(dtype)}{shape} in C order")
    return frozen(found)


NO_BITS: AnyArray = frozen(np.empty(0, np.uint64))
NO_ROWS: AnyArray = frozen(np.empty(0, np.int32))
NO_NORMS: AnyArray = frozen(np.empty(0, np.float32))
NO_BOOKS: AnyArray = frozen(np.empty((0, 16), np.float32))


def kernel_inputs(matrix: Matrix) -> tuple[int, AnyArray, AnyArray]:
    """(metric, vectors, inverse norms or empty), read-only, as every kernel takes them first; float16 as uint16."""
    norms = NO_NORMS if matrix.inverse_norms is None else frozen(matrix.inverse_norms)
    vectors: AnyArray = matrix.vectors
    return int(matrix.metric), frozen(vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors), norms


def result_arrays(queries: F32, k: int) -> tuple[I32, F32]:
    return np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
