"""Centroids in one group, as few of them are."""

from __future__ import annotations

from typing import Any

from vecdb.index import two_levels
from vecdb.index.grouped import one_group
from vecdb.types import F32, I32, Matrix


def train(matrix: Matrix, count: int, **options: Any) -> F32:
    return two_levels.train(matrix, count, **options)[0]


def assign(matrix: Matrix, centroids: F32, **options: Any) -> I32:
    return two_levels.assign(matrix, centroids, one_group(len(centroids)), **options)
