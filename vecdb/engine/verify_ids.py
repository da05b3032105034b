"""Ids both ways, id -> sequence -> row -> id, with payloads, deletions and counts; in pages of the catalog."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vecdb.engine.findings import SHOWN_IDS, named
from vecdb.engine.inspection import PAGE, UNREADABLE, Inspection, OpenedSegment, Picture, catalog_place
from vecdb.errors import Corrupted
from vecdb.storage.catalog import Table
from vecdb.storage.keys import decode_key
from vecdb.storage.payload import unpack
from vecdb.storage.schema import CollectionMeta, collection_key, decode_record, decode_sequence, segment_key, unseal
from vecdb.storage.sealed import Sealed
from vecdb.types import I32, I64, AnyArray, Id


class Examples:
    """How often something was seen, and the ids of the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[Id] = []

    def add(self, key: bytes) -> None:
        self.count += 1
        if len(self.ids) < SHOWN_IDS:
            self.ids.append(decode_key(key))

    def tell(self, run: Inspection, table: Table, collection: str, what: str) -> None:
        if self.count:
            run.found(catalog_place(table), f"{collection}: {self.count:,} {what}: {named(self.ids, self.count)}")


class Rows:
    """The rows of one collection, as its sound segments have them.

    open      for each segment its rows, None where they cannot be trusted
    live      bool (rows,) for each: not deleted, as far as the catalog knows
    complete  whether every segment is there
    """

    def __init__(self, segments: list[OpenedSegment], opened: list[Sealed | None], complete: bool) -> None:
        self.segments, self.open = segments, opened
        self.live: list[AnyArray] = [np.ones(segment.entry.rows, np.bool_) for segment in segments]
        self.complete = complete and None not in opened

    def locate(self, sequences: I64) -> tuple[I32, I32]:
        """(segment, row) of each sequence; segment -1 where there is none."""
        at, rows = np.full(len(sequences), -1, np.int32), np.full(len(sequences), -1, np.int32)
        for number, storage in enumerate(self.open):
            if storage is not None:
                found = storage.rows_of_sequences(sequences)
                at[found >= 0], rows[found >= 0] = number, found[found >= 0]
        return at, rows

    def may_be_hidden(self, sequence: int) -> bool:
        """Whether a sequence that is nowhere may be in a segment that cannot be trusted."""
        hidden = (s.entry for s, storage in zip(self.segments, self.open, strict=True) if storage is None)
        return not self.complete and (
            any(entry.first_sequence <= sequence <= entry.last_sequence for entry in hidden) or None not in self.open
        )


def check_deletions(run: Inspection, picture: Picture, rows: Rows) -> None:
    """Takes deleted rows out of `rows.live`."""
    for number, segment in enumerate(rows.segments):
        storage = rows.open[number]
        for key, value in picture.reader.scan(Table.DELETIONS, segment_key(segment.meta.number, segment.entry.number)):
            try:
                sequences = np.frombuffer(unseal(key, value), "<i8")
            except UNREADABLE as error:
                run.found(catalog_place(Table.DELETIONS), error.reason if isinstance(error, Corrupted) else str(error))
                rows.complete = False
                continue
            if storage is None:
                continue
            found = storage.rows_of_sequences(sequences)
            if (found < 0).any():
                what = f"{int((found < 0).sum()):,} deletions of {segment.name} name sequences that it does not have"
                run.found(catalog_place(Table.DELETIONS), what)
            rows.live[number][found[found >= 0]] = False


