"""The codes of IVFPQ: words of codebooks that were learned on the residuals of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from vecdb.index import codebooks
from vecdb.index.base import expect, frozen, kernel_inputs
from vecdb.index.codebooks import EACH, ENTRIES, Codebooks, bounds_of, sub_quantisers
from vecdb.index.levels import no_signs, usual_probing
from vecdb.index.lists import Codes, Grouping, Written, write_codes
from vecdb.index.probing import Probing
from vecdb.kernels.product import PRODUCT, encode_product, product_bytes
from vecdb.options import IVFPQ
from vecdb.types import F32, I32, AnyArray, Matrix, Progress


@dataclass(frozen=True, slots=True)
class Products:
    """bits of a code;  dim of the rows;  rows it was learned from, of those that there were."""

    bits: int
    dim: int
    rows: int
    learned: Codebooks

    @classmethod
    def learn(
        cls,
        matrix: Matrix,
        centroids: F32,
        assigned: I32,
        options: IVFPQ,
        *,
        seed: int = 0,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Self:
        m = sub_quantisers(options.bits, matrix.dim, options.m)
        learned = codebooks.train(
            matrix, centroids, assigned, options.bits, m, rotation=options.rotation, seed=seed, threads=threads,
            progress=progress,
        )  # fmt: skip
        return cls(options.bits, matrix.dim, matrix.rows, learned)

    @property
    def name(self) -> str:
        """Of the quantiser, as it is stored."""
        return f"product-lists-{self.bits}-v1"

    @property
    def dim_bits(self) -> int:
        """Bits that a scan reads a dimension."""
        return max(1, round(self.bits * self.learned.m / self.dim))

    @property
    def usual(self) -> Probing:
        """Where nothing was measured: on the safe side."""
        return usual_probing(self.dim_bits if self.dim_bits <= 2 else 4)

    def serves(self, rows: int) -> bool:
        """Whether it need not be learned again for so many rows: it saw a whole sample, or half of them."""
        return self.rows >= min(rows / 2, ENTRIES[self.bits] * EACH[self.bits]) and self.rows > 0

    def encode(self, matrix: Matrix, grouping: Grouping, threads: int, progress: Progress | None) -> Codes:
        bounds, books, turn = self.learned.bounds, self.learned.books, self.learned.turn
        centroids = grouping.centroids.values()
        turned = centroids @ turn if len(turn) else centroids

        def write(first: int, last: int, codes: Written) -> None:
            encode_product(
                self.bits, *kernel_inputs(matrix), centroids, frozen(turned), turn, bounds, books,
                grouping.starts, grouping.sizes, grouping.slots, first, last, *codes,
            )  # fmt: skip

        return write_codes(matrix, grouping, self.stride(matrix.dim), write, threads, progress)

    def stride(self, dim: int) -> int:
        """Bytes of a block."""
        return product_bytes(self.bits, self.learned.m)

    def inputs(self) -> tuple[int, AnyArray, AnyArray, AnyArray, AnyArray]:
        """(code, signs, turn, bounds, books) as search_lists takes them; lists are ranked as they are."""
        learned = self.learned
        return PRODUCT + self.bits, no_signs(self.dim), learned.turn, learned.bounds, learned.books

    def arrays(self) -> dict[str, AnyArray]:
        """The bounds follow from the shape and the options."""
        stored: dict[str, AnyArray] = {"books": self.learned.books}
        return {**stored, "turn": self.learned.turn} if len(self.learned.turn) else stored

    @classmethod
    def read(cls, options: IVFPQ, arrays: Mapping[str, AnyArray], dim: int, rows: int) -> Self:
        """What was stored; ValueError says what does not fit. No rotation is stored as no array."""
        books = expect(arrays, "books", np.float32, (dim, ENTRIES[options.bits]))
        turn = expect(arrays, "turn", np.float32, (dim, dim)) if "turn" in arrays else no_signs(dim)
        bounds = bounds_of(dim, sub_quantisers(options.bits, dim, options.m))
        return cls(options.bits, dim, rows, Codebooks(frozen(bounds), books, turn))
