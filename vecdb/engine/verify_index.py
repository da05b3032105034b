"""The indexes of a segment: their values, what their graphs reach, and deep: what their searches find."""

from __future__ import annotations

import numpy as np

from vecdb.engine.findings import REBUILD, IndexCheck
from vecdb.engine.inspection import UNREADABLE, Inspection, OpenedSegment
from vecdb.files import names
from vecdb.index.base import Index, load_kind
from vecdb.index.graph_check import false_twins, unreached
from vecdb.kernels import bitset
from vecdb.kernels.exact import exact_search
from vecdb.options import EF_MAX, index_from_dict
from vecdb.storage.schema import FieldEntry, IndexEntry
from vecdb.types import U64, AnyArray, Matrix, Metric

SAMPLE = 32  # searches
NEAREST = 10  # neighbours each
ASKED = 0.99  # recall that is asked for
ENOUGH = 0.8  # recall below which an index is looked at harder, and then cannot be what was built
HARDER = 16  # times the effort
SEED = 20_240


def check_indexes(run: Inspection, segment: OpenedSegment, live: AnyArray) -> None:
    """Every index that the catalog names and whose files are whole.

    live   bool (rows,): records that are not deleted
    """
    for field in segment.entry.fields:
        matrix = _matrix(segment, field)
        for entry in field.indexes:
            place = names.index_directory(field.number, entry.number).as_posix() + "/"
            files = [path for path in segment.files if path.startswith(place)]
            if matrix is None or segment.damaged.intersection(files):
                continue
            arrays = {path[len(place) : -len(".npy")]: segment.arrays[path] for path in files}
            name = f"{segment.name}/{place.rstrip('/')}"
            index = _open(run, name, matrix, entry, arrays)
            if index is not None:
                allowed = _live_rows(segment, field, live)
                recall = _recall(run, index, matrix, allowed, 1) if run.deep else None
                run.indexes.append(IndexCheck(name, entry.kind, entry.indexed_rows, recall))
                if recall is not None and recall < ENOUGH:
                    _look_harder(run, name, index, matrix, allowed)


def _matrix(segment: OpenedSegment, field: FieldEntry) -> Matrix | None:
    place = names.field_directory(field.number)
    meta = next((meta for meta in segment.meta.fields if meta.number == field.number), None)
    used = [f"{place}/vectors.npy", f"{place}/inverse_norms.npy", f"{place}/rows.npy"]
    if meta is None or segment.damaged.intersection(used) or used[0] not in segment.arrays:
        return None
    norms = segment.arrays.get(used[1]) if meta.metric is Metric.COSINE else None
    return Matrix(segment.arrays[used[0]], norms, Metric(meta.metric))


def _open(run: Inspection, name: str, matrix: Matrix, entry: IndexEntry, arrays: dict[str, AnyArray]) -> Index | None:
    """The index, if its values are right and its searches can find every row."""
    try:
        options = index_from_dict({"kind": entry.kind, **entry.options})
        index = load_kind(entry.kind).from_arrays(matrix, options, arrays, entry.parameters)
        index.check()
    except UNREADABLE as error:
        run.found(name, str(error), REBUILD)
        return None
    for rows, what in (
        (unreached(index), "cannot be reached by any search"),
        (false_twins(index, matrix), "are chained to rows of other vectors"),
    ):
        if len(rows):
            run.found(name, f"{len(rows):,} rows {what}, the first is row {rows[0]}", REBUILD)
            return None
    run.tick(0)
    return index


def _live_rows(segment: OpenedSegment, field: FieldEntry, live: AnyArray) -> AnyArray:
    """bool (field rows,)"""
    rows_of = segment.arrays.get(f"{names.field_directory(field.number)}/rows.npy") if field.sparse else None
    allowed: AnyArray = live if rows_of is None else live[rows_of]
    return allowed


def _look_harder(run: Inspection, name: str, index: Index, matrix: Matrix, allowed: AnyArray) -> None:
    """Low recall alone is no damage: data may be hard, or lists few. Low recall at high effort is."""
    recall = _recall(run, index, matrix, allowed, HARDER)
    if recall is not None and recall < ENOUGH:
        run.found(name, f"a sample of searches found {recall:.0%} of the {NEAREST} nearest at high effort", REBUILD)


def _recall(run: Inspection, index: Index, matrix: Matrix, allowed: AnyArray, factor: int) -> float | None:
    """The share of the nearest live rows that searches for a sample of them find; rows as near as the last count.

    factor   times the effort that ASKED takes, by the measurements of the index
    """
    rows = np.flatnonzero(allowed)
    if len(rows) == 0:
        return None
    chosen = np.random.default_rng(SEED).choice(rows, min(SAMPLE, len(rows)), replace=False)
    bits: U64 | None = None if allowed.all() else bitset.from_mask(allowed)
    k = min(NEAREST, len(rows))
    effort = (index.effort(k, ASKED, len(rows) / len(allowed)) or 0) * factor
    ef, nprobe = (min(effort, EF_MAX) or None), (min(effort, index.traits.lists) or None)
    found, wanted = 0, 0
    for row in chosen.tolist():
        query = matrix.vectors[row : row + 1].astype(np.float32)
        distances = index.search(query, k, allow=bits, ef=ef, nprobe=nprobe)[1]
        truth = exact_search(matrix, query, k, bits)[1]
        found += int((distances[0] <= truth[0, -1]).sum())
        wanted += k
        run.tick(0)
    return found / wanted
