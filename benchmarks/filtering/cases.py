"""What is asked: filters of every selectivity, some of which have to do with where the query lies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import FILTERS, QUERIES, Condition, Dataset, K, load

Mask = NDArray[np.bool_]
RANKS = 32_768  # values of the uniform field
DOUBLINGS = 15  # selectivities from 1/2 to 1/32,768
IN_VALUES = 1_000
FAR_SHARES = (0.01, 0.05, 0.2)
PIVOTS = 3  # fields that hold the rank of a record by its distance from a point
START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
MINUTES = 7  # between two records


@dataclass(frozen=True)
class Case:
    """A filter and the queries that it is asked with.

    table       which table it belongs to
    where       as vecdb takes it; None for no filter
    conditions  the same for every engine, where all have a word for it
    mask        the records that match, by NumPy over the payloads
    """

    table: str
    name: str
    where: dict[str, Any] | None
    mask: Mask
    queries: NDArray[np.float32]
    conditions: tuple[Condition, ...] | None = None

    @property
    def k(self) -> int:
        return min(K, int(self.mask.sum()))


@dataclass(frozen=True)
class Fields:
    """What payloads get beside their own: columns by name, and the sections of records and of queries."""

    columns: dict[str, list[Any]]
    sections: NDArray[np.object_]
    query_sections: NDArray[np.object_]


def prepare(folder: Path, records: int | None) -> tuple[Dataset, Fields]:
    """The data set with more fields: rank (uniform), half (of the space), near_0 ... (rank by distance), at (time)."""
    import pyarrow.parquet

    data = load(folder, records)
    every = pyarrow.parquet.read_table(folder / "debian-packages.parquet", columns=["section"])["section"].to_pylist()
    order = np.random.default_rng(7).permutation(len(every))
    rng, rows = np.random.default_rng(11), len(data.ids)
    columns: dict[str, list[Any]] = {
        "rank": rng.integers(0, RANKS, rows).tolist(),
        "half": half_of(data, data.vectors).tolist(),
        "at": [START + dt.timedelta(minutes=MINUTES * row) for row in rng.permutation(rows).tolist()],
    }
    for pivot in range(PIVOTS):
        near = np.argsort(-(data.vectors @ data.vectors[rng.integers(rows)]), kind="stable")
        columns[f"near_{pivot}"] = np.argsort(near).tolist()
    payloads = [
        {**payload, **dict(zip(columns, values, strict=True))}
        for payload, *values in zip(data.payloads, *columns.values(), strict=True)
    ]
    sections = np.array([payload["section"] for payload in payloads], object)
    held = np.array([every[row] for row in order[:QUERIES]], object)
    return replace(data, payloads=payloads), Fields(columns, sections, held)


def half_of(data: Dataset, vectors: NDArray[np.float32]) -> Mask:
    """On which side of the middle, along the direction in which the records differ most."""
    sample = data.vectors[::7] - data.vectors.mean(0)
    direction = np.linalg.svd(sample[:4000], full_matrices=False)[2][0]
    return np.asarray(vectors @ direction > np.median(data.vectors @ direction))


def all_cases(data: Dataset, fields: Fields, queries: int) -> Iterator[Case]:
    """Every case, with at most `queries` queries each."""
    asked = data.queries[:queries]
    yield from set_filters(data, asked)
    yield from selectivities(fields, asked)
    yield from correlated(data, fields, queries)
    yield from split(data, fields, queries)
    yield from operators(data, fields, asked)


def as_dict(conditions: tuple[Condition, ...]) -> dict[str, Any] | None:
    names = {"==": "$eq", ">=": "$gte", "<=": "$lte"}
    return {field: {names[op]: value} for field, op, value in conditions} or None


def set_filters(data: Dataset, asked: NDArray[np.float32]) -> Iterator[Case]:
    for name, conditions in FILTERS.items():
        yield Case("set", name, as_dict(conditions), data.matching(conditions), asked, conditions)


def selectivities(fields: Fields, asked: NDArray[np.float32]) -> Iterator[Case]:
    rank = np.array(fields.columns["rank"])
    for step in range(1, DOUBLINGS + 1):
        below = RANKS >> step
        mask = rank < below
        if mask.any():
            yield Case("selectivity", f"1/{1 << step:,}", {"rank": {"$lt": below}}, mask, asked)


def correlated(data: Dataset, fields: Fields, queries: int) -> Iterator[Case]:
    """Queries of one section: records of it, of those that are far from it, and as many at random."""
    names, counts = np.unique(fields.query_sections, return_counts=True)
    home = names[counts.argmax()]
    asked = data.queries[fields.query_sections == home][:queries]
    own = fields.sections == home
    conditions = (("section", "==", str(home)),)
    yield Case("correlated", f"own section, {home}", {"section": home}, own, asked, conditions)
    centre = data.vectors[own].mean(0)
    others = [name for name in np.unique(fields.sections) if name != home]
    others.sort(key=lambda name: float(data.vectors[fields.sections == name].mean(0) @ centre))
    rank = np.array(fields.columns["rank"])
    for share in FAR_SHARES:
        far: list[str] = []
        while np.isin(fields.sections, far).mean() < share and len(far) < len(others):
            far.append(others[len(far)])
        mask = np.isin(fields.sections, far)
        yield Case("correlated", f"far sections, {share:.0%}", {"section": {"$in": far}}, mask, asked)
        below = round(RANKS * mask.mean())
        yield Case("correlated", f"at random, {share:.0%}", {"rank": {"$lt": below}}, rank < below, asked)


def split(data: Dataset, fields: Fields, queries: int) -> Iterator[Case]:
    """Two halves of the space, and the filter always on the one where the query is not."""
    half, side = np.array(fields.columns["half"]), half_of(data, data.queries)
    for value in (False, True):
        asked = data.queries[side != value][:queries]
        yield Case("split", f"half is {value}, queries of the other", {"half": value}, half == value, asked)


def operators(data: Dataset, fields: Fields, asked: NDArray[np.float32]) -> Iterator[Case]:
    """Long lists of values, ranges of time, lists of tags, and two and three conditions."""
    rank, times = np.array(fields.columns["rank"]), np.array(fields.columns["at"])
    values = np.random.default_rng(5).choice(RANKS, IN_VALUES, replace=False).tolist()
    yield Case("operators", f"in {IN_VALUES:,} values", {"rank": {"$in": values}}, np.isin(rank, values), asked)
    for share in (0.1, 0.01):
        low, high = START, START + dt.timedelta(minutes=round(MINUTES * len(times) * share))
        mask = (times >= low) & (times < high)
        yield Case("operators", f"time within {share:.0%}", {"at": {"$gte": low, "$lt": high}}, mask, asked)
    tags = np.array([payload["tags"][0] if payload["tags"] else "" for payload in data.payloads])
    names, counts = np.unique(tags[tags != ""], return_counts=True)
    tag = str(names[counts.argmax()])
    tagged = np.array([tag in (payload["tags"] or ()) for payload in data.payloads])
    yield Case("operators", f"tags have {tag}", {"tags": tag}, tagged, asked)
    two = {"arch": "all", "rank": {"$lt": RANKS // 4}}
    everywhere = np.array([payload["arch"] == "all" for payload in data.payloads])
    yield Case("operators", "two conditions", two, everywhere & (rank < RANKS // 4), asked)
    three = {**two, "n_depends": {"$lte": 2}}
    few = np.array([payload["n_depends"] <= 2 for payload in data.payloads])
    yield Case("operators", "three conditions", three, everywhere & (rank < RANKS // 4) & few, asked)


def sweep(data: Dataset, fields: Fields, filters: int, queries: int) -> Iterator[Case]:
    """Random filters: selectivity and place by chance, the share from 1/8,192 to all on a logarithmic scale."""
    rng, rows = np.random.default_rng(17), len(data.ids)
    for number in range(filters):
        share = float(2 ** -rng.uniform(0, 13))
        asked = data.queries[rng.choice(len(data.queries), queries, replace=False)]
        field = str(rng.choice(["rank", *(f"near_{pivot}" for pivot in range(PIVOTS))]))
        values = np.array(fields.columns[field])
        top = RANKS if field == "rank" else rows
        low = int(rng.uniform(0, top * (1 - share)))
        high = max(low + 1, low + round(top * share))
        mask = (values >= low) & (values < high)
        if mask.any():
            yield Case("sweep", f"{number}: {field}", {field: {"$gte": low, "$lt": high}}, mask, asked)
