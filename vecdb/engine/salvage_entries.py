"""The catalog of a damaged database: entries as far as they can be read, and what they tell of segments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from vecdb.engine.inspection import UNREADABLE
from vecdb.engine.schema import DEFAULT_FIELD
from vecdb.errors import Corrupted
from vecdb.files import names
from vecdb.storage.catalog import Catalog, Table
from vecdb.storage.keys import decode_key
from vecdb.storage.payload import unpack
from vecdb.storage.schema import (
    CollectionMeta,
    FieldEntry,
    FieldMeta,
    SegmentEntry,
    collection_key,
    decode_file,
    decode_record,
    decode_segment,
    decode_sequence,
    file_path,
    id_key,
    record_key,
)
from vecdb.storage.sealed import Files
from vecdb.types import Metric

ROWS = 512  # entries read at a time
UNREAD = b""  # stands for an entry whose page cannot be read; no entry is empty
FIELD = re.compile(r"field-(\d{1,10})/vectors\.npy")


class Entries:
    """The catalog of a damaged database: an entry that cannot be read is UNREAD, a table may end early.

    unread   tables that ended early
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.reader = catalog.read()
        self.unread: set[Table] = set()

    def get(self, table: Table, key: bytes) -> bytes | None:
        try:
            return self.reader.get(table, key)
        except Corrupted:
            self._renew()
            return UNREAD

    def _renew(self) -> None:
        """LMDB ends a transaction that met a damaged page. The next one sees the same: nobody writes."""
        self.reader.close()
        self.reader = self.catalog.read()

    def under(self, table: Table, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every entry under a prefix, up to the first page that cannot be read."""
        after: bytes | None = None
        while True:
            try:
                page = self.reader.page(table, prefix, after, ROWS)
            except Corrupted:
                self._renew()
                self.unread.add(table)
                return
            if not page:
                return
            yield from page
            after = page[-1][0]

    def sequence(self, collection: int, key: bytes | None) -> int | None:
        """Where an id leads: -1 nowhere, None if that cannot be read."""
        if key is None:
            return None
        stored = self.get(Table.IDS, id_key(collection, key))
        if stored is None:
            return -1
        try:
            return decode_sequence(id_key(collection, key), stored)
        except UNREADABLE:
            return None

    def record(self, collection: int, sequence: int) -> tuple[bool | None, bytes | None, dict[str, Any] | None]:
        """(whether there is an entry, None if that cannot be told; its id; its payload, None if it is damaged)"""
        key = record_key(collection, sequence)
        stored = self.get(Table.RECORDS, key)
        if stored is None:
            return False, None, None
        if stored == UNREAD:
            return None, None, None
        try:
            id_bytes, packed = decode_record(key, stored)
            decode_key(id_bytes)
        except UNREADABLE:
            return True, None, None
        try:
            return True, id_bytes, unpack(packed)
        except UNREADABLE:
            return True, id_bytes, None


def segments_of(entries: Entries, collection: int) -> list[tuple[SegmentEntry, Files]]:
    """The segments of a collection in order, and their files; those whose entry is lost are told by their files."""
    files: dict[int, Files] = {}
    for key, value in entries.under(Table.FILES, collection_key(collection)):
        of_segment = files.setdefault(int.from_bytes(key[4:8], "big"), {})
        try:
            of_segment[file_path(key)] = decode_file(key, value)
        except UNREADABLE:
            continue
    found: dict[int, SegmentEntry] = {}
    for key, value in entries.under(Table.SEGMENTS, collection_key(collection)):
        try:
            found[int.from_bytes(key[4:8], "big")] = decode_segment(key, value)
        except UNREADABLE:
            continue
    for number, known in files.items():
        if number not in found and "sequences.npy" in known:
            found[number] = guess_segment(number, known)
    return [(entry, files.get(entry.number, {})) for entry in sorted(found.values(), key=lambda e: e.first_sequence)]


def guess_segment(number: int, files: Files) -> SegmentEntry:
    """The entry of a segment, as its files tell it. Its sequences may be anything."""
    rows = files["sequences.npy"].shape[0]
    fields = []
    for path, file in files.items():
        named = FIELD.fullmatch(path)
        if named and len(file.shape) == 2:
            place = f"{names.field_directory(int(named[1]))}/rows.npy"
            fields.append(FieldEntry(int(named[1]), file.shape[0], file.shape[1], place in files))
    return SegmentEntry(number, rows, 0, 2**63 - 1, "ids.npy" in files, tuple(fields), ())


def guess_meta(number: int, entries: Entries) -> CollectionMeta:
    """The description of a collection whose own is lost: fields as its segments tell them, without their names."""
    fields: dict[int, FieldMeta] = {}
    for entry, files in segments_of(entries, number):
        for one in entry.fields:
            place = names.field_directory(one.number)
            if f"{place}/vectors.npy" in files:
                dtype = np.dtype(files[f"{place}/vectors.npy"].dtype).name
                metric = Metric.COSINE if f"{place}/inverse_norms.npy" in files else Metric.L2
                fields[one.number] = FieldMeta(one.number, place, one.dim, metric, dtype, None)
    found = tuple(fields[n] for n in sorted(fields))
    if len(found) == 1:
        found = (replace(found[0], name=DEFAULT_FIELD),)
    return CollectionMeta(number, f"recovered-{number}", bytes(16), found)
