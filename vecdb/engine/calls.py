"""What the public handles call: arguments checked, the engine asked once. No method of a handle goes past this file."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from vecdb.engine import intake, maintain, read, schema
from vecdb.engine.commit import sync_log
from vecdb.engine.explain import explain as explain_request
from vecdb.engine.explanation import Explanation
from vecdb.engine.plans import SearchOptions
from vecdb.engine.report import CollectionStats, collection_stats, field_info
from vecdb.engine.search import Asked, Request
from vecdb.engine.search import search as run_search
from vecdb.engine.state import CollectionState, Engine
from vecdb.engine.view import View
from vecdb.errors import InvalidInput, NotFound
from vecdb.options import EF_MAX, K_MAX, LISTS_MAX, check_int, parse_index
from vecdb.results import Record, Records
from vecdb.storage.keys import encode_key
from vecdb.storage.schema import FieldMeta
from vecdb.types import ColumnInfo, Scalar

INCLUDES = ("payloads", "vectors")
COUNT_MAX = 2**62
RECALL_MIN = 0.5
REAL = int | float | np.integer | np.floating


class Wish(NamedTuple):
    """The options of one query as the user gave them."""

    field: str | None = None
    ef: int | None = None
    rescore: int | None = None
    exact: bool = False
    offset: int = 0
    max_distance: float | None = None
    min_score: float | None = None
    include: Sequence[str] | None = None
    threads: int | None = None
    recall: float | None = None
    nprobe: int | None = None


def view_of(engine: Engine, state: CollectionState) -> View:
    """What a reader sees now. No lock is taken after this."""
    engine.check_open()
    if state.dropped:
        raise NotFound(f"the collection {state.meta.name!r} was deleted; create it again")
    return state.view


def writable(engine: Engine, state: CollectionState) -> None:
    engine.check_writable()
    if state.dropped:
        raise NotFound(f"the collection {state.meta.name!r} was deleted; create it again")


# ---- searching ------------------------------------------------------------------------------------------------------
def search(engine: Engine, state: CollectionState, query: Any, k: Any, where: Any, wish: Wish) -> Any:
    view = view_of(engine, state)
    request, queries, one = _request(engine, view, query, k, where, wish)
    found = run_search(engine, view, queries, request)
    if wish.include is not None and request.asked.payloads:
        for hits in found:
            _ = hits.payloads  # asked for by name: read now
    return found[0] if one else found


def explain(
    engine: Engine, state: CollectionState, query: Any, k: Any, where: Any, wish: Wish, analyze: Any
) -> Explanation:
    view = view_of(engine, state)
    request, queries, _ = _request(engine, view, query, k, where, wish)
    analyze = _flag("analyze", analyze)
    return explain_request(engine, view, queries, request, analyze=analyze)


def _request(
    engine: Engine, view: View, query: Any, k: Any, where: Any, wish: Wish
) -> tuple[Request, np.ndarray[Any, Any], bool]:
    field = _field(view, wish.field)
    queries, one = intake.check_queries(field, query)
    if type(wish.include) is list:  # no key of a cache
        wish = wish._replace(include=tuple(wish.include))
    try:
        asked = _asked(engine.kernels.threads, k, *wish)
    except TypeError:  # nor is whatever else somebody may pass
        asked = _asked.__wrapped__(engine.kernels.threads, k, *wish)
    node = intake.check_filter(view.meta, where) if where is not None else None
    return Request(field, node, asked), queries, one


@lru_cache(maxsize=1024, typed=True)
def _asked(default_threads: int, k: Any, *wished: Any) -> Asked:
    """What a wish means; the next search with the same options is spared the checks."""
    wish = Wish(*wished)
    k = check_int("k", k, 1, K_MAX)
    offset = check_int("offset", wish.offset, 0, K_MAX)
    exact, recall = _flag("exact", wish.exact), _recall(wish)
    ef = None if wish.ef is None else max(check_int("ef", wish.ef, 1, EF_MAX), k + offset)
    nprobe = None if wish.nprobe is None else check_int("nprobe", wish.nprobe, 1, LISTS_MAX)
    rescore = None if wish.rescore is None else check_int("rescore", wish.rescore, 1, K_MAX)
    threads = default_threads if wish.threads is None else check_int("threads", wish.threads, 1, 1024)
    options = SearchOptions(ef, rescore, exact, threads, recall, nprobe)
    limits = _bound("max_distance", wish.max_distance), _bound("min_score", wish.min_score)
    return Asked(k, options, offset, *limits, *_include(wish.include))


def _field(view: View, name: str | None) -> FieldMeta:
    if name is not None:
        return intake.field_named(view.meta, name)
    if len(view.meta.fields) > 1:
        names = ", ".join(field.name for field in view.meta.fields)
        raise InvalidInput(f"this collection has several vector fields ({names}): say which with field=")
    return view.meta.fields[0]


def _bound(name: str, value: Any) -> float | None:
    """A limit of distances or scores; infinity is none."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, REAL) else float(value)
    except OverflowError:
        number = math.nan
    if math.isnan(number):
        raise InvalidInput(f"{name} must be a number that a float can hold, not {str(value)[:60]}")
    return number


