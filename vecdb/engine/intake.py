"""W0: the user's arguments as values that cannot fail later. Whatever is wrong is refused here, before any lock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.errors import FilterError, InvalidInput
from vecdb.files.pacing import give_way
from vecdb.files.seams import Seams, uuid7_batch
from vecdb.filter.expression import Node, paths_of
from vecdb.filter.parse import parse
from vecdb.options import DIM_MAX
from vecdb.storage.batch import FieldBlock
from vecdb.storage.keys import encode_key
from vecdb.storage.payload import prepare
from vecdb.storage.schema import CollectionMeta, FieldMeta
from vecdb.types import F32, AnyArray, Id, Vectors

BATCH_RECORDS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Intake:
    """New records, checked: one key, packed payload and flat payload each, and the vectors they have."""

    ids: list[Id]
    keys: list[bytes]
    payloads: list[bytes]
    flats: list[dict[str, Any]]
    vectors: dict[int, FieldBlock]


def check_records(
    seams: Seams, meta: CollectionMeta, ids: Any, vectors: Any, payloads: Any
) -> tuple[Intake, list[tuple[FieldMeta, int]]]:
    """(records, dimensions that the first write of a field decides)."""
    fields = check_vectors(meta, vectors)
    given_ids = None if ids is None else check_ids(ids)
    given_payloads = None if payloads is None else check_list("payloads", payloads, "a list of dicts")
    lengths = {f"vectors[{meta.fields[0].name if len(meta.fields) == 1 else n!r}]": c for n, (c, _) in fields.items()}
    if given_ids is not None:
        lengths["ids"] = len(given_ids)
    if given_payloads is not None:
        lengths["payloads"] = len(given_payloads)
    count = _one_length(lengths)
    id_list: list[Id] = list(uuid7_batch(seams, count)) if given_ids is None else given_ids
    keys = encode_keys(id_list)
    packed, flats = prepare_payloads(given_payloads if given_payloads is not None else [None] * count)
    there = [(field, block) for _, (field, block) in fields.values() if len(block.values)]
    decided = [(field, block.values.shape[1]) for field, block in there if field.dim is None]
    return Intake(id_list, keys, packed, flats, {field.number: block for field, block in there}), decided


def _one_length(lengths: Mapping[str, int]) -> int:
    if not lengths:
        raise InvalidInput("there is nothing to write: give ids, vectors or payloads")
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InvalidInput(f"ids, vectors and payloads must have one entry per record each, but {told}")
    count = next(iter(lengths.values()))
    if count > BATCH_RECORDS_MAX:
        raise InvalidInput(f"one call may write {BATCH_RECORDS_MAX:,} records, not {count:,}; write in chunks")
    return count


def check_list(name: str, values: Any, wanted: str) -> Sequence[Any]:
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        raise InvalidInput(f"{name} must be {wanted}, not {type(values).__name__}; for one record give a list of one")
    return values if isinstance(values, Sequence) else list(values)


def check_ids(ids: Any) -> list[Id]:
    """A list of ids in the types that are kept; an integer array counts as a list of int."""
    if isinstance(ids, np.ndarray):
        if ids.ndim != 1:
            raise InvalidInput(f"ids must be one-dimensional, not of shape {ids.shape}")
        ids = ids.tolist()
    return [
        value.item() if isinstance(value, np.integer | np.str_) else value
        for value in check_list("ids", ids, "a list of str, int or uuid.UUID")
    ]


def encode_keys(ids: Sequence[Id]) -> list[bytes]:
    """The keys of distinct ids."""
    keys = [encode_key(value) for value in ids]
    if len(set(keys)) != len(keys):
        seen: set[bytes] = set()
        twice = next(value for value, key in zip(ids, keys, strict=True) if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidInput(f"the id {twice!r} occurs more than once in one call; every id may be written once a call")
    return keys


def prepare_payloads(payloads: Sequence[Any]) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Packed and flattened payloads; None is an empty one."""
    packed, flats = [], []
    for i, payload in enumerate(payloads):
        give_way()
        if payload is None:
            payload = {}
        if not isinstance(payload, Mapping):
            raise InvalidInput(f"payloads[{i}] must be a dict or None, not {type(payload).__name__}")
        try:
            data, flat = prepare(payload)
        except InvalidInput as error:
            raise InvalidInput(f"payloads[{i}]: {error}") from error
        packed.append(data)
        flats.append(flat)
    return packed, flats


# ---- payload paths --------------------------------------------------------------------------------------------------
def check_filter(meta: CollectionMeta, where: Any) -> Node | None:
    """The filter that `where` means. FilterError if it cannot be read, or looks at a path that is no column."""
    node = parse(where)
    if node is not None and not meta.columns.all:
        for path in sorted(paths_of(node)):
            if not meta.columns.covers(path):
                raise FilterError(f"where: {_no_column(meta, path)}")
    return node


def check_path(meta: CollectionMeta, name: str, path: Any) -> str:
    """A payload path that is a column; `name` is the argument that an error names."""
    if not isinstance(path, str) or not path:
        raise InvalidInput(f'{name}: a payload path is a string such as "year" or "author.name", not {path!r}')
    if not meta.columns.covers(path):
        raise InvalidInput(f"{name}: {_no_column(meta, path)}")
    return path


