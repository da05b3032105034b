"""Removing what a dropped collection left: catalog rows in slices, then files."""

from __future__ import annotations

from vecdb.engine.interrupts import held_interrupts
from vecdb.engine.schema import change_catalog
from vecdb.engine.state import Engine
from vecdb.files import names
from vecdb.files.disk import remove_tree
from vecdb.storage.catalog import Table, Writer
from vecdb.storage.schema import collection_key

SLICE = 4096  # catalog rows removed by one commit
TABLES = (Table.SEGMENTS, Table.FILES, Table.IDS, Table.RECORDS, Table.DELETIONS)


def purge_collection(engine: Engine, number: int) -> None:
    """One slice of the catalog rows of a dropped collection; with the last one go its files. Held: maintenance_lock."""
    removed = 0

    def change(writer: Writer) -> None:
        nonlocal removed
        removed = 0
        for table in TABLES:
            for key, _ in writer.scan(table, collection_key(number), SLICE - removed):
                writer.delete(table, key)
                removed += 1

    with engine.catalog_lock, held_interrupts():
        change_catalog(engine, change)
    if removed == SLICE:
        return
    with engine.removal_lock:
        for name in engine.seams.disk.list(engine.segment_root):
            numbers = names.segment_numbers(name)
            if numbers is not None and numbers[0] == number:
                remove_tree(engine.seams.disk, engine.segment_root / name)
    engine.purge.discard(number)


def find_dropped(engine: Engine) -> set[int]:
    """Collections that were dropped and not purged to the end."""
    alive = set(engine.names.values())
    dropped = (number for number in range(1, engine.state.next_collection) if number not in alive)
    return {number for number in dropped if any(_has_rows(engine, table, number) for table in TABLES)}


def _has_rows(engine: Engine, table: Table, number: int) -> bool:
    return next(engine.snapshot.scan(table, collection_key(number), 1), None) is not None