def _recall(wish: Wish) -> float | None:
    value = wish.recall
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, REAL) or not RECALL_MIN <= value < 1:
        raise InvalidInput(
            f"recall must be a number from {RECALL_MIN} to below 1, not {str(value)[:60]}; exact=True finds everything"
        )
    if wish.exact:
        raise InvalidInput("recall= allows for misses and exact=True for none: leave one of them out")
    if wish.ef is not None:
        raise InvalidInput("recall= picks the ef of a search: leave out either recall= or ef=")
    if wish.nprobe is not None:
        raise InvalidInput("recall= picks the lists that a search scans: leave out either recall= or nprobe=")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InvalidInput(f"{name} must be True or False, not {value!r}")
    return bool(value)


def _include(include: Any) -> tuple[bool, bool]:
    if include is None:
        return True, False
    if not isinstance(include, Sequence | Set) or isinstance(include, str) or any(x not in INCLUDES for x in include):
        raise InvalidInput(f"include must be a tuple of {', '.join(map(repr, INCLUDES))}; not {include!r}")
    return "payloads" in include, "vectors" in include


# ---- reading --------------------------------------------------------------------------------------------------------
def get(
    engine: Engine,
    state: CollectionState,
    ids: Any,
    where: Any,
    limit: Any,
    offset: Any,
    order_by: Any,
    include: Any,
    field: Any,
) -> Records:
    view = view_of(engine, state)
    payloads, vectors = _include(include)
    shown = _shown_field(view, field)
    if ids is not None and where is not None:
        raise InvalidInput("get takes either ids or where, not both")
    offset = check_int("offset", offset, 0, COUNT_MAX)
    end = None if limit is None else offset + check_int("limit", limit, 0, COUNT_MAX)
    if ids is not None:
        at, rows = read.rows_of_keys(view, [encode_key(value) for value in intake.check_ids(ids)])
    else:
        at, rows = read.matching_rows(view, engine.filters, intake.check_filter(view.meta, where))
    if order_by is not None:
        path, descending = _order(view, order_by)
        at, rows = read.ordered(view, at, rows, path, descending, end)
    return read.records(view, shown, at[offset:end], rows[offset:end], payloads, vectors)


def _order(view: View, order_by: Any) -> tuple[str, bool]:
    if not isinstance(order_by, str) or not order_by.removeprefix("-"):
        raise InvalidInput(f'order_by must be a payload path, or "-path" for descending; not {order_by!r}')
    return intake.check_path(view.meta, "order_by", order_by.removeprefix("-")), order_by.startswith("-")


def _shown_field(view: View, name: Any) -> int:
    """The field that `Record.vector` shows: the first unless told."""
    return view.meta.fields[0].number if name is None else _field(view, name).number


def scroll(
    engine: Engine, state: CollectionState, where: Any, batch_size: Any, order_by: Any, include: Any, field: Any
) -> Iterator[Record]:
    view = view_of(engine, state)
    payloads, vectors = _include(include)
    size = check_int("batch_size", batch_size, 1, COUNT_MAX)
    shown = _shown_field(view, field)
    order = None if order_by is None else _order(view, order_by)
    at, rows = read.matching_rows(view, engine.filters, intake.check_filter(view.meta, where))
    if order is not None:
        at, rows = read.ordered(view, at, rows, *order)
    return read.pages(view, at, rows, shown, size, payloads, vectors)


def count(engine: Engine, state: CollectionState, where: Any) -> int:
    view = view_of(engine, state)
    return read.count(view, engine.filters, intake.check_filter(view.meta, where))


def distinct(engine: Engine, state: CollectionState, path: Any, where: Any) -> list[tuple[Scalar, int]]:
    view = view_of(engine, state)
    checked = intake.check_path(view.meta, "distinct", path)
    return read.distinct(view, engine.filters, checked, intake.check_filter(view.meta, where))


def min_max(engine: Engine, state: CollectionState, path: Any, where: Any) -> tuple[Scalar, Scalar] | None:
    view = view_of(engine, state)
    checked = intake.check_path(view.meta, "min_max", path)
    return read.min_max(view, engine.filters, checked, intake.check_filter(view.meta, where))


def fields(engine: Engine, state: CollectionState) -> dict[str, ColumnInfo]:
    return read.fields(view_of(engine, state), engine.filters)


# ---- care -----------------------------------------------------------------------------------------------------------
def set_index(engine: Engine, state: CollectionState, index: Any, field: Any) -> None:
    writable(engine, state)
    chosen = _field(state.view, field)
    schema.set_index(engine, state, chosen.name, parse_index(index))


def optimize(engine: Engine, state: CollectionState) -> None:
    writable(engine, state)
    maintain.optimize(engine)


def flush(engine: Engine, state: CollectionState) -> None:
    writable(engine, state)
    sync_log(engine)


def stats(engine: Engine, state: CollectionState) -> CollectionStats:
    view_of(engine, state)
    return collection_stats(engine, state)


def info(engine: Engine, state: CollectionState) -> dict[str, Any]:
    view = view_of(engine, state)
    return {
        "name": view.meta.name,
        "uuid": str(uuid.UUID(bytes=view.meta.uuid)),
        "records": view.records,
        "fields": {field.name: field_info(field) for field in view.meta.fields},
        "columns": "all" if view.meta.columns.all else asdict(view.meta.columns),
    }


def describe(engine: Engine, state: CollectionState) -> str:
    if engine.closed or state.dropped:
        return f"Collection({state.meta.name!r}, {'closed' if engine.closed else 'deleted'})"
    told = ", ".join(f"{f.name}: {f.dim or '?'} {f.metric.name.lower()}" for f in state.meta.fields)
    return f"Collection({state.meta.name!r}, {state.view.records:,} records, {told})"
