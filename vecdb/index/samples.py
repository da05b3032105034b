"""Rows as lists are searched, read from a matrix a part at a time; and the sample that centroids are trained on."""

from __future__ import annotations

import numpy as np

from vecdb.index.base import frozen, kernel_inputs
from vecdb.kernels.kmeans import load_rows
from vecdb.types import F32, I32, Matrix

SAMPLE_EACH = 64  # rows a centroid is trained on
SAMPLE_BYTES = 256 << 20  # the most that a sample takes as float32, unless its user gave its size
SAMPLE_LEAST = 16  # rows a centroid, even then
LOAD_ROWS = 1024  # rows that are read, normalised and compared at a time


def sample_of(matrix: Matrix, count: int, wanted: int, rng: np.random.Generator) -> F32:
    """float32 (r, dim): `wanted` rows, or as many as so many centroids should be trained on."""
    usual = max(SAMPLE_LEAST * count, min(SAMPLE_EACH * count, SAMPLE_BYTES // (4 * matrix.dim)))
    return load(matrix, spread(matrix.rows, wanted or usual, rng))


def spread(rows: int, wanted: int, rng: np.random.Generator) -> I32:
    """int32: `wanted` ascending rows, one drawn from each of as many equal parts; all rows if there are no more."""
    if wanted >= rows:
        return np.arange(rows, dtype=np.int32)
    bounds = np.arange(wanted + 1, dtype=np.int64) * rows // wanted
    return np.asarray(rng.integers(bounds[:-1], bounds[1:]), np.int32)


def load(matrix: Matrix, rows: I32) -> F32:
    """float32 (r, dim): rows as lists are searched, normalised under cosine."""
    out = np.empty((len(rows), matrix.dim), np.float32)
    load_rows(*kernel_inputs(matrix), frozen(rows), out)
    return out
