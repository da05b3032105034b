"""What the database handle calls: arguments checked, the engine asked once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vecdb.engine import maintain as steps
from vecdb.engine import registry, schema
from vecdb.engine import repair as repairing
from vecdb.engine import verify as verification
from vecdb.engine.commit import sync_log
from vecdb.engine.findings import RepairReport, VerifyReport
from vecdb.engine.load import collection_of
from vecdb.engine.recover import follow
from vecdb.engine.registry import acquire, borrowed, release, release_dropped
from vecdb.engine.report import DatabaseStats, database_stats, field_info
from vecdb.engine.state import CollectionState, Engine
from vecdb.errors import Closed, Corrupted, InvalidInput, StorageFailed
from vecdb.files.media import refuse_network
from vecdb.options import DatabaseOptions, VectorField, parse_columns, parse_metric
from vecdb.storage.schema import FieldMeta
from vecdb.types import Progress

__all__ = ["release", "release_dropped"]
MODES = ("rw", "r")


def open_engine(
    path: Any,
    mode: Any,
    sync: Any,
    interval_ms: Any,
    maintenance: Any,
    threads: Any,
    wal_archive: Any,
    allow_network_fs: Any,
    payload_cache: Any,
) -> Engine:
    if not isinstance(mode, str) or mode not in MODES:
        raise InvalidInput(f'mode must be "rw" or "r", not {mode!r}')
    home = _home(path)
    archive = None if wal_archive is None else _archive(home, mode, wal_archive)
    options = DatabaseOptions(sync, interval_ms, maintenance, threads, archive, allow_network_fs, payload_cache)
    if not options.allow_network_fs:
        refuse_network(home)
    return acquire(home, mode, options)


def _archive(home: Path, mode: str, wal_archive: Any) -> str:
    if mode == "r":
        raise InvalidInput('wal_archive= is for mode="rw": a reader keeps no log')
    archive = _home(wal_archive).resolve()
    if archive.is_relative_to(home.resolve()):
        raise InvalidInput(f"wal_archive= must lie outside of the database, {archive} does not")
    return str(archive)


def _home(path: Any) -> Path:
    """The path as given by a user. InvalidInput if it cannot be one."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or not str(path):
        raise InvalidInput(f"the path of a database must be a str or a Path, not {path!r}")
    if "\0" in str(path):
        raise InvalidInput("the path of a database holds a NUL character")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InvalidInput(f"the path {str(path)!r} names a home directory that is not known: {error}") from error


def checked(engine: Engine | None) -> Engine:
    if engine is None:
        raise Closed("the database was closed; open it again")
    engine.check_open()
    return engine


def _fields(dim: Any, metric: Any, index: Any, dtype: Any, fields: Any) -> Mapping[str, VectorField]:
    if fields is None:
        return {schema.DEFAULT_FIELD: VectorField(dim, metric, index, dtype)}
    if not isinstance(fields, Mapping):
        raise InvalidInput('fields must be a dict such as {"title": vecdb.VectorField(384)}')
    if dim is not None or metric != "cosine" or index != "auto" or dtype != "float32":
        raise InvalidInput("give dim, metric, index and dtype in each vecdb.VectorField when there are several fields")
    return fields


def create_collection(
    engine: Engine, name: Any, dim: Any, metric: Any, index: Any, dtype: Any, fields: Any, columns: Any
) -> CollectionState:
    engine.check_writable()
    return schema.create_collection(engine, name, _fields(dim, metric, index, dtype, fields), parse_columns(columns))


def get_collection(engine: Engine, name: Any) -> CollectionState:
    number = engine.number_of(schema.check_name(name))
    if engine.writable or number in engine.collections:
        return collection_of(engine, number)
    try:
        return collection_of(engine, number)
    except (Corrupted, StorageFailed):  # the writer moved on, and removed what this reader's picture names
        follow(engine)
        return collection_of(engine, engine.number_of(name))


def get_or_create_collection(
    engine: Engine, name: Any, dim: Any, metric: Any, index: Any, dtype: Any, fields: Any, columns: Any
) -> CollectionState:
    """`columns` None: those it has, and all of them for a new collection."""
    with engine.catalog_lock:
        if schema.check_name(name) not in engine.names:
            chosen = "all" if columns is None else columns
            return create_collection(engine, name, dim, metric, index, dtype, fields, chosen)
    state = get_collection(engine, name)
    wanted = _fields(dim, metric, index, dtype, fields)
    found = {field.name: field for field in state.meta.fields}
    for title, field in wanted.items():
        old = found.get(title)
        if old is None or not _is_same(old, field):
            shape = {f.name: field_info(f) for f in state.meta.fields}
            raise InvalidInput(
                f"the collection {name!r} exists with other vector fields: {shape}; take it as it is with "
                "get_collection(), or choose another name"
            )
    if columns is not None and parse_columns(columns) != state.meta.columns:
        raise InvalidInput(
            f"the collection {name!r} exists with other columns: {state.meta.columns}; leave columns= out to take it "
            "as it is, or choose another name"
        )
    return state


def _is_same(old: FieldMeta, wanted: VectorField) -> bool:
    """Whether what is wanted is there; an index may differ, and a dimension may be left open."""
    same = old.metric == parse_metric(wanted.metric) and old.dtype == wanted.dtype
    return same and wanted.dim in (None, old.dim)


def rename_collection(engine: Engine, name: Any, new_name: Any) -> None:
    engine.check_writable()
    schema.rename_collection(engine, schema.check_name(name), new_name)


def delete_collection(engine: Engine, name: Any) -> None:
    engine.check_writable()
    schema.delete_collection(engine, schema.check_name(name))


def maintain(engine: Engine) -> str | None:
    engine.check_writable()
    if engine.options.maintenance != "manual":
        raise InvalidInput('maintain() is for maintenance="manual"; here a thread does it, and optimize() waits for it')
    return steps.run_step(engine)


def optimize(engine: Engine) -> None:
    engine.check_writable()
    steps.optimize(engine)


def flush(engine: Engine) -> None:
    engine.check_writable()
    sync_log(engine)


def refresh(engine: Engine) -> None:
    engine.check_open()
    if engine.writable:
        return
    follow(engine)


def verify(engine: Engine, deep: Any, progress: Progress | None) -> VerifyReport:
    engine.check_open()
    return verification.verify(engine.path, engine.seams, engine, bool(deep), progress)


def verify_path(path: Any, deep: Any, progress: Progress | None) -> VerifyReport:
    home = _home(path)
    with borrowed(home) as engine:
        return verification.verify(home, registry.DEFAULT_SEAMS, engine, bool(deep), progress)


def repair(path: Any, new: Any) -> RepairReport:
    home, target = _home(path), _home(new)
    with borrowed(home) as engine:
        if engine is not None:
            raise InvalidInput(f"{home} is open in this process; close it first")
    return repairing.repair(home, target.resolve(), registry.DEFAULT_SEAMS)


def stats(engine: Engine) -> DatabaseStats:
    return database_stats(engine)
