"""Records of rows: the estimates agree with a plain calculation from the levels, and come near the distances."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracles
from tests.kernels.conftest import frozen, matrix_of
from vecdb.index.base import kernel_inputs
from vecdb.kernels import quantize, row_codes
from vecdb.types import Metric

BITS = (2, 4, 8)


def encode(bits, matrix, centre):
    rows, dim = matrix.rows, matrix.dim
    records = np.zeros((rows + 2, row_codes.record_bytes(bits, dim)), np.uint8)
    records[[0, -1]] = 77
    inner = records[1:-1]
    row_codes.encode_records(bits, *kernel_inputs(matrix), frozen(centre), 0, rows, inner, inner.view(np.float32))
    assert (records[[0, -1]] == 77).all()
    return frozen(inner), frozen(inner.view(np.float32))


def unpack(bits, records, dim):
    """int (rows, dim): the levels, read by the layout that the module describes."""
    slots, lines = 8 // bits, -(-dim // (64 * (8 // bits)))
    tail = (lines - 1) * 64 * slots
    width = -(-(dim - tail) // slots)
    levels = np.zeros((len(records), dim), int)
    for j in range(dim):
        if j < tail:
            line, slot, byte = j // (64 * slots), j // 64 % slots, j % 64
        else:
            line, slot, byte = lines - 1, (j - tail) // width, (j - tail) % width
        levels[:, j] = records[:, line * 64 + byte] >> (bits * slot) & ((1 << bits) - 1)
    return levels


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", [1, 2, 31, 64, 100, 128, 224, 256, 257, 384, 500, 768, 2000])
def test_estimates_are_those_of_the_levels(bits, dim):
    matrix = matrix_of(oracles.clustered(40, dim, seed=dim), Metric.L2)
    centre = quantize.centre_of(int(Metric.L2), matrix.vectors, None)
    records, factors = encode(bits, matrix, centre)
    moved = matrix.vectors[7] * np.float32(0.9) - centre
    query = np.zeros(row_codes.query_bytes(bits, dim), np.int8)
    whole = np.empty(dim, np.int8)
    unit, shift = row_codes.encode_query(bits, moved, whole, query)
    levels = unpack(bits, records, dim) - ((1 << bits) - 1) / 2
    rest = matrix.vectors.astype(float) - centre
    factor = (rest**2).sum(1) / np.maximum((rest * levels).sum(1), 1e-30)
    wanted = (rest**2).sum(1) - 2 * factor * (levels @ (whole.astype(float) * unit))
    got = np.empty(40, np.float32)
    row_codes.estimate_records(bits, records, factors, query, unit, shift, got)
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(("bits", "lost"), [(2, 0.1188), (4, 0.0115), (8, 0.0003)])
def test_estimates_err_as_the_theory_says(bits, lost, metric):
    """RaBitQ: with a share `lost` of the energy lost, the product errs by |q||r| sqrt(lost / (1 - lost) / dim)."""
    matrix = matrix_of(oracles.clustered(500, 384), metric)
    centre = quantize.centre_of(int(metric), matrix.vectors, matrix.inverse_norms)
    records, factors = encode(bits, matrix, centre)
    queries = frozen(oracles.clustered(5, 384, seed=3))
    units = np.ones(500) if matrix.inverse_norms is None else matrix.inverse_norms
    lengths = np.linalg.norm(matrix.vectors * units[:, None] - centre, axis=1)
    moved, whole = np.empty(384, np.float32), np.empty(384, np.int8)
    query = np.zeros(row_codes.query_bytes(bits, 384), np.int8)
    for i in range(5):
        quantize.centre_query(int(metric), queries, i, frozen(centre), moved)
        unit, shift = row_codes.encode_query(bits, moved, whole, query)
        got = np.empty(500, np.float32)
        row_codes.estimate_records(bits, records, factors, query, unit, shift, got)
        off = got - oracles.distances(metric, matrix.vectors, queries[i])
        expected = np.linalg.norm(moved) * lengths.mean() * np.sqrt(lost / (1 - lost) / 384)
        assert off.std() < (2.6 if metric == Metric.L2 else 1.3) * expected


@pytest.mark.parametrize("bits", BITS)
def test_records_are_whole_cache_lines(bits):
    for dim in range(1, 2100, 7):
        size = row_codes.record_bytes(bits, dim)
        assert size % 64 == 0
        assert dim * bits / 8 + 8 <= size < dim * bits / 8 + 8 + 65
        assert row_codes.code_lines(bits, dim) * 64 <= size
