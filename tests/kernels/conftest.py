"""Arrays as kernels take them: read-only."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from vecdb.types import Matrix, Metric

DIMS = (1, 3, 31, 64, 100, 384)
ROWS = (0, 1, 31, 33, 1000)


def frozen(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def matrix_of(vectors: np.ndarray, metric: Metric) -> Matrix:
    norms = frozen(oracles.inverse_norms(vectors)) if metric == Metric.COSINE else None
    return Matrix(frozen(vectors), norms, metric)


@pytest.fixture(params=list(Metric), ids=lambda metric: metric.name.lower())
def metric(request: pytest.FixtureRequest) -> Metric:
    return request.param
