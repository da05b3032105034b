"""What a write means, decided once under the append lock: the physical effects of add, upsert, update and delete.

Each function takes the state with every earlier write staged, and returns a Part, or None when nothing is to be done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vecdb.engine.allow import FilterCache
from vecdb.engine.intake import Intake, prepare_payloads
from vecdb.engine.read import matching_rows
from vecdb.engine.state import CollectionState
from vecdb.engine.view import View
from vecdb.errors import AlreadyExists
from vecdb.filter.expression import Node
from vecdb.storage.batch import FieldBlock, Part
from vecdb.storage.schema import FieldMeta
from vecdb.types import I32, I64, AnyArray, Vectors


class Remove:
    """The type of `vecdb.REMOVE`: as a value in an update's patch, it deletes the key."""

    def __repr__(self) -> str:
        return "vecdb.REMOVE"

    def __reduce__(self) -> str:
        return "REMOVE"


REMOVE = Remove()
NAMED_MAX = 3  # ids named in a message


def resolve_upsert(state: CollectionState, intake: Intake) -> Part | None:
    """New versions of all records."""
    if not intake.keys:
        return None
    current = state.staged.sequences_of_keys(intake.keys)
    superseded = np.array([sequence for sequence in current if sequence >= 0], np.int64)
    return _part(state, intake, superseded)


def resolve_add(state: CollectionState, intake: Intake, on_conflict: str) -> tuple[Part | None, list[int]]:
    """(the part, positions of the records that are written). AlreadyExists names ids that are taken."""
    current = state.staged.sequences_of_keys(intake.keys)
    taken = [i for i, sequence in enumerate(current) if sequence >= 0]
    if not taken:
        return (_part(state, intake, np.zeros(0, np.int64)) if intake.keys else None), list(range(len(intake.keys)))
    if on_conflict == "error":
        named = ", ".join(repr(intake.ids[i]) for i in taken[:NAMED_MAX]) + (", ..." if len(taken) > NAMED_MAX else "")
        raise AlreadyExists(
            f"{len(taken)} of {len(intake.keys)} ids exist already: {named}. Nothing was written. Use upsert(), "
            'or on_conflict="skip" or "replace"'
        )
    kept = sorted(set(range(len(intake.keys))) - set(taken))
    if not kept:
        return None, []
    return _part(state, _subset(intake, np.array(kept, np.int32)), np.zeros(0, np.int64)), kept


def _part(state: CollectionState, intake: Intake, superseded: I64) -> Part:
    return Part(
        state.meta.number,
        state.next_sequence,
        intake.keys,
        intake.payloads,
        intake.vectors,
        superseded,
        flats=intake.flats,
    )


def _subset(intake: Intake, kept: I32) -> Intake:
    chosen = kept.tolist()
    vectors = {}
    for number, block in intake.vectors.items():
        rows = np.arange(len(intake.keys), dtype=np.int32) if block.rows is None else block.rows
        inside = np.isin(rows, kept)
        placed = np.searchsorted(kept, rows[inside]).astype(np.int32)
        if inside.any():
            values: AnyArray = np.ascontiguousarray(block.values[inside])
            vectors[number] = FieldBlock(values, placed)
    return Intake(
        [intake.ids[i] for i in chosen],
        [intake.keys[i] for i in chosen],
        [intake.payloads[i] for i in chosen],
        [intake.flats[i] for i in chosen],
        vectors,
    )


# ---- updates --------------------------------------------------------------------------------------------------------
def resolve_update(
    state: CollectionState,
    keys: Sequence[bytes],
    vectors: Mapping[int, FieldBlock],
    patches: Sequence[Mapping[str, Any] | None] | None,
) -> Part | None:
    """New versions of the records that exist: the old payload with the patch, the old vectors but those given."""
    view = state.staged
    current = np.array(view.sequences_of_keys(keys), np.int64)
    known = np.flatnonzero(current >= 0)
    if len(known) == 0:
        return None
    at, rows = view.locate(current[known])
    payloads = view.payloads(at, rows)
    if patches is not None:
        payloads = [_patched(old, patches[i]) for old, i in zip(payloads, known.tolist(), strict=True)]
    packed, flats = prepare_payloads(payloads)
    new = {n: _chosen(block, known.astype(np.int32), len(keys)) for n, block in vectors.items()}
    merged = {field.number: _merged(view, field, at, rows, new.get(field.number)) for field in state.meta.fields}
    return Part(
        state.meta.number,
        state.next_sequence,
        [keys[i] for i in known.tolist()],
        packed,
        {number: block for number, block in merged.items() if block is not None},
        current[known],
        flats=flats,
    )


def matching_keys(state: CollectionState, cache: FilterCache, node: Node | None) -> list[bytes]:
    """The encoded ids of the records that match, with every earlier write staged."""
    return state.staged.keys(*matching_rows(state.staged, cache, node))


def _patched(payload: dict[str, Any], patch: Mapping[str, Any] | None) -> dict[str, Any]:
    """Top-level keys replace; None stores null; REMOVE deletes."""
    changed = {**payload, **(patch or {})}
    return {key: value for key, value in changed.items() if not isinstance(value, Remove)}


def _chosen(block: FieldBlock, known: I32, total: int) -> dict[int, Vectors]:
    """The given vector of each position in `known`."""
    rows = range(total) if block.rows is None else block.rows.tolist()
    given = dict(zip(rows, block.values, strict=True))
    return {i: given[old] for i, old in enumerate(known.tolist()) if old in given}


def _merged(view: View, field: FieldMeta, at: I32, rows: I32, new: dict[int, Vectors] | None) -> FieldBlock | None:
    vectors: list[Any] = [*view.vectors(field.number, at, rows)]
    for i, vector in (new or {}).items():
        vectors[i] = vector
    there = [i for i, vector in enumerate(vectors) if vector is not None]
    if not there:
        return None
    values: Vectors = np.ascontiguousarray(np.stack([vectors[i] for i in there]), field.dtype)
    return FieldBlock(values, None if len(there) == len(vectors) else np.array(there, np.int32))


# ---- deletions ------------------------------------------------------------------------------------------------------
def resolve_delete_ids(state: CollectionState, keys: Sequence[bytes]) -> Part | None:
    current = state.staged.sequences_of_keys(keys)
    removed = [(key, sequence) for key, sequence in zip(keys, current, strict=True) if sequence >= 0]
    return _removal(state, [key for key, _ in removed], np.array([sequence for _, sequence in removed], np.int64))


def resolve_delete_where(state: CollectionState, cache: FilterCache, node: Node | None) -> Part | None:
    at, rows = matching_rows(state.staged, cache, node)
    return _removal(state, state.staged.keys(at, rows), state.staged.sequences_of_rows(at, rows))


def _removal(state: CollectionState, keys: Sequence[bytes], sequences: I64) -> Part | None:
    if not keys:
        return None
    return Part(state.meta.number, state.next_sequence, superseded=sequences, removed=keys)
