"""How well codes of a few bits tell near rows apart, measured on a sample of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vecdb.index.base import frozen, kernel_inputs
from vecdb.kernels.exact import exact_search
from vecdb.kernels.quantize import residual
from vecdb.kernels.row_codes import encode_query, encode_records, estimate_records, query_bytes, record_bytes
from vecdb.types import F32, Matrix

BITS = (2, 4, 8)
ROWS, QUERIES = 2048, 48  # of the sample
NEAREST, WITHIN = 10, 20  # the nearest rows that must be among so many best estimates
SHARE = 0.97  # of them
TIE = np.float32(1e-5)  # relative


@dataclass(frozen=True, slots=True)
class Codes:
    """The codes of a graph's walks: bits a dimension, and whether their best few hold the nearest rows."""

    bits: int
    sure: bool


def choose_codes(matrix: Matrix, centre: F32, wanted: int = 0) -> Codes:
    """The least bits whose best estimates hold the nearest rows, else 8; `wanted` bits are taken unless it is 0.

    Bits that take no further cache line are taken too.
    """
    part = sample(matrix)
    tried = Codes(wanted or BITS[-1], False)
    if part.rows <= WITHIN:
        return tried
    for bits in (wanted,) if wanted else BITS:
        if not wanted and any(
            record_bytes(more, part.dim) == record_bytes(bits, part.dim) for more in BITS if more > bits
        ):
            continue
        tried = Codes(bits, share_within(part, centre, bits) >= SHARE)
        if tried.sure:
            break
    return tried


def sample(matrix: Matrix) -> Matrix:
    """Evenly spread rows."""
    spread = np.unique(np.linspace(0, matrix.rows - 1, min(ROWS, matrix.rows)).astype(np.int64))
    norms = None if matrix.inverse_norms is None else matrix.inverse_norms[spread]
    return Matrix(matrix.vectors[spread], norms, matrix.metric)


def share_within(part: Matrix, centre: F32, bits: int) -> float:
    """The mean share of the NEAREST other rows of a row that are among the WITHIN best by estimate."""
    metric, vectors, norms = kernel_inputs(part)
    records = np.zeros((part.rows, record_bytes(bits, part.dim)), np.uint8)
    factors = records.view(np.float32)
    encode_records(bits, metric, vectors, norms, frozen(centre), 0, part.rows, records, factors)
    query, levels = np.zeros(query_bytes(bits, part.dim), np.int8), np.empty(part.dim, np.int8)
    moved, estimates = np.empty(part.dim, np.float32), np.empty(part.rows, np.float32)
    shares = []
    for row in np.linspace(0, part.rows - 1, QUERIES).astype(np.int64):
        residual(metric, vectors, norms, row, frozen(centre), moved)
        unit, shift = encode_query(bits, moved, levels, query)
        estimate_records(bits, frozen(records), frozen(factors), query, unit, shift, estimates)
        estimates[row] = np.inf
        best = np.sort(np.argpartition(estimates, WITHIN)[:WITHIN]).astype(np.int32)
        others = np.delete(np.arange(part.rows, dtype=np.int32), row)
        asked = part.vectors[row : row + 1].astype(np.float32)
        exact = exact_search(part, asked, NEAREST, None, others)[1][0]
        bound = exact[-1] + TIE * max(np.float32(1.0), abs(exact[-1]))
        found = exact_search(part, asked, NEAREST, None, best)[1][0]
        shares.append(np.count_nonzero(found <= bound) / NEAREST)
    return float(np.mean(shares))
