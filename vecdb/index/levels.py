"""The codes of IVF: RaBitQ levels of a few bits a dimension, rotated where that brings them nearer to the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from vecdb.index.base import NO_BOOKS, NO_ROWS, expect, frozen, kernel_inputs
from vecdb.index.drift import sample
from vecdb.index.grouped import one_group
from vecdb.index.halves import Halves
from vecdb.index.lists import Codes, Grouping, Written, write_codes
from vecdb.index.probing import DEEP, NEAR, Probing
from vecdb.kernels.list_codes import code_losses, encode_lists
from vecdb.kernels.quantize import block_bytes
from vecdb.kernels.rotation import ROUNDS, draw_signs, rotate_rows
from vecdb.options import IVF
from vecdb.types import F32, I32, AnyArray, Matrix, Progress

ROTATION_ROWS = 2048  # on which a rotation is tried
SIGNS_SEED = 0
WORTH = 0.9  # a rotation costs a query some microseconds: the codes have to lose at least a tenth less with it
# By bits, rows scored exactly over k where nothing was measured: on the safe side; for k of 10 and of 100.
POOLS = {1: (20.0, 10.0), 2: (7.5, 4.0), 4: (4.0, 2.0), 8: (2.0, 1.6)}


@dataclass(frozen=True, slots=True)
class Levels:
    """bits a dimension;  signs float32 (ROUNDS, dim): the rotation, see kernels.rotation; (0, dim) for none."""

    bits: int
    signs: F32

    @classmethod
    def learn(
        cls,
        matrix: Matrix,
        centroids: F32,
        assigned: I32,
        options: IVF,
        *,
        seed: int = 0,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Self:
        """A rotation if it brings the codes of a sample of rows clearly nearer to them, else none."""
        part, chosen = sample(matrix, assigned, ROTATION_ROWS)
        plain = no_signs(matrix.dim)
        if not part.rows:
            return cls(options.bits, plain)
        halves, turned = Halves.of(centroids), draw_signs(part.dim, SIGNS_SEED)
        grouping = Grouping.of(halves, one_group(len(centroids)), chosen)
        losses = [_loss(part, grouping, signs, options.bits) for signs in (plain, turned)]
        return cls(options.bits, frozen(turned) if losses[1] < WORTH * losses[0] else plain)

    @property
    def name(self) -> str:
        """Of the quantiser, as it is stored."""
        return f"rabitq-lists-{self.bits}-v1"

    @property
    def usual(self) -> Probing:
        """Where nothing was measured: on the safe side."""
        return usual_probing(self.bits)

    @property
    def rows(self) -> int:
        """Rows that there were when it was learned: that does not matter."""
        return 0

    @property
    def dim_bits(self) -> int:
        """Bits that a scan reads a dimension."""
        return self.bits

    def serves(self, rows: int) -> bool:
        """Whether it need not be learned again for so many rows: it is learned in no time."""
        return False

    def encode(self, matrix: Matrix, grouping: Grouping, threads: int, progress: Progress | None) -> Codes:
        centroids = grouping.centroids.values()
        turned = np.array(centroids)
        rotate_rows(turned, self.signs)

        def write(first: int, last: int, codes: Written) -> None:
            encode_lists(
                self.bits, *kernel_inputs(matrix), centroids, frozen(turned), self.signs, grouping.starts,
                grouping.sizes, grouping.slots, first, last, *codes,
            )  # fmt: skip

        return write_codes(matrix, grouping, self.stride(matrix.dim), write, threads, progress)

    def stride(self, dim: int) -> int:
        """Bytes of a block."""
        return block_bytes(self.bits, dim)

    def inputs(self) -> tuple[int, AnyArray, AnyArray, AnyArray, AnyArray]:
        """(code, signs, turn, bounds, books) as search_lists takes them."""
        return self.bits, self.signs, no_signs(self.signs.shape[1]), NO_ROWS, NO_BOOKS

    def arrays(self) -> dict[str, AnyArray]:
        return {"signs": self.signs} if self.signs.size else {}

    @classmethod
    def read(cls, options: IVF, arrays: Mapping[str, AnyArray], dim: int, rows: int) -> Self:
        """What was stored; ValueError says what does not fit. No rotation is stored as no array."""
        signs = expect(arrays, "signs", np.float32, (ROUNDS, dim)) if "signs" in arrays else no_signs(dim)
        return cls(options.bits, signs)


def usual_probing(bits: int) -> Probing:
    """For codes of so many bits a dimension, where nothing was measured."""
    near, deep = POOLS[bits]
    return Probing({NEAR: near, DEEP: deep}, math.inf, {})


def no_signs(dim: int) -> F32:
    """The rotation that changes nothing."""
    return frozen(np.empty((0, dim), np.float32))


def _loss(part: Matrix, grouping: Grouping, signs: F32, bits: int) -> float:
    """The mean share of a residual that its code does not hold."""
    losses = np.zeros(len(grouping.slots), np.float32)
    code_losses(
        bits, *kernel_inputs(part), grouping.centroids.values(), frozen(signs), grouping.starts, grouping.sizes,
        grouping.slots, losses,
    )  # fmt: skip
    return float(losses[grouping.filled()].mean(dtype=np.float64))
