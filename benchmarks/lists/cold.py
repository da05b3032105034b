"""Collections that answer while their float32 file is larger than the memory that the process may have.

The child's memory is limited by RLIMIT_DATA: private, writable memory, which is what nothing but the process can give
back. Files are mapped and read-only here, and the kernel takes their pages back when it wants them; RLIMIT_AS would
count the mapping itself, so that no file larger than the limit could be mapped at all, whoever pages. The pages of
the files are dropped before, and counted after.

    python -m benchmarks.lists.cold FOLDER QUERIES K ALLOWANCE

is the child. It prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import ROOT, environment

SHARE = 0.5  # of the float32 file that is allowed
LEAST = 256 << 20  # bytes that the interpreter and the compiled kernels have in any case
BATCH = 5000  # records of one upsert
NEXT = 100  # queries that are timed alone, first cold and then warm
RECALL = 0.95  # that is asked for
NAME = "docs"


def allowance(float32_bytes: int) -> int:
    return max(LEAST, int(SHARE * float32_bytes))


def memory() -> dict[str, int]:
    """Bytes of this process: what RLIMIT_DATA counts, its own, mapped from files, the most of both at any time.

    The peak is that of this program (VmHWM): ru_maxrss would start with that of the process that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines) if rest.split()}
    names = {"counted": "VmData", "anonymous": "RssAnon", "file_backed": "RssFile", "peak": "VmHWM"}
    return {key: int(fields[name]) << 10 for key, name in names.items()}


def child(folder: Path, queries_file: Path, k: int, allowed: int) -> dict[str, Any]:
    """Opens, answers, and tells what that took; `fits`: whether the float32 vectors could have been read."""
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    import vecdb

    queries = np.load(queries_file, allow_pickle=False)
    with vecdb.open(folder, mode="r", threads=1) as database:
        docs = database.get_collection(NAME)
        begin = time.perf_counter()
        docs.search(queries[0], k=k, recall=RECALL, include=())
        first = time.perf_counter() - begin
        plan = docs.explain(queries[0], k=k, recall=RECALL)  # waits for the kernels
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            for query in queries[1 : NEXT + 1]:
                docs.search(query, k=k, recall=RECALL, include=())
            seconds.append((time.perf_counter() - begin) / NEXT)
        found = [hits.ids.tolist() for hits in docs.search(queries, k=k, recall=RECALL, include=(), threads=1)]
        used = memory()
        fits = can_allocate(docs.count() * queries.shape[1] * 4)
    plans = sorted({str(part.plan.arm) for part in plan.segments})
    times = {"first_ms": 1e3 * first, "cold_ms": 1e3 * seconds[0], "warm_ms": 1e3 * seconds[1]}
    return {"found": found, "plan": ",".join(plans), "fits": fits, **times, **used}


def can_allocate(size: int) -> bool:
    """Whether this process may have so many bytes more."""
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        return False
    return True


def fill(folder: Path, data: Any, index: Any) -> None:
    """A database with everything indexed."""
    import vecdb

    with vecdb.open(folder, sync="none", threads=2) as database:
        docs = database.create_collection(NAME, dim=data.dim, metric=data.metric, index=index)
        ids = list(range(len(data.vectors)))
        for first in range(0, len(ids), BATCH):
            docs.upsert(ids=ids[first : first + BATCH], vectors=data.vectors[first : first + BATCH])
        docs.optimize()
        database.flush()


def drop_pages(folder: Path) -> None:
    """The kernel forgets what it keeps of the files, so that they are read from the disk again."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def measure(data: Any, indexes: dict[str, Any], k: int, nearest: Any, work: Path | None) -> dict[str, Any]:
    """Of each of `indexes`, options by name: what the child says, and the recall of what it found."""
    from benchmarks.graphs.vector_sets import recall

    size, figures = data.vectors.nbytes, {}
    for name, index in indexes.items():
        with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=work) as place:
            folder, queries = Path(place) / "db", Path(place) / "queries.npy"
            np.save(queries, data.queries)
            fill(folder, data, index)
            drop_pages(folder)
            command = [sys.executable, "-m", "benchmarks.lists.cold", str(folder), str(queries), str(k)]
            done = subprocess.run(
                [*command, str(allowance(size))], env=environment(True), cwd=ROOT, check=True, stdout=subprocess.PIPE
            )
        told = json.loads(done.stdout.splitlines()[-1])
        found = np.array([row + [-1] * (k - len(row)) for row in told.pop("found")])
        figures[name] = {**told, "allowance": allowance(size), "recall": round(recall(data, found, nearest), 5)}
    return {"set": data.name, "rows": len(data.vectors), "float32_bytes": size, "indexes": figures}


if __name__ == "__main__":
    print(json.dumps(child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
