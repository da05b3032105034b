"""The handle of a collection: each method checks its arguments and makes one call into the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from vecdb.engine import calls, write_calls
from vecdb.engine.explanation import Explanation
from vecdb.engine.report import CollectionStats
from vecdb.engine.state import CollectionState, Engine
from vecdb.filter.expression import Node
from vecdb.options import IndexOptions
from vecdb.results import Record, Records
from vecdb.types import ColumnInfo, Id, Payload, Scalar

Where = Mapping[str, Any] | Node | None
Vectors = Any  # array (records, dim), list of vectors (None for a record without one), or a dict of them by field
Include = Sequence[str]


class Collection:
    """Records with an id, vectors and a payload. Obtained from a Database; any thread may use it.

    Every write is durable as the database's `sync` says, atomic as a call, and searchable, when it returns. Every
    method raises Closed after the database was closed, and NotFound after the collection was deleted.
    """

    def __init__(self, engine: Engine, state: CollectionState, database: Any) -> None:
        # The database closes when nothing refers to it any more: it stays open as long as this handle lives.
        self._engine, self._state, self._database = engine, state, database

    def __repr__(self) -> str:
        return calls.describe(self._engine, self._state)

    def __len__(self) -> int:
        return self.count()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._database.reopen, (str(self._engine.path), self.name, self._engine.options.allow_network_fs)

    @property
    def name(self) -> str:
        """The name, as of now."""
        return self._state.meta.name

    # ---- writing --------------------------------------------------------------------------------------------------
    def upsert(
        self, ids: Sequence[Id] | None = None, vectors: Vectors = None, payloads: Sequence[Payload | None] | None = None
    ) -> list[Id]:
        """Writes records, replacing those whose id exists. Returns the ids.

        ids       str, int or uuid.UUID, each once; None: new UUIDv7 strings
        vectors   float (records, dim), or a dict of such by field; None, or None for one of them: no vector
        payloads  a dict per record, or None

        InvalidInput: nothing was written.
        """
        return write_calls.upsert(self._engine, self._state, ids, vectors, payloads)

    def add(
        self,
        ids: Sequence[Id] | None = None,
        vectors: Vectors = None,
        payloads: Sequence[Payload | None] | None = None,
        *,
        on_conflict: Literal["error", "skip", "replace"] = "error",
    ) -> list[Id]:
        """As upsert, for records that are new. Returns the ids written.

        on_conflict   "error": AlreadyExists and nothing is written; "skip": what exists stays; "replace": as upsert
        """
        return write_calls.add(self._engine, self._state, ids, vectors, payloads, on_conflict)

    @overload
    def update(
        self, ids: Sequence[Id], vectors: Vectors = None, payloads: Sequence[Payload | None] | None = None
    ) -> int: ...

    @overload
    def update(self, *, where: Where, payloads: Payload) -> int: ...

    def update(
        self,
        ids: Sequence[Id] | None = None,
        vectors: Vectors = None,
        payloads: Sequence[Payload | None] | Payload | None = None,
        *,
        where: Where = None,
    ) -> int:
        """Changes records that exist, by id or by filter; unknown ids are skipped. Returns the number changed.

        vectors    replace the old ones; None for a record keeps its vector
        payloads   patches: top-level keys replace, None stores null, vecdb.REMOVE deletes the key. One per id, or
                   with `where` one dict for every record that matches
        """
        return write_calls.update(self._engine, self._state, ids, vectors, payloads, where)

    def delete(self, ids: Sequence[Id] | None = None, *, where: Where = None) -> int:
        """Deletes by id, or everything that a filter matches. Returns the number deleted. Unknown ids are skipped."""
        return write_calls.delete(self._engine, self._state, ids, where)

    # ---- reading --------------------------------------------------------------------------------------------------
    def search(
        self,
        query: Any,
        k: int = 10,
        where: Where = None,
        *,
        field: str | None = None,
        ef: int | None = None,
        nprobe: int | None = None,
        recall: float | None = None,
        rescore: int | None = None,
        exact: bool = False,
        offset: int = 0,
        max_distance: float | None = None,
        min_score: float | None = None,
        include: Include | None = None,
        threads: int | None = None,
    ) -> Any:  # Hits for one query vector, list[Hits] for several
        """The k nearest records, nearest first; ties in order of writing. min(k, matches) come
        back, fewer only with offset, max_distance or min_score.

        query         a vector: Hits. An array (queries, dim): a list of Hits
        k             1 to 10,000
        where         a filter (docs/filters.md): a dict, or vecdb.F("year") >= 2020
        field         the vector field; needed when there are several
        recall        the share of the k nearest to find, 0.5 to below 1: graphs pick the ef, and inverted files the
                      lists, that found as many when they were built; whatever else searches finds nearly all
        ef            candidates of a graph walk, at least k: more is slower and finds more. Default: as of the index
        nprobe        lists of an inverted file to scan, fewer once nothing nearer turns up: more is slower and finds
                      more. Default: as of the index
        rescore       rows of a scan that are scored with float32
        exact         score every matching record with float32
        offset        hits to skip
        max_distance, min_score   hits beyond are left out
        include       "payloads", "vectors"; () is ids and distances only. Default: payloads, read when asked for
        threads       for several queries; default: all of the database
        """
        return calls.search(
            self._engine,
            self._state,
            query,
            k,
            where,
            calls.Wish(field, ef, rescore, exact, offset, max_distance, min_score, include, threads, recall, nprobe),
        )

    def explain(
        self,
        query: Any,
        k: int = 10,
        where: Where = None,
        *,
        field: str | None = None,
        ef: int | None = None,
        nprobe: int | None = None,
        recall: float | None = None,
        rescore: int | None = None,
        exact: bool = False,
        offset: int = 0,
        threads: int | None = None,
        analyze: bool = False,
    ) -> Explanation:
        """How `search` would answer (docs/explain.md): for every segment the number of matching rows and how it was
        found, the arms with their predicted costs, the choice and its reason.

        analyze   also search, and tell what was done: nodes visited, distances, rows rescored, escalations,
                  microseconds by stage
        others    as for `search`
        """
        wish = calls.Wish(field, ef, rescore, exact, offset, threads=threads, recall=recall, nprobe=nprobe)
        return calls.explain(self._engine, self._state, query, k, where, wish, analyze)

    def get(
        self,
        ids: Sequence[Id] | None = None,
        *,
        where: Where = None,
        limit: int | None = None,
        offset: int = 0,
        order_by: str | None = None,
        include: Include | None = None,
        field: str | None = None,
    ) -> Records:
        """Records by id, in the order given and without the unknown; or by filter, in order of writing.

        order_by   a payload path, "-path" for descending; records without a value come last
        include    "payloads" (default), "vectors"
        field      the vector field whose vectors are included; default: the first
        """
        return calls.get(self._engine, self._state, ids, where, limit, offset, order_by, include, field)

    def scroll(
        self,
        where: Where = None,
        *,
        batch_size: int = 1000,
        order_by: str | None = None,
        include: Include | None = None,
        field: str | None = None,
    ) -> Iterator[Record]:
        """Every matching record, in order of writing, as of the moment of the call whatever is written meanwhile.

        batch_size                 records read at once
        order_by, include, field   as for `get`
        """
        return calls.scroll(self._engine, self._state, where, batch_size, order_by, include, field)

    def count(self, where: Where = None) -> int:
        """The number of records, or of those that match."""
        return calls.count(self._engine, self._state, where)

    def distinct(self, path: str, *, where: Where = None) -> list[tuple[Scalar, int]]:
        """The values at a payload path with the number of records that have each, most frequent first."""
        return calls.distinct(self._engine, self._state, path, where)

    def min_max(self, path: str, *, where: Where = None) -> tuple[Scalar, Scalar] | None:
        """The smallest and largest number at a payload path (else timestamp, else string); None if there is none."""
        return calls.min_max(self._engine, self._state, path, where)

    def fields(self) -> dict[str, ColumnInfo]:
        """Every payload path: how many records have it, and the types of its values."""
        return calls.fields(self._engine, self._state)

    # ---- care -----------------------------------------------------------------------------------------------------
    def set_index(self, index: IndexOptions | str, *, field: str | None = None) -> None:
        """Changes the index of a field. It is built in the background while the old one serves; see `optimize`."""
        calls.set_index(self._engine, self._state, index, field)

    def optimize(self) -> None:
        """Returns when everything is sealed, merged, indexed and reclaimed, for the whole database."""
        calls.optimize(self._engine, self._state)

    def flush(self) -> None:
        """Returns when every write before it is on disk. Needed only with sync="interval" or "none"."""
        calls.flush(self._engine, self._state)

    def stats(self) -> CollectionStats:
        """Records, segments, indexes and bytes, as of now."""
        return calls.stats(self._engine, self._state)

    def info(self) -> dict[str, Any]:
        """What the collection is: name, uuid, vector fields with dimension, metric and index."""
        return calls.info(self._engine, self._state)
