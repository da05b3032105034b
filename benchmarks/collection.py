"""The collection API on real data, and where it stands beside other engines.

    python -m benchmarks.collection DATA [--peers zvec,zvec-int8,qdrant-edge,chroma,lancedb]

Every engine is measured by the same code (benchmarks/measure.py) in processes of its own: ingest in batches of 1,000
with the text and six payload fields, index, search with every filter of the data set at the least effort that
reaches recall 0.99, cold start, memory, and search while records arrive. Prints tables; appends one line of JSON to
benchmarks/results/history.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.engines import PEERS
from benchmarks.environments import ROOT, environment, python_of, version_of
from benchmarks.history import append, line_of
from benchmarks.hnsw import several
from benchmarks.report import report

STARTS = 5
PHASE_S = 1800  # after that a phase has failed
MIXED_S = 240  # some engines hardly write while they are searched


class Measurements:
    """Runs phases of benchmarks/measure.py for one engine, each in a process of its own."""

    def __init__(self, engine: str, given: argparse.Namespace, work: Path) -> None:
        self.engine, self.given, self.work = engine, given, work

    def phase(self, name: str, path: Path) -> dict[str, Any]:
        command = [python_of(self.engine), "-m", "benchmarks.measure", name, "--engine", self.engine]
        command += ["--data", str(self.given.data), "--path", str(path), "--expected", str(self.work / "expected.npz")]
        command += ["--records", str(self.given.records)] if self.given.records else []
        began = time.monotonic()
        done = subprocess.run(
            [*command, "--began", repr(began)],
            capture_output=True,
            text=True,
            timeout=MIXED_S if name == "mixed" else PHASE_S,
            cwd=ROOT,
            env=environment(searching=name in ("start", "search")),
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.engine}, {name}: {done.stderr.strip()[-2000:]}")
        print(f"  {self.engine:12s} {name:7s} {time.monotonic() - began:6.1f} s", file=sys.stderr, flush=True)
        figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1]) if name != "expect" else {}
        return figures

    def all(self) -> dict[str, Any]:
        path = self.work / self.engine
        figures = self.phase("build", path)
        self.phase("start", path)  # fills the page cache for every engine alike
        starts = [self.phase("start", path) for _ in range(STARTS)]
        figures["start"] = {name: statistics.median(one[name] for one in starts) for name in starts[0]}
        figures |= self.phase("search", path)
        shutil.rmtree(path)
        try:
            figures["mixed"] = self.phase("mixed", path)
        except subprocess.TimeoutExpired:
            print(f"  {self.engine:12s} mixed   was stopped after {MIXED_S} s", file=sys.stderr, flush=True)
        shutil.rmtree(path)
        return figures | {"version": version_of(self.engine)}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One dictionary of figures per engine; an engine that fails is reported and left out, ours is not."""
    engines = {}
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=given.work) as folder:
        Measurements("vecdb", given, Path(folder)).phase("expect", Path(folder))
        for name in ([] if given.without_vecdb else ["vecdb"]) + given.peers:
            try:
                engines[name] = Measurements(name, given, Path(folder)).all()
            except (RuntimeError, subprocess.SubprocessError) as error:
                if name == "vecdb":
                    raise
                print(f"  {name} is left out: {error}", file=sys.stderr)
    return engines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with debian-packages.parquet and debian-minilm-384.npy")
    parser.add_argument("--peers", type=several(str, PEERS), default=[], help="comma-separated: " + ", ".join(PEERS))
    parser.add_argument("--records", type=int, help="measure on a part of the data")
    parser.add_argument("--work", type=Path, help="where the databases are made (default: the temporary directory)")
    parser.add_argument("--without-vecdb", action="store_true", help="measure the peers alone")
    parser.add_argument("--dry", action="store_true", help="do not append to the history")
    given = parser.parse_args()
    given.data = given.data.resolve()
    engines = measure(given)
    print(report(engines))
    if not given.dry:
        append(line_of("collection", {"engines": engines}))


if __name__ == "__main__":
    main()
