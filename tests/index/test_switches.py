"""The same answers without the JIT, with bounds checks, and without the processor's own dot product."""

from __future__ import annotations

import json

import pytest

from tests.kernels.test_jit import run
from vecdb.kernels.jit import HAS_VNNI

SEARCH = """
import json, sys
import numpy as np
sys.path.insert(0, ".")
from tests import oracles
from tests.kernels.conftest import matrix_of
from vecdb.index.base import load_kind
from vecdb.index.growing import GrowingFlat
from vecdb.kernels import bitset
from vecdb.options import HNSW, IVF, IVFPQ, Flat
from vecdb.types import Metric

# k-means sums floats in another order without the JIT: look at all rows
LISTS = (IVF(nlist=2, nprobe=2, rescore=400), IVFPQ(nlist=2, m=8, nprobe=2, rescore=400))
rows, dim = int(sys.argv[1]), int(sys.argv[2])
vectors = oracles.clustered(rows, dim, seed=11).astype(sys.argv[3])
queries = vectors[:5].astype(np.float32)  # four share products of blocks, and one has its own
allow = bitset.from_mask(np.arange(rows) % 3 > 0)
some = np.arange(0, rows, 5, dtype=np.int32)
out = []
for metric in Metric:
    matrix = matrix_of(vectors, metric)
    for options in (Flat(), Flat(bits=8), HNSW(m=4, ef_construction=12), *LISTS):
        index = load_kind(options.kind).build(matrix, options, seed=3)
        index.check()
        half = load_kind(options.kind).build(matrix_of(vectors[: rows // 2], metric), options)
        for one in (index, half.carried(matrix, np.arange(half.indexed_rows, dtype=np.int32))):
            for arguments in ({}, {"allow": allow}, {"rows": some}):
                found, distances = one.search(queries, 4, ef=20, **arguments)
                out.append([found.tolist(), distances.tolist()])
    growing = GrowingFlat(rows, dim, metric)
    growing.extend(matrix_of(vectors[: rows - 7], metric))
    out.append([array.tolist() for array in growing.search(matrix, queries, 4, allow=allow)])
print(json.dumps(out))
"""


def answers(rows: int, dim: int, dtype: str, **environment: str) -> list:
    return json.loads(run(SEARCH, str(rows), str(dim), dtype, **environment))


# Without VNNI the plain answers are those of AVX2 or less already: they would be compared with themselves.
WITH_VNNI = pytest.mark.skipif(not HAS_VNNI, reason="the plain answers come from no more than AVX2 on this processor")


@pytest.mark.parametrize(
    ("rows", "dtype", "switch"),
    [
        (60, "float32", {"NUMBA_DISABLE_JIT": "1"}),
        (30, "float16", {"NUMBA_DISABLE_JIT": "1"}),
        (400, "float32", {"NUMBA_BOUNDSCHECK": "1", "VECDB_SIMD": "generic"}),
        pytest.param(400, "float32", {"VECDB_SIMD": "avx2"}, marks=WITH_VNNI),
    ],
    ids=["no-jit", "no-jit-float16", "bounds-checks-and-generic", "avx2"],
)
def test_the_same_answers(tmp_path, rows, dtype, switch):
    """Graphs of one seed and one thread are equal too, so everything must be."""
    dim = 200  # enough for 2-bit codes
    plain = answers(rows, dim, dtype)
    switched = answers(rows, dim, dtype, VECDB_CACHE_DIR=str(tmp_path), **switch)
    assert len(plain) == len(switched) == 93
    assert switched == plain
