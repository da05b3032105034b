"""The only gate to the compiler: one decorator, one set of flags, one cache directory.

Compiled kernels are kept in `<cache>/kernels-<hash>`, where <cache> is $VECDB_CACHE_DIR, $XDG_CACHE_HOME/vecdb or
~/.cache/vecdb, and the hash covers every kernel source, numba, and the switches that change the code: Numba itself
notices a change only in the file of the outermost function. Cache entries are pickles, so a directory that somebody
else could write is not used.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import njit
from numba.core import config

from vecdb.errors import InvalidInput

Function = TypeVar("Function", bound=Callable[..., Any])

Integer = int | np.integer[Any]  # a row number, of Python or of an array

# No "nnan" and no "ninf": bare fastmath=True deletes the checks for NaN and infinity.
FAST_MATH = {"reassoc", "contract", "arcp", "nsz", "afn"}
FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FAST_MATH}
JIT_ON = not config.DISABLE_JIT
_DECORATING = threading.Lock()


def _host_has(*names: str) -> bool:
    """Whether code may use these features: not for another target, nor more than $VECDB_SIMD, "avx2" or "generic"."""
    most = os.environ.get("VECDB_SIMD", "")
    if most not in ("", "avx2", "generic"):
        raise InvalidInput(f'VECDB_SIMD is {most!r}; use "avx2", "generic", or leave it out for all there is')
    if most == "generic" or config.CPU_NAME or (most == "avx2" and names != ("avx2",)):
        return False
    features = llvm.get_host_cpu_features()
    return all(features.get(name, False) for name in names)


def _converts_half() -> bool:
    """Whether one instruction widens a float16; elsewhere LLVM would call a routine that is not there."""
    if platform.machine() in ("aarch64", "arm64"):
        return True
    return not config.CPU_NAME and bool(llvm.get_host_cpu_features().get("f16c", False))


HAS_VNNI = _host_has("avx512vnni", "avx512bw")
HAS_AVX2 = _host_has("avx2")
HAS_VBMI = _host_has("avx512vbmi", "avx512bw")
CONVERTS_HALF = _converts_half()


def _fingerprint() -> str:
    """A hash of everything that decides what the kernels compile to, except what Numba's own key holds."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    processor = (HAS_VNNI, HAS_AVX2, HAS_VBMI, CONVERTS_HALF)
    switches = (numba.__version__, sys.version_info[:2], processor, config.BOUNDSCHECK, config.OPT)
    digest.update(repr(switches).encode())
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    if chosen := os.environ.get("VECDB_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vecdb"


def _distrust(path: Path) -> str | None:
    """Why `path` must not hold executable cache entries, or None."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return "belongs to another user"
    if hasattr(os, "geteuid") and found.st_mode & 0o022:
        return "can be written by other users"
    if not os.access(path, os.W_OK | os.X_OK):
        return "cannot be written"
    return None


def _open_cache() -> Path | None:
    """The directory for compiled kernels, made if needed; None, after one warning, when there is none to trust."""
    try:
        root = _cache_root()
        path = root / f"kernels-{_fingerprint()}"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        reason = _distrust(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        path, reason = Path("the cache directory"), f"cannot be used ({error})"
    if reason is None:
        return path
    warnings.warn(
        f"{path} {reason}, so vecdb compiles its kernels in memory, again in every process. "
        "Set VECDB_CACHE_DIR to a directory that only you can write.",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


CACHE: Path | None = _open_cache() if JIT_ON else None


def kernel(function: Function) -> Function:
    """Compile `function` on its first call, without the GIL, cached on disk. Numba's own settings stay as they were.

    It can make no arrays. Those it is given belong to its callers, so it counts no references to them: each count is a
    locked addition, and loads that come after it wait for it.
    """
    return _compiled(function, {"_nrt": False})


def inlined(function: Function) -> Function:
    """A kernel that becomes part of each kernel that calls it, however large: an array costs seven words to pass."""
    return _compiled(function, {"_nrt": False, "forceinline": True})


def allocating(function: Function) -> Function:
    """A kernel that makes arrays of its own, and so counts references."""
    return _compiled(function, {"_nrt": True})  # said, or it would inherit what the kernel that calls it says


def _compiled(function: Function, more: dict[str, Any]) -> Function:
    if CACHE is None:
        return cast(Function, njit(**FLAGS, **more)(function))
    with _DECORATING:  # the locator is chosen while decorating, from these two settings
        saved = config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES
        config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = str(CACHE), ""
        try:
            return cast(Function, njit(cache=True, **FLAGS, **more)(function))
        finally:
            config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = saved
