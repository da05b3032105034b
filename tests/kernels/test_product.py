"""Product quantisation: lookups, words, codes, tables and factors, against plain NumPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.base import kernel_inputs
from vecdb.kernels import lookups, product, words
from vecdb.kernels.jit import kernel
from vecdb.types import Metric

ENTRIES = {4: 16, 8: 256}


@kernel
def look(bits, codes, tables, groups, out):
    for block in range(codes.shape[0]):
        lookups.look_block(bits, codes, block * codes.shape[1], tables, groups, out[block])


@kernel
def plain_look(bits, codes, tables, groups, out):
    for block in range(codes.shape[0]):
        if bits == 4:
            lookups.plain_look_4(codes, block * codes.shape[1], tables, groups, out[block])
        else:
            lookups.plain_look_8(codes, block * codes.shape[1], tables, groups, out[block])


@kernel
def generic_look(bits, codes, tables, groups, out):
    for block in range(codes.shape[0]):
        lookups.generic_look_4(codes, np.intp(block * codes.shape[1]), tables, np.intp(groups), out[block])


@kernel
def word_of(rest, first, last, books, distance):
    return words.nearest_word(rest, np.intp(first), np.intp(last), books, distance)


@kernel
def tables_of(bits, query, bounds, books, values, tables):
    return product.fill_tables(bits, query, bounds, books, values, tables)


def unpack(blocks, bits):
    """uint8 (32 * blocks, sub-quantisers), those that fill the last group included."""
    parts = blocks.reshape(len(blocks), -1, 32)
    if bits == 4:
        parts = np.stack([parts & 15, parts >> 4], 2).reshape(len(blocks), -1, 32)
    return parts.transpose(0, 2, 1).reshape(len(blocks) * 32, -1)


def laid_out(entries, bits):
    """The tables of uint8 (m, entries) as they are looked up."""
    tables = np.zeros(product.table_bytes(bits, product.product_bytes(bits, len(entries))), np.uint8)
    for at, table in enumerate(entries):
        if bits == 8:
            tables[256 * at : 256 * at + 256] = table
        else:
            start = lookups.place_4(at)
            tables[start : start + 16] = tables[start + 16 : start + 32] = table
    return tables.view(np.int8)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("m", [1, 3, 8, 33, 192])
def test_sums_of_entries(bits, m):
    """The processor's own way, the plain one and that for any processor; the largest entries are among them."""
    rng = np.random.default_rng(m)
    blocks = rng.integers(0, 256, (3, product.product_bytes(bits, m))).astype(np.uint8)
    entries = rng.integers(0, 128 if bits == 4 else 256, (m, ENTRIES[bits])).astype(np.uint8)
    entries[:, :3] = entries.max()
    codes = unpack(blocks, bits)[:, :m]
    wanted = entries[np.arange(m), codes].astype(np.int64).sum(1)
    for run in (look, plain_look, generic_look)[: 3 if bits == 4 else 2]:
        out = np.full((3, 32), -1, np.int32)
        run(bits, frozen(blocks), laid_out(entries, bits), blocks.shape[1] // 128, out)
        np.testing.assert_array_equal(out.reshape(-1), wanted)


@pytest.mark.parametrize("bits", [4, 8])
def test_sums_up_to_sixteen_bits(bits):
    """More sub-quantisers than would fit if all entries could be the largest."""
    m = 520
    top = 126 if bits == 4 else 125
    blocks = np.full((1, product.product_bytes(bits, m)), 0xFF, np.uint8)
    out = np.empty((1, 32), np.int32)
    tables = laid_out(np.full((m, ENTRIES[bits]), top, np.uint8), bits)
    look(bits, frozen(blocks), tables, blocks.shape[1] // 128, out)
    assert (out == m * top).all()


@pytest.mark.parametrize("entries", [16, 256])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_nearest_word(entries, width):
    rng = np.random.default_rng(width)
    books = rng.standard_normal((10, entries)).astype(np.float32)
    books[:, entries // 2] = books[:, 3]  # the first of equal words
    distance = np.empty(1, np.float32)
    for _ in range(50):
        rest = rng.standard_normal(10).astype(np.float32)
        rest[4 : 4 + width] = books[4 : 4 + width, 3] if rng.random() < 0.3 else rest[4 : 4 + width]
        scores = ((rest[4 : 4 + width, None] - books[4 : 4 + width]) ** 2).sum(0)
        assert word_of(rest, 4, 4 + width, frozen(books), distance) == scores.argmin()
        assert distance[0] == pytest.approx(scores.min(), rel=1e-5, abs=1e-7)


def test_a_word_where_all_distances_overflow():
    rest, books = np.full(4, 3e38, np.float32), np.full((4, 16), -3e38, np.float32)
    assert word_of(rest, 0, 4, frozen(books), np.empty(1, np.float32)) == 0


@pytest.mark.parametrize("bits", [4, 8])
def test_books_are_as_good_as_plain_k_means(bits):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, 6)).astype(np.float32)
    bounds = np.array([0, 1, 3, 6], np.int32)
    books = np.full((6, ENTRIES[bits]), np.nan, np.float32)
    order = rng.permutation(3000)
    for first, last in ((0, 2), (2, 3)):
        product.train_books(frozen(rows), frozen(bounds), first, last, frozen(order), False, 10, books)
    out = np.empty_like(rows)
    product.decode_rows(frozen(rows), frozen(bounds), frozen(books), out)
    for begin, end in ((0, 1), (1, 3), (3, 6)):
        words = rows[order[: ENTRIES[bits]], begin:end].copy()
        for _ in range(11):
            exact = ((rows[:, None, begin:end] - words[None]) ** 2).sum(2)
            nearest = exact.argmin(1)
            for word in np.unique(nearest):
                words[word] = rows[nearest == word, begin:end].mean(0)
        reached = ((rows - out)[:, begin:end] ** 2).sum(1).mean()
        assert reached <= 1.05 * exact.min(1).mean()


@pytest.mark.parametrize("distinct", [1, 5])
def test_books_of_fewer_rows_than_words(distinct):
    rows = np.random.default_rng(1).standard_normal((distinct, 4)).astype(np.float32)
    rows = np.concatenate([rows, rows, rows])
    bounds, books = np.array([0, 2, 4], np.int32), np.zeros((4, 16), np.float32)
    product.train_books(frozen(rows), frozen(bounds), 0, 2, frozen(np.arange(len(rows))), False, 5, books)
    out = np.empty_like(rows)
    product.decode_rows(frozen(rows), frozen(bounds), frozen(books), out)
    np.testing.assert_allclose(out, rows, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dim", [1, 9, 40])
def test_tables_are_the_products_with_the_words(bits, dim):
    rng = np.random.default_rng(dim)
    m = max(1, dim // 3)
    bounds = (np.arange(m + 1) * dim // m).astype(np.int32)
    books, query = rng.standard_normal((dim, ENTRIES[bits])).astype(np.float32), rng.standard_normal(dim)
    query = query.astype(np.float32)
    stride = product.product_bytes(bits, m)
    tables = np.zeros(product.table_bytes(bits, stride), np.int8)
    values = np.empty((m, ENTRIES[bits]), np.float32)
    unit, offset = tables_of(bits, frozen(query), frozen(bounds), frozen(books), values, tables)
    blocks = rng.integers(0, 256, (2, stride)).astype(np.uint8)
    out = np.empty((2, 32), np.int32)
    look(bits, frozen(blocks), tables, stride // 128, out)
    codes = unpack(blocks, bits)[:, :m]
    products = np.stack([query[begin:end] @ books[begin:end] for begin, end in pairwise(bounds)])
    wanted = products[np.arange(m), codes].sum(1)
    np.testing.assert_allclose(unit * (out.reshape(-1) + offset), wanted, atol=unit * m / 2 + 1e-5)
    assert (products.max(1) - products.min(1)).max() / unit <= (127.01 if bits == 4 else 255.01)


@pytest.mark.parametrize("query", [0.0, 3e38])
def test_tables_of_queries_without_a_scale(query):
    books = frozen(np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32))
    bounds, values = np.arange(0, 9, 2, dtype=np.int32), np.empty((4, 16), np.float32)
    tables = np.ones(product.table_bytes(4, 128), np.int8)
    unit, offset = tables_of(4, np.full(8, query, np.float32), frozen(bounds), books, values, tables)
    assert np.isfinite([unit, offset]).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("turned", [False, True])
def test_codes_estimate_the_distances(metric, bits, turned):
    """Words, factors and layout together: the estimate must be close to what it estimates."""
    rng = np.random.default_rng(2)
    vectors = oracles.clustered(150, 24)
    matrix = matrix_of(vectors, metric)
    rows = vectors.astype(np.float64)
    query = rng.standard_normal(24)
    if metric == Metric.COSINE:
        rows *= matrix.inverse_norms[:, None]
        query /= np.linalg.norm(query)
    centroids = rows[[1, 2]].astype(np.float32)
    assigned = rng.integers(0, 2, 150)
    lists = [np.flatnonzero(assigned == at) for at in range(2)]
    starts = np.cumsum([0, *(-(-len(part) // 32) for part in lists)]).astype(np.int32)
    slots = np.zeros(32 * starts[-1], np.int32)
    for at, part in enumerate(lists):
        slots[32 * starts[at] : 32 * starts[at] + len(part)] = part
    turn = (
        np.linalg.qr(rng.standard_normal((24, 24)))[0].astype(np.float32) if turned else np.empty((0, 24), np.float32)
    )
    rest = rows - centroids[assigned]
    bounds = np.arange(0, 25, 2, dtype=np.int32)
    books = np.zeros((24, ENTRIES[bits]), np.float32)
    coded = (rest @ turn if turned else rest).astype(np.float32)
    product.train_books(frozen(coded), frozen(bounds), 0, 12, frozen(rng.permutation(150)), False, 5, books)
    blocks = np.zeros((starts[-1], product.product_bytes(bits, 12)), np.uint8)
    add, scale, spreads = np.zeros(len(slots), np.float32), np.zeros(len(slots), np.float32), np.zeros(2, np.float32)
    sizes = frozen(np.array([len(part) for part in lists], np.int32))
    for first, last in ((0, 1), (1, 2)):
        product.encode_product(
            bits, *kernel_inputs(matrix), frozen(centroids), frozen(centroids @ turn if turned else centroids),
            frozen(turn), frozen(bounds), frozen(books), frozen(starts), sizes, frozen(slots), first, last, blocks,
            add, scale, spreads,
        )  # fmt: skip
    wanted = [(rest[part] ** 2).sum(1).mean() for part in lists]
    np.testing.assert_allclose(spreads, wanted, rtol=1e-4)
    at = np.concatenate([32 * starts[i] + np.arange(len(part)) for i, part in enumerate(lists)])
    codes, of = unpack(blocks, bits)[at, :12], slots[at]
    words = np.stack([books[:, codes[i]][np.arange(24), np.arange(24) // 2] for i in range(150)])
    asked = query @ turn if turned else query
    products = words @ asked
    centre = centroids[assigned[of]].astype(np.float64)
    base = -(centre @ query) if metric == Metric.DOT else ((query - centre) ** 2).sum(1)
    true = -(rows[of] @ query) if metric == Metric.DOT else ((rows[of] - query) ** 2).sum(1)
    error = np.abs(base + add[at] + scale[at] * products - true)
    if metric == Metric.COSINE:
        zero = (vectors[of] == 0).all(1)
        np.testing.assert_allclose((base + add[at] + scale[at] * products - true)[zero], 1.0, atol=0.5)
        error = error[~zero]
    else:
        zero = np.zeros(150, bool)
    away = query if metric == Metric.DOT else 2 * (query - centre)
    spread = np.linalg.norm(rest[of], axis=1) * np.linalg.norm(away, axis=-1)
    assert (error <= (0.05 if bits == 8 else 0.5) * spread[~zero] + 1e-3).all()
    assert error.mean() <= 0.15 * spread.mean()
