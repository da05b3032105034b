"""Changes of the schema: collections made, renamed, dropped; a field's dimension and index. Direct catalog commits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vecdb.engine.apply import replace_views
from vecdb.engine.commit import flush_pending
from vecdb.engine.interrupts import held_interrupts, poisoning, taking_over
from vecdb.engine.load import collection_of
from vecdb.engine.state import CollectionState, Engine
from vecdb.errors import AlreadyExists, InvalidInput, StorageFailed
from vecdb.options import Columns, IndexOptions, VectorField, parse_index, parse_metric
from vecdb.storage.catalog import MapFull, Table, Writer
from vecdb.storage.schema import (
    STATE_KEY,
    CollectionMeta,
    DatabaseState,
    FieldMeta,
    collection_key,
    decode_collection,
    decode_state,
    encode_collection,
    encode_state,
    new_uuid,
)

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
DEFAULT_FIELD = "vector"
FIELDS_MAX = 64


def check_name(name: Any) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidInput(
            f"a collection name has 1 to 63 of a-z, 0-9, '_' and '-', and starts with a letter or digit; not {name!r}"
        )
    return name


def change_catalog(engine: Engine, change: Callable[[Writer], None]) -> None:
    """Commits `change`, and gives every open collection the new picture. Held: catalog_lock.

    A full map is answered by copying the catalog to a larger one, once; StorageFailed if even that is too small.
    """
    assert engine.wal is not None
    engine.wal.check()
    try:
        with poisoning(engine):
            _commit_growing(engine, change)
        with taking_over(engine):
            take_snapshot(engine)
    finally:
        if engine.archive is not None and not engine.poisoned:
            engine.archive.settle(engine.snapshot)


def _commit_growing(engine: Engine, change: Callable[[Writer], None]) -> None:
    try:
        return _commit(engine, change)
    except MapFull:
        engine.catalog.compact()
    try:
        _commit(engine, change)
    except MapFull as error:
        raise StorageFailed("one commit outgrows the catalog's map; write smaller batches") from error


def _commit(engine: Engine, change: Callable[[Writer], None]) -> None:
    """One transaction. What the log does not tell, changes of the schema, the archive knows before it happened."""
    with engine.catalog.write() as writer:
        change(writer)
        if engine.archive is not None:
            engine.archive.note_of(writer, engine.last_lsn, ahead=True)


def take_snapshot(engine: Engine) -> None:
    """Every view reads from the newest committed catalog. Callers that moved records replace those views first."""
    with engine.both_locks():
        flush_pending(engine)
        engine.snapshot = engine.catalog.read()
        for state in engine.collections.values():
            replace_views(state, replace(state.view, snapshot=engine.snapshot))


def create_collection(
    engine: Engine, name: str, fields: Mapping[str, VectorField], columns: Columns
) -> CollectionState:
    check_name(name)
    metas = tuple(_field_meta(number, title, field) for number, (title, field) in enumerate(fields.items(), 1))
    if not 1 <= len(metas) <= FIELDS_MAX:
        raise InvalidInput(f"a collection has 1 to {FIELDS_MAX} vector fields, not {len(metas)}")
    with engine.catalog_lock, held_interrupts():
        engine.check_writable()
        if name in engine.names:
            raise AlreadyExists(
                f"the collection {name!r} exists; take it with get_collection(), or use get_or_create_collection()"
            )
        identity = new_uuid(engine.seams.random.bytes(16))
        made: list[CollectionMeta] = []

        def change(writer: Writer) -> None:
            state = decode_state(writer.get(Table.DATABASE, STATE_KEY))
            meta = CollectionMeta(state.next_collection, name, identity, metas, columns=columns)
            _put_collection(writer, meta)
            counted = DatabaseState(state.applied_lsn, state.next_collection + 1)
            writer.put(Table.DATABASE, STATE_KEY, encode_state(counted))
            made[:] = [meta]

        change_catalog(engine, change)
        engine.names = {**engine.names, name: made[0].number}
        return collection_of(engine, made[0].number)


def _field_meta(number: int, name: str, field: VectorField) -> FieldMeta:
    if not isinstance(name, str) or not FIELD_NAME.fullmatch(name):
        raise InvalidInput(f"a field name has 1 to 63 letters, digits, '_' and '-', not {name!r}")
    if not isinstance(field, VectorField):
        raise InvalidInput(f"fields[{name!r}] must be a vecdb.VectorField, not {field!r}")
    return FieldMeta(number, name, field.dim, parse_metric(field.metric), field.dtype, parse_index(field.index))


def _put_collection(writer: Writer, meta: CollectionMeta) -> None:
    writer.put(Table.COLLECTIONS, collection_key(meta.number), encode_collection(meta))


def stored_collection(writer: Writer, number: int) -> CollectionMeta | None:
    """The collection as the catalog has it now; None once it was dropped."""
    key = collection_key(number)
    stored = writer.get(Table.COLLECTIONS, key)
    return None if stored is None else decode_collection(key, stored)


def change_collection(
    engine: Engine, state: CollectionState, change: Callable[[CollectionMeta], CollectionMeta]
) -> None:
    """Commits a change of one collection's description. Held: catalog_lock."""
    state.check_exists()

    def commit(writer: Writer) -> None:
        meta = stored_collection(writer, state.meta.number)
        assert meta is not None
        _put_collection(writer, change(meta))

    change_catalog(engine, commit)
    with taking_over(engine), engine.both_locks():
        flush_pending(engine)
        state.meta = change(state.meta)
        replace_views(state, replace(state.view, meta=change(state.view.meta)))


