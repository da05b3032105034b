"""The log: it can be read to its end, its batches can be decoded, and each follows from what is before it."""

from __future__ import annotations

from collections.abc import Callable

from vecdb.engine.inspection import UNREADABLE, Inspection
from vecdb.errors import Corrupted, StorageFailed
from vecdb.files import names
from vecdb.files.disk import Disk
from vecdb.storage.batch import Part, decode
from vecdb.storage.catalog import Reader, Table
from vecdb.storage.keys import decode_key
from vecdb.storage.payload import unpack
from vecdb.storage.schema import STATE_KEY, CollectionMeta, decode_collection, decode_state
from vecdb.storage.wal_scan import LogScan, scan

ATTEMPTS = 20  # a writer may retire files while they are being read; each attempt starts from newer facts


def check_log(run: Inspection, disk: Disk, uuid: bytes, read: Callable[[], Reader]) -> None:
    """Scans the log against the newest catalog, which `read` opens."""
    wal = run.path / names.WAL_DIRECTORY
    for attempt in range(ATTEMPTS):
        before = _listing(disk, run)
        reader = read()
        try:
            try:
                applied = decode_state(reader.get(Table.DATABASE, STATE_KEY)).applied_lsn
                metas = [decode_collection(key, value) for key, value in reader.scan(Table.COLLECTIONS, b"")]
            except UNREADABLE:
                return  # found before, and without it nothing can be said of the log
            log = scan(disk, wal, uuid, applied)
        except (Corrupted, StorageFailed) as error:
            if _listing(disk, run) == before or attempt == ATTEMPTS - 1:
                _tell(run, error)
                return
        else:
            _check_batches(run, log, {meta.number: meta for meta in metas})
            return
        finally:
            reader.close()


def _listing(disk: Disk, run: Inspection) -> list[str]:
    path = run.path / names.WAL_DIRECTORY
    return disk.list(path) if disk.kind(path) == "directory" else []


def _tell(run: Inspection, error: Corrupted | StorageFailed) -> None:
    if isinstance(error, Corrupted):
        run.found_error(error)
    else:
        run.found_failure(error, names.WAL_DIRECTORY)


def _check_batches(run: Inspection, log: LogScan, metas: dict[int, CollectionMeta]) -> None:
    following = {number: meta.next_sequence for number, meta in metas.items()}
    run.batches = len(log.batches)
    for batch in log.batches:
        try:
            for part in decode(batch.payload):
                if part.collection in metas:  # the others were dropped
                    _check_part(part, metas[part.collection], following)
                    if run.deep:
                        for payload in part.payloads:
                            unpack(payload)
        except UNREADABLE as error:
            run.found(names.WAL_DIRECTORY, f"batch {batch.lsn} cannot be taken: {error}")
            return
        run.tick(len(batch.payload))


def _check_part(part: Part, meta: CollectionMeta, following: dict[int, int]) -> None:
    """ValueError says what does not fit."""
    if part.first_sequence != following[meta.number]:
        raise ValueError(f"{meta.name} goes on with sequence {part.first_sequence}, not {following[meta.number]}")
    following[meta.number] += len(part.keys)
    if len(part.payloads) != len(part.keys):
        raise ValueError(f"{meta.name} has {len(part.payloads)} payloads for {len(part.keys)} records")
    for key in (*part.keys, *part.removed):
        decode_key(key)
    if len(part.superseded) and not 0 < part.superseded.min() <= part.superseded.max() < following[meta.number]:
        raise ValueError(f"{meta.name} ends versions that never were")
    dims = {field.number: field.dim for field in meta.fields}
    for number, block in part.vectors.items():
        rows = len(part.keys) if block.rows is None else len(block.rows)
        if number not in dims or dims[number] != block.values.shape[1] or len(block.values) != rows:
            raise ValueError(f"{meta.name} has vectors {block.values.shape} that do not fit field {number}")
