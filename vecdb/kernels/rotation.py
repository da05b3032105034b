"""A random rotation in n log n: signs and Walsh-Hadamard transforms that overlap, for any number of dimensions.

Codes of few bits hold a vector whose values spread over its dimensions alike; where a few dimensions carry most of the
variance, a rotation first spreads it. Each round flips signs and transforms the first, or the last, 2^p dimensions,
2^p being the largest power of two that fits (the Kac walk of Gao and Long's RaBitQ library, 2024, without its
additional step). Lengths and angles stay.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import kernel
from vecdb.types import F32, AnyArray

ROUNDS = 4


def draw_signs(dim: int, seed: int) -> F32:
    """float32 (ROUNDS, dim) of -1 and 1."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), (ROUNDS, dim))


@kernel
def rotate(values: AnyArray, signs: AnyArray) -> None:
    """Rotate values[:dim] in place; nothing happens when `signs` is empty. signs float32 (ROUNDS, dim)."""
    dim, width = signs.shape[1], 1
    while 2 * width <= dim:
        width *= 2
    shrink = np.float32(1.0 / np.sqrt(width))
    for turn in range(signs.shape[0]):
        for j in range(dim):
            values[j] *= signs[turn, j]
        start = (dim - width) * (turn & 1)
        transform(values, start, width)
        for j in range(start, start + width):
            values[j] *= shrink


@kernel
def transform(values: AnyArray, start: int, width: int) -> None:
    """The Walsh-Hadamard transform, without its factor, of values[start : start + width]; width a power of two."""
    half = 1
    while half < width:
        for first in range(start, start + width, 2 * half):
            for j in range(first, first + half):
                left, right = values[j], values[j + half]
                values[j], values[j + half] = left + right, left - right
        half *= 2


@kernel
def rotate_rows(rows: AnyArray, signs: AnyArray) -> None:
    """Rotate every row of float32 (n, dim) in place."""
    for i in range(rows.shape[0]):
        rotate(rows[i], signs)
