"""The states that a crash may leave, made from the picture at one moment.

    power loss   `power_loss(state, personality, random, count)`: what is on disk, and any part of the rest
    death        `death(state)`: the process is gone, the machine is not; the cache is complete, and still not on disk

Every state is a `State` of its own, with nothing pending after a power loss. `key_of` tells equal ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from tests.simdisk.disk import (
    ROOT,
    SECTOR,
    Content,
    Operation,
    Personality,
    Rename,
    State,
    apply,
    torn,
)

EXHAUSTIVE = 4  # pending operations on names whose subsets are all tried
PAGE = 4096


def death(state: State) -> State:
    return state.copy()


def power_loss(state: State, personality: Personality, random: Random, count: int) -> Iterator[State]:
    """The extremes first: nothing pending survived, all of it did, only sizes did. Then random ones, `count` in all."""
    dirty = {node for node, content in state.files.items() if content.dirty}
    choices = _name_choices(len(state.journal), personality, random)
    for number in range(count):
        names = next(choices)
        durable = dict(state.durable)
        for operation, survived in zip(state.journal, names, strict=True):
            if survived:
                _survive(durable, operation, personality.torn_rename and operation.node in state.files, random)
        yield _image(state, durable, dirty, personality, random, number)
        if not dirty and not state.journal:
            return


def _name_choices(pending: int, personality: Personality, random: Random) -> Iterator[Sequence[bool]]:
    if personality.names == "prefix":
        for length in [0, pending, *range(pending - 1, 0, -1)]:
            yield [number < length for number in range(pending)]
        while True:
            length = random.randint(0, pending)
            yield [number < length for number in range(pending)]
    yield [False] * pending
    yield [True] * pending
    if pending <= EXHAUSTIVE:
        yield from itertools.product([False, True], repeat=pending)
    else:
        for only in range(pending):
            yield [number == only for number in range(pending)]
            yield [number != only for number in range(pending)]
    while True:
        yield [random.random() < 0.5 for _ in range(pending)]


def _survive(durable: dict[int, Mapping[str, int]], operation: Operation, torn_rename: bool, random: Random) -> None:
    apply(durable, operation)
    if torn_rename and isinstance(operation, Rename) and random.random() < 0.25:
        old = durable[operation.directory]
        durable[operation.directory] = {**old, operation.name: operation.node}


def _image(
    state: State,
    durable: Mapping[int, Mapping[str, int]],
    dirty: set[int],
    personality: Personality,
    random: Random,
    number: int,
) -> State:
    """What is reachable from the root, with the contents that the crash left. The first two numbers are extremes."""
    image = State(next_node=state.next_node, removed=state.removed)
    image.entries, image.durable = {}, {}
    waiting = [ROOT]
    while waiting:
        node = waiting.pop()
        image.entries[node] = image.durable[node] = durable.get(node, {})
        for child in image.entries[node].values():
            if child not in state.files:
                if child not in image.entries:
                    waiting.append(child)
            elif child not in image.files:
                content = state.files[child]
                image.files[child] = (
                    _content(content, personality, random, number, state.removed) if child in dirty else _clean(content)
                )
    return image


def _clean(content: Content) -> Content:
    durable = content.versions[0]
    if content.view is durable and len(content.versions) == 1:
        return content
    return Content((durable,), durable, content.tables)


def _content(content: Content, personality: Personality, random: Random, number: int, removed: bytes) -> Content:
    versions = content.versions
    if number == 0:
        data = versions[0]
    elif number == 1:
        data = versions[-1]
    elif number == 2 and personality.data == "any":
        data = versions[0].ljust(len(versions[-1]), b"\0")  # the size survived, and no byte
    elif personality.data == "ordered":
        data = _grown(versions, random)
    else:
        data = torn(versions, random, removed if personality.stale and random.random() < 0.5 else b"")
    tables = content.tables
    if tables is not None and tables[0] is not tables[1]:  # a copy that nothing synced: whole or useless
        survived = tables[1] if number == 1 else None
        tables = (survived, survived)
    return Content((data,), data, tables)


def _grown(versions: tuple[bytes, ...], random: Random) -> bytes:
    """A version, or one on its way to the next: bytes beyond its end come in order, by sector or by page."""
    at = random.randrange(len(versions))
    data = versions[at]
    after = versions[min(at + 1, len(versions) - 1)]
    if len(after) > len(data) and random.random() < 0.7:
        unit = random.choice((SECTOR, PAGE))
        end = min(len(after), (random.randint(len(data), len(after)) // unit) * unit)
        data = after[: max(end, len(data))]
    return data


def key_of(image: State) -> int:
    """Equal for images that no process can tell apart."""
    found: list[tuple[str, object]] = []
    waiting = [("", ROOT)]
    while waiting:
        place, node = waiting.pop()
        for name, child in image.entries[node].items():
            path = f"{place}/{name}"
            content = image.files.get(child)
            if content is None:
                found.append((path, None))
                waiting.append((path, child))
            elif content.tables is not None:
                found.append((path, content.tables[0] and content.tables[0].key))
            else:
                found.append((path, content.view))
    found.sort(key=lambda item: item[0])
    return hash(tuple(found))
