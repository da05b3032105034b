"""The files of one segment: every byte against the catalog, then what the arrays say of each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vecdb.engine.findings import REBUILD, RESTORE
from vecdb.engine.inspection import DAMAGE, UNREADABLE, Inspection, OpenedSegment
from vecdb.errors import StorageFailed
from vecdb.files import names
from vecdb.files.arrays import CHECKSUM_BLOCK, damaged_blocks, digest_of
from vecdb.files.disk import Disk
from vecdb.storage.columns import SealedColumns
from vecdb.storage.growing import inverse_norms
from vecdb.storage.ids import IdColumn
from vecdb.storage.schema import FieldEntry
from vecdb.storage.sealed import Sealed
from vecdb.types import AnyArray, Metric

BLOCK_ROWS = 8192  # vectors looked at between two calls of progress
NORM_ERROR = 1e-5  # relative


def check_files(run: Inspection, disk: Disk, segment: OpenedSegment) -> None:
    """Sizes, headers and checksums of every file that the catalog names; and that it names all that are needed."""
    for path, error in segment.missing.items():
        run.found_error(error, remedy_of(path))
    for path in needed_files(segment):
        if path not in segment.files and path not in segment.damaged:
            segment.damaged.add(path)
            run.found(f"{segment.name}/{path}", "the catalog does not know this file, which the segment needs")
    for path in sorted(files_on_disk(run, disk, segment.name) - segment.files.keys() - segment.damaged):
        run.found(f"{segment.name}/{path}", "the catalog does not know this file, though it knows its segment")
    for path, array in segment.arrays.items():
        entry = segment.files[path]
        blocks = list(damaged_blocks(array, entry))
        if blocks:
            segment.damaged.add(path)
            where = f"{len(blocks)} of {len(entry.crcs) // 4} blocks of {CHECKSUM_BLOCK:,} bytes fail their checksums"
            run.found(f"{segment.name}/{path}", where, remedy_of(path), blocks[0] * CHECKSUM_BLOCK)
        elif run.deep and digest_of(array, entry) != entry.digest:
            segment.damaged.add(path)
            run.found(f"{segment.name}/{path}", "the digest of the file does not match", remedy_of(path))
        run.files, run.bytes = run.files + 1, run.bytes + entry.size
        run.tick(entry.size)


def files_on_disk(run: Inspection, disk: Disk, segment: str, below: str = "") -> set[str]:
    """Paths of the array files of a segment, relative to it. Those of indexes are left out: one may be being built."""
    try:
        found = disk.list(run.path / segment / below)
    except StorageFailed as error:
        if error.errno not in DAMAGE:  # of those: a merge took it away, or a finding tells already that it is not there
            run.found_failure(error, f"{segment}/{below}")
        return set()
    paths = {below + name for name in found if name.endswith(".npy")}
    for name in found:
        if not name.endswith(".npy") and names.index_number(name) is None:
            paths |= files_on_disk(run, disk, segment, f"{below}{name}/")
    return paths


def remedy_of(path: str) -> str:
    """An index is rebuilt; nothing else is."""
    parts = path.split("/")
    return REBUILD if len(parts) > 2 and names.index_number(parts[1]) is not None else RESTORE


def needed_files(segment: OpenedSegment) -> Iterator[str]:
    yield from ("sequences.npy", "order.npy")
    yield from ("ids.npy",) if segment.entry.integer_ids else ("id_offsets.npy", "id_bytes.npy")
    for field in segment.entry.fields:
        place = names.field_directory(field.number)
        yield f"{place}/vectors.npy"
        meta = next((meta for meta in segment.meta.fields if meta.number == field.number), None)
        if meta is not None and meta.metric is Metric.COSINE:
            yield f"{place}/inverse_norms.npy"
        if field.sparse:
            yield f"{place}/rows.npy"


# ---- what the arrays say --------------------------------------------------------------------------------------------
def rows_of_segment(run: Inspection, segment: OpenedSegment) -> Sealed | None:
    """Sequences and ids of a segment that are in order, with nothing else of it; None after a finding."""
    needed = [path for path in needed_files(segment) if "/" not in path]
    if any(path not in segment.arrays or path in segment.damaged for path in needed):
        return None
    arrays = {path.removesuffix(".npy"): segment.arrays[path] for path in needed}
    reason = _fault_of_rows(segment, arrays) or _fault_of_ids(arrays, segment.entry.rows)
    if reason is not None:
        run.found(segment.name, reason)
        return None
    ids = IdColumn.from_arrays({name: array for name, array in arrays.items() if name.startswith("id")})
    columns = SealedColumns(segment.entry.rows, {})
    return Sealed(segment.entry, arrays["sequences"], arrays["order"], ids, {}, columns, segment.files)


def _fault_of_rows(segment: OpenedSegment, arrays: dict[str, AnyArray]) -> str | None:
    entry, sequences, order = segment.entry, arrays["sequences"], arrays["order"]
    if sequences.dtype != np.int64 or sequences.shape != (entry.rows,) or entry.rows == 0:
        return f"sequences.npy is {sequences.dtype}{sequences.shape}, the catalog says {entry.rows} rows"
    if order.dtype != np.int32 or order.shape != (entry.rows,):
        return f"order.npy is {order.dtype}{order.shape}, the catalog says {entry.rows} rows"
    if (np.sort(order) != np.arange(entry.rows)).any():
        return "order.npy is not an order of the rows"
    ordered = sequences[order]
    if (ordered[1:] <= ordered[:-1]).any():
        return "order.npy does not put the sequences in ascending order"
    if (int(ordered[0]), int(ordered[-1])) != (entry.first_sequence, entry.last_sequence):
        told = f"{entry.first_sequence} to {entry.last_sequence}"
        return f"sequences go from {ordered[0]} to {ordered[-1]}, the catalog says {told}"
    return None


def _fault_of_ids(arrays: dict[str, AnyArray], rows: int) -> str | None:
    if "ids" in arrays:
        fits = arrays["ids"].dtype == np.int64 and arrays["ids"].shape == (rows,)
        return None if fits else f"ids.npy is {arrays['ids'].dtype}{arrays['ids'].shape} for {rows} rows"
    offsets, data = arrays["id_offsets"], arrays["id_bytes"]
    fits = offsets.dtype == np.int64 and offsets.shape == (rows + 1,) and data.dtype == np.uint8 and data.ndim == 1
    if not fits or offsets[0] != 0 or offsets[-1] != len(data) or (offsets[1:] <= offsets[:-1]).any():
        return "id_offsets.npy does not fit id_bytes.npy"
    return None


def check_fields(run: Inspection, segment: OpenedSegment) -> None:
    """Shapes and types of vectors, rows of sparse fields; deep: that vectors are numbers and lengths are theirs."""
    for field in segment.entry.fields:
        place = f"{segment.name}/{names.field_directory(field.number)}"
        reason = _fault_of_field(segment, field)
        if reason is not None:
            segment.damaged.add(f"{names.field_directory(field.number)}/vectors.npy")
            run.found(place, reason)
        elif run.deep:
            _check_values(run, segment, field, place)


def _fault_of_field(segment: OpenedSegment, field: FieldEntry) -> str | None:
    meta = next((meta for meta in segment.meta.fields if meta.number == field.number), None)
    if meta is None:
        return "the collection has no such field"
    place, rows = names.field_directory(field.number), segment.entry.rows
    vectors = segment.arrays.get(f"{place}/vectors.npy")
    if vectors is not None and (vectors.dtype != meta.dtype or vectors.shape != (field.rows, field.dim)):
        return f"vectors.npy is {vectors.dtype}{vectors.shape}, not {meta.dtype}{(field.rows, field.dim)}"
    if meta.dim is not None and field.dim != meta.dim:
        return f"vectors have {field.dim} dimensions, the field {meta.dim}"
    lengths = segment.arrays.get(f"{place}/inverse_norms.npy")
    if lengths is not None and (lengths.dtype != np.float32 or lengths.shape != (field.rows,)):
        return f"inverse_norms.npy is {lengths.dtype}{lengths.shape} for {field.rows} vectors"
    if not field.sparse:
        return None if field.rows == rows else f"there are {field.rows} vectors for {rows} records"
    rows_of = segment.arrays.get(f"{place}/rows.npy")
    if rows_of is None or f"{place}/rows.npy" in segment.damaged:
        return None
    fits = rows_of.dtype == np.int32 and rows_of.shape == (field.rows,) and field.rows > 0
    if not fits or rows_of[0] < 0 or rows_of[-1] >= rows or (rows_of[1:] <= rows_of[:-1]).any():
        return "rows.npy does not name ascending rows of the segment"
    return None


def _check_values(run: Inspection, segment: OpenedSegment, field: FieldEntry, place: str) -> None:
    home = names.field_directory(field.number)
    vectors, lengths = segment.arrays.get(f"{home}/vectors.npy"), segment.arrays.get(f"{home}/inverse_norms.npy")
    if vectors is None or segment.damaged & {f"{home}/vectors.npy", f"{home}/inverse_norms.npy"}:
        return
    wrong, strange = 0, 0
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        strange += int((~np.isfinite(block).all(axis=1)).sum())
        if lengths is not None:
            kept = lengths[start : start + BLOCK_ROWS]
            wrong += int((~np.isclose(kept, inverse_norms(block), rtol=NORM_ERROR, atol=0)).sum())
        run.tick(0)
    if strange:
        run.found(f"{place}/vectors.npy", f"{strange:,} vectors hold values that are not finite numbers")
    if wrong:
        run.found(f"{place}/inverse_norms.npy", f"{wrong:,} lengths are not those of their vectors")


def check_columns(run: Inspection, segment: OpenedSegment) -> None:
    """Every column can be read: rows in range, offsets that fit, values in order."""
    for number in segment.entry.paths:
        place = names.column_directory(number).as_posix() + "/"
        files = [path for path in segment.files if path.startswith(place)]
        if number >= len(segment.meta.paths):
            run.found(
                f"{segment.name}/{place}",
                f"the collection has {len(segment.meta.paths)} paths, none of number {number}",
            )
            continue
        if segment.damaged.intersection(files):
            continue
        arrays = {path[len(place) : -len(".npy")]: segment.arrays[path] for path in files}
        try:
            _read_column(segment, segment.meta.paths[number], arrays)
        except UNREADABLE as error:
            run.found(f"{segment.name}/{place}", str(error))
        run.tick(0)


def _read_column(segment: OpenedSegment, path: str, arrays: dict[str, AnyArray]) -> None:
    columns = SealedColumns(segment.entry.rows, {path: arrays})
    columns.present_rows(path)
    for name, values in arrays.items():
        if name.endswith("_values") and (values[1:] < values[:-1]).any():
            raise ValueError(f"column {path!r}: {name} are not in order")
        if name in ("present_rows", "null_rows") and (values[1:] <= values[:-1]).any():
            raise ValueError(f"column {path!r}: {name} are not in order")
