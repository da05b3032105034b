"""What an engine tells of itself: sizes, bounds. Values that read well and compare."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vecdb.engine.load import collection_of, committed_deletions
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.view import Segment
from vecdb.files import names
from vecdb.kernels import bitset
from vecdb.options import index_to_dict
from vecdb.storage.schema import FieldMeta
from vecdb.storage.sealed import Sealed


@dataclass(frozen=True, slots=True)
class SegmentStats:
    """`rows` include `deleted` ones until a merge; `dead` of them the catalog knows. `indexes` by field.

    curves   by field with a graph or lists: the recall of its searches as measured, [[k, [[ef, recall], ...]], ...],
             where ef is the lists that are scanned of an inverted file
    retrained   by field whose lists were trained again: why, and what the rows' distance from their centroids, the
                largest list and the recall of a search were before and after
    """

    name: str
    rows: int
    deleted: int
    dead: int
    bytes: int
    indexes: dict[str, list[str]]
    curves: dict[str, list[Any]]
    retrained: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """`unindexed`: sealed rows of a field that wait for the index they should have."""

    records: int
    segments: tuple[SegmentStats, ...]
    growing_rows: int
    unindexed: int
    segment_bytes: int

    def __str__(self) -> str:
        waiting = f", {self.unindexed:,} wait for an index" if self.unindexed else ""
        return (
            f"{self.records:,} records: {len(self.segments)} sealed segment(s) of {self.segment_bytes / 1e6:.1f} MB, "
            f"{self.growing_rows:,} growing rows{waiting}"
        )


@dataclass(frozen=True, slots=True)
class DatabaseStats:
    """Bytes on disk by part, and what maintenance still has before it.

    costs   what the planner reckons with, where it was measured: by place (machine, dimension, codes, m, size), when,
            and [microseconds of a query, nanoseconds of each row or hop] by way to search
    payload_cache_bytes   of memory, about: payloads that were read lately
    """

    path: str
    uuid: str
    format: int
    collections: dict[str, CollectionStats]
    catalog_bytes: int
    catalog_free_bytes: int
    log_bytes: int
    last_lsn: int
    applied_lsn: int
    frozen: int
    trouble: str | None
    costs: dict[str, Any]
    payload_cache_bytes: int

    def __str__(self) -> str:
        lines = [
            f"{self.path}: format {self.format}, catalog {self.catalog_bytes / 1e6:.1f} MB "
            f"({self.catalog_free_bytes / 1e6:.1f} MB free), log {self.log_bytes / 1e6:.1f} MB"
        ]
        lines += [f"  {name}: {stats}" for name, stats in self.collections.items()]
        if self.trouble is not None:
            lines.append(f"  maintenance: {self.trouble}")
        return "\n".join(lines)


def field_info(field: FieldMeta) -> dict[str, Any]:
    index = "auto" if field.index is None else index_to_dict(field.index)
    return {"dim": field.dim, "metric": field.metric.name.lower(), "dtype": field.dtype, "index": index}


def collection_stats(engine: Engine, state: CollectionState) -> CollectionStats:
    from vecdb.engine.build import lacks

    engine.check_open()
    view = state.view
    sealed = [segment for segment in view.segments if isinstance(segment.storage, Sealed)]
    unindexed = 0
    for segment in sealed:
        for number, field in segment.fields.items():
            meta = next(f for f in view.meta.fields if f.number == number)
            unindexed += field.matrix.rows if lacks(meta, field) is not None else 0
    segments = tuple(_segment_stats(engine, state, segment) for segment in sealed)
    growing = sum(segment.rows for segment in view.segments if not isinstance(segment.storage, Sealed))
    return CollectionStats(view.records, segments, growing, unindexed, sum(s.bytes for s in segments))


def _segment_stats(engine: Engine, state: CollectionState, segment: Segment) -> SegmentStats:
    storage = segment.storage
    assert isinstance(storage, Sealed)
    titles = {field.number: field.name for field in state.meta.fields}
    indexes = {titles[number]: sorted(field.indexes or {}) for number, field in segment.fields.items()}
    dead = committed_deletions(state.meta.number, storage, engine.snapshot)
    return SegmentStats(
        names.segment(state.meta.number, storage.entry.number),
        segment.rows,
        segment.deleted_count,
        0 if dead is None else bitset.count(dead),
        storage.size_bytes,
        indexes,
        _told(
            segment, titles, lambda parameters: parameters.get("curves") or parameters.get("probing", {}).get("curves")
        ),
        _told(segment, titles, lambda parameters: parameters.get("retrained")),
    )


def _told(segment: Segment, titles: Mapping[int, str], read: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
    """What the parameters of a field's indexes say, by field; the fields of which they say nothing are left out."""
    found = {}
    for number, field in segment.fields.items():
        for slot in (field.indexes or {}).values():
            if told := read(slot.entry.parameters):
                found[titles[number]] = told
    return found


def database_stats(engine: Engine) -> DatabaseStats:
    """Opens every collection once, to count."""
    engine.check_open()
    collections = {
        name: collection_stats(engine, collection_of(engine, number)) for name, number in sorted(engine.names.items())
    }
    return DatabaseStats(
        str(engine.path),
        str(uuid.UUID(bytes=engine.superblock.uuid)),
        engine.superblock.version,
        collections,
        engine.catalog.size(),
        engine.catalog.free_bytes(),
        log_bytes(engine),
        engine.last_lsn,
        engine.state.applied_lsn,
        len(engine.frozen),
        None if engine.trouble is None else str(engine.trouble),
        engine.costs.told(),
        engine.recent.nbytes,
    )


def log_bytes(engine: Engine) -> int:
    """Bytes of all log files, as they are on disk."""
    disk, total = engine.seams.disk, 0
    found: Sequence[str] = disk.list(engine.wal_directory)
    for name in found:
        total += disk.size(engine.wal_directory / name) or 0
    return total