def check_ids(run: Inspection, picture: Picture, meta: CollectionMeta, rows: Rows) -> None:
    """Every id leads to a live row of that id, and every live row is led to."""
    led = [np.zeros(len(live), np.bool_) for live in rows.live]
    nowhere, deleted, other = Examples(), Examples(), Examples()
    for page in pages(run, picture, Table.IDS, meta.number):
        keys, sequences = [], []
        for key, value in page:
            try:
                sequences.append(decode_sequence(key, value))
                decode_key(key[4:])
                keys.append(key[4:])
            except UNREADABLE as error:
                del sequences[len(keys) :]
                run.found(catalog_place(Table.IDS), str(error))
        at, found = rows.locate(np.array(sequences, np.int64))
        for key, sequence, number, row in zip(keys, sequences, at.tolist(), found.tolist(), strict=True):
            if number < 0:
                if not rows.may_be_hidden(sequence):
                    nowhere.add(key)
            elif _key_of(rows, number, row) != key:
                other.add(key)
            elif not rows.live[number][row]:
                deleted.add(key)
            else:
                led[number][row] = True
    nowhere.tell(run, Table.IDS, meta.name, "ids lead to records that no segment has")
    deleted.tell(run, Table.IDS, meta.name, "ids lead to deleted records")
    other.tell(run, Table.IDS, meta.name, "ids lead to records of other ids")
    _missed(run, meta, rows, led, Table.IDS, "live records that no id leads to")


def check_records(run: Inspection, picture: Picture, meta: CollectionMeta, rows: Rows) -> None:
    """Every payload belongs to a live row of the same id, and every live row has one. Deep: each can be unpacked."""
    held = [np.zeros(len(live), np.bool_) for live in rows.live]
    stray, other, unreadable = Examples(), Examples(), Examples()
    for page in pages(run, picture, Table.RECORDS, meta.number):
        sequences = np.array([int.from_bytes(key[4:], "big") for key, _ in page], np.int64)
        at, found = rows.locate(sequences)
        for (key, value), number, row, sequence in zip(
            page, at.tolist(), found.tolist(), sequences.tolist(), strict=True
        ):
            if number >= 0:
                held[number][row] = True
            try:
                id_bytes, payload = decode_record(key, value)
                decode_key(id_bytes)
            except UNREADABLE as error:
                run.found(catalog_place(Table.RECORDS), f"{_whose(rows, number, row)}{error}")
                continue
            if number < 0:
                if not rows.may_be_hidden(sequence):
                    stray.add(id_bytes)
            elif _key_of(rows, number, row) != id_bytes or not rows.live[number][row]:
                other.add(id_bytes)
            if run.deep and not _is_payload(payload):
                unreadable.add(id_bytes)
    stray.tell(run, Table.RECORDS, meta.name, "payloads belong to records that no segment has")
    other.tell(run, Table.RECORDS, meta.name, "payloads stand at deleted records or at those of other ids")
    unreadable.tell(run, Table.RECORDS, meta.name, "payloads cannot be unpacked")
    _missed(run, meta, rows, held, Table.RECORDS, "live records have no payload")


def _is_payload(packed: bytes) -> bool:
    try:
        unpack(packed)
    except UNREADABLE:
        return False
    return True


def check_count(run: Inspection, meta: CollectionMeta, rows: Rows) -> None:
    live = sum(int(mask.sum()) for mask in rows.live)
    if rows.complete and live != meta.records:
        run.found(
            catalog_place(Table.COLLECTIONS), f"{meta.name}: {live:,} live records, the catalog says {meta.records:,}"
        )


def pages(run: Inspection, picture: Picture, table: Table, collection: int) -> Iterator[list[tuple[bytes, bytes]]]:
    after: bytes | None = None
    while page := picture.reader.page(table, collection_key(collection), after, PAGE):
        yield page
        run.tick(sum(len(key) + len(value) for key, value in page))
        after = page[-1][0]


def _key_of(rows: Rows, number: int, row: int) -> bytes:
    storage = rows.open[number]
    assert storage is not None
    return storage.ids.key(row)


def _whose(rows: Rows, number: int, row: int) -> str:
    return "" if number < 0 else f"the record {decode_key(_key_of(rows, number, row))!r}: "


def _missed(run: Inspection, meta: CollectionMeta, rows: Rows, seen: list[AnyArray], table: Table, what: str) -> None:
    missed = Examples()
    for number, storage in enumerate(rows.open):
        if storage is None:
            continue
        for row in np.flatnonzero(rows.live[number] & ~seen[number]).tolist():
            missed.add(storage.ids.key(row))
    missed.tell(run, table, meta.name, what)