def rename_collection(engine: Engine, name: str, new_name: str) -> None:
    check_name(new_name)
    with engine.catalog_lock, held_interrupts():
        engine.check_writable()
        state = collection_of(engine, engine.number_of(name))
        if new_name == name:
            return
        if new_name in engine.names:
            raise AlreadyExists(f"the collection {new_name!r} exists; choose another name")
        change_collection(engine, state, lambda meta: replace(meta, name=new_name))
        others = {title: number for title, number in engine.names.items() if title != name}
        engine.names = {**others, new_name: state.meta.number}


def delete_collection(engine: Engine, name: str) -> None:
    """Drops the collection in one commit; its records and files are purged by maintenance, in slices."""
    with engine.catalog_lock, held_interrupts():
        engine.check_writable()
        number = engine.number_of(name)
        change_catalog(engine, lambda writer: writer.delete(Table.COLLECTIONS, collection_key(number)))
        with engine.both_locks():
            flush_pending(engine)
            engine.names = {title: other for title, other in engine.names.items() if other != number}
            state = engine.collections.pop(number, None)
            if state is not None:
                state.dropped = True
            for frozen in engine.frozen:
                frozen.growings.pop(number, None)
        engine.purge.add(number)
        if engine.scheduler is not None:
            engine.scheduler.wake()


def fix_dim(engine: Engine, state: CollectionState, field: FieldMeta, dim: int) -> None:
    """The first write of a field without `dim` decides it."""
    with engine.catalog_lock, held_interrupts():
        engine.check_writable()
        now = state.meta.field(field.name)
        if now is not None and now.dim is None:
            change_collection(engine, state, lambda meta: _with_dim(meta, field.name, dim))


def _with_dim(meta: CollectionMeta, name: str, dim: int) -> CollectionMeta:
    field = meta.field(name)
    assert field is not None
    return meta.with_field(replace(field, dim=dim))


def set_index(engine: Engine, state: CollectionState, name: str, index: IndexOptions | None) -> None:
    """Records the wish; maintenance builds the new index while the old one serves."""

    def change(meta: CollectionMeta) -> CollectionMeta:
        field = meta.field(name)
        assert field is not None
        return meta.with_field(replace(field, index=index))

    with engine.catalog_lock, held_interrupts():
        engine.check_writable()
        change_collection(engine, state, change)
    if engine.scheduler is not None:
        engine.scheduler.wake()
