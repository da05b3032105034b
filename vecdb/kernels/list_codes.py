"""Codes of the rows of inverted lists: RaBitQ levels of what a row is away from the centroid of its list.

Under cosine rows and queries are normalised and lists are searched by L2, which has the same order. With the centroid c
of its list and a rotation R (or none), a row x is the code of r = R(x - c), levels of RaBitQ (Gao and Long, 2024 and
2025), and factor = |r|^2 / <r, levels>:

    L2, COSINE   |q - x|^2 = |q - c|^2 + |r|^2 - 2 <R(q - c), r>
    DOT          -<q, x>   = -<q, c>           -   <Rq, r>
                 estimate  = base (of query and list) + add (of a row) + scale (of a row) * <levels, Rq>

<levels, Rc> is part of `add`, so a query is turned and quantised once for all lists, and the base is exact: an error
there would move a whole list. Slots of a list are padded to whole blocks; `slots` holds the row of each.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.distance import COSINE, DOT
from vecdb.kernels.jit import Integer, allocating, inlined
from vecdb.kernels.quantize import pack_levels, residual, take_levels
from vecdb.kernels.rotation import rotate
from vecdb.types import AnyArray


@allocating
def encode_lists(
    bits: int,
    metric: int,
    vectors: AnyArray,
    inverse_norms: AnyArray,
    centroids: AnyArray,
    turned: AnyArray,
    signs: AnyArray,
    starts: AnyArray,
    sizes: AnyArray,
    slots: AnyArray,
    first: int,
    last: int,
    codes: AnyArray,
    add: AnyArray,
    scale: AnyArray,
    spreads: AnyArray,
) -> None:
    """Write codes and factors of the rows of lists first..last-1, and how far rows are from the centroid of each.

    centroids, turned   float32 (nlist, dim), as they are and rotated;  signs as in `rotate`
    starts, sizes       int32 (nlist + 1,), (nlist,): first block of each list and its rows
    slots               int32 (32 * blocks,);  codes uint8 (blocks, block_bytes);  add, scale float32 (32 * blocks,)
    spreads             float32 (nlist,): the mean squared distance of the rows from the centroid, 0 of an empty list
    """
    dim, groups = vectors.shape[1], codes.shape[1] // 128
    rest, levels = np.empty(dim, np.float32), np.zeros(groups * 4 * (8 // bits), np.uint8)
    for at in range(first, last):
        begin, spread = starts[at] * BLOCK, 0.0
        for slot in range(begin, begin + sizes[at]):
            row = slots[slot]
            norm = residual(metric, vectors, inverse_norms, row, centroids[at], rest)
            rotate(rest, signs)
            along, cross, _ = take_levels(bits, rest, norm, turned[at], levels)
            zero = metric == COSINE and inverse_norms[row] == np.float32(0.0)
            write_list_factors(metric, slot, norm, along, cross, zero, add, scale)
            pack_levels(bits, levels, codes, slot, groups)
            spread += np.float64(norm)
        spreads[at] = np.float32(spread / max(1, sizes[at]))


@inlined
def write_list_factors(
    metric: int,
    slot: Integer,
    norm: np.float32,
    along: np.float32,
    cross: np.float32,
    zero: bool,
    add: AnyArray,
    scale: AnyArray,
) -> None:
    """The factors of a row: norm |r|^2, along <r, code>, cross <Rc, code>; zero: a zero vector under cosine.

    A factor of |r|^2 / <r, code> makes the estimate exact along the residual itself, whatever the code.
    """
    factor = norm / along if along > np.float32(0.0) else np.float32(0.0)
    if metric == DOT:
        add[slot], scale[slot] = np.float32(0.0), -factor
    else:
        add[slot], scale[slot] = norm + np.float32(2.0) * factor * cross, np.float32(-2.0) * factor
    if zero:
        add[slot] += np.float32(1.0)  # it is as far from everything as an orthogonal one


@allocating
def code_losses(
    bits: int,
    metric: int,
    vectors: AnyArray,
    inverse_norms: AnyArray,
    centroids: AnyArray,
    signs: AnyArray,
    starts: AnyArray,
    sizes: AnyArray,
    slots: AnyArray,
    losses: AnyArray,
) -> None:
    """losses[slot] float32 = 1 - cos^2 of a residual and its levels: the share that the code does not hold."""
    dim = vectors.shape[1]
    half = np.float32((1 << bits) - 1) * np.float32(0.5)
    rest, levels = np.empty(dim, np.float32), np.empty(dim, np.uint8)
    for at in range(sizes.shape[0]):
        begin = starts[at] * BLOCK
        for slot in range(begin, begin + sizes[at]):
            norm = residual(metric, vectors, inverse_norms, slots[slot], centroids[at], rest)
            rotate(rest, signs)
            along = take_levels(bits, rest, norm, centroids[at], levels)[0]
            size = np.float32(0.0)
            for j in range(dim):
                size += (np.float32(levels[j]) - half) * (np.float32(levels[j]) - half)
            losses[slot] = (
                np.float32(1.0) - along * along / (norm * size) if norm > np.float32(0.0) else np.float32(0.0)
            )
