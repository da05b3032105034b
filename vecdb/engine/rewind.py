"""Bringing a restored catalog to a moment: which batches, under which schema, replayed in bounded memory.

Batches come from the snapshot's own log and then from an archive. `until` is a batch, which is exact, or a time: the
state before the first batch that was written later, by the writer's clock.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from vecdb.engine.allow import FilterCache
from vecdb.engine.checkpoint import checkpoint
from vecdb.engine.policy import LOG_TRIGGER
from vecdb.engine.recover import open_catalog, read_log, replay
from vecdb.engine.state import Engine
from vecdb.errors import InvalidInput, NotFound
from vecdb.files.seams import Seams
from vecdb.options import DatabaseOptions
from vecdb.storage.archive import Schema, archived_batches, archived_schemas
from vecdb.storage.catalog import LmdbCatalog, Table
from vecdb.storage.manifest import Manifest
from vecdb.storage.schema import (
    STATE_KEY,
    CollectionMeta,
    Superblock,
    collection_key,
    decode_collection,
    decode_state,
    encode_collection,
    encode_state,
)
from vecdb.storage.wal import Wal
from vecdb.storage.wal_scan import LoggedBatch, LogScan

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Moment:
    """Until when: batch `lsn`, or `time_ns`, or neither: to the end of what there is. `archive`: directories."""

    lsn: int | None
    time_ns: int | None
    archive: tuple[Path, ...]


def moment(until: Any, wal_archive: Any) -> Moment:
    """Checks what a user gave."""
    lsn = time_ns = None
    if isinstance(until, dt.datetime):
        aware = until if until.tzinfo is not None else until.replace(tzinfo=dt.UTC)
        time_ns = (aware - EPOCH) // dt.timedelta(microseconds=1) * 1000
    elif type(until) is int and until >= 0:
        lsn = until
    elif until is not None:
        raise InvalidInput(f"until must be a datetime or the number of a batch (lsn), not {until!r}")
    given = [wal_archive] if isinstance(wal_archive, str | os.PathLike) else list(wal_archive or ())
    places = [Path(os.fspath(place)).expanduser() for place in given]
    for place in places:
        if not place.is_dir():
            raise NotFound(f"wal_archive: there is no directory {place}")
    return Moment(lsn, time_ns, tuple(places))


def batches_until(
    seams: Seams, manifest: Manifest, own: Sequence[LoggedBatch], wanted: Moment
) -> Iterator[LoggedBatch]:
    """The batches to replay, in order. InvalidInput when the moment cannot be reached from this snapshot."""
    whole, own = own, _own_until(manifest, own, wanted)
    if not wanted.archive or len(own) < len(whole) or (wanted.lsn is not None and wanted.lsn <= manifest.lsn):
        yield from own
        return
    last = manifest.lsn
    kept = archived_batches(seams.disk, wanted.archive, manifest.uuid, manifest.lsn)
    for batch in chain(own, kept):
        if wanted.lsn is not None and batch.lsn > wanted.lsn:
            break
        if wanted.time_ns is not None and batch.time_ns > wanted.time_ns:
            break
        last = max(last, batch.lsn)
        yield batch
    if wanted.lsn is not None and last < wanted.lsn:
        raise NotFound(f"the archive ends with batch {last}; batch {wanted.lsn} is not in it")


def _own_until(manifest: Manifest, own: Sequence[LoggedBatch], wanted: Moment) -> Sequence[LoggedBatch]:
    """Those of the snapshot's log, as far as they belong to the moment."""
    if wanted.lsn is not None:
        if wanted.lsn < manifest.applied_lsn:
            raise InvalidInput(
                f"the snapshot begins at batch {manifest.applied_lsn}; take one from before {wanted.lsn}"
            )
        if wanted.lsn > manifest.lsn and not wanted.archive:
            raise InvalidInput(f"the snapshot ends at batch {manifest.lsn}; give wal_archive= to go on from there")
        return [batch for batch in own if batch.lsn <= wanted.lsn]
    if wanted.time_ns is None:
        return own
    if wanted.time_ns >= manifest.time_ns:
        if not wanted.archive and wanted.time_ns > manifest.time_ns:
            raise InvalidInput(f"the snapshot is of {manifest.time}; give wal_archive= to go on from there")
        return own
    late = next((i for i, batch in enumerate(own) if batch.time_ns > wanted.time_ns), len(own))
    if late == 0:
        raise InvalidInput(f"the snapshot of {manifest.time} cannot go back so far; take an earlier one")
    return own[:late]


