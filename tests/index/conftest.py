"""Every index kind, over generated data with duplicates and zero vectors."""

from __future__ import annotations

import pytest

from vecdb.index.base import KINDS, load_kind
from vecdb.options import KINDS as OPTIONS
from vecdb.types import Metric


class Kind:
    """One kind with its default options."""

    def __init__(self, name: str) -> None:
        self.name, self.options, self.type = name, OPTIONS[name](), load_kind(name)

    def build(self, matrix, **arguments):
        return self.type.build(matrix, self.options, **arguments)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


@pytest.fixture(params=list(Metric), ids=lambda metric: metric.name.lower())
def metric(request: pytest.FixtureRequest) -> Metric:
    return request.param
