"""A collection with an IVFPQ index: built at sealing, searched with filters, opened again, changed."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from tests import oracles

ROWS, DIM = 5000, 20


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "db"
    vectors = oracles.clustered(ROWS, DIM, seed=9)
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.create_collection("docs", dim=DIM, metric="l2", index=vecdb.IVFPQ(nlist=20, bits=8, rotation=True))
        docs.upsert(list(range(ROWS)), vectors, [{"odd": bool(row % 2)} for row in range(ROWS)])
        db.optimize()
    return path, vectors


def test_it_answers_after_opening_again(stored):
    path, vectors = stored
    with vecdb.open(path, mode="r") as db:
        docs = db.get_collection("docs")
        queries = vectors[::500] + np.float32(0.01)
        exact = oracles.nearest(oracles.L2, vectors, queries, 10)[1]
        found = np.stack([hits.distances for hits in docs.search(queries, k=10, recall=0.99)])
        assert oracles.recall(found, exact) >= 0.95
        odd = docs.search(queries[0], k=10, where={"odd": True}, recall=0.95)
        assert len(odd) == 10
        assert all(hit.id % 2 for hit in odd)


def test_options_are_kept(stored):
    path, _ = stored
    with vecdb.open(path, mode="r") as db:
        field = next(iter(db.get_collection("docs").info()["fields"].values()))
        assert "ivfpq" in str(field)