def _no_column(meta: CollectionMeta, path: str) -> str:
    return (
        f"{path!r} is stored without a column, because {meta.name!r} was created with {meta.columns}; look at the "
        "payloads of get() or scroll(), or copy the records into a collection whose columns= has the path"
    )


# ---- vectors --------------------------------------------------------------------------------------------------------
def check_vectors(meta: CollectionMeta, vectors: Any) -> dict[str, tuple[int, tuple[FieldMeta, FieldBlock]]]:
    """By field name: (records, (field, the vectors that are there))."""
    if vectors is None:
        return {}
    if not isinstance(vectors, Mapping):
        if len(meta.fields) != 1:
            names = ", ".join(field.name for field in meta.fields)
            raise InvalidInput(f"this collection has several vector fields ({names}): give vectors as a dict of them")
        vectors = {meta.fields[0].name: vectors}
    found = {}
    for name, values in vectors.items():
        field = field_named(meta, name)
        found[name] = _field_block(field, values)
    return {name: (count, (field, block)) for name, (count, field, block) in found.items()}


def field_named(meta: CollectionMeta, name: Any) -> FieldMeta:
    field = meta.field(name) if isinstance(name, str) else None
    if field is None:
        names = ", ".join(repr(field.name) for field in meta.fields)
        raise InvalidInput(f"there is no vector field {name!r}; this collection has {names}")
    return field


def _field_block(field: FieldMeta, values: Any) -> tuple[int, FieldMeta, FieldBlock]:
    listed = None
    if not hasattr(values, "__array__"):
        listed = check_list(
            f"vectors of {field.name!r}", values, "an array of shape (records, dim) or a list of vectors"
        )
    if listed is None or all(value is not None for value in listed):
        matrix = as_matrix(field, values if listed is None else listed)
        return len(matrix), field, FieldBlock(matrix)
    rows = np.flatnonzero([value is not None for value in listed]).astype(np.int32)
    matrix = as_matrix(field, [listed[row] for row in rows.tolist()]) if len(rows) else _empty(field)
    return len(listed), field, FieldBlock(matrix, rows)


def _empty(field: FieldMeta) -> Vectors:
    return np.empty((0, field.dim or 1), field.dtype)


def as_matrix(field: FieldMeta, values: Any) -> Vectors:
    """(n, dim) of the field's dtype, a copy of the caller's data, every value finite."""
    array = _as_array(f"vectors of {field.name!r}", values)
    if array.size == 0 and array.ndim <= 2 and len(array) == 0:
        return _empty(field)
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"vectors of {field.name!r} must be numbers, not of dtype {array.dtype}")
    if array.ndim != 2:
        raise InvalidInput(
            f"vectors of {field.name!r} must have the shape (records, dim), not {array.shape}; "
            "for one record give an array of one row"
        )
    _check_dim(field, array.shape[1])
    with np.errstate(over="ignore"):
        matrix: Vectors = np.array(array, field.dtype, order="C", copy=True)
    finite = np.isfinite(matrix)
    if not finite.all():
        row = int(np.flatnonzero(~finite.all(axis=1))[0])
        if field.dtype == "float16" and np.isfinite(array[row]).all():
            raise InvalidInput(
                f"vector {row} of {field.name!r} holds a value beyond float16, whose largest is 65,504; scale the "
                'vectors down, or store them in a collection whose field has dtype="float32"'
            )
        raise InvalidInput(f"vector {row} of {field.name!r} holds NaN, infinity or a value beyond float32")
    return matrix


def _as_array(name: str, values: Any) -> AnyArray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidInput(f"{name} differ in length: {error}") from error
    except (TypeError, RuntimeError) as error:  # a tensor on another device, or one that tracks gradients
        raise InvalidInput(f"{name} cannot be read as an array: {error}") from error


def _check_dim(field: FieldMeta, dim: int) -> None:
    if field.dim is not None and dim != field.dim:
        raise InvalidInput(f"vectors of {field.name!r} must have {field.dim} dimensions, not {dim}")
    if not 1 <= dim <= DIM_MAX:
        raise InvalidInput(f"vectors of {field.name!r} must have 1 to {DIM_MAX} dimensions, not {dim}")


def check_queries(field: FieldMeta, query: Any) -> tuple[F32, bool]:
    """(queries float32 (q, dim), whether one vector was given)."""
    if (
        type(query) is np.ndarray
        and query.dtype == np.float32
        and query.shape == (field.dim,)
        and query.flags.c_contiguous
        and math.isfinite(query.dot(query))
    ):
        return query.reshape(1, -1), True  # what nearly every query is, without further looks
    array = _as_array("the query vectors", query)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise InvalidInput(
            "a query must be a vector of numbers, or an array of shape (queries, dim); not "
            + (f"{array.dtype}{array.shape}" if array.dtype.kind in "fiu" else type(query).__name__)
        )
    one = array.ndim == 1
    with np.errstate(over="ignore"):
        queries = np.ascontiguousarray(array.reshape(1, -1) if one else array, np.float32)
    if queries.shape[1] != (field.dim or queries.shape[1] or 1):
        raise InvalidInput(f"a query of {field.name!r} must have {field.dim or 1} dimensions, not {queries.shape[1]}")
    if not np.isfinite(queries).all():
        raise InvalidInput("the query holds NaN, infinity or a value beyond float32")
    return queries, one
