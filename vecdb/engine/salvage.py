"""What can still be read of a collection: the rows of its segments, then payloads whose rows are gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vecdb.engine.inspection import UNREADABLE
from vecdb.engine.salvage_entries import Entries, segments_of
from vecdb.engine.salvage_segment import Salvaged, SegmentSalvage
from vecdb.files.disk import Disk
from vecdb.storage.catalog import Table
from vecdb.storage.keys import decode_key
from vecdb.storage.schema import (
    CollectionMeta,
    collection_key,
    decode_sequence,
)


@dataclass(slots=True)
class CollectionSalvage:
    """What is found of one collection. `kept`: sequences of the records of which anything could be read."""

    meta: CollectionMeta
    kept: list[int] = field(default_factory=list)

    def records(self, disk: Disk, root: Path, entries: Entries) -> Iterator[Salvaged]:
        """Every record of the catalog and its segments that can be read, at least in part."""
        number = self.meta.number
        for entry, files in segments_of(entries, number):
            segment = SegmentSalvage(disk, root, number, entries, entry, files)
            try:
                for sequence, record in segment.records():
                    self.kept.append(sequence)
                    yield record
            finally:
                segment.close()
        yield from self._without_rows(entries)

    def _without_rows(self, entries: Entries) -> Iterator[Salvaged]:
        """Payloads whose rows are gone, with whatever segment had them."""
        seen = np.sort(np.array(self.kept, np.int64))
        fields = tuple(field.number for field in self.meta.fields)
        for key, _ in entries.under(Table.RECORDS, collection_key(self.meta.number)):
            sequence = int.from_bytes(key[4:], "big")
            at = np.searchsorted(seen, sequence)
            if at < len(seen) and seen[at] == sequence:
                continue
            _, id_bytes, payload = entries.record(self.meta.number, sequence)
            if id_bytes is not None and entries.sequence(self.meta.number, id_bytes) in (sequence, None):
                self.kept.append(sequence)
                yield Salvaged(id_bytes, payload, lost_fields=fields)

    def lost_keys(self, entries: Entries) -> Iterator[bytes]:
        """The ids that lead to records of which nothing could be read."""
        seen = np.sort(np.array(self.kept, np.int64))
        for key, value in entries.under(Table.IDS, collection_key(self.meta.number)):
            try:
                sequence = decode_sequence(key, value)
                decode_key(key[4:])
            except UNREADABLE:
                continue
            at = np.searchsorted(seen, sequence)
            if at == len(seen) or seen[at] != sequence:
                yield key[4:]
