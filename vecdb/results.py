"""What a search or a get returns: columns first, one object per record only when it is asked for."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.types import F32, I32, Id, Metric

_ONE = np.float32(1)
SHOWN_MAX, TEXT_MAX = 20, 60  # records of a repr, and characters of a payload value in it


class RecordSource(Protocol):
    """Where rows become records: the view that a query ran on. `at` is the segment of each row."""

    def ids(self, at: I32, rows: I32) -> NDArray[Any]: ...
    def payloads(self, at: I32, rows: I32) -> list[dict[str, Any]]: ...
    def records_together(self, at: I32, rows: I32) -> tuple[NDArray[Any], list[dict[str, Any]]] | None: ...
    def vectors(self, field: int, at: I32, rows: I32) -> list[F32 | None]: ...


class Record:
    """A stored record: `id`, `payload` (a dict), `vector` (float32, or None when it has none or was not asked for)."""

    __slots__ = ("id", "payload", "vector")

    def __init__(self, id: Id, payload: dict[str, Any] | None, vector: F32 | None) -> None:
        self.id, self.payload, self.vector = id, payload, vector

    def __repr__(self) -> str:
        return f"Record(id={self.id!r}, payload={self.payload!r})"

    def to_dict(self) -> dict[str, Any]:
        """id, payload and vector."""
        return {"id": self.id, "payload": self.payload, "vector": self.vector}


class Hit:
    """One result. `distance`: smaller is nearer. `score`: larger is nearer. `payload` is read when it is asked for."""

    __slots__ = ("_at", "_hits")

    def __init__(self, hits: Hits, at: int) -> None:
        self._hits, self._at = hits, at

    @property
    def id(self) -> Id:
        """The record's id, of the type it was written with."""
        return self._hits.id_at(self._at)

    @property
    def distance(self) -> float:
        """Smaller is nearer."""
        return float(self._hits.distances[self._at])

    @property
    def score(self) -> float:
        """Larger is nearer."""
        return float(self._hits.scores[self._at])

    @property
    def payload(self) -> dict[str, Any]:
        """The record's payload, read when it is first asked for."""
        return self._hits.payloads[self._at]

    @property
    def vector(self) -> F32 | None:
        """float32 (dim,), or None when the record has none; needs include=("vectors",)."""
        return self._hits.vectors[self._at]

    def __reduce__(self) -> Any:
        raise TypeError("Hit reads from the open database and cannot be pickled; send to_dict()")

    def __repr__(self) -> str:
        return f"Hit(id={self.id!r}, distance={self.distance:.6g})"

    def to_dict(self) -> dict[str, Any]:
        """id, distance, score, and payload and vector where they were asked for."""
        hits = self._hits
        values: dict[str, Any] = {"id": self.id, "distance": self.distance, "score": self.score}
        if hits.has_payloads:
            values["payload"] = self.payload
        if hits.has_vectors:
            values["vector"] = self.vector
        return values


