"""An environment for every engine that is measured beside vecdb, made on demand and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.engines import PEERS

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("numpy", "pyarrow")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREADS, "1")


def python_of(engine: str) -> str:
    """The interpreter that has `engine`: this one for vecdb, otherwise that of .venv-peers/<engine>."""
    return sys.executable if engine == "vecdb" else python_with(engine, PEERS[engine], *NEEDED)


def python_with(name: str, *requirements: str) -> str:
    """The interpreter of .venv-peers/<name>, which is made with these requirements when it is not there."""
    folder = ROOT / ".venv-peers" / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists():
        print(f"installing {requirements[0]} in {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        stamp.touch()
    return str(python)


def version_of(engine: str) -> str:
    distribution = PEERS.get(engine, "vecdb-engine")
    program = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    done = subprocess.run([python_of(engine), "-c", program], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or "unknown"


def environment(searching: bool) -> dict[str, str]:
    """One thread for phases that only search; builds may take what the engine takes by itself."""
    return {**os.environ, **(ONE_THREAD if searching else {}), "PYTHONPATH": str(ROOT)}
