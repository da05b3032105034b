"""What filters cost without a search: counting, finding, ordering and summing up through columns.

    python -m benchmarks.columns [--records 1000000] [--deleted 1] [--path DIR]

Makes a collection of records with six payload paths and no vectors, sealed into one segment, deletes some, and times
each call with another operand every time, so that no answer is a kept one. Medians of 15, in microseconds of one
thread; `first` is the first call of its row, which checks the arrays of a path and may make its ranks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vecdb

REPEATS = 15
BATCH = 20_000
SECTIONS, YEARS, LABELS = 60, 36, 40

Call = Callable[[int], Any]  # of the number of the repetition


def payloads(records: int) -> Iterator[list[dict[str, Any]]]:
    random = np.random.default_rng(0)
    year, section = random.integers(1990, 1990 + YEARS, records), random.integers(0, SECTIONS, records)
    when, price = random.permutation(records), random.random(records) * 100
    for first in range(0, records, BATCH):
        yield [
            {
                "year": int(year[row]),
                "when": int(when[row]),
                "section": f"section {section[row]}",
                "price": float(price[row]),
                "user": f"user-{row * 7919 % records:09d}",
                "tags": [f"label {section[row] % LABELS}", f"year {year[row] % 7}"],
            }
            for row in range(first, min(records, first + BATCH))
        ]


def make(path: Path, records: int) -> None:
    with vecdb.open(path, sync="none") as db:
        docs = db.create_collection("docs", dim=1)
        for number, batch in enumerate(payloads(records)):
            docs.upsert(range(number * BATCH, number * BATCH + len(batch)), payloads=batch)
        db.optimize()


def wheres(records: int) -> dict[str, Callable[[int], dict[str, Any]]]:
    """Name of a filter -> the filter with another operand for each repetition."""
    tenth = records // 10
    return {
        "year ==": lambda i: {"year": 1990 + i},
        "section ==": lambda i: {"section": f"section {i}"},
        "user ==": lambda i: {"user": f"user-{i * 11:09d}"},
        "when in a tenth": lambda i: {"when": {"$between": [i * 7, i * 7 + tenth]}},
        "price < half": lambda i: {"price": {"$lt": 50 + i / 100}},
        "section !=": lambda i: {"section": {"$ne": f"section {i}"}},
        "user starts with": lambda i: {"user": {"$startswith": f"user-0000{i}"}},
        "year exists": lambda i: {"year": {"$exists": i % 2 == 0}},
        "tags has": lambda i: {"tags": f"label {i}"},
        "tags has any of 2": lambda i: {"tags": {"$any": [f"label {i}", f"label {i + 1}"]}},
        "section matches": lambda i: {"section": {"$regex": f"^section .?{i % 10}$"}},
        "user in 1,000": lambda i: {"user": {"$in": [f"user-{(n * 37 + i) % records:09d}" for n in range(1000)]}},
        "when in 1,000": lambda i: {"when": {"$in": [n * 37 + i for n in range(1000)]}},
        "section and year": lambda i: {"section": f"section {i}", "year": {"$gte": 2008}},
        "section, year, price": lambda i: {"section": f"section {i}", "year": {"$gte": 2008}, "price": {"$lt": 50}},
        "year and price, dense": lambda i: {"year": {"$gte": 2000}, "price": {"$lt": 60 + i / 100}},
        "year or price": lambda i: {"$or": [{"year": {"$gte": 2020}}, {"price": {"$lt": 10 + i / 100}}]},
    }


def summaries(docs: vecdb.Collection) -> dict[str, Call]:
    return {
        "first ten by when": lambda i: docs.get(order_by="when", limit=10 + i),
        "first ten by -price of a section": lambda i: docs.get(
            where={"section": f"section {i}"}, order_by="-price", limit=10
        ),
        "distinct section": lambda _: docs.distinct("section"),
        "distinct section of a year": lambda i: docs.distinct("section", where={"year": 1990 + i}),
        "min_max when": lambda _: docs.min_max("when"),
        "min_max user of a year": lambda i: docs.min_max("user", where={"year": 1990 + i}),
    }


def timed(call: Call) -> tuple[float, float, Any]:
    """(median, first) in microseconds, and the last result."""
    seconds = []
    result = None
    for repetition in range(REPEATS):
        began = time.perf_counter()
        result = call(repetition)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e6, seconds[0] * 1e6, result


def measure(docs: vecdb.Collection) -> None:
    records = docs.count()
    print(f"{'filter':32} {'share':>7} {'count':>9} {'first':>9} {'find':>9}   us, {records:,} records")
    for name, where in wheres(records).items():
        counting, first, count = timed(lambda i, where=where: docs.count(where(i)))
        finding, _, found = timed(lambda i, where=where: docs.get(where=where(REPEATS + i)))
        del found
        print(f"{name:32} {count / records:7.2%} {counting:9.0f} {first:9.0f} {finding:9.0f}")
    for name, call in summaries(docs).items():
        median, first, _ = timed(call)
        print(f"{name:32} {'':7} {median:9.0f} {first:9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--deleted", type=float, default=0, help="percent of the records to delete before measuring")
    parser.add_argument("--path", type=Path, help="a database made by an earlier run, or where to keep it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = given.path or Path(directory) / "columns"
        if not path.exists():
            make(path, given.records)
        with vecdb.open(path, sync="none", maintenance="manual") as db:
            docs = db.get_collection("docs")
            if given.deleted:
                docs.delete(range(0, given.records, max(1, round(100 / given.deleted))))
            measure(docs)


if __name__ == "__main__":
    main()
