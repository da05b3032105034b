"""Codebooks of product quantisation, learned on the residuals of a sample of rows to the centroids of their lists.

The optional rotation is learned with them (Ge, He, Ke and Sun, "Optimized product quantization", 2013): in turns, the
best codebooks for a rotation, and the best rotation for what they decode, a Procrustes problem.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from vecdb.index.base import frozen
from vecdb.index.samples import load, spread
from vecdb.index.team import WORK, Team, slices
from vecdb.kernels.product import decode_rows, train_books
from vecdb.types import F32, I32, Matrix, Progress

ENTRIES = {4: 16, 8: 256}
SUB_DIMS = {4: 2, 8: 4}  # dimensions of a sub-quantiser: two bits a dimension
EACH = {4: 512, 8: 64}  # rows of the sample for each word
ITERATIONS = {4: 15, 8: 10}
ROTATIONS = 8  # turns of learning a rotation; each takes a singular value decomposition of dim x dim
SMALLEST = 1e-6  # a variance below this part of the largest counts as that
WARM_ITERATIONS = 2  # of the codebooks in such a turn


@dataclass(frozen=True, slots=True)
class Codebooks:
    """bounds int32 (m + 1,): the dimensions of each sub-quantiser;  books float32 (dim, entries): see kernels.product.

    turn   float32 (dim, dim), orthogonal: rows @ turn is what is coded; (0, dim) for no rotation
    """

    bounds: I32
    books: F32
    turn: F32

    @property
    def m(self) -> int:
        return len(self.bounds) - 1


def sub_quantisers(bits: int, dim: int, wanted: int = 0) -> int:
    """How many: as asked, else one for SUB_DIMS dimensions; never more than dimensions."""
    return min(wanted or -(-dim // SUB_DIMS[bits]), dim)


def bounds_of(dim: int, m: int) -> I32:
    """int32 (m + 1,): m sub-spaces of dim dimensions; none is longer than another by more than one."""
    return (np.arange(m + 1, dtype=np.int64) * dim // m).astype(np.int32)


def train(
    matrix: Matrix,
    centroids: F32,
    assigned: I32,
    bits: int,
    m: int,
    *,
    rotation: bool = False,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Codebooks:
    """Codebooks of the residuals of rows to their centroids; assigned int32 (rows,): the list of each row.

    progress  called with (sub-quantisers trained, of all), about every 50 ms; may raise to interrupt, but not
              a decomposition of dim x dim
    """
    rng = np.random.default_rng(seed)
    picked = spread(matrix.rows, ENTRIES[bits] * EACH[bits], rng)
    rows = load(matrix, picked) - centroids[assigned[picked]]
    rows = rows[np.isfinite(rows).all(1)]  # differences of the largest numbers overflow
    bounds, dim = bounds_of(matrix.dim, m), matrix.dim
    if not len(rows):
        return Codebooks(bounds, np.zeros((dim, ENTRIES[bits]), np.float32), _no_turn(dim))
    order, turns = rng.permutation(len(rows)), ROTATIONS if rotation and dim > 1 else 0
    books, turn = np.zeros((dim, ENTRIES[bits]), np.float32), _no_turn(dim)
    with Team(threads, progress, (turns + 1) * m) as team:

        def fit(turned: F32, warm: bool, iterations: int) -> None:
            def work(first: int, last: int) -> int:
                train_books(frozen(turned), frozen(bounds), first, last, frozen(order), warm, iterations, books)
                return last - first

            team.share(work, _parts(m, len(rows) * iterations * books.size // m))

        if turns:
            turn = _balanced(rows, bounds)
            for number in range(turns):
                turned = _turned(rows, turn)
                fit(turned, number > 0, WARM_ITERATIONS if number else ITERATIONS[bits])
                turn = _procrustes(rows, _decoded(turned, bounds, books, team))
        fit(_turned(rows, turn) if turns else rows, turns > 0, ITERATIONS[bits])
    return Codebooks(*(frozen(array) for array in (bounds, books, turn)))


def _parts(m: int, products: int) -> list[tuple[int, int]]:
    """Sub-quantisers 0..m-1 cut so that a part takes about WORK products, of which each takes `products`."""
    step = max(1, WORK // max(1, products))
    return [(first, min(first + step, m)) for first in range(0, m, step)]


def _decoded(rows: F32, bounds: I32, books: F32, team: Team) -> F32:
    out = np.empty_like(rows)

    def work(first: int, last: int) -> int:
        decode_rows(frozen(rows[first:last]), frozen(bounds), frozen(books), out[first:last])
        return 0

    team.share(work, slices(len(rows), books.size))
    return out


def _turned(rows: F32, turn: F32) -> F32:
    return np.asarray(rows @ turn, np.float32)


def _no_turn(dim: int) -> F32:
    return np.empty((0, dim), np.float32)


def _balanced(rows: F32, bounds: I32) -> F32:
    """Principal axes, dealt to the sub-spaces so that each holds about the same product of variances."""
    wide = rows.astype(np.float64)
    variances, axes = np.linalg.eigh(wide.T @ wide / len(wide))
    room, order = np.diff(bounds).astype(np.int64), np.empty(len(variances), np.int64)
    logs = np.log(np.maximum(variances, SMALLEST * variances.max()) + np.finfo(np.float64).tiny)
    logs -= logs.min()  # no product falls as its sub-space fills
    heap = [(0.0, at) for at in range(len(room))]
    for axis in np.argsort(-variances):
        held, at = heapq.heappop(heap)
        room[at] -= 1
        order[bounds[at] + room[at]] = axis
        if room[at]:
            heapq.heappush(heap, (held + float(logs[axis]), at))
    return np.ascontiguousarray(axes[:, order], np.float32)


def _procrustes(rows: F32, decoded: F32) -> F32:
    """The orthogonal matrix that brings rows @ matrix nearest to what was decoded (Schoenemann, 1966)."""
    left, _, right = np.linalg.svd(rows.T.astype(np.float64) @ np.nan_to_num(decoded.astype(np.float64)))
    return np.ascontiguousarray(left @ right, np.float32)
