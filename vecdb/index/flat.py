"""Flat: block codes of every row, scanned under a bitset; the best are scored with float32. No training."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np

from vecdb.index.base import (
    DISTANCES,
    NO_BITS,
    NO_ROWS,
    expect,
    frozen,
    kernel_inputs,
    result_arrays,
)
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.exact import exact_search
from vecdb.kernels.quantize import block_bytes, centre_of, encode_blocks
from vecdb.kernels.scan import scan_codes, scan_exact
from vecdb.memory import aligned
from vecdb.options import Flat
from vecdb.threads import Pool
from vecdb.types import F32, I32, I64, U64, AnyArray, Matrix, Progress, Traits

# Queries from which an exact search of all rows is a matrix product; NumPy is slow to widen float16.
BATCH = {"float32": 3, "float16": 16}
FLOAT_BITS = 32  # "code" of the rows themselves
FLOAT_DIMS = 16  # up to here a float32 row is as short as its codes are useful
BYTE_DIMS = 192  # below this 2-bit codes tell too few rows apart
CHUNK_VALUES = 4 << 20  # vector values encoded between two calls of progress: a few milliseconds
QUANTISER = {2: "rabitq-2-v1", 8: "rabitq-8-v1", FLOAT_BITS: "float32"}


def code_bits(bits: int, dim: int) -> int:
    """The code used for `dim` dimensions when the user asked for `bits`: 2, 8, or 32 for none at all."""
    if dim <= FLOAT_DIMS:
        return FLOAT_BITS
    return 8 if dim < BYTE_DIMS else bits


def pool_size(bits: int, k: int, rescore: int, rows: int) -> int:
    """Rows to score exactly: as asked, else what loses no neighbour in practice."""
    if rescore == 0:
        rescore = max(200, 4 * k) if bits == 2 else max(30, k + k // 2)
    return max(1, min(max(rescore, k), rows))


def chunks(first: int, last: int, dim: int) -> list[tuple[int, int]]:
    """first..last cut for encoding, so that progress is called often enough; no two of them write the same block."""
    step = max(1, CHUNK_VALUES // (dim * BLOCK)) * BLOCK
    bounds = [first, *range(first - first % BLOCK + step, last, step), last]
    return list(pairwise(bounds)) if first < last else []


class Codes:
    """Block codes with room for `capacity` rows, written by `encode` and read by scans."""

    __slots__ = ("add", "bits", "centre", "codes", "scale")

    def __init__(self, bits: int, capacity: int, dim: int, centre: AnyArray) -> None:
        blocks = -(-capacity // BLOCK)
        self.bits, self.centre = bits, frozen(centre)
        self.codes = aligned((blocks, block_bytes(bits, dim)), np.uint8)
        self.add, self.scale = (aligned((blocks * BLOCK,), np.float32) for _ in range(2))

    def encode(self, matrix: Matrix, first: int, last: int) -> None:
        inputs = kernel_inputs(matrix)
        encode_blocks(self.bits, *inputs, self.centre, first, last, self.codes, self.add, self.scale)

    def views(self) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
        return frozen(self.codes), frozen(self.add), frozen(self.scale), self.centre


class FlatIndex:
    """See vecdb.options.Flat."""

    kind: ClassVar[str] = "flat"

    def __init__(self, matrix: Matrix, options: Flat, codes: tuple[AnyArray, AnyArray, AnyArray, AnyArray]) -> None:
        self.matrix, self.options = matrix, options
        self.bits = code_bits(options.bits, matrix.dim)
        self._inputs = kernel_inputs(matrix)
        self._codes = codes

    @property
    def traits(self) -> Traits:
        return Traits(self.kind, self.matrix.rows, self.matrix.dim, self.bits, masked=True, graph=False)

    @property
    def indexed_rows(self) -> int:
        return self.matrix.rows

    @classmethod
    def build(
        cls, matrix: Matrix, options: Flat, *, seed: int = 0, threads: int = 1, progress: Progress | None = None
    ) -> Self:
        bits = code_bits(options.bits, matrix.dim)
        centre = centre_of(matrix.metric, matrix.vectors, matrix.inverse_norms)
        codes = Codes(bits, matrix.rows if bits != FLOAT_BITS else 0, matrix.dim, centre)
        if bits != FLOAT_BITS:
            _encode(codes, matrix, max(1, threads), progress)
        return cls(matrix, options, codes.views())

    def carried(self, matrix: Matrix, new_rows: I32, *, threads: int = 1, progress: Progress | None = None) -> Self:
        """Codes are made anew, around the centre of the new rows: it takes no longer than copying them."""
        return type(self).build(matrix, self.options, threads=threads, progress=progress)

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
        if rows is not None or self.bits == FLOAT_BITS:
            return search_exact(self.matrix, queries, k, allow, rows, counters)
        asked = rescore or self.options.rescore
        return search_codes(self._inputs, self.bits, self._codes, self.matrix.rows, queries, k, asked, allow, counters)

    def effort(self, k: int, recall: float | None = None, share: float = 1.0) -> None:
        """A scan has no ef: it finds nearly all whatever the recall asked for."""

    def arrays(self) -> dict[str, AnyArray]:
        return dict(zip(("codes", "add", "scale", "centre"), self._codes, strict=True))

    def parameters(self) -> dict[str, Any]:
        return {"quantiser": QUANTISER[self.bits], "rows": self.matrix.rows}

    @classmethod
    def from_arrays(
        cls, matrix: Matrix, options: Flat, arrays: Mapping[str, AnyArray], parameters: Mapping[str, Any]
    ) -> Self:
        bits = code_bits(options.bits, matrix.dim)
        wanted = {"quantiser": QUANTISER[bits], "rows": matrix.rows}
        for name, value in wanted.items():
            if parameters.get(name) != value:
                raise ValueError(f"{name} is {parameters.get(name)!r}, not {value!r}")
        blocks = -(-matrix.rows // BLOCK) if bits != FLOAT_BITS else 0
        codes = (
            expect(arrays, "codes", np.uint8, (blocks, block_bytes(bits, matrix.dim))),
            expect(arrays, "add", np.float32, (blocks * BLOCK,)),
            expect(arrays, "scale", np.float32, (blocks * BLOCK,)),
            expect(arrays, "centre", np.float32, (matrix.dim,)),
        )
        return cls(matrix, options, codes)

    def check(self) -> None:
        """Every code is valid; the factors must be numbers, or good rows would be lost."""
        for name, values in (("add", self._codes[1]), ("scale", self._codes[2]), ("centre", self._codes[3])):
            if not np.isfinite(values).all():
                raise ValueError(f"array {name!r} holds a value that is not a number")


def _encode(codes: Codes, matrix: Matrix, threads: int, progress: Progress | None) -> None:
    parts = chunks(0, matrix.rows, matrix.dim)
    pool = Pool(threads, "vecdb-build")
    try:
        for (start, _), _ in zip(parts, pool.map(lambda part: codes.encode(matrix, *part), parts), strict=True):
            if progress is not None:
                progress(start, matrix.rows)
    finally:
        pool.shutdown(cancel_futures=True)
    if progress is not None:
        progress(matrix.rows, matrix.rows)


def search_exact(
    matrix: Matrix, queries: F32, k: int, allow: U64 | None, rows: I32 | None, counters: I64 | None
) -> tuple[I32, F32]:
    """Exact search, of `rows` or of all; see Index.search."""
    if (
        rows is None and len(queries) >= BATCH[matrix.vectors.dtype.name]
    ):  # a matrix product beats the scan, and finds the same
        if counters is not None:
            counters[DISTANCES] += matrix.rows * len(queries)
        return exact_search(matrix, queries, k, allow)
    found, distances = result_arrays(queries, k)
    scan_exact(
        *kernel_inputs(matrix)[:2],
        0 if rows is None else 1,
        NO_ROWS if rows is None else frozen(rows),
        NO_BITS if allow is None else frozen(allow),
        frozen(queries),
        k,
        found,
        distances,
        np.zeros(4, np.int64) if counters is None else counters,
    )
    return found, distances


def search_codes(
    inputs: tuple[int, AnyArray, AnyArray],
    bits: int,
    codes: tuple[AnyArray, AnyArray, AnyArray, AnyArray],
    coded: int,
    queries: F32,
    k: int,
    rescore: int,
    allow: U64 | None,
    counters: I64 | None,
) -> tuple[I32, F32]:
    """Search by codes of the first `coded` rows and by float32 of the others; see Index.search.

    rescore   rows scored exactly; 0: of the pool of the code, those that may be among the k nearest
    """
    found, distances = result_arrays(queries, k)
    scan_codes(
        bits,
        *inputs,
        *codes,
        coded,
        NO_BITS if allow is None else frozen(allow),
        frozen(queries),
        k,
        pool_size(bits, k, rescore, inputs[1].shape[0]),
        0 if rescore else 1,
        found,
        distances,
        np.zeros(4, np.int64) if counters is None else counters,
    )
    return found, distances
