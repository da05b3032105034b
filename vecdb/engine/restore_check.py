"""What must hold of a restored database before it gets its name: its catalog names the files, and it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.engine import calls, registry
from vecdb.engine.findings import REBUILD
from vecdb.engine.inspection import DAMAGE
from vecdb.engine.load import collection_of
from vecdb.engine.recover import find_newest_catalog
from vecdb.engine.schema import check_name
from vecdb.engine.snapshot_cut import named_files
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.verify import verify
from vecdb.errors import Corrupted
from vecdb.files import names
from vecdb.files.seams import Seams
from vecdb.options import DatabaseOptions
from vecdb.storage.catalog import LmdbCatalog, Table
from vecdb.storage.manifest import ANOTHER, Manifest, decoding
from vecdb.storage.schema import STATE_KEY, FieldMeta, decode_collection, decode_state
from vecdb.types import Metric

SPOTS = 4  # records of each vector field that are searched for
TOLERANCE = 1e-4  # relative, of a distance in float32


def check_names(seams: Seams, directory: Path, manifest: Manifest, place: str) -> None:
    """The catalog is that of the manifest's batch, and names the manifest's files with the same digests.

    Files of indexes may be missing from the manifest: they are rebuilt.
    """
    listed = {
        entry.path: (entry.size, entry.digest) for entry in manifest.entries if entry.path.startswith("segments/")
    }
    generation = find_newest_catalog(seams.disk, directory)
    catalog = LmdbCatalog(seams, directory, generation, writable=False, locked=False, look="pages")
    try:
        with decoding(place):
            reader = catalog.read()
            applied = decode_state(reader.get(Table.DATABASE, STATE_KEY)).applied_lsn
            if applied != manifest.applied_lsn:
                raise Corrupted(place, 0, f"its catalog is at batch {applied}, not {manifest.applied_lsn}; {ANOTHER}")
            for key, value in reader.scan(Table.COLLECTIONS, b""):
                check_name(decode_collection(key, value).name)
            for named, _ in named_files(directory, reader):
                found = listed.pop(named.path, None)
                if found is None and not names.is_index_file(named.path):
                    raise Corrupted(place, 0, f"its catalog names {named.path}, the manifest does not; {ANOTHER}")
                if found is not None and found != (named.entry.size, named.entry.digest):
                    raise Corrupted(place, 0, f"{named.path} is not the file that its catalog names; {ANOTHER}")
            reader.close()
    finally:
        catalog.close()
    if listed:
        raise Corrupted(place, 0, f"its catalog does not name {min(listed)}; {ANOTHER}")


def check_database(seams: Seams, directory: Path) -> tuple[int, int, int]:
    """(last batch, records, queries answered) after everything was looked at. Corrupted if anything is not sound.

    Damage to indexes is none: they are rebuilt. Where the device fails it is StorageFailed.
    """
    with answering(directory):
        for finding in verify(directory, seams, None, False, None, DAMAGE).findings:
            if finding.remedy != REBUILD:
                raise Corrupted(directory / finding.path, finding.offset or 0, f"{finding.what}; {ANOTHER}")
        engine = registry.acquire(directory, "r", DatabaseOptions(maintenance="manual"), seams)
        try:
            states = [collection_of(engine, number) for number in sorted(engine.names.values())]
            records = sum(state.view.records for state in states)
            return engine.published_lsn, records, sum(_check_collection(engine, state) for state in states)
        finally:
            registry.release(engine)


@contextmanager
def answering(directory: Path) -> Iterator[None]:
    """A forged catalog or log may say what no writer ever said. Whatever comes of that is Corrupted too."""
    try:
        with decoding(str(directory)):
            yield
    except (ArithmeticError, AssertionError, AttributeError, MemoryError, RuntimeError, StopIteration) as error:
        reason = f"what it holds cannot be used ({error!r}); {ANOTHER}"
        raise Corrupted(directory, 0, reason) from error


def _check_collection(engine: Engine, state: CollectionState) -> int:
    if not state.view.memtables and state.view.records != state.meta.records:
        found, told = state.view.records, state.meta.records
        raise Corrupted(engine.path, 0, f"collection {state.meta.name!r} has {found} records, not {told}; {ANOTHER}")
    return sum(_check_field(engine, state, field) for field in state.meta.fields)


def _check_field(engine: Engine, state: CollectionState, field: FieldMeta) -> int:
    """Some records are found by their id, and by their own vector: nothing may lie farther than itself."""
    spots = list(islice(calls.scroll(engine, state, None, SPOTS, None, ("payloads", "vectors"), field.name), SPOTS))
    for record in spots:
        again = calls.get(engine, state, [record.id], None, None, 0, None, ("payloads",), None)
        if [other.payload for other in again] != [record.payload]:
            raise Corrupted(engine.path, 0, f"record {record.id!r} of {state.meta.name!r} is not found; {ANOTHER}")
    vectors = [np.asarray(record.vector) for record in spots if record.vector is not None]
    if not vectors:
        return len(spots)
    wish = calls.Wish(field=field.name, exact=True, include=())
    found = calls.search(engine, state, np.array(vectors), 1, None, wish)
    for vector, hits in zip(vectors, found, strict=True):
        if len(hits) != 1 or not hits.distances[0] <= _own_distance(field.metric, vector):
            raise Corrupted(engine.path, 0, f"a record of {state.meta.name!r} is not found by its vector; {ANOTHER}")
    return len(spots) + len(vectors)


def _own_distance(metric: Metric, vector: Any) -> float:
    """The most that the distance of a vector to itself may be."""
    square = float(np.dot(vector.astype(np.float64), vector.astype(np.float64)))
    if metric is Metric.DOT:
        return 1.0 - square + TOLERANCE * max(1.0, square)
    own = 1.0 if metric is Metric.COSINE and square == 0 else 0.0
    return own + TOLERANCE * max(1.0, square if metric is Metric.L2 else 1.0)
