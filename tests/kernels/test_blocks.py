"""Block codes: the layout, the products, the masks, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import DIMS, frozen, matrix_of
from vecdb.index.base import kernel_inputs
from vecdb.kernels import blocks, quantize, scan
from vecdb.kernels.intrinsics import lowest_bit, row_dot
from vecdb.kernels.jit import kernel


@kernel
def block_products(bits, codes, query, groups, out):
    for block in range(codes.shape[0]):
        blocks.dot_block(bits, codes, block * codes.shape[1], query, groups, out[block], 0)


@kernel
def block_scores(dots, add, scale, first, numbers, estimates):
    return blocks.score_block(
        dots,
        np.intp(0),
        add,
        scale,
        np.intp(first),
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4],
        estimates,
    )


@kernel
def row_products(codes, query, lines, out):
    for row in range(codes.shape[0]):
        out[row] = row_dot(codes, np.intp(row), query, np.intp(lines))


@kernel
def first_bit(word):
    return lowest_bit(word)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("dim", DIMS)
def test_products_of_a_block(bits, dim):
    rng = np.random.default_rng(dim)
    levels = rng.integers(0, 1 << bits, (70, dim)).astype(np.uint8)
    query = rng.integers(-127, 128, dim).astype(np.int8)
    codes = oracles.pack_blocks(levels, bits)
    assert codes.shape == (3, quantize.block_bytes(bits, dim))
    padded = np.zeros(codes.shape[1] // 128 * (32 // bits), np.int8)
    padded[:dim] = query
    out = np.empty((3, 32), np.int32)
    block_products(bits, frozen(codes), padded, codes.shape[1] // 128, out)
    np.testing.assert_array_equal(out.reshape(-1)[:70], oracles.block_dots(levels, query))


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 6, 7, 12, 16, 17, 24, 40])
def test_products_of_rows(lines):
    rng = np.random.default_rng(lines)
    codes = rng.integers(0, 256, (20, 64 * lines)).astype(np.uint8)
    query = rng.integers(-127, 128, 64 * lines).astype(np.int8)
    out = np.empty(20, np.int32)
    row_products(frozen(codes), query, lines, out)
    np.testing.assert_array_equal(out, oracles.block_dots(codes, query))


@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_scores_and_mask(stored):
    rng = np.random.default_rng(1)
    dots = rng.integers(-1000, 1000, 32).astype(np.int32)
    add, scale = rng.standard_normal((2, 64)).astype(stored)
    add[40:42], scale[40] = 0.0, 6e-8  # a float16 below the normal ones
    numbers = np.array([12.5, 0.03, -1.0, 2.0, 0.5], np.float32)  # offset, query scale, base, add unit, threshold
    estimates = np.empty(32, np.float32)
    kept = [frozen(array.view(np.uint16) if stored is np.float16 else array) for array in (add, scale)]
    mask = int(block_scores(dots, *kept, 32, numbers, estimates))
    add, scale = add.astype(np.float32), scale.astype(np.float32)
    wanted = -1.0 + 2 * add[32:] + np.float32(0.03) * (dots + np.float32(12.5)) * scale[32:]
    np.testing.assert_allclose(estimates, wanted, rtol=1e-4, atol=1e-5)
    assert [bool(mask >> lane & 1) for lane in range(32)] == (estimates < np.float32(0.5)).tolist()


def test_lowest_bit():
    for bit in range(64):
        assert first_bit(np.uint64((1 << bit) | (1 << 63))) == bit


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 64, 100])
def test_rows_of_a_block_that_exist_and_are_allowed(rows):
    allowed = np.random.default_rng(rows).random(rows) < 0.5
    bits = np.zeros(-(-rows // 64), np.uint64)
    for row in np.flatnonzero(allowed):
        bits[row // 64] |= np.uint64(1 << int(row % 64))
    for block in range(-(-rows // 32)):
        here = range(32 * block, 32 * block + 32)
        open_mask = int(scan.allowed_rows(frozen(np.empty(0, np.uint64)), block, rows))
        mask = int(scan.allowed_rows(frozen(bits), block, rows))
        assert [bool(open_mask >> i & 1) for i in range(32)] == [row < rows for row in here]
        assert [bool(mask >> i & 1) for i in range(32)] == [row < rows and bool(allowed[row]) for row in here]


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("dim", [1, 3, 31, 100])
def test_codes_estimate_the_distances(metric, bits, dim):
    """Levels, factors and layout together: the estimate must be close to what it estimates."""
    vectors = oracles.clustered(200, dim)
    matrix = matrix_of(vectors, metric)
    centre = frozen(quantize.centre_of(metric, matrix.vectors, matrix.inverse_norms))
    codes = np.zeros((7, quantize.block_bytes(bits, dim)), np.uint8)
    add, scale = np.zeros(224, np.float32), np.zeros(224, np.float32)
    inputs = kernel_inputs(matrix)
    quantize.encode_blocks(bits, *inputs, centre, 0, 150, codes, add, scale)
    quantize.encode_blocks(bits, *inputs, centre, 150, 200, codes, add, scale)  # the same in two parts
    whole = codes.copy()
    whole[...] = 0
    quantize.encode_blocks(bits, *inputs, centre, 0, 200, whole, add, scale)
    np.testing.assert_array_equal(codes, whole)
    query = vectors[150].astype(np.float64)
    unit = vectors.astype(np.float64)
    if metric == oracles.COSINE:
        unit = unit * matrix.inverse_norms[:, None]
        query = query * matrix.inverse_norms[150]
    levels = _unpack(whole, bits, dim)[:200] - ((1 << bits) - 1) / 2
    inner = (levels @ (query - centre)) * scale[:200] + add[:200]
    true = -(unit @ query) if metric != oracles.L2 else ((unit - query) ** 2).sum(1)
    base = -(query @ centre) if metric != oracles.L2 else ((query - centre) ** 2).sum()
    error = np.abs(base + inner - true)
    spread = np.linalg.norm(unit - centre, axis=1) * np.linalg.norm(query - centre) * (2 if metric == oracles.L2 else 1)
    assert (error <= (0.1 if bits == 8 else 0.9) * spread + 1e-4).all()


def _unpack(codes, bits, dim):
    slots = 8 // bits
    parts = codes.reshape(len(codes), -1, 32, 4)
    levels = np.stack([(parts >> (slot * bits)) & ((1 << bits) - 1) for slot in range(slots)], 2)
    return levels.transpose(0, 3, 1, 2, 4).reshape(len(codes) * 32, -1)[:, :dim].astype(np.float64)


def test_one_scale_codes_order_rows_like_their_distances(metric):
    vectors = oracles.clustered(300, 48)
    matrix = matrix_of(vectors, metric)
    centre = quantize.centre_of(metric, matrix.vectors, matrix.inverse_norms)
    scale = quantize.scale_of(metric, matrix.vectors, matrix.inverse_norms, centre)
    codes = np.zeros((300, 64), np.uint8)
    bias, offsets = np.zeros(300, np.int32), np.zeros(300, np.int32)
    quantize.encode_rows(*kernel_inputs(matrix), frozen(centre), np.float32(scale), 0, 300, codes, bias, offsets)
    levels = codes.astype(np.int64) - 128
    np.testing.assert_array_equal(offsets, 128 * levels.sum(1))
    assert (codes[:, 48:] == 128).all()
    query = levels[17]
    got = bias - levels @ query
    wanted = oracles.distances(metric, vectors, vectors[17]).astype(np.float64)
    best = np.argsort(wanted)[:20]
    assert len(set(np.argsort(got, kind="stable")[:40]) & set(best)) >= 19


def test_values_are_clipped_to_seven_bits():
    values = np.array([-10, -1, -0.4, 0, 0.6, 1, 1e30], np.float32)
    out = np.empty(7, np.int8)
    total = quantize.quantise_with(np.float32(1 / 64), values, 7, out)
    assert out.tolist() == [-127, -64, -26, 0, 38, 64, 127]
    assert total == sum(out.tolist())
