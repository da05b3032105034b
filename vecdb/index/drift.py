"""Whether lists that were trained on other rows still fit: measured against what they were when they were trained."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from vecdb.index.base import frozen
from vecdb.index.clustering import objective
from vecdb.types import F32, I32, Matrix

SAMPLE_ROWS = 8192
ERROR_MAX = 1.15  # mean squared distance of rows to their centroids, over that of training, from which lists drifted
LARGEST_MAX = 4.0  # rows of the largest list over the mean
LARGER_MAX = 1.5  # ... and over the largest at training
LISTS_OFF = 2.0  # times as many lists, or as few, as there should be


@dataclass(frozen=True, slots=True)
class Fit:
    """How lists fit rows. error: mean squared distance to the centroid; largest: list, over the mean list."""

    error: float
    largest: float

    @classmethod
    def of(cls, matrix: Matrix, centroids: F32, assigned: I32) -> Self:
        if not matrix.rows:
            return cls(0.0, 0.0)
        sizes = np.bincount(assigned, minlength=len(centroids))
        part, chosen = sample(matrix, assigned)
        return cls(objective(part, centroids, chosen), float(sizes.max() / sizes.mean()))

    @property
    def reach(self) -> float:
        """The usual distance of a row to its centroid."""
        return math.sqrt(self.error)

    def drifted(self, trained: Fit, lists: int, wanted: int) -> str:
        """Why lists that fitted like `trained` have to be trained again now; empty if they need not."""
        if self.error > ERROR_MAX * trained.error:
            return f"rows are {self.error / max(trained.error, 1e-30):.2f} times as far from their centroids"
        if self.largest > max(LARGEST_MAX, LARGER_MAX * trained.largest):
            return f"the largest list is {self.largest:.1f} times the mean"
        if not 1 / LISTS_OFF <= lists / wanted <= LISTS_OFF:
            return f"{lists} lists where {wanted} should be"
        return ""

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def read(cls, stored: Any) -> Self:
        """What `to_dict` made; ValueError for anything else."""
        if not isinstance(stored, dict) or set(stored) != {"error", "largest"}:
            raise ValueError("the fit at training is missing")
        error, largest = float(stored["error"]), float(stored["largest"])
        if not (0.0 <= error < math.inf and 0.0 <= largest < math.inf):
            raise ValueError("the fit at training is not a number")
        return cls(error, largest)


def sample(matrix: Matrix, assigned: I32, rows: int = SAMPLE_ROWS) -> tuple[Matrix, I32]:
    """Evenly spaced rows, with their lists."""
    spaced = np.unique(np.linspace(0, max(0, matrix.rows - 1), min(rows, matrix.rows)).astype(np.int64))
    norms = None if matrix.inverse_norms is None else frozen(matrix.inverse_norms[spaced])
    return Matrix(frozen(matrix.vectors[spaced]), norms, matrix.metric), assigned[spaced]
