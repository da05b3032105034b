"""Goal: float16 vectors are widened to the float32 that NumPy widens them to, on every processor.

Method: all finite float16 values go through compiled code, in processes with and without the instruction for it.
"""

from __future__ import annotations

import pytest

from tests.kernels.test_jit import run

WIDEN = """
import numpy as np
from numba import njit
from vecdb.kernels.intrinsics import widen

@njit(error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz", "afn"})
def total(bits, unit, out):
    for i in range(len(bits)):
        out[i] = widen(bits[i]) * unit

bits = np.arange(1 << 16, dtype=np.uint16)
bits = bits[np.isfinite(bits.view(np.float16))]
for unit in (1.0, 1e30, 1e-30):
    got = np.empty(len(bits), np.float32)
    total(bits, np.float32(unit), got)
    wanted = bits.view(np.float16).astype(np.float32) * np.float32(unit)
    np.testing.assert_array_equal(got.view(np.int32), wanted.view(np.int32))
whole = wanted.copy()
total(whole, np.float32(1), got)
np.testing.assert_array_equal(got, whole)
print(len(bits))
"""


@pytest.mark.parametrize(
    "switch",
    [{}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, {"NUMBA_DISABLE_JIT": "1"}],
    ids=["this-processor", "any-processor", "no-jit"],
)
def test_every_float16_becomes_its_float32(tmp_path, switch):
    assert run(WIDEN, VECDB_CACHE_DIR=str(tmp_path), **switch).strip() == str(2 * 31 * 1024)
