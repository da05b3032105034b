"""The gate: where compiled code is kept, whom it trusts, and what it leaves alone."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba.core.errors import NumbaError

from vecdb.kernels import jit

ROOT = Path(__file__).parents[2]
OPEN_CACHE = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from numba.core import config
    before = config.CACHE_DIR
    from vecdb.kernels import jit, topk
    from vecdb.kernels.topk import pack_key
print(json.dumps({
    "cache": str(jit.CACHE), "warnings": [str(w.message) for w in caught if w.category is RuntimeWarning],
    "key": int(pack_key(1.5, 7)), "untouched": config.CACHE_DIR == before, "vnni": jit.HAS_VNNI,
    "avx2": jit.HAS_AVX2,
}))
"""


def run(code: str, *arguments: str, **environment: str) -> str:
    """The output of `code` in a fresh process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "VECDB_"))}
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def open_cache(**environment: str) -> dict:
    return json.loads(run(OPEN_CACHE, **environment))


def test_kernels_are_kept_in_a_private_directory_of_their_own(tmp_path):
    seen = open_cache(VECDB_CACHE_DIR=str(tmp_path / "new" / "cache"))
    cache = Path(seen["cache"])
    assert cache.parent == tmp_path / "new" / "cache"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert list(cache.rglob("*.nbi"))
    assert seen["warnings"] == []
    assert seen["untouched"]
    assert open_cache(VECDB_CACHE_DIR=str(tmp_path / "new" / "cache"))["key"] == seen["key"]


def test_the_usual_cache_directory(tmp_path):
    assert Path(open_cache(XDG_CACHE_HOME=str(tmp_path))["cache"]).parent == tmp_path / "vecdb"


def test_switches_have_caches_of_their_own(tmp_path):
    names = {
        Path(open_cache(VECDB_CACHE_DIR=str(tmp_path), **switch)["cache"]).name
        for switch in ({}, {"NUMBA_BOUNDSCHECK": "1"}, {"NUMBA_OPT": "0"})
    }
    assert len(names) == 3


def spoil(cache: Path, how: str) -> None:
    if how == "writable":
        cache.chmod(0o777)
    elif how == "file":
        cache.rmdir()
        cache.touch()
    else:
        cache.rmdir()
        other = cache.parent / "elsewhere"
        other.mkdir(exist_ok=True)
        cache.symlink_to(other)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("writable", "can be written by other users"), ("file", "cannot be used"), ("link", "is a symbolic link")],
)
def test_a_cache_that_others_could_write_is_not_used(tmp_path, how, reason):
    cache = tmp_path / f"kernels-{jit._fingerprint()}"
    if Path(open_cache(VECDB_CACHE_DIR=str(tmp_path))["cache"]) != cache:
        pytest.skip("this process runs with other switches")
    for path in sorted(cache.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    spoil(cache, how)
    seen = open_cache(VECDB_CACHE_DIR=str(tmp_path))
    assert seen["cache"] == "None"
    assert len(seen["warnings"]) == 1
    assert reason in seen["warnings"][0]
    assert "VECDB_CACHE_DIR" in seen["warnings"][0]
    assert seen["key"] == (0x3FC00000 << 32 | 7)


@pytest.mark.parametrize("most", ["avx2", "generic"])
def test_less_than_the_processor_has_can_be_asked_for(tmp_path, most):
    seen = open_cache(VECDB_CACHE_DIR=str(tmp_path), VECDB_SIMD=most)
    assert seen["vnni"] is False
    assert seen["avx2"] is (most == "avx2" and llvm.get_host_cpu_features()["avx2"])


def test_an_unknown_wish_is_refused(tmp_path):
    with pytest.raises(AssertionError, match='VECDB_SIMD is \'sse\'; use "avx2", "generic", or leave it out'):
        open_cache(VECDB_CACHE_DIR=str(tmp_path), VECDB_SIMD="sse")


def test_a_kernel_that_makes_arrays_says_so():
    @jit.allocating
    def sum_of_new(count):
        return np.ones(count).sum()

    @jit.kernel
    def refused(count):
        return np.ones(count).sum()

    assert sum_of_new(3) == 3.0
    with pytest.raises(NumbaError, match=r"NRT required|array passed into"):
        refused(3)