class _Rows:
    """Rows of a view with what was asked to be read of them."""

    def __init__(
        self, source: RecordSource, at: I32, rows: I32, field: int | None, payloads: bool, vectors: bool
    ) -> None:
        self._source, self._where, self._rows, self._field = source, at, rows, field
        self.has_payloads, self.has_vectors = payloads, vectors

    def __reduce__(self) -> Any:
        raise TypeError(f"{type(self).__name__} reads from the open database and cannot be pickled; send to_list()")

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def ids(self) -> NDArray[Any]:
        """int64 when all ids are integers, else an object array."""
        wanted = self.has_payloads and "payloads" not in self.__dict__
        both = self._source.records_together(self._where, self._rows) if wanted else None
        if both is None:
            return self._source.ids(self._where, self._rows)
        self.__dict__["payloads"] = both[1]  # what the cached property finds
        return both[0]

    def id_at(self, position: int) -> Id:
        value = self.ids[position]
        return int(value) if isinstance(value, np.integer) else value

    @cached_property
    def payloads(self) -> list[dict[str, Any]]:
        """The payload of each record, read at once when first asked for."""
        if not self.has_payloads:
            raise InvalidInput('payloads were not asked for; leave include= out, or pass include=("payloads",)')
        return self._source.payloads(self._where, self._rows)

    @cached_property
    def vectors(self) -> list[F32 | None]:
        """The vector of each record, as it was given; None for a record that has none."""
        if not self.has_vectors:
            raise InvalidInput('vectors were not asked for; pass include=("payloads", "vectors")')
        return [None] * len(self) if self._field is None else self._source.vectors(self._field, self._where, self._rows)

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"id": self.ids.tolist()}
        if self.has_payloads:
            names = dict.fromkeys(key for payload in self.payloads for key in payload)
            for name in names:
                columns[name if name not in ("id", "distance", "score", "vector") else f"payload.{name}"] = [
                    payload.get(name) for payload in self.payloads
                ]
        if self.has_vectors:
            columns["vector"] = self.vectors
        return columns

    def to_arrow(self) -> Any:
        """A pyarrow.Table: id, distance and score for hits, one column per top-level payload key.

        UUIDs, and ids of mixed types, become text; a column of several types too. Vectors are lists of float32.
        """
        import pyarrow as pa

        columns = self._columns()
        kinds = {type(value) for value in columns["id"]}
        if len(kinds) > 1 or not kinds <= {int, str}:
            columns["id"] = [str(value) for value in columns["id"]]
        if self.has_vectors:
            columns["vector"] = _arrow_vectors(pa, columns["vector"])
        try:
            return pa.table(columns)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            # A path with several types has no Arrow type: its values become text.
            return pa.table(
                {n: _arrow_column(pa, column) if isinstance(column, list) else column for n, column in columns.items()}
            )

    def to_pandas(self) -> Any:
        """A pandas.DataFrame; needs the extra `pandas`."""
        return _extra("pandas").DataFrame(self._columns())

    def to_polars(self) -> Any:
        """A polars.DataFrame; needs the extra `polars`."""
        return _extra("polars").from_arrow(self.to_arrow())

    def _repr_html_(self) -> str:
        columns = {name: values[:SHOWN_MAX] for name, values in self._columns().items() if name != "vector"}
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_short(value))}</td>" for value in row) + "</tr>"
            for row in zip(*columns.values(), strict=True)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _arrow_vectors(pa: Any, vectors: list[F32 | None]) -> Any:
    """float32 lists of one length, as Arrow's readers expect of vectors."""
    dim = next((len(vector) for vector in vectors if vector is not None), -1)
    return pa.array(vectors, pa.list_(pa.float32(), dim))


def _arrow_column(pa: Any, values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _extra(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InvalidInput(f'this needs {name}; install it with: pip install "vecdb-engine[{name}]"') from error


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def scores_of(metric: Metric, distances: F32) -> F32:
    """float32: cos for cosine, the dot product for dot, -distance for l2."""
    scores: F32 = -distances if metric is Metric.L2 else _ONE - distances
    return scores


class Hits(_Rows, Sequence[Hit]):
    """The results of one query, nearest first."""

    def __init__(
        self,
        source: RecordSource,
        at: I32,
        rows: I32,
        distances: F32,
        metric: Metric,
        field: int | None,
        payloads: bool,
        vectors: bool,
    ) -> None:
        super().__init__(source, at, rows, field, payloads, vectors)
        self.distances, self.metric = distances, metric

    @cached_property
    def scores(self) -> F32:
        """cos for cosine, the dot product for dot, -distance for l2."""
        return scores_of(self.metric, self.distances)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [Hit(self, i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"hit {index} of {len(self)}")
        return Hit(self, index % len(self))

    def __iter__(self) -> Iterator[Hit]:
        return map(Hit, repeat(self), range(len(self)))

    def _columns(self) -> dict[str, Any]:
        columns = super()._columns()
        scores = {"distance": self.distances.tolist(), "score": self.scores.tolist()}
        return {"id": columns.pop("id"), **scores, **columns}

    def to_list(self) -> list[dict[str, Any]]:
        """One dict per hit: id, distance, score, and payload and vector where they were asked for."""
        return [hit.to_dict() for hit in self]

    def __repr__(self) -> str:
        shown = ", ".join(repr(hit) for hit in self[:SHOWN_MAX])
        return f"Hits([{shown}{', ...' if len(self) > SHOWN_MAX else ''}])"


class Records(_Rows, Sequence[Record]):
    """Stored records, in order."""

    def _record(self, position: int) -> Record:
        payload = self.payloads[position] if self.has_payloads else None
        return Record(self.id_at(position), payload, self.vectors[position] if self.has_vectors else None)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self._record(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self._record(index % len(self))

    def __iter__(self) -> Iterator[Record]:
        return (self._record(i) for i in range(len(self)))

    def to_list(self) -> list[dict[str, Any]]:
        """One dict per record: id, payload, vector."""
        return [record.to_dict() for record in self]

    def __repr__(self) -> str:
        shown = ", ".join(repr(record) for record in self[:SHOWN_MAX])
        return f"Records([{shown}{', ...' if len(self) > SHOWN_MAX else ''}])"
