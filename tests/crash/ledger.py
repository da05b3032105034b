"""What a crash test writes, and what must be found after it: batches made from a seed, and the prefix rule.

The ledger knows every batch in order. After a crash the database must equal the state after some number of batches, at
least all acknowledged ones, at most one more: the one in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import vecdb

DIM = 8
IDS = 400  # ids that batches draw from, so that most batches replace and delete earlier records


@dataclass(frozen=True)
class Batch:
    """`kind` "upsert" or "delete"; records are functions of (seed, id)."""

    kind: str
    seed: int
    ids: tuple[int | str, ...]


def make_batch(seed: int, ids: int = IDS, rows: int = 24) -> Batch:
    random = np.random.default_rng(seed)
    numbers = random.choice(ids, size=int(random.integers(1, rows + 1)), replace=False).tolist()
    kind = "delete" if random.random() < 0.2 else "upsert"
    return Batch(kind, seed, tuple(number if number % 3 else f"text-{number}" for number in numbers))


def vector_of(seed: int, name: int | str) -> np.ndarray:
    random = np.random.default_rng([seed, hash_of(name)])
    return random.standard_normal(DIM).astype(np.float32)


def hash_of(name: int | str) -> int:
    return name if isinstance(name, int) else int(name.removeprefix("text-")) + 1_000_000


def payload_of(seed: int, name: int | str) -> dict[str, Any]:
    number = hash_of(name)
    return {
        "seed": seed,
        "group": f"g{(seed + number) % 5}",
        "nested": {"number": number, "share": (seed * 31 + number) / 7},
        "tags": [f"t{number % 4}", f"t{seed % 4}"],
        "raw": bytes([number % 256, seed % 256]),
        "text": f"record {number} of batch {seed} " * (number % 5),
    }


def write(collection: vecdb.Collection, batch: Batch) -> None:
    if batch.kind == "delete":
        collection.delete(list(batch.ids))
        return
    vectors = np.array([vector_of(batch.seed, name) for name in batch.ids])
    collection.upsert(list(batch.ids), vectors, [payload_of(batch.seed, name) for name in batch.ids])


State = dict[int | str, int]  # id -> seed of the batch that wrote its current version


def after(state: State, batch: Batch) -> State:
    changed = dict(state)
    for name in batch.ids:
        if batch.kind == "delete":
            changed.pop(name, None)
        else:
            changed[name] = batch.seed
    return changed


def states_of(batches: list[Batch], start: State | None = None) -> list[State]:
    """The state after 0, 1, 2, ... batches."""
    states = [start or {}]
    for batch in batches:
        states.append(after(states[-1], batch))
    return states


def found_state(collection: vecdb.Collection) -> State:
    """What the database holds, after every record was compared byte for byte with what its seed makes."""
    state: State = {}
    for record in collection.get(include=("payloads", "vectors")):
        seed = record.payload["seed"]
        assert record.id not in state, f"{record.id!r} is there twice"
        assert record.payload == payload_of(seed, record.id)
        assert np.asarray(record.vector).tobytes() == vector_of(seed, record.id).tobytes()
        state[record.id] = seed
    return state


def check_consistent(collection: vecdb.Collection, state: State, *, queries: int = 2) -> None:
    """Every way of reading agrees with `state`."""
    names = list(state)
    assert collection.count() == len(state)
    if not names:
        assert len(collection.search(np.ones(DIM), k=5)) == 0
        return
    asked = names[:: max(1, len(names) // 20)]
    found = collection.get(asked, include=("payloads",))
    assert [(r.id, r.payload["seed"]) for r in found] == [(name, state[name]) for name in asked]
    group = f"g{len(names) % 5}"
    matching = {name for name in names if (state[name] + hash_of(name)) % 5 == int(group[1])}
    assert collection.count({"group": group}) == len(matching)
    vectors = np.array([vector_of(state[name], name) for name in names], np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number in range(queries):
        query = np.random.default_rng(number).standard_normal(DIM)
        check_search(collection, names, vectors, query, None, set(names))
        check_search(collection, names, vectors, query, {"group": group}, matching)


def check_search(
    collection: vecdb.Collection,
    names: list[int | str],
    vectors: np.ndarray,
    query: np.ndarray,
    where: dict[str, Any] | None,
    allowed: set[int | str],
) -> None:
    """Ten nearest by brute force over what is there, equal up to ties in float32."""
    hits = collection.search(query, k=10, where=where, exact=True)
    distances = 1 - vectors @ (query / np.linalg.norm(query))
    expected = sorted((float(d), str(n)) for d, n in zip(distances, names, strict=True) if n in allowed)[:10]
    assert len(hits) == len(expected)
    np.testing.assert_allclose(hits.distances, [d for d, _ in expected], atol=1e-5)
    by_name = dict(zip(names, distances.tolist(), strict=True))
    for hit in hits:
        assert hit.id in allowed
        assert abs(by_name[hit.id] - hit.distance) < 1e-5


def check_prefix(collection: vecdb.Collection, states: list[State], acknowledged: int) -> int:
    """The prefix rule. Returns the number of batches that are there."""
    state = found_state(collection)
    allowed = [number for number in (acknowledged, acknowledged + 1) if number < len(states)]
    matching = [number for number in allowed if states[number] == state]
    assert matching, (
        f"{acknowledged} batches were acknowledged; {len(states[acknowledged])} records must be there, "
        f"{len(state)} are; it equals the state after "
        f"{[number for number, known in enumerate(states) if known == state]} batches"
    )
    check_consistent(collection, state)
    return matching[0]
