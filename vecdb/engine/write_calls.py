"""What the writing methods of a collection call: arguments checked before any lock, then one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vecdb.engine import intake, read, resolve, schema
from vecdb.engine.calls import writable
from vecdb.engine.commit import write
from vecdb.engine.state import CollectionState, Engine
from vecdb.errors import InvalidInput
from vecdb.storage.keys import encode_key
from vecdb.storage.schema import FieldMeta

CONFLICTS = ("error", "skip", "replace")


def upsert(engine: Engine, state: CollectionState, ids: Any, vectors: Any, payloads: Any) -> list[Any]:
    records, decided = _checked(engine, state, ids, vectors, payloads)
    _fix_dims(engine, state, decided)
    write(engine, state, len(records.keys), lambda current: resolve.resolve_upsert(current, records))
    return records.ids


def add(engine: Engine, state: CollectionState, ids: Any, vectors: Any, payloads: Any, on_conflict: str) -> list[Any]:
    if on_conflict not in CONFLICTS:
        raise InvalidInput(f"on_conflict must be one of {', '.join(CONFLICTS)}; not {on_conflict!r}")
    if on_conflict == "replace":
        return upsert(engine, state, ids, vectors, payloads)
    records, decided = _checked(engine, state, ids, vectors, payloads)
    if decided:
        part, _ = resolve.resolve_add(state, records, on_conflict)  # records that are not written decide nothing
        if part is None:
            return []
        _fix_dims(engine, state, decided)
    written: list[int] = []

    def decide(current: CollectionState) -> Any:
        part, kept = resolve.resolve_add(current, records, on_conflict)
        written.extend(kept)
        return part

    write(engine, state, len(records.keys), decide)
    return [records.ids[i] for i in written]


def _checked(
    engine: Engine, state: CollectionState, ids: Any, vectors: Any, payloads: Any
) -> tuple[intake.Intake, list[tuple[FieldMeta, int]]]:
    writable(engine, state)
    return intake.check_records(engine.seams, state.meta, ids, vectors, payloads)


def _fix_dims(engine: Engine, state: CollectionState, decided: Sequence[tuple[FieldMeta, int]]) -> None:
    """The first vectors of a field decide its dimension, here or in another thread meanwhile."""
    for field, dim in decided:
        schema.fix_dim(engine, state, field, dim)
        now = state.meta.field(field.name)
        if now is not None and now.dim != dim:
            raise InvalidInput(f"vectors of {field.name!r} must have {now.dim} dimensions, not {dim}")


def update(engine: Engine, state: CollectionState, ids: Any, vectors: Any, payloads: Any, where: Any) -> int:
    writable(engine, state)
    if (ids is None) == (where is None):
        raise InvalidInput("update needs the ids of the records to change, or where, and not both")
    if where is not None:
        return _update_where(engine, state, vectors, payloads, where)
    if vectors is None and payloads is None:
        raise InvalidInput("update needs vectors, payloads or both")
    keys = intake.encode_keys(intake.check_ids(ids))
    fields = intake.check_vectors(state.meta, vectors)
    patches = None if payloads is None else intake.check_list("payloads", payloads, "a list of dicts")
    counts = {f"vectors[{name!r}]": count for name, (count, _) in fields.items()}
    counts["payloads"] = len(keys) if patches is None else len(patches)
    for name, count in counts.items():
        if count != len(keys):
            raise InvalidInput(f"{name} has {count} entries for {len(keys)} ids; give one per id")
    _check_patches(patches)
    given = [(field, block) for _, (field, block) in fields.values() if len(block.values)]
    blocks = {field.number: block for field, block in given}
    if max(state.staged.sequences_of_keys(keys), default=-1) >= 0:
        _fix_dims(engine, state, [(field, block.values.shape[1]) for field, block in given if field.dim is None])
    part = write(engine, state, len(keys), lambda now: resolve.resolve_update(now, keys, blocks, patches))
    return 0 if part is None else len(part.keys)


def _update_where(engine: Engine, state: CollectionState, vectors: Any, patch: Any, where: Any) -> int:
    if vectors is not None or not isinstance(patch, Mapping):
        raise InvalidInput("update with where takes one dict as payloads, the patch of every match, and no vectors")
    _check_patches([patch])
    node = intake.check_filter(state.meta, where)
    while True:
        # Room is taken before the lock under which the matches are final; a match that came meanwhile needs more.
        room = read.count(state.staged, engine.filters, node)
        if room > intake.BATCH_RECORDS_MAX:
            raise InvalidInput(
                f"the filter matches {room:,} records and one call may change {intake.BATCH_RECORDS_MAX:,}; add a "
                "condition and update in parts"
            )
        found: list[int] = []

        def decide(now: CollectionState, room: int = room, found: list[int] = found) -> Any:
            keys = resolve.matching_keys(now, engine.filters, node)
            found.append(len(keys))
            return resolve.resolve_update(now, keys, {}, [patch] * len(keys)) if len(keys) <= room else None

        part = write(engine, state, room, decide)
        if found[-1] <= room:
            return 0 if part is None else len(part.keys)


def _check_patches(patches: Sequence[Any] | None) -> None:
    for i, patch in enumerate(patches or ()):
        if patch is not None and not isinstance(patch, Mapping):
            raise InvalidInput(f"payloads[{i}] must be a dict or None, not {type(patch).__name__}")
        kept = {key: value for key, value in (patch or {}).items() if not isinstance(value, resolve.Remove)}
        try:
            intake.prepare_payloads([kept])
        except InvalidInput as error:
            raise InvalidInput(str(error).replace("payloads[0]", f"payloads[{i}]", 1)) from error


def delete(engine: Engine, state: CollectionState, ids: Any, where: Any) -> int:
    writable(engine, state)
    if (ids is None) == (where is None):
        raise InvalidInput("delete needs either ids or where, and not both; where={} deletes every record")
    if ids is not None:
        keys = list(dict.fromkeys(map(encode_key, intake.check_ids(ids))))
        part = write(engine, state, 0, lambda now: resolve.resolve_delete_ids(now, keys))
    else:
        node = intake.check_filter(state.meta, where)
        part = write(engine, state, 0, lambda now: resolve.resolve_delete_where(now, engine.filters, node))
    return 0 if part is None else len(part.removed)
