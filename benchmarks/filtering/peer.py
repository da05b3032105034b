"""Another engine on the cases that all engines have words for: `python -m benchmarks.filtering.peer ENGINE DATA`.

Runs in an environment of its own; prints one JSON object on the last line of stdout.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines import PEERS, make
from benchmarks.filtering.cases import all_cases, prepare
from benchmarks.measure import ask_all, build, tune


def measure(name: str, folder: Path, records: int | None, queries: int) -> dict[str, Any]:
    """Figures by case: at the least effort that reaches the wanted recall on the first queries."""
    data, fields = prepare(folder, records)
    own = [{key: value for key, value in payload.items() if key not in fields.columns} for payload in data.payloads]
    plain, engine, found = replace(data, payloads=own), make(name), {}
    with tempfile.TemporaryDirectory(prefix="vecdb-filters-") as work:
        build(engine, plain, Path(work) / "data")
        engine.open(Path(work) / "data")
        for case in all_cases(data, fields, queries):
            if case.conditions is None:
                continue
            asked = replace(plain, queries=case.queries)
            where, kth = engine.filter(case.conditions), asked.kth_distance(case.conditions)
            ef = tune(engine, asked, where, kth, case.k)
            ids, seconds = ask_all(engine, case.queries, where, ef)
            recall = asked.recall(ids, kth, case.k)
            found[f"{case.table}: {case.name}"] = {
                "us": float(np.median(seconds) * 1e6), "recall": recall, "effort": ef,
            }  # fmt: skip
        engine.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=sorted(PEERS))
    parser.add_argument("data", type=Path)
    parser.add_argument("--records", type=int)
    parser.add_argument("--queries", type=int, default=200)
    given = parser.parse_args()
    print(json.dumps(measure(given.engine, given.data, given.records, given.queries)))


if __name__ == "__main__":
    main()