# ---- schema ---------------------------------------------------------------------------------------------------------
def schema_at(seams: Seams, manifest: Manifest, wanted: Moment) -> Schema | None:
    """The newest description that is later than the snapshot and not later than the moment."""
    found = None
    for schema in archived_schemas(seams.disk, wanted.archive, manifest.uuid):
        early = schema.time_ns <= manifest.time_ns
        late = (wanted.lsn is not None and schema.lsn >= wanted.lsn) or (
            wanted.time_ns is not None and schema.time_ns > wanted.time_ns
        )
        if not early and not late:
            found = schema
    return found


def apply_schema(seams: Seams, directory: Path, generation: int, schema: Schema) -> None:
    """Collections made since the snapshot are there, empty; dropped ones are not; the others are as they became."""
    catalog = LmdbCatalog(seams, directory, generation, writable=True, look="nothing")
    try:
        with catalog.write() as writer:
            rows = writer.scan(Table.COLLECTIONS, b"")
            there = {meta.number: meta for meta in (decode_collection(key, value) for key, value in rows)}
            for number in there.keys() - {meta.number for meta in schema.collections}:
                writer.delete(Table.COLLECTIONS, collection_key(number))
            for meta in schema.collections:
                known = there.get(meta.number) or CollectionMeta(meta.number, meta.name, meta.uuid, meta.fields)
                stored = encode_collection(replace(known, name=meta.name, fields=meta.fields))
                writer.put(Table.COLLECTIONS, collection_key(meta.number), stored)
            state = decode_state(writer.get(Table.DATABASE, STATE_KEY))
            state = replace(state, next_collection=max(state.next_collection, schema.next_collection))
            writer.put(Table.DATABASE, STATE_KEY, encode_state(state))
    finally:
        catalog.close()


# ---- replay ---------------------------------------------------------------------------------------------------------
def chunks_of(batches: Iterable[LoggedBatch]) -> Iterator[list[LoggedBatch]]:
    """Batches of about as many bytes as the log of a database may have."""
    chunk: list[LoggedBatch] = []
    size = 0
    for batch in batches:
        chunk.append(batch)
        size += len(batch.payload)
        if size >= LOG_TRIGGER:
            yield chunk
            chunk, size = [], 0
    yield chunk


def replay_chunks(
    seams: Seams,
    directory: Path,
    superblock: Superblock,
    chunk: list[LoggedBatch] | None,
    chunks: Iterator[list[LoggedBatch]],
) -> int:
    """Seals what the log of a database holds and gives it the next chunk, until the last is its log. Counts them."""
    count = 0
    if not chunk:
        return 0
    engine = Engine(directory, seams, DatabaseOptions(maintenance="manual"), writable=True)
    engine.superblock, engine.filters = superblock, FilterCache()
    open_catalog(engine, writable=True, locked=True)
    try:
        log = read_log(engine)
        engine.wal = Wal(seams, engine.wal_directory, superblock.uuid, log.files, max(1, log.epoch))
        replay(engine, log)
        while chunk:
            with engine.maintenance_lock:
                while checkpoint(engine, codes=False):
                    pass
            engine.wal.rewrite(engine.last_lsn + 1, ((b.lsn, b.time_ns, [b.payload]) for b in chunk))
            count += len(chunk)
            following = next(chunks, None)
            if following:
                replay(engine, LogScan([], engine.wal.epoch, chunk, True, chunk[-1].lsn, []))
            chunk = following
        engine.wal.close(clean=True)
    finally:
        if engine.wal is not None and engine.wal.handle is not None:
            engine.wal.close(clean=False)
        engine.snapshot.close()
        engine.catalog.close()
    return count
