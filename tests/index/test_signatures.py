"""Every kernel is compiled once: all inputs that a kernel only reads come in read-only."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np

from tests import oracles
from tests.kernels.conftest import matrix_of
from vecdb import kernels
from vecdb.index.warm import warm_up
from vecdb.kernels.jit import JIT_ON
from vecdb.options import HNSW, IVF, IVFPQ, Flat
from vecdb.types import Metric


def dispatchers():
    for module in pkgutil.iter_modules(kernels.__path__):
        for name, value in vars(importlib.import_module(f"vecdb.kernels.{module.name}")).items():
            if hasattr(value, "nopython_signatures") and value.__module__ == f"vecdb.kernels.{module.name}":
                yield f"{module.name}.{name}", value


def test_warm_up_leaves_nothing_to_compile_for_any_metric():
    if not JIT_ON:
        return
    steps = []
    warm_up(lambda done, total: steps.append((done, total)), lists=True)
    assert steps == sorted(steps)  # a step is told again before each function that has to be compiled
    assert {done for done, _ in steps} == set(range(steps[-1][1] + 1))
    before = {name: set(kernel.nopython_signatures) for name, kernel in dispatchers()}
    assert len(before) > 30
    from vecdb.index.flat import FlatIndex
    from vecdb.index.hnsw import HnswIndex
    from vecdb.index.ivf import IvfIndex
    from vecdb.index.ivfpq import IvfPqIndex

    for metric in Metric:
        matrix = matrix_of(oracles.clustered(300, 128), metric)
        for index in (
            FlatIndex.build(matrix, Flat()),
            HnswIndex.build(matrix, HNSW(m=4, ef_construction=8)),
            IvfIndex.build(matrix, IVF(nlist=3)),
            IvfPqIndex.build(matrix, IVFPQ(nlist=3)),
            IvfPqIndex.build(matrix, IVFPQ(nlist=3, bits=8, rotation=True)),
        ):
            index.search(matrix.vectors[:2], 3)
            index.search(matrix.vectors[:2], 3, rows=np.arange(5, dtype=np.int32))
            index.carried(matrix, np.r_[np.full(50, -1), np.arange(49, 299)].astype(np.int32))
    assert {name: set(kernel.nopython_signatures) for name, kernel in dispatchers()} == before
