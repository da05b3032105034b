"""Codebooks of residuals: better than no codes, repeatable, and sound on data that has nothing to learn."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.index.clusters import assign, train
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index import codebooks, samples
from vecdb.kernels.product import decode_rows
from vecdb.types import Metric


def trained(vectors, metric, bits, m, lists=5, **more):
    matrix = matrix_of(vectors, metric)
    centroids = train(matrix, lists)
    assigned = assign(matrix, centroids)
    rest = samples.load(matrix, np.arange(len(vectors), dtype=np.int32)) - centroids[assigned]
    return codebooks.train(matrix, centroids, assigned, bits, m, **more), rest


def loss(books, rest):
    """The share of the residuals' squared length that the codes do not hold."""
    turned = rest @ books.turn if len(books.turn) else rest
    out = np.empty_like(turned)
    decode_rows(frozen(turned), books.bounds, books.books, out)
    return ((turned - out) ** 2).sum() / (rest**2).sum()


@pytest.mark.parametrize("bits", [4, 8])
def test_two_bits_a_dimension_hold_most_of_a_residual(metric, bits):
    vectors = oracles.clustered(3000, 24)
    books, rest = trained(vectors, metric, bits, codebooks.sub_quantisers(bits, 24))
    assert books.books.shape == (24, codebooks.ENTRIES[bits])
    assert loss(books, rest) < 0.15


@pytest.mark.parametrize("dim", [1, 5, 16, 31])
@pytest.mark.parametrize("wanted", [0, 1, 3, 100])
def test_any_number_of_sub_quantisers(dim, wanted):
    m = codebooks.sub_quantisers(4, dim, wanted)
    bounds = codebooks.bounds_of(dim, m)
    widths = np.diff(bounds)
    assert 1 <= m <= dim
    assert (bounds[0], bounds[-1]) == (0, dim)
    assert widths.min() >= 1
    assert widths.max() - widths.min() <= 1


def test_a_learned_rotation_holds_more_of_unlike_dimensions():
    """Correlated dimensions of unlike variance: the rotation spreads them over the sub-quantisers."""
    rng = np.random.default_rng(0)
    mixed = np.linalg.qr(rng.standard_normal((24, 24)))[0] * np.geomspace(1, 0.01, 24)[:, None]
    vectors = (rng.standard_normal((4000, 24)) @ mixed).astype(np.float32)
    plain, rest = trained(vectors, Metric.L2, 4, 6)
    turned, _ = trained(vectors, Metric.L2, 4, 6, rotation=True)
    np.testing.assert_allclose(turned.turn @ turned.turn.T, np.eye(24), atol=1e-4)
    assert loss(turned, rest) < 0.7 * loss(plain, rest)


@pytest.mark.parametrize("rotation", [False, True])
def test_one_seed_gives_one_result_whatever_the_threads(rotation):
    vectors = oracles.clustered(1000, 12)
    first, _ = trained(vectors, Metric.L2, 4, 6, rotation=rotation, seed=3)
    second, _ = trained(vectors, Metric.L2, 4, 6, rotation=rotation, seed=3, threads=3)
    np.testing.assert_array_equal(first.books, second.books)
    np.testing.assert_array_equal(first.turn, second.turn)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("rotation", [False, True])
def test_few_rows(rows, rotation):
    vectors = oracles.clustered(rows, 10)
    books, rest = trained(vectors, Metric.COSINE, 4, 5, lists=2, rotation=rotation)
    assert np.isfinite(books.books).all()
    assert np.isfinite(books.turn).all()
    assert not rows or (rest == 0).all() or loss(books, rest) < 1e-3


@pytest.mark.parametrize("rotation", [False, True])
def test_equal_rows(rotation):
    vectors = np.full((200, 10), 0.5, np.float32)
    books, _ = trained(vectors, Metric.L2, 8, 3, rotation=rotation)
    assert (books.books == 0).all()
    assert np.isfinite(books.turn).all()


class Stop(Exception):
    pass


def test_progress_is_told_and_may_stop():
    vectors = oracles.clustered(1000, 16)
    calls = []
    trained(vectors, Metric.L2, 8, 4, rotation=True, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1]
    assert len(calls) > codebooks.ROTATIONS

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        trained(vectors, Metric.L2, 4, 4, threads=2, progress=stop)
